//! Any sequence of appends, seals, views, restarts and power cuts against what must then be there.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// A call of so many entries, each of a lane and a size.
    Append(Vec<(u16, usize)>),
    Seal,
    /// The views take the oldest sealed segment.
    View,
    /// The process is killed: whatever reached the page cache stays.
    Kill,
    /// The power goes after so many more changes to the disk, while appends go on, and again while the log is being read
    /// back; the bits say which sectors survive.
    PowerCut {
        after: u64,
        again_after: u64,
        survivors: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => proptest::collection::vec((0..LANES, 0..1500_usize), 1..6).prop_map(Step::Append),
        1 => Just(Step::Seal),
        2 => Just(Step::View),
        1 => Just(Step::Kill),
        2 => (0..25_u64, 0..12_u64, any::<u64>())
            .prop_map(|(after, again_after, survivors)| Step::PowerCut { after, again_after, survivors }),
    ]
}

/// What was sent to each lane, and how much of it has been acknowledged.
#[derive(Default)]
struct Lane {
    sent: Vec<Entry>,
    acknowledged: usize,
}

struct Machine {
    disk: Arc<FakeDisk>,
    log: Option<Log>,
    owner: Owner,
    checkpoint: ViewCheckpoint,
    lanes: Vec<Lane>,
}

impl Machine {
    fn new() -> Self {
        let disk = FakeDisk::new();
        let (log, _) = open_with(&disk, Self::options(), &ViewCheckpoint::default()).unwrap();
        let owner = Owner::of(&log);
        let lanes = (0..LANES).map(|_| Lane::default()).collect();
        Self {
            disk,
            log: Some(log),
            owner,
            checkpoint: ViewCheckpoint::default(),
            lanes,
        }
    }

    fn options() -> LogOptions {
        LogOptions {
            keep_bytes: 16 << 10,
            ..small()
        }
    }

    fn append(&mut self, sizes: &[(u16, usize)]) -> Result<(), AppendError> {
        let entries = sizes.iter().map(|(lane, bytes)| {
            let mark = u8::try_from(self.lanes[usize::from(*lane)].sent.len() % 251).unwrap();
            let entry = self.owner.row(*lane, mark, *bytes);
            self.lanes[usize::from(*lane)].sent.push(entry.clone());
            entry
        });
        let result = append(self.log.as_ref().unwrap(), entries.collect());
        if result.is_ok() {
            self.lanes
                .iter_mut()
                .for_each(|lane| lane.acknowledged = lane.sent.len());
        }
        result
    }

    /// Starts again and checks that every lane is what was sent, up to the acknowledged end at least.
    fn restart(&mut self) {
        let (log, _) = open_with(&self.disk, Self::options(), &self.checkpoint).unwrap();
        self.owner = Owner::of(&log);
        let found = sealed_entries(&log);
        for (number, lane) in (0..).zip(&mut self.lanes) {
            let viewed = self
                .checkpoint
                .lanes
                .iter()
                .find(|tail| tail.lane == LaneId(number));
            let viewed = viewed.map_or(0, |tail| usize::try_from(tail.position.0).unwrap());
            let found: Vec<_> = found
                .iter()
                .filter(|entry| entry.lane == LaneId(number))
                .collect();
            let end = viewed + found.len();
            assert!(
                end >= lane.acknowledged,
                "lane {number}: {end} of {} acknowledged entries",
                lane.acknowledged
            );
            assert!(
                found.into_iter().eq(&lane.sent[viewed..end]),
                "lane {number} was altered"
            );
            assert_eq!(
                self.owner.tails[usize::from(number)].0,
                Position(end as u64)
            );
            // What is there after a restart has been seen and must stay.
            lane.sent.truncate(end);
            lane.acknowledged = end;
        }
        self.log = Some(log);
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append(sizes) => self.append(&sizes).unwrap(),
            Step::Seal => {
                seal(self.log.as_ref().unwrap());
            }
            Step::View => {
                let log = self.log.as_ref().unwrap();
                if let Some(segment) = log.sealed_unviewed() {
                    self.checkpoint = segment.checkpoint();
                    log.viewed(segment.number());
                }
            }
            Step::Kill => {
                self.log = None;
                self.restart();
            }
            Step::PowerCut {
                after,
                again_after,
                survivors,
            } => {
                self.disk.die_after(after);
                let sizes: Vec<_> = (0..LANES).map(|lane| (lane, 700)).collect();
                while self.append(&sizes).is_ok() {}
                self.log = None;
                let mut bits = (0..64).cycle();
                let mut survives = || survivors >> bits.next().unwrap() & 1 == 1;
                self.disk.cut_power(&mut survives);
                self.disk.die_after(again_after);
                drop(open_with(&self.disk, Self::options(), &self.checkpoint));
                self.disk.cut_power(&mut survives);
                self.restart();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_is_made_up(steps in proptest::collection::vec(step(), 1..40)) {
        let mut machine = Machine::new();
        for step in steps {
            machine.run(step);
        }
        machine.log = None;
        machine.restart();
    }
}
