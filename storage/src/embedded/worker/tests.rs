//! The worker where the disk is full, where fjall does not go on, and where nothing happens for long.

use rialto_protocol::ids::UserId;

use super::{
    super::{
        log::tests::{not_sealed, sealed_at, sealed_on_a_small_disk, sealed_twice},
        views::{
            SENT_KEEP_MS,
            tests::{WIDTH_MS, bytes_below, crowd, fill, make_sent, open},
        },
    },
    *,
};
use crate::{directory::Seen, promise::promise, wait};

const PATIENCE: Duration = Duration::from_secs(60);

fn options() -> WorkerOptions {
    WorkerOptions {
        duty_percent: 100,
        retention_ms: None,
        seen_flush_ms: 3_600_000,
        seal_ms: None,
        on_step: None,
    }
}

/// A worker on its thread.
struct Worker {
    work: Arc<Work>,
    thread: std::thread::JoinHandle<()>,
}

impl Worker {
    fn start(
        data: PathBuf,
        options: WorkerOptions,
        log: Log,
        views: ViewStore,
        checkpoint: Checkpoint,
    ) -> Self {
        let work = Arc::new(Work::new(data, options, log, views, 0));
        let thread = std::thread::spawn({
            let work = Arc::clone(&work);
            move || work.run(checkpoint)
        });
        Self { work, thread }
    }

    fn settle(&self) -> Settled {
        let (resolver, answer) = promise();
        self.work.when_viewed(1, resolver);
        wait(answer).unwrap()
    }

    /// Waits until it is so.
    fn until(&self, what: &str, is_so: impl Fn(&Work) -> bool) {
        let begun = Instant::now();
        while !is_so(&self.work) {
            assert!(begun.elapsed() < PATIENCE, "{what}");
            std::thread::yield_now();
        }
    }

    fn stop(self) {
        self.work.stop();
        self.work.log.close();
        self.thread.join().unwrap();
    }
}

#[test]
fn whoever_waits_for_views_without_room_is_told_at_once_and_they_go_on_when_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::empty(1);
    let views = open(&dir.path().join("1"), &checkpoint);
    let (log, set_room) = sealed_on_a_small_disk();
    set_room(Some(0));
    // Without this directory no checkpoint can be written.
    let data = dir.path().join("data");
    let worker = Worker::start(data.clone(), options(), log, views, checkpoint);
    // By an attempt, and then without one, time and again.
    for _ in 0..4 {
        let error = worker.settle().unwrap_err();
        assert!(matches!(error, JournalError::Io { .. }), "{error}");
    }
    std::fs::create_dir(data).unwrap();
    set_room(None);
    // One answer may be on its way still.
    while worker.settle().is_err() {}
    // Times that should be written at once are, though nothing else happens.
    for time_ms in 1..=5 {
        let user = UserId::from_bytes([7; 16]);
        worker.work.seen.record(&[Seen { user, time_ms }]);
        worker.work.flush_seen();
        worker.until("they are written", |work| {
            work.views.read_seen(user).unwrap() == Some(time_ms)
        });
    }
    worker.stop();
}

#[test]
fn what_is_too_old_goes_though_there_is_no_room_for_anything_new() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint {
        newest_time_ms: 100 * WIDTH_MS,
        ..Checkpoint::empty(1)
    };
    let views = open(&dir.path().join("1"), &checkpoint);
    let (old, kept) = (fill(&views, 5), fill(&views, 99));
    let (log, set_room) = sealed_on_a_small_disk();
    set_room(Some(0));
    let options = WorkerOptions {
        retention_ms: Some(WIDTH_MS),
        ..options()
    };
    let data = dir.path().join("data");
    let worker = Worker::start(data.clone(), options, log, views, checkpoint);
    for _ in 0..2 {
        worker.settle().unwrap_err();
        assert!(old.exists(), "no checkpoint says yet that it is not needed");
    }
    std::fs::create_dir(&data).unwrap();
    worker.until("it is gone", |_| {
        worker.settle().unwrap_err();
        !old.exists()
    });
    assert!(kept.exists());
    let noted = Checkpoint::load(&data).unwrap().unwrap();
    assert_eq!((noted.events_from, noted.segment), (99, 1));
    worker.stop();
}

