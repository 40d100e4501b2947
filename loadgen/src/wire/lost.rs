//! Why a connection is gone, or did not come about.

use std::io;

use rialto_protocol::frame::FrameError;
use rialto_protocol::v1;

/// A connection is gone.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// The transport failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker closed it.
    #[error("the broker closed the connection")]
    Closed,
    /// The broker said nothing for two keep-alive times, Pings included.
    #[error("the broker has fallen silent")]
    Silent,
    /// What came is no frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// What came is not what the protocol says.
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
    /// The broker refuses the connection, or a request without which there is no load.
    #[error("refused with {code} ({text})", code = .0.code, text = .0.text)]
    Refused(v1::Error),
    /// The target's name leads to no address, or TLS cannot be set up.
    #[error("{0}")]
    Setup(String),
}

impl Lost {
    /// Whether another attempt would end in the same way.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        match self {
            Self::Refused(error) => error.retry() == v1::Retry::Never,
            Self::Setup(_) | Self::Protocol(_) | Self::Frame(_) => true,
            Self::Io(_) | Self::Closed | Self::Silent => false,
        }
    }

    /// How long the broker asks to be left alone, milliseconds.
    #[must_use]
    pub const fn retry_after_ms(&self) -> u32 {
        match self {
            Self::Refused(error) => error.retry_after_ms,
            _ => 0,
        }
    }
}
