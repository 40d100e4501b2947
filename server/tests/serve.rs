//! `rialto serve` from start to stop, as a process.

#[path = "support/process.rs"]
mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, process::Stdio};

use support::{Serving, Signal, rialto, run, send, text};

#[test]
fn a_broker_needs_no_configuration_and_says_where_it_listens() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let serving = Serving::start(&data, &[]);
    let addresses = serving.addresses();
    assert_eq!(addresses.pid, serving.pid());
    for address in [addresses.tcp, addresses.tls, addresses.quic, addresses.ops] {
        let address = address.unwrap();
        assert!(address.ip().is_loopback() && address.port() != 0);
        assert!(
            serving.banner.contains(&address.to_string()),
            "{address}: {}",
            serving.banner
        );
    }
    let mode = fs::metadata(&data).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700, "what people said is for the owner alone");
    for secret in ["tls/key.pem", "keys/signing.pem"] {
        assert_eq!(
            fs::metadata(data.join(secret))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o600,
            "{secret}"
        );
    }
    serving.signal(Signal::TERM);
    let (status, log) = serving.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        !data.join("addresses.json").exists(),
        "a stopped broker listens nowhere"
    );
}

#[test]
fn a_second_broker_is_told_who_has_the_data_directory() {
    let directory = tempfile::tempdir().unwrap();
    let serving = Serving::start(directory.path(), &[]);
    let data = directory.path().to_str().unwrap();
    let second = run(&[
        "serve",
        "--data",
        data,
        "--tcp",
        "127.0.0.1:0",
        "--tls",
        "off",
        "--quic",
        "off",
        "--ops",
        "off",
    ]);
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    assert!(
        said.contains(&serving.pid().to_string()) && said.contains(data),
        "{said}"
    );
    assert_eq!(
        serving.addresses().pid,
        serving.pid(),
        "the first one's addresses were left alone"
    );
}

#[test]
fn lanes_that_the_data_directory_was_not_made_with_are_told_to_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let log = |more: &[&str]| {
        let serving = Serving::start(directory.path(), more);
        serving.signal(Signal::TERM);
        serving.wait().1
    };
    let few = ["--set", "storage.lanes=8"];
    for (more, told) in [(&few[..], false), (&[], true), (&few, false)] {
        let log = log(more);
        assert_eq!(log.contains("storage.lanes changes nothing"), told, "{log}");
    }
}

#[test]
fn data_of_a_newer_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let serving = Serving::start(directory.path(), &[]);
    serving.signal(Signal::INT);
    assert_eq!(serving.wait().0.code(), Some(0));
    let path = directory.path().join("format.json");
    let mut format: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    format["format"] = 99.into();
    fs::write(&path, format.to_string()).unwrap();
    let output = run(&[
        "serve",
        "--data",
        directory.path().to_str().unwrap(),
        "--tcp",
        "127.0.0.1:0",
        "--tls",
        "off",
        "--quic",
        "off",
        "--ops",
        "off",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("newer version"),
        "{}",
        text(&output.stderr)
    );
}

/// A start that fails after a replay of minutes fails late.
#[test]
fn what_cannot_be_used_is_named_before_the_data_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let nonsense = directory.path().join("nonsense");
    fs::write(&nonsense, "nonsense").unwrap();
    let tls = |key: &str| format!("tls.{key}={}", nonsense.display());
    let keys = format!("auth.keys={}", nonsense.display());
    let off = ["--tcp", "off", "--quic", "off"];
    for (wrong, named) in [
        (
            vec!["--tls", "127.0.0.1:0", "--ops", &address],
            vec![&*address, "another address with --ops"],
        ),
        (
            vec!["--tls", &address, "--ops", "off"],
            vec![&*address, "another address with --tls"],
        ),
        (
            vec![
                "--set",
                &tls("certificate"),
                "--set",
                &tls("key"),
                "--ops",
                "off",
            ],
            vec!["certificate"],
        ),
        (vec!["--set", &keys, "--ops", "off"], vec!["nonsense"]),
    ] {
        let serve = ["serve", "--data", data.to_str().unwrap()];
        let output = run(&[&serve, &off[..], &wrong[..]].concat());
        assert!(!output.status.success());
        let said = text(&output.stderr);
        for part in named {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!data.join("journal").exists(), "{said}");
    }
}

