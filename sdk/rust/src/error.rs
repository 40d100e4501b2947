//! Errors. Each answers `retry()`: whether the same may be tried again, and how.

use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::error::ErrorCode;
use rialto_protocol::v1;

use crate::endpoint::{Endpoint, EndpointError};
use crate::token::TokenError;

/// Whether the same may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Nothing happened: try again.
    Safe,
    /// It may have happened. Try again only what is done once however often it is asked for: a draft under its client id
    /// ([`crate::Client::publish_again`], [`crate::Client::publish_again_as`]), a conversation under an id that was chosen before
    /// ([`crate::Create::id`]), and every other request but [`crate::Client::mark_unread`], which could undo what was read since.
    MaybeDuplicate,
    /// It would fail again.
    Never,
}

/// What the server answered instead of doing what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} (code {code})")]
pub struct ServerError {
    code: u32,
    text: String,
    retry: Retry,
    retry_after_ms: u32,
}

impl ServerError {
    /// Its number. [`ServerError::known`] is the same as an enum.
    #[must_use]
    pub const fn code(&self) -> u32 {
        self.code
    }

    /// Its code, if this version knows it.
    #[must_use]
    pub fn known(&self) -> Option<ErrorCode> {
        u16::try_from(self.code).ok().and_then(ErrorCode::from_code)
    }

    /// Whether it has this code.
    #[must_use]
    pub fn is(&self, code: ErrorCode) -> bool {
        self.known() == Some(code)
    }

    /// For people; fixed by the code.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the same may be asked again. What was sent before without an answer, by this client itself too, counts: then it
    /// may have happened, though the server refused it now.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        self.retry
    }

    /// The same refusal with another advice.
    pub(crate) fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// How long to wait before that, if the server gave advice.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        (self.retry_after_ms != 0).then(|| Duration::from_millis(self.retry_after_ms.into()))
    }
}

impl From<v1::Error> for ServerError {
    fn from(error: v1::Error) -> Self {
        let retry = match error.retry() {
            v1::Retry::Safe => Retry::Safe,
            v1::Retry::MaybeDuplicate => Retry::MaybeDuplicate,
            // A class of a later version: the careful reading is that it may have happened.
            v1::Retry::Unspecified => Retry::MaybeDuplicate,
            v1::Retry::Never => Retry::Never,
        };
        Self {
            code: error.code,
            text: error.text,
            retry,
            retry_after_ms: error.retry_after_ms,
        }
    }
}

/// Why a client is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// [`crate::Client::close`] was called, or every handle and [`crate::Events`] are gone.
    #[error("the client was closed")]
    Asked,
    /// The server refused the connection, and would refuse it again; of several endpoints the last one that was left did.
    #[error("the server refused the connection: {0}")]
    Refused(ServerError),
    /// The provider has no token any more, and says that it will not have one.
    #[error("no access token: {0}")]
    Token(TokenError),
    /// [`crate::ReconnectPolicy::attempts_max`] was reached.
    #[error("gave up after {0} attempts to connect")]
    GaveUp(u32),
    /// The client's task is gone: the runtime that [`crate::ClientBuilder::connect`] was called in ended, or the task panicked.
    #[error("the client's task is gone")]
    Gone,
}

/// Why there is no connection for now. Two are equal if they read alike.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DisconnectCause {
    /// The connection broke, or was left.
    #[error("the connection is lost: {0}")]
    Lost(TransportError),
    /// It had broken before, and the last attempt to make another one failed.
    #[error("not connected: {0}")]
    NotConnected(ConnectError),
}

impl PartialEq for DisconnectCause {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for DisconnectCause {}

/// Why a draft did not become an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The server refused it.
    #[error("refused: {0}")]
    Refused(ServerError),
    /// It does not fit into a frame. Nothing was sent; or, where the server lowered its limit between two connections, it was
    /// sent on the earlier one and not acknowledged.
    #[error("the draft makes a frame of {bytes} bytes, {bytes_max} are allowed")]
    TooLarge {
        /// Of the frame.
        bytes: usize,
        /// The limit, from Welcome.
        bytes_max: usize,
    },
    /// It breaks a limit of the protocol; nothing was sent.
    #[error("{0}")]
    Invalid(&'static str),
    /// The client is closed.
    #[error("{reason}")]
    Closed {
        /// Why.
        reason: CloseReason,
        /// Whether the draft may have arrived.
        retry: Retry,
    },
}

impl PublishError {
    /// Whether the draft may be published again.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Refused(error) => error.retry(),
            Self::TooLarge { .. } | Self::Invalid(_) => Retry::Never,
            Self::Closed { retry, .. } => *retry,
        }
    }

    /// The server's refusal, if it is one.
    #[must_use]
    pub const fn refusal(&self) -> Option<&ServerError> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The server refused it.
    #[error("refused: {0}")]
    Refused(ServerError),
    /// The connection broke while it was under way, and sending it again by itself would not be right.
    #[error("the connection broke before the answer came")]
    Disconnected {
        /// Whether it may have happened.
        retry: Retry,
    },
    /// It breaks a limit of the protocol, or does not fit into a frame. Nothing was sent; or, where the server lowered its limit
    /// between two connections, it was sent on the earlier one and not answered.
    #[error("{0}")]
    Invalid(&'static str),
    /// The server's answer is not one to this request.
    #[error("the server's answer does not fit the request")]
    UnexpectedAnswer,
    /// The client is closed.
    #[error("{reason}")]
    Closed {
        /// Why.
        reason: CloseReason,
        /// Whether the request may have arrived.
        retry: Retry,
    },
}

