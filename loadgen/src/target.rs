//! Where the broker is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

pub use rialto_sdk::Transport;

/// An address such as `quic://127.0.0.1:4433`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    scheme: &'static str,
    host: String,
    port: u16,
}

/// A text that is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no target: tcp://HOST:PORT, tls://HOST:PORT or quic://HOST:PORT")]
pub struct TargetError(String);

const SCHEMES: [&str; 3] = ["tcp", "tls", "quic"];

impl Target {
    /// Whether the host is this machine by its name or address, so that nobody can stand in between.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self
                .ip()
                .is_some_and(|address| address.to_canonical().is_loopback())
    }

    /// Where a UDP socket has to be bound to reach it; none when it is not QUIC, or its address family is not known yet.
    #[must_use]
    pub fn udp_from(&self) -> Option<SocketAddr> {
        let from: IpAddr = match self.ip().filter(|_| self.scheme == "quic")? {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Some(SocketAddr::new(from, 0))
    }

    /// How frames are carried.
    #[must_use]
    pub fn transport(&self) -> Transport {
        match self.scheme {
            "quic" => Transport::Quic,
            "tls" => Transport::Tls,
            _ => Transport::Tcp,
        }
    }

    /// Name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    fn ip(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let parsed = text.split_once("://").and_then(|(scheme, rest)| {
            let scheme = SCHEMES.into_iter().find(|known| *known == scheme)?;
            let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
            let port = port.parse().ok().filter(|port| *port != 0)?;
            (!host.is_empty()).then(|| Self {
                scheme,
                host: host.to_owned(),
                port,
            })
        });
        parsed.ok_or_else(|| TargetError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_name_a_transport_a_host_and_a_port() {
        for (text, loopback) in [
            ("tcp://127.0.0.1:7000", true),
            ("quic://[::1]:7001", true),
            ("tls://localhost:1", true),
            ("tls://chat.example:443", false),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(
                (target.to_string().as_str(), target.is_loopback()),
                (text, loopback)
            );
        }
        let from = |text: &str| {
            text.parse::<Target>()
                .unwrap()
                .udp_from()
                .map(|address| address.to_string())
        };
        assert_eq!(from("quic://127.0.0.1:1").as_deref(), Some("0.0.0.0:0"));
        assert_eq!(from("quic://[::1]:1").as_deref(), Some("[::]:0"));
        assert_eq!(
            (from("quic://localhost:1"), from("tcp://127.0.0.1:1")),
            (None, None)
        );
        for text in [
            "",
            "127.0.0.1:7000",
            "http://127.0.0.1:1",
            "tcp://127.0.0.1",
            "tcp://:1",
            "tcp://a:0",
            "tcp://a:99999",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
