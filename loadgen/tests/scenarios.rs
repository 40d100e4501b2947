//! `loadgen run` by scenario, over several processes, with thresholds; its reports; and `compare`.

#![allow(clippy::unwrap_used)] // in helpers as in every test

#[path = "support/broker.rs"]
mod broker;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use broker::Broker;
use serde_json::Value;

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

fn loadgen(arguments: &[&str]) -> Output {
    Command::new(LOADGEN).args(arguments).output().unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = fs::read_dir(folder).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

/// Elements that are open at the end, or close without having been open.
fn unbalanced(html: &str) -> Vec<String> {
    let mut open = Vec::new();
    for tag in html.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.split([' ', '\n']).next().unwrap();
        if let Some(closed) = name.strip_prefix('/') {
            if open.pop().as_deref() != Some(closed) {
                return vec![format!("</{closed}>")];
            }
        } else if !tag.ends_with('/') && !name.starts_with('!') {
            open.push(name.to_owned());
        }
    }
    open
}

#[test]
fn every_scenario_that_is_shipped_is_read_and_runs() {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::start());
    let report = folder.path().join("report.json");
    let page = folder.path().join("report.html");
    let (target, pid) = (broker.target("tcp"), broker.pid().to_string());
    assert!(scenarios().len() >= 5);
    for scenario in scenarios() {
        let name = scenario.to_str().unwrap();
        // At a rate all is published that is due, however late.
        let [pace, number, duration] = if scenario.ends_with("capacity.toml") {
            ["--in-flight", "2", "3s"]
        } else {
            ["--rate", "200", "600ms"]
        };
        #[rustfmt::skip]
        let output = loadgen(&[
            "run", "--target", &target, "--scenario", name, pace, number, "--duration", duration,
            "--publishers", "4", "--readers", "6", "--connections", "12", "--broker-pid", &pid,
            "--report", report.to_str().unwrap(), "--html", page.to_str().unwrap(),
            "--settle-s", "60",
        ]);
        assert_eq!(status(&output), 0, "{name}: {output:?}");
        let report = read(&report);
        assert!(
            report["published"].as_u64().unwrap() > 0 && report["clean"] == true,
            "{name}: {report:#}"
        );
        if pace == "--in-flight" {
            assert_eq!(report["in_flight"], 2, "{name}");
        }
        let html = fs::read_to_string(&page).unwrap();
        assert_eq!(unbalanced(&html), [""; 0], "{name}");
        assert!(html.contains("<svg") && html.contains("Memory of the broker"));
        assert!(
            !html.contains("<script") && !html.contains("http"),
            "{name}"
        );
    }
}

#[test]
fn a_load_that_nobody_reads_says_what_was_checked() {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::start());
    let report = folder.path().join("report.json");
    #[rustfmt::skip]
    let output = loadgen(&[
        "run", "--target", &broker.target("tcp"), "--publishers", "2", "--readers", "0", "--conversations", "3",
        "--rate", "100", "--duration", "200ms", "--warm-up", "0", "--settle-s", "60", "--report", report.to_str().unwrap(),
    ]);
    let words = text(&output.stdout);
    assert!(
        status(&output) == 0 && words.contains("checked: acknowledgements\n"),
        "{words}"
    );
    assert_eq!(read(&report)["check"], "acknowledgements");
}

#[test]
fn several_processes_make_one_report() {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::start());
    let report = folder.path().join("report.json");
    let target = broker.target("tcp");
    #[rustfmt::skip]
    let output = loadgen(&[
        "run", "--target", &target, "--processes", "3", "--threads", "1", "--publishers", "5", "--readers", "4",
        "--connections", "15", "--conversations", "7", "--rate", "300", "--duration", "1", "--warm-up", "0",
        "--settle-s", "60", "--report", report.to_str().unwrap(),
    ]);
    assert_eq!(status(&output), 0, "{output:?}");
    let report = read(&report);
    assert_eq!(
        (&report["processes"], &report["clean"]),
        (&3.into(), &true.into())
    );
    let published = report["published"].as_u64().unwrap();
    assert!((1..=300).contains(&published), "{report:#}");
    assert!(report["ack_ms"]["p50"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_worker_of_another_kind_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap().to_string();
    let speaking = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = stranger.accept().unwrap();
        stream.write_all(b"SSH-2.0-none\r\n").unwrap();
    });
    let broker = Broker::start();
    #[rustfmt::skip]
    let output = loadgen(&[
        "run", "--target", &broker.target("tcp"), "--coordinate", &address, "--publishers", "1",
        "--report", report.to_str().unwrap(),
    ]);
    speaking.join().unwrap();
    let words = text(&output.stderr);
    assert!(
        status(&output) == 2 && words.contains(&format!("worker {address}")),
        "{words}"
    );
}