impl RequestError {
    /// Whether the request may be made again.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Refused(error) => error.retry(),
            Self::Disconnected { retry } | Self::Closed { retry, .. } => *retry,
            Self::Invalid(_) => Retry::Never,
            Self::UnexpectedAnswer => Retry::MaybeDuplicate,
        }
    }

    /// The server's refusal, if it is one.
    #[must_use]
    pub const fn refusal(&self) -> Option<&ServerError> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a connection to one endpoint was not made, or broke.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The name has no address.
    #[error("the host has no address")]
    NoAddress,
    /// [`crate::Roots::InsecureLoopbackOnly`] and an address of another machine.
    #[error(
        "certificates are unchecked, which is allowed on loopback only; give the certificate's root"
    )]
    InsecureBeyondLoopback,
    /// TLS or QUIC, and no [`crate::Roots`].
    #[error("no root certificates are given to check the server's certificate against")]
    NoRoots,
    /// The host is no name that a certificate could have.
    #[error("the host is not a valid name for a certificate")]
    InvalidName,
    /// The roots cannot be read or hold no certificate.
    #[error("the root certificates cannot be used: {0}")]
    Roots(String),
    /// It took too long.
    #[error("no answer within {0} ms")]
    Timeout(u64),
    /// The operating system, TLS or QUIC said no.
    #[error("{0}")]
    Io(Arc<std::io::Error>),
    /// The server sent what is no frame of this protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
    /// Nothing was heard from the server, a Ping notwithstanding.
    #[error("the server fell silent")]
    Silent,
    /// The server closed the connection.
    #[error("the server closed the connection")]
    Closed,
    /// The server refused or ended the connection.
    #[error("{0}")]
    Refused(ServerError),
}

impl TransportError {
    /// Whether the same endpoint would fail again, however often it is tried.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::InsecureBeyondLoopback | Self::NoRoots | Self::InvalidName | Self::Roots(_) => {
                true
            }
            Self::Refused(error) => error.retry() == Retry::Never,
            _ => false,
        }
    }

    /// The server's refusal, if it is one.
    pub(crate) const fn refusal(&self) -> Option<&ServerError> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }

    /// How long to wait before connecting again, where the server has asked for that.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal()?.retry_after()
    }
}

impl From<std::io::Error> for TransportError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// One endpoint that could not be reached.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{endpoint}: {error}")]
pub struct EndpointFailure {
    /// Which.
    pub endpoint: Endpoint,
    /// Why.
    pub error: TransportError,
}

/// Why there is no client.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No endpoint was given.
    #[error("no endpoint is given")]
    NoEndpoint,
    /// An endpoint is not written as one.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// An option has a value that is not allowed.
    #[error("{0}")]
    Invalid(&'static str),
    /// Neither a token nor a provider of tokens was given.
    #[error("neither a token nor a provider of tokens is given")]
    NoToken,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoEntropy,
    /// The provider gave no token, or one that is too long.
    #[error("no access token: {0}")]
    Token(TokenError),
    /// The server was reached, and refused; of several endpoints none may accept later, if it is for good.
    #[error("refused: {0}")]
    Refused(ServerError),
    /// No endpoint was reached and accepted.
    #[error("no endpoint was reached: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unreachable(Vec<EndpointFailure>),
}

impl ConnectError {
    /// How long to wait before connecting again, where a server has asked for that: the longest that one of them did.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(error) => error.retry_after(),
            Self::Unreachable(failures) => failures
                .iter()
                .filter_map(|failure| failure.error.retry_after())
                .max(),
            _ => None,
        }
    }

    /// Whether connecting may be tried again.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::NoEndpoint
            | Self::Endpoint(_)
            | Self::Invalid(_)
            | Self::NoToken
            | Self::NoEntropy => Retry::Never,
            Self::Token(error) => error.retry(),
            Self::Refused(error) => error.retry(),
            Self::Unreachable(failures) => {
                if failures.iter().all(|failure| failure.error.is_final()) {
                    Retry::Never
                } else {
                    Retry::Safe
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_how_to_go_on() {
        let limited = ServerError::from(ErrorCode::RateLimited.to_proto(250));
        assert_eq!(
            (limited.retry(), limited.retry_after()),
            (Retry::Safe, Some(Duration::from_millis(250)))
        );
        assert!(limited.is(ErrorCode::RateLimited));
        let unknown = ServerError::from(v1::Error {
            code: 70_000,
            ..v1::Error::default()
        });
        assert_eq!(
            (unknown.known(), unknown.retry(), unknown.retry_after()),
            (None, Retry::MaybeDuplicate, None)
        );
        assert_eq!(
            PublishError::Refused(ErrorCode::NotAMember.to_proto(0).into()).retry(),
            Retry::Never
        );
    }

    #[test]
    fn only_failures_without_hope_forbid_another_connect_and_a_full_server_puts_it_off() {
        let failure = |error| EndpointFailure {
            endpoint: "tls://h:1".parse().unwrap(),
            error,
        };
        let unreachable = |errors: Vec<TransportError>| {
            ConnectError::Unreachable(errors.into_iter().map(failure).collect())
        };
        assert_eq!(
            unreachable(vec![TransportError::NoRoots]).retry(),
            Retry::Never
        );
        assert_eq!(
            unreachable(vec![TransportError::NoRoots, TransportError::Closed]).retry(),
            Retry::Safe
        );
        let full = |ms| TransportError::Refused(ErrorCode::TooManyConnections.to_proto(ms).into());
        let refused = unreachable(vec![full(500), TransportError::Closed, full(1_000)]);
        assert_eq!(refused.retry_after(), Some(Duration::from_secs(1)));
        assert_eq!(
            unreachable(vec![TransportError::Closed]).retry_after(),
            None
        );
    }
}