#[test]
fn ids_that_the_checkpoint_on_the_disk_names_stay_until_a_later_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint {
        sent_windows: vec![0],
        ..Checkpoint::empty(1)
    };
    let views = open(&dir.path().join("1"), &checkpoint);
    make_sent(&views, 0);
    // By the time that the segment brings they are not needed any more.
    let (log, set_room) = sealed_at(WIDTH_MS + SENT_KEEP_MS + 1);
    set_room(Some(0));
    // Without this directory no checkpoint can be written.
    let data = dir.path().join("data");
    let worker = Worker::start(data.clone(), options(), log, views, checkpoint);
    // It is tried to make room time and again.
    for _ in 0..8 {
        worker.settle().unwrap_err();
    }
    assert_eq!(worker.work.views.kept_sent_windows(0), [0]);
    std::fs::create_dir(&data).unwrap();
    set_room(None);
    while worker.settle().is_err() {}
    let noted = Checkpoint::load(&data).unwrap().unwrap();
    assert_eq!((noted.segment, noted.sent_windows.len()), (2, 0));
    worker.until("their window goes", |work| {
        work.views.kept_sent_windows(0).is_empty()
    });
    worker.stop();
}

#[test]
fn behind_each_segment_as_much_leaves_as_it_may_have_brought_though_the_next_one_waits() {
    const LEAVING_BYTES: u64 = 8 << 20;
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::empty(1);
    let folder = dir.path().join("1");
    drop(open(&folder, &checkpoint));
    // As a former process left it behind.
    let leaving = folder.join("leaving");
    std::fs::create_dir_all(leaving.join("0")).unwrap();
    let file = std::fs::File::create(leaving.join("0").join("1")).unwrap();
    file.set_len(LEAVING_BYTES).unwrap();
    let views = open(&folder, &checkpoint);
    let left = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let left = Arc::clone(&left);
        move |step: Step| {
            if step == Step::Gathered {
                left.lock().unwrap().push(bytes_below(&leaving));
            }
            true
        }
    };
    let options = WorkerOptions {
        on_step: Some(StepHook(Arc::new(hook))),
        ..options()
    };
    let data = dir.path().to_owned();
    let log = sealed_twice(3 << 19);
    let worker = Worker::start(data, options, log, views, checkpoint);
    worker.until("both are in", |work| work.viewed() == 2);
    worker.stop();
    // Twice 1.5 MiB and what stands around it, by steps of 1 MiB.
    let gone = 4 << 20;
    let expected = [LEAVING_BYTES, LEAVING_BYTES - gone];
    assert_eq!(*left.lock().unwrap(), expected);
}

#[test]
fn views_that_wait_for_a_thread_that_has_ended_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::empty(1);
    let views = open(&dir.path().join("1"), &checkpoint);
    crowd(&views);
    let (log, _) = sealed_on_a_small_disk();
    let data = dir.path().to_owned();
    let worker = Worker::start(data, options(), log, views, checkpoint);
    worker.until("somebody says so", |work| work.log.status().poisoned);
    let (resolver, answer) = promise();
    let work = &worker.work;
    work.log.seal(move |sealed| resolver.resolve(sealed));
    let error = wait(answer).unwrap().unwrap_err().to_string();
    assert!(error.contains("a merge of rows has failed"), "{error}");
    worker.stop();
}

#[test]
fn where_merges_have_ended_on_a_full_disk_windows_go_on_leaving_until_there_is_room_for_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::empty(1);
    let folder = dir.path().join("1");
    drop(open(&folder, &checkpoint));
    // As a former process left it behind.
    let leaving = folder.join("leaving");
    std::fs::create_dir_all(leaving.join("0")).unwrap();
    std::fs::write(leaving.join("0").join("1"), b"events").unwrap();
    let views = open(&folder, &checkpoint);
    crowd(&views);
    let (log, set_room) = sealed_on_a_small_disk();
    set_room(Some(0));
    let data = dir.path().to_owned();
    let worker = Worker::start(data, options(), log, views, checkpoint);
    worker.until("it leaves", |_| !leaving.exists());
    worker.settle().unwrap_err();
    assert!(!worker.work.log.status().poisoned);
    set_room(None);
    worker.until("somebody says so", |work| work.log.status().poisoned);
    worker.stop();
}

#[test]
fn that_the_views_take_nothing_any_more_is_noticed_though_no_segment_comes() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::empty(1);
    let views = open(&dir.path().join("1"), &checkpoint);
    crowd(&views);
    let data = dir.path().to_owned();
    let worker = Worker::start(data, options(), not_sealed(), views, checkpoint);
    let user = UserId::from_bytes([7; 16]);
    worker.work.seen.record(&[Seen { user, time_ms: 1 }]);
    worker.work.flush_seen();
    worker.until("somebody says so", |work| work.log.status().poisoned);
    worker.stop();
}

#[test]
fn a_segment_that_does_not_fill_comes_into_the_views_some_day_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::empty(1);
    let views = open(&dir.path().join("1"), &checkpoint);
    let options = WorkerOptions {
        // Turns come as often.
        seen_flush_ms: 1,
        seal_ms: Some(0),
        ..options()
    };
    let data = dir.path().to_owned();
    let worker = Worker::start(data, options, not_sealed(), views, checkpoint);
    worker.until("it does", |work| work.viewed() == 1);
    worker.stop();
}
