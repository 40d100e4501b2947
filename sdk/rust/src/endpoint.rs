//! Endpoints: `quic://HOST:PORT`, `tls://HOST:PORT`, `tcp://HOST:PORT`.

use std::fmt;
use std::str::FromStr;

/// How frames are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// QUIC.
    Quic,
    /// TCP with TLS 1.3.
    Tls,
    /// TCP without encryption: for brokers on this machine.
    Tcp,
}

impl Transport {
    const ALL: [Self; 3] = [Self::Quic, Self::Tls, Self::Tcp];

    const fn scheme(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    transport: Transport,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl Endpoint {
    /// How frames are carried.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.transport.scheme();
        if self.host.contains(':') {
            write!(out, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(out, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// Text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It begins otherwise than `quic://`, `tls://` or `tcp://`.
    #[error("`{0}` does not begin with quic://, tls:// or tcp://")]
    Scheme(String),
    /// No host, or an IPv6 address without brackets.
    #[error("`{0}` has no host; write an IPv6 address in brackets")]
    Host(String),
    /// No port from 1 to 65535 at the end.
    #[error("`{0}` does not end with a port from 1 to 65535")]
    Port(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let (transport, rest) = Transport::ALL
            .into_iter()
            .find_map(|transport| {
                Some((
                    transport,
                    text.strip_prefix(transport.scheme())?.strip_prefix("://")?,
                ))
            })
            .ok_or_else(|| EndpointError::Scheme(text.to_owned()))?;
        let (host, port) = rest
            .rsplit_once(':')
            .ok_or_else(|| EndpointError::Port(text.to_owned()))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').unwrap_or_default(),
            None if host.contains(':') => "",
            None => host,
        };
        if host.is_empty() || host.contains(['/', '[', ']', '@']) {
            return Err(EndpointError::Host(text.to_owned()));
        }
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self {
                transport,
                host: host.to_owned(),
                port,
            }),
            _ => Err(EndpointError::Port(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "quic://broker.example:4433",
            "tls://127.0.0.1:1",
            "tcp://[::1]:65535",
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), text);
        }
        let endpoint: Endpoint = "tcp://[::1]:7".parse().unwrap();
        assert_eq!(
            (endpoint.transport(), endpoint.host(), endpoint.port()),
            (Transport::Tcp, "::1", 7)
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        for text in ["http://a:1", "a:1", "quic:/a:1", ""] {
            assert!(
                matches!(text.parse::<Endpoint>(), Err(EndpointError::Scheme(_))),
                "{text}"
            );
        }
        for text in [
            "tcp://:1",
            "tcp://::1:7",
            "tcp://[::1:7",
            "tcp://user@host:1",
            "tcp://a/b:1",
        ] {
            assert!(
                matches!(text.parse::<Endpoint>(), Err(EndpointError::Host(_))),
                "{text}"
            );
        }
        for text in [
            "tcp://a",
            "tcp://a:",
            "tcp://a:0",
            "tcp://a:65536",
            "tcp://a:1/",
        ] {
            assert!(
                matches!(text.parse::<Endpoint>(), Err(EndpointError::Port(_))),
                "{text}"
            );
        }
    }
}