#[test]
fn thresholds_decide_the_exit_status_and_two_reports_are_compared() {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Broker::start());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (one, other, target) = (path("a.json"), path("b.json"), broker.target("tcp"));
    let run = |report: &str, rate: &str, fail_if: &str| {
        #[rustfmt::skip]
        let output = loadgen(&[
            "run", "--target", &target, "--publishers", "2", "--conversations", "3", "--rate", rate, "--duration", "500ms",
            "--warm-up", "0", "--settle-s", "60", "--fail-if", fail_if, "--report", report,
        ]);
        output
    };
    assert_eq!(status(&run(&one, "100", "violations>0")), 0);
    let passed = run(&other, "400", "published<1M");
    let words = text(&passed.stdout);
    assert!(
        status(&passed) == 1 && words.contains("passed published<1M"),
        "{words}"
    );
    assert!(read(Path::new(&other))["passed_thresholds"][0].is_string());

    let compared = loadgen(&["compare", &one, &other, "--fail-if", "published<0.5x"]);
    let words = text(&compared.stdout);
    assert_eq!(status(&compared), 0, "{words}");
    assert!(
        words.contains("not the same load: phases") && words.contains("published_per_s"),
        "{words}"
    );
    let worse = loadgen(&["compare", &other, &one, "--fail-if", "published<0.9x"]);
    assert_eq!(status(&worse), 1, "{worse:?}");
    let mut early = read(Path::new(&one));
    early["ended_early"] = "interrupted after 0.1 s of load".into();
    let cut = path("early.json");
    fs::write(&cut, early.to_string()).unwrap();
    let half = loadgen(&["compare", &one, &cut, "--fail-if", "published<0.5x"]);
    assert!(
        status(&half) == 2 && text(&half.stderr).contains("ended early (interrupted"),
        "{half:?}"
    );
    assert_eq!(status(&loadgen(&["compare", &one, &cut])), 0);
    let none = loadgen(&["compare", &one, &path("c.json")]);
    assert!(
        status(&none) == 2 && text(&none.stderr).contains("c.json"),
        "{none:?}"
    );
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = folder.path().join("bad.toml");
    fs::write(&scenario, "publisher = 3\n").unwrap();
    let report = folder.path().join("report.json");
    let (scenario, report) = (scenario.to_str().unwrap(), report.to_str().unwrap());
    let bad = format!("--scenario {scenario}");
    let shipped = |name: &str, flags: &str| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        format!("--scenario {folder}/{name}.toml {flags}")
    };
    for (flags, says) in [
        (bad.as_str(), "unknown field `publisher`"),
        (
            &shipped("capacity", "--rate 200"),
            "--rate does not go with this scenario",
        ),
        (
            &shipped("capacity", "--burst 5"),
            "--burst does not go with this scenario",
        ),
        (
            &shipped("chat", "--in-flight 5"),
            "--in-flight does not go with this scenario",
        ),
        (
            &shipped("chat", "--warm-up 2s"),
            "--warm-up does not go with this scenario",
        ),
        ("--scenario missing.toml", "missing.toml"),
        (
            "--readers 0 --fail-if delivery.p99>5ms",
            "delivery.p99>5ms: nobody reads",
        ),
        (
            "--shape groups:1:3 --publishers 600",
            "would have 601 members",
        ),
        ("--rate 1e300", "a rate has to be"),
        ("--rate 0", "a number above 0"),
        ("--in-flight 0", "in_flight has to be"),
        ("--burst 18446744073709551615", "--burst has to be"),
        ("--publishers 0", "--publishers has to be"),
        ("--threads 0", "--threads"),
        ("--settle-s 18446744073709551615", "--settle-s"),
        ("--settle-s 0", "--settle-s"),
        ("--patience-s 0", "--patience-s"),
        ("--worker 127.0.0.1:0", "cannot be used with"),
        ("--duration 8761h", "of a year at most"),
        (&format!("--html {report}"), "the same file"),
        ("--fail-if p98>5ms", "`p98` is no metric"),
        ("--fail-if p99>1.1x", "loadgen compare"),
        ("--fail-if broker.rss>1GiB", "--broker-pid"),
        ("--shape rooms:3", "is no shape"),
        ("--shape groups:3:0", "members has to be from 1"),
        ("--rate fast", "neither `max` nor"),
        ("--size 5", "is no size"),
        ("--check some", "full nor sampled=N nor off"),
        ("--duration soon", "no duration"),
        ("--connections 1", "--connections is less"),
    ] {
        let mut arguments = vec!["run", "--target", "tcp://127.0.0.1:1", "--report", report];
        arguments.extend(flags.split(' '));
        let output = loadgen(&arguments);
        let words = text(&output.stderr);
        assert!(
            status(&output) == 2 && words.contains(says),
            "{flags}: {words}"
        );
        assert!(!Path::new(report).exists(), "{flags}");
    }
}

#[test]
fn a_short_soak_is_clean_and_leaves_reports() {
    // Builds the broker if nothing else has yet.
    drop(Broker::start());
    let folder = tempfile::tempdir().unwrap();
    let soak = Path::new(env!("CARGO_MANIFEST_DIR")).join("soak.sh");
    let output = Command::new(soak)
        // A quarter of it is longer than a sync takes on a disk that is in a mood: there is something to compare.
        .arg("16s")
        .arg(folder.path())
        .env("RIALTO_BIN", broker::binary())
        .env("LOADGEN_BIN", LOADGEN)
        .env("CAPACITY_DURATION", "4s")
        .env("SOAK_RATE_MAX", "200")
        // Weeks pass, two of them.
        .env("SOAK_WEEK_S", "8")
        .env("RIALTO_STORAGE_SEGMENT_BYTES", "8388608")
        // A few seconds say nothing of growth; that they are looked at is what is tested.
        .env("SOAK_MEMORY_GROWTH", "1000")
        .env("SOAK_FILES_GROWTH", "1000")
        .env("SOAK_LATENCY_GROWTH", "1000000")
        .output()
        .unwrap();
    assert_eq!(status(&output), 0, "{output:?}");
    let report = read(&folder.path().join("soak.json"));
    assert!(
        report["growth"]["rss"].as_f64().unwrap() > 0.0,
        "{report:#}"
    );
    assert_eq!(report["clean"], true);
    assert!(
        fs::read_to_string(folder.path().join("soak.html"))
            .unwrap()
            .contains("<svg")
    );
}
