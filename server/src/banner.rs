//! What a person sees when a broker has started: what listens where, where the data lies, and what to try next. Every
//! line under "Try next" works when it is pasted into a shell in the directory that the broker was started from.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use rialto_broker::{Addresses, auth::TokenPolicy};

use crate::config::Auth;

/// What the banner tells.
#[derive(Debug)]
pub struct Banner<'a> {
    /// Where the broker listens.
    pub addresses: &'a Addresses,
    /// The data directory, as it was named.
    pub data: &'a Path,
    /// Certificate that clients have to trust, when it is self-signed.
    pub self_signed: Option<&'a Path>,
    /// Whether development tokens are taken.
    pub development_tokens: bool,
    /// Which signed tokens are taken.
    pub auth: &'a Auth,
    /// The directory that the broker was started from.
    pub directory: &'a Path,
    /// This program.
    pub program: &'a Path,
}

impl Banner<'_> {
    /// The text, with a line break at its end.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("Rialto {}\n\n", env!("CARGO_PKG_VERSION"));
        self.listeners(&mut text);
        let _ = writeln!(text, "  data   {}", self.data.display());
        let tokens = if self.development_tokens {
            "signed ones, and dev:NAME, because every listener is on loopback"
        } else {
            "signed ones only"
        };
        let _ = writeln!(text, "  tokens {tokens}\n\nTry next:");
        for line in self.next() {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str("\nCtrl-C stops in order; a second one at once.\n");
        text
    }

    fn listeners(&self, text: &mut String) {
        let certificate = self.self_signed.map_or_else(String::new, |path| {
            format!("self-signed: {}", path.display())
        });
        let rows = [
            ("tcp", "tcp", self.addresses.tcp, "for this machine"),
            ("tls", "tls", self.addresses.tls, certificate.as_str()),
            ("quic", "quic", self.addresses.quic, certificate.as_str()),
            (
                "ops",
                "http",
                self.addresses.ops,
                "/metrics /health/live /health/ready /status",
            ),
        ];
        for (name, scheme, address, note) in rows {
            if let Some(address) = address {
                let _ = writeln!(
                    text,
                    "{}",
                    format!("  {name:<6} {:<28} {note}", format!("{scheme}://{address}"))
                        .trim_end()
                );
            }
        }
    }

    /// Commands for this broker.
    #[must_use]
    pub fn next(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let data = quoted(&self.data.display().to_string());
        let program = quoted(&self.short(self.program).display().to_string());
        if let Some(ops) = self.addresses.ops {
            lines.push(format!("curl http://{ops}/health/ready"));
            lines.push(format!("{program} status --data {data}"));
        }
        // Where other keys are trusted, a token from here is not.
        if self.auth.keys.is_none() {
            let policy = self.token_policy();
            lines.push(format!(
                "{program} token --user alice --data {data}{policy}"
            ));
        }
        if let Some(tcp) = self.addresses.tcp.filter(|_| self.development_tokens) {
            lines.extend(self.examples(&format!("tcp://{tcp}")));
        }
        lines
    }

    /// What tokens have to say here that they do not say by default, wherever it was set.
    fn token_policy(&self) -> String {
        let (ours, default) = (&self.auth.policy, TokenPolicy::default());
        let mut flags = String::new();
        for (key, value, default) in [
            ("issuer", &ours.issuer, default.issuer),
            ("audience", &ours.audience, default.audience),
        ] {
            if *value != default {
                let _ = write!(flags, " --set {}", quoted(&format!("auth.{key}={value}")));
            }
        }
        flags
    }

    /// What can be built where the source is.
    fn examples(&self, target: &str) -> Vec<String> {
        let mut lines = Vec::new();
        if self.directory.join("sdk/rust/examples/chat.rs").is_file() {
            lines.push(format!(
                "cargo run --release -p rialto-sdk --example chat -- {target} dev:alice lobby"
            ));
        }
        if self.directory.join("loadgen/Cargo.toml").is_file() {
            lines.push(format!("cargo run --release -p rialto-loadgen -- run --target {target} --duration 10 --report report.json"));
        }
        lines
    }

    /// The path as seen from the directory that the broker was started from.
    fn short(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.directory)
            .map_or_else(|_| path.to_owned(), |below| Path::new(".").join(below))
    }
}

/// The words as a shell takes them.
fn quoted(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+=".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses {
            tcp: "127.0.0.1:5".parse().ok(),
            tls: None,
            quic: "127.0.0.1:6".parse().ok(),
            ops: "127.0.0.1:7".parse().ok(),
        }
    }

    fn auth() -> Auth {
        Auth {
            keys: None,
            policy: TokenPolicy::default(),
            development_tokens: true,
        }
    }

    fn banner<'a>(addresses: &'a Addresses, data: &'a Path, auth: &'a Auth) -> Banner<'a> {
        Banner {
            addresses,
            data,
            self_signed: Some(Path::new("data/tls/certificate.pem")),
            development_tokens: true,
            auth,
            directory: Path::new("/src"),
            program: Path::new("/src/target/release/rialto"),
        }
    }

    #[test]
    fn it_names_every_listener_and_no_other() {
        let addresses = addresses();
        let text = banner(&addresses, Path::new("./data"), &auth()).text();
        for part in [
            "tcp://127.0.0.1:5",
            "quic://127.0.0.1:6",
            "http://127.0.0.1:7",
            "self-signed: data/tls/certificate.pem",
            "dev:NAME",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("tls://"), "{text}");
    }

    #[test]
    fn what_to_try_next_can_be_pasted() {
        let addresses = addresses();
        let next = banner(&addresses, Path::new("my data/it's"), &auth()).next();
        assert_eq!(next[0], "curl http://127.0.0.1:7/health/ready");
        assert_eq!(
            next[1],
            r"./target/release/rialto status --data 'my data/it'\''s'"
        );
        assert_eq!(
            next.len(),
            3,
            "no examples where there is no source: {next:?}"
        );
    }

    #[test]
    fn nobody_is_told_to_ask_a_port_that_is_off() {
        let mut addresses = addresses();
        addresses.ops = None;
        let next = banner(&addresses, Path::new("data"), &auth()).next();
        assert_eq!(next.len(), 1, "{next:?}");
        assert!(next[0].contains(" token "), "{next:?}");
    }

    #[test]
    fn a_token_to_try_is_one_that_is_taken_here() {
        let addresses = addresses();
        let mut auth = auth();
        auth.policy.issuer = "https://id.example".to_owned();
        let next = banner(&addresses, Path::new("data"), &auth).next();
        assert_eq!(
            next[2],
            "./target/release/rialto token --user alice --data data --set 'auth.issuer=https://id.example'"
        );
        auth.keys = Some("theirs.json".into());
        let next = banner(&addresses, Path::new("data"), &auth).next();
        assert!(
            !next.iter().any(|line| line.contains(" token ")),
            "{next:?}"
        );
    }
}
