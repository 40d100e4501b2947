//! Which tokens get a client in, over every transport of a running broker.

#[path = "support/process.rs"]
mod support;

use rialto_sdk::{Client, ConnectError, ErrorCode, Roots, UserId};
use support::{Serving, Signal, run, text};

#[allow(clippy::unwrap_used)]
fn token(data: &std::path::Path, more: &[&str]) -> String {
    let args = [&["token", "--data", data.to_str().unwrap()], more].concat();
    let output = run(&args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

async fn user_at(
    endpoint: String,
    token: &str,
    data: &std::path::Path,
) -> Result<UserId, ConnectError> {
    let roots = Roots::File(data.join("tls/certificate.pem"));
    let (client, _events) = Client::builder()
        .endpoint(endpoint)
        .token(token)
        .roots(roots)
        .connect()
        .await?;
    let user = client.user();
    client.close().await;
    Ok(user)
}

fn refusal(result: Result<UserId, ConnectError>) -> Option<ErrorCode> {
    match result {
        Err(ConnectError::Refused(error)) => error.known(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_signed_token_gets_in_by_every_transport_and_trusts_the_certificate_of_the_first_start() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let serving = Serving::start(data, &[]);
    let addresses = serving.addresses();
    let token = token(data, &["--user", "alice"]);
    let endpoints = [
        ("tcp", addresses.tcp),
        ("tls", addresses.tls),
        ("quic", addresses.quic),
    ];
    for (scheme, address) in endpoints {
        let endpoint = format!("{scheme}://{}", address.unwrap());
        assert_eq!(
            user_at(endpoint, &token, data).await.unwrap(),
            UserId::from_name("alice"),
            "{scheme}"
        );
    }
    let endpoint = format!("tcp://{}", addresses.tcp.unwrap());
    assert_eq!(
        user_at(endpoint.clone(), "dev:bob", data).await.unwrap(),
        UserId::from_name("bob")
    );
    assert_eq!(
        refusal(user_at(endpoint, "nonsense", data).await),
        Some(ErrorCode::TokenMalformed)
    );
}

#[tokio::test]
async fn development_tokens_end_with_the_first_listener_beyond_loopback() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let serving = Serving::start(data, &["--ops", "0.0.0.0:0"]);
    let endpoint = format!("tcp://{}", serving.addresses().tcp.unwrap());
    for development in ["dev:alice", "dev-service:loadgen"] {
        assert_eq!(
            refusal(user_at(endpoint.clone(), development, data).await),
            Some(ErrorCode::DevelopmentTokenRefused)
        );
    }
    let signed = token(data, &["--user", "alice"]);
    assert!(user_at(endpoint, &signed, data).await.is_ok());
    assert!(
        serving.banner.contains("signed ones only"),
        "{}",
        serving.banner
    );
}

#[tokio::test]
async fn a_token_of_another_data_directory_is_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let serving = Serving::start(ours.path(), &[]);
    let endpoint = format!("tcp://{}", serving.addresses().tcp.unwrap());
    let foreign = token(theirs.path(), &["--user", "alice"]);
    assert_eq!(
        refusal(user_at(endpoint.clone(), &foreign, ours.path()).await),
        Some(ErrorCode::TokenKeyUnknown)
    );
    let elsewhere = token(
        ours.path(),
        &["--user", "alice", "--set", "auth.audience=files"],
    );
    assert_eq!(
        refusal(user_at(endpoint, &elsewhere, ours.path()).await),
        Some(ErrorCode::TokenClaimsRefused)
    );
}

/// As "A key that others may have read" in docs/OPERATIONS.md says.
#[tokio::test]
async fn a_key_that_is_replaced_as_the_documentation_says_is_refused_by_the_running_broker() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let mut serving = Serving::start(data, &[]);
    let endpoint = format!("tcp://{}", serving.addresses().tcp.unwrap());
    let leaked = token(data, &["--user", "alice"]);
    let keys = ["keys", "--data", data.to_str().unwrap()];
    for file in ["keys/signing.pem", "keys/jwks.json"] {
        std::fs::rename(data.join(file), data.join("old")).unwrap();
    }
    let printed = run(&keys);
    assert_eq!(
        text(&printed.stdout).trim_end(),
        std::fs::read_to_string(data.join("keys/jwks.json")).unwrap()
    );
    serving.wait_for_log("the key set was replaced");
    assert_eq!(
        refusal(user_at(endpoint.clone(), &leaked, data).await),
        Some(ErrorCode::TokenKeyUnknown)
    );
    let fresh = token(data, &["--user", "alice"]);
    assert!(user_at(endpoint, &fresh, data).await.is_ok());

    // With the key alone away, as at a rotation, the set has to name the new one before tokens are made.
    std::fs::remove_file(data.join("keys/signing.pem")).unwrap();
    let args = ["token", "--user", "alice", "--data", data.to_str().unwrap()];
    let early = run(&args);
    assert_eq!(early.status.code(), Some(1));
    assert!(text(&early.stderr).contains("jwks.json"));
    let printed = run(&keys).stdout;
    std::fs::write(data.join("keys/jwks.json"), printed).unwrap();
    assert_eq!(run(&args).status.code(), Some(0));
}

#[test]
fn a_start_that_takes_development_tokens_says_so_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    for (tokens, said) in [("auto", true), ("off", false)] {
        let setting = format!("auth.development_tokens={tokens}");
        let serving = Serving::start(directory.path(), &["--set", &setting]);
        serving.signal(Signal::TERM);
        let log = serving.wait().1;
        assert_eq!(log.contains("development tokens are taken"), said, "{log}");
    }
}

