//! The commands for operators, as processes.

#[path = "support/process.rs"]
mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
};

use rialto_server::addresses;
use support::{Serving, run, text};

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rialto.toml");
    fs::write(
        &file,
        "[listen]\ntcp = \"0.0.0.0:1\"\n[limits]\npublish_per_second = 1\n",
    )
    .unwrap();
    let output = run(&[
        "config",
        "check",
        "--config",
        file.to_str().unwrap(),
        "--quic",
        "nowhere",
    ]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    for part in [
        "plain TCP is for loopback only",
        "did you mean \"limits.publish_per_s\"?",
        "nowhere is not allowed (flag --quic)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let served = run(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(served.status.code(), Some(2), "serve refuses it as well");
}

#[test]
fn a_log_level_that_would_silence_the_log_is_refused_and_directives_are_not() {
    let checked = |level: &str| {
        let output = run(&["config", "check", "--set", &format!("log.level={level}")]);
        (output.status.code(), text(&output.stderr))
    };
    for wrong in ["warning", "info,rialto_broker", "rialto_broker=verbose"] {
        let (status, said) = checked(wrong);
        assert_eq!(status, Some(2), "{wrong}: {said}");
        assert!(said.contains("log.level: "), "{wrong}: {said}");
    }
    for right in ["WARN", "off", "info,rialto_broker=debug", "info,quinn=off"] {
        let (status, said) = checked(right);
        assert_eq!(status, Some(0), "{right}: {said}");
    }
}

#[test]
fn a_good_configuration_is_ok_and_can_be_printed_and_used() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let args = ["--data", data.to_str().unwrap(), "--tcp", "127.0.0.1:0"];
    let check = run(&[&["config", "check"], &args[..]].concat());
    assert_eq!(
        (check.status.code(), text(&check.stdout).as_str()),
        (Some(0), "ok\n"),
        "{}",
        text(&check.stderr)
    );
    let print = run(&[&["config", "print"], &args[..]].concat());
    let file = directory.path().join("printed.toml");
    fs::write(&file, &print.stdout).unwrap();
    assert!(text(&print.stdout).contains("tcp = \"127.0.0.1:0\" # from: flag --tcp"));
    assert_eq!(
        run(&["config", "check", "--config", file.to_str().unwrap()])
            .status
            .code(),
        Some(0)
    );
    assert!(!data.exists(), "looking at a configuration makes nothing");
}

#[test]
fn a_token_can_be_had_before_the_first_start() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let output = run(&["token", "--user", "alice", "--data", data.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let token = text(&output.stdout);
    let keys = rialto_broker::auth::KeyFile::open(
        &data.join("keys/jwks.json"),
        rialto_broker::auth::TokenPolicy::default(),
    )
    .unwrap();
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let identity =
        rialto_broker::Authenticator::verify(&keys, token.trim(), u64::try_from(now_ms).unwrap())
            .unwrap();
    assert_eq!(
        identity.user,
        rialto_protocol::ids::UserId::from_name("alice")
    );
    assert!(!identity.service);
    assert_eq!(
        run(&["token", "--user", "", "--data", data.to_str().unwrap()])
            .status
            .code(),
        Some(1)
    );
}

#[test]
fn status_shows_a_running_broker_and_fails_without_one() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let missing = run(&["status", "--data", data]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing.stderr).contains("rialto serve"),
        "{}",
        text(&missing.stderr)
    );

    let serving = Serving::start(directory.path(), &[]);
    let table = run(&["status", "--data", data]);
    assert_eq!(table.status.code(), Some(0), "{}", text(&table.stderr));
    let rows: Vec<String> = text(&table.stdout)
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert!(
        rows.contains(&"ready yes".to_owned()) && rows[0].contains("serving for"),
        "{rows:#?}"
    );
    let ops = serving.addresses().ops.unwrap().to_string();
    let json = run(&["status", "--json", "--ops", &ops]);
    let status: rialto_broker::ops::Status = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((status.state.as_str(), status.shards), ("serving", 1));
}

#[test]
fn another_broker_is_not_shown_for_the_one_that_was_killed() {
    let (directory, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let serving = Serving::start(directory.path(), &[]);
    // The same addresses, as by default, and a process that is gone.
    let mut left = serving.addresses();
    left.pid = i32::MAX.unsigned_abs();
    addresses::write(killed.path(), &left).unwrap();
    let data = killed.path().to_str().unwrap();
    for json in [&[][..], &["--json"]] {
        let output = run(&[&["status", "--data", data], json].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("another broker answers at"), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn version_and_help_are_there_for_each_command() {
    assert!(text(&run(&["--version"]).stdout).starts_with("rialto "));
    for command in ["serve", "config", "token", "keys", "status"] {
        let output = run(&[command, "--help"]);
        assert!(
            output.status.success() && text(&output.stdout).contains("Usage:"),
            "{command}"
        );
    }
    assert_eq!(run(&["sreve"]).status.code(), Some(2));
}

/// Nobody can make a folder there, be it root.
#[test]
fn a_data_directory_that_cannot_be_written_is_no_mistake_in_the_configuration() {
    for command in [&["config", "check"][..], &["serve"]] {
        let output = run(&[command, &["--data", "/proc/data"]].concat());
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("data.dir: /proc cannot be written"), "{said}");
        assert!(said.contains("make it writable"), "{said}");
    }
}

#[test]
fn a_certificate_and_a_key_set_that_cannot_be_used_are_wrong_before_a_start() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    fs::write(at("nonsense"), "nonsense").unwrap();
    run(&["token", "--user", "alice", "--data", data]);
    let set = |key: &str, file: &str| format!("{key}={}", at(file));
    let check = |settings: &[String]| {
        let mut args = vec!["config", "check", "--data", data];
        for setting in settings {
            args.extend(["--set", setting]);
        }
        let output = run(&args);
        (output.status.code(), text(&output.stderr))
    };
    let (status, said) = check(&[
        set("tls.certificate", "nonsense"),
        set("tls.key", "nonsense"),
        set("auth.keys", "nonsense"),
    ]);
    assert_eq!(status, Some(2), "{said}");
    for part in ["tls.certificate: ", "auth.keys: ", "not a JSON Web Key Set"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (status, said) = check(&[set("auth.keys", "keys/jwks.json")]);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn a_broker_that_still_opens_its_data_is_said_to_start() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let starting = std::thread::spawn(move || {
        // Whether it is ready, and its status.
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            let answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\nstarting\n";
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let output = run(&["status", "--ops", &address]);
    starting.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("opens its data"), "{said}");
}
