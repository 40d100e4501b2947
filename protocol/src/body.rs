//! Bodies of frames: first a scan by the tables that the build makes from the .proto files, then prost's decoding. The
//! scan takes no memory and bounds what decoding may take; see [`decode`].

mod scan;

use bytes::Bytes;

use crate::error::ErrorCode;
use crate::limits;
use crate::wire::WireError;
use scan::{Cap, Field, Message, Shape};

/// A message that can be the body of a frame, or stand in one.
pub trait Body: prost::Message + Default {
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn schema() -> &'static Message;
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

/// A body was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is no protobuf.
    #[error("{0}")]
    Wire(#[from] WireError),
    /// A field has another wire type than its definition.
    #[error("{message}.{field} has the wrong wire type")]
    WireType {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// A message that may stand once stands twice. Protobuf would merge both, past every limit on lists.
    #[error("{message}.{field} stands twice")]
    Twice {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// More than [`limits::BODY_DEPTH_MAX`].
    #[error("messages stand too deep in each other")]
    TooDeep,
    /// A list is longer than its limit in [`limits::REPEATED`].
    #[error("{message}.{field} has more than {elements_max} elements")]
    TooManyElements {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
        /// Its limit.
        elements_max: usize,
    },
    /// More than [`limits::ELEMENTS_PER_BODY_MAX`] in all lists together.
    #[error("all lists together have too many elements")]
    TooManyElementsInAll,
    /// The scan found nothing, but decoding did: text that is not UTF-8.
    #[error("{0}")]
    Decode(#[from] prost::DecodeError),
}

impl BodyError {
    /// Its code on the wire.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooManyElements { .. } | Self::TooManyElementsInAll => ErrorCode::TooManyElements,
            _ => ErrorCode::MalformedBody,
        }
    }
}

/// Decodes a body. `bytes` fields of the message are slices of `body`, not copies.
///
/// What decoding takes beside that is bounded before it is taken: a body of 1 MiB becomes a few MiB at most, whatever
/// it says.
///
/// # Errors
/// When the bytes are no such message, or go beyond a limit of [`limits`].
pub fn decode<T: Body>(body: &Bytes) -> Result<T, BodyError> {
    scan::check(T::schema(), body)?;
    Ok(T::decode(body.clone())?)
}