/// Whoever trusts the certificate of the first start trusts the one that names another address.
#[tokio::test]
async fn an_address_that_the_certificate_did_not_name_can_be_called_after_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let first = Serving::start(data, &[]);
    first.signal(Signal::TERM);
    first.wait();
    let client = tempfile::tempdir().unwrap();
    std::fs::create_dir(client.path().join("tls")).unwrap();
    let certificate = "tls/certificate.pem";
    std::fs::copy(data.join(certificate), client.path().join(certificate)).unwrap();
    let second = Serving::start(data, &["--tls", "127.0.0.2:0"]);
    let token = token(data, &["--user", "alice"]);
    let endpoint = format!("tls://{}", second.addresses().tls.unwrap());
    for roots in [data, client.path()] {
        let user = user_at(endpoint.clone(), &token, roots).await.unwrap();
        assert_eq!(user, UserId::from_name("alice"));
    }
}

#[tokio::test]
async fn the_token_that_the_banner_suggests_gets_in() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rialto.toml");
    std::fs::write(&file, "[auth]\nissuer = \"our house\"\n").unwrap();
    let data = directory.path().join("data");
    let serving = Serving::start(&data, &["--config", file.to_str().unwrap()]);
    let line = serving.banner.lines().find(|line| line.contains(" token "));
    let output = std::process::Command::new("sh")
        .args(["-c", line.unwrap()])
        .output()
        .unwrap();
    let token = text(&output.stdout);
    let endpoint = format!("tcp://{}", serving.addresses().tcp.unwrap());
    let user = user_at(endpoint, token.trim(), &data).await.unwrap();
    assert_eq!(user, UserId::from_name("alice"));
}

#[test]
fn no_token_is_made_that_a_configured_key_set_does_not_verify() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let theirs = tempfile::tempdir().unwrap();
    token(theirs.path(), &["--user", "alice"]);
    let set = theirs.path().join("keys/jwks.json");
    let setting = format!("auth.keys={}", set.display());
    let data = data.to_str().unwrap();
    let args = [
        "token", "--user", "alice", "--data", data, "--set", &setting,
    ];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("auth.keys is "), "{said}");
    assert!(!std::path::Path::new(data).exists(), "nothing was made");
}