#[test]
fn the_addresses_of_a_broker_that_was_killed_do_not_outlive_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let killed = Serving::start(directory.path(), &[]);
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(directory.path().join("addresses.json").exists());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = directory.path().to_str().unwrap();
    let off = ["--tls", "off", "--quic", "off", "--ops", "off"];
    let failed = run(&[&["serve", "--data", data, "--tcp", &address], &off[..]].concat());
    assert_eq!(failed.status.code(), Some(1));
    assert!(!directory.path().join("addresses.json").exists());
}

#[test]
fn json_logs_are_json_line_by_line_and_there_is_no_banner() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = rialto()
        .args([
            "serve",
            "--log-format",
            "json",
            "--tcp",
            "127.0.0.1:0",
            "--tls",
            "off",
            "--quic",
            "off",
            "--ops",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(directory.path())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let serving = lines
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("\"serving\"")))
        .unwrap()
        .unwrap();
    let value: serde_json::Value = serde_json::from_str(&serving).unwrap();
    assert_eq!(value["message"], "serving");
    assert_eq!(value["pid"], child.id());
    send(&child, Signal::TERM);
    for line in lines {
        let line = line.unwrap();
        assert!(
            serde_json::from_str::<serde_json::Value>(&line).is_ok(),
            "{line}"
        );
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), String::new())
    );
}

#[test]
fn a_replaced_key_set_is_noticed_and_a_bad_one_reported() {
    let directory = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(directory.path(), &["--set", "log.level=info"]);
    let keys = directory.path().join("keys/jwks.json");
    let good = fs::read_to_string(&keys).unwrap();
    fs::write(&keys, "{").unwrap();
    serving.signal(Signal::HUP);
    assert!(
        serving
            .wait_for_log("the former one stays in force")
            .contains("jwks.json")
    );
    fs::write(&keys, good).unwrap();
    serving.signal(Signal::HUP);
    serving.wait_for_log("the key set was replaced");
}

#[test]
fn a_second_signal_ends_at_once_and_the_next_start_works() {
    let directory = tempfile::tempdir().unwrap();
    let mut serving = Serving::start(
        directory.path(),
        &[
            "--set",
            "broker.drain_ms=600000",
            "--set",
            "limits.handshake_timeout_ms=60000",
        ],
    );
    // A connection that stays keeps the broker draining.
    let _client = std::net::TcpStream::connect(serving.addresses().tcp.unwrap()).unwrap();
    serving.wait_for_metric("rialto_connections_open 1");
    serving.signal(Signal::TERM);
    serving.wait_for_log("a second signal stops at once");
    serving.signal(Signal::TERM);
    let (status, _) = serving.wait();
    assert_eq!(status.code(), Some(1), "not in order");
    let again = Serving::start(directory.path(), &[]);
    again.signal(Signal::TERM);
    assert_eq!(again.wait().0.code(), Some(0));
}

/// A closed terminal, a `tee` that Ctrl-C ended first, a full disk: the log is lost, and nothing else.
#[test]
fn a_log_that_nobody_takes_any_more_keeps_a_broker_from_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    for log in [Stdio::piped(), full.unwrap().into()] {
        let mut serving = Serving::start_logging_to(log, directory.path(), &[]);
        serving.close_log();
        serving.signal(Signal::HUP);
        serving.signal(Signal::TERM);
        let (status, _) = serving.wait();
        assert_eq!(status.code(), Some(0));
        assert!(!directory.path().join("addresses.json").exists());
    }
}

#[test]
fn a_mistake_that_cannot_be_told_keeps_its_exit_status() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let full = full.unwrap();
    for (arguments, status) in [
        (["serve", "--tcp", "nowhere"], 2),
        (["status", "--data", "/dev/null"], 1),
    ] {
        let output = rialto()
            .args(arguments)
            .stderr(full.try_clone().unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
    }
}

#[test]
fn a_data_directory_that_is_open_to_others_is_complained_of() {
    let directory = tempfile::tempdir().unwrap();
    for (mode, open) in [(0o755, true), (0o750, false)] {
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
        let serving = Serving::start(directory.path(), &[]);
        serving.signal(Signal::TERM);
        let log = serving.wait().1;
        assert_eq!(log.contains("chmod 700"), open, "{log}");
    }
}
