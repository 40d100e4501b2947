//! What goes wrong in the views, and what that says of them.

use std::{error::Error, io};

use crate::views::ViewsError;

/// What went wrong in the views.
#[derive(Debug, thiserror::Error)]
pub(in crate::embedded) enum Fault {
    /// fjall or the operating system said so.
    #[error("{what}: {cause}")]
    Store {
        /// What was done.
        what: &'static str,
        /// fjall's text.
        cause: fjall::Error,
    },
    /// What is stored, or a segment, cannot be read.
    #[error("{0}")]
    Damaged(String),
    /// The work was given up on purpose.
    #[error("stopped")]
    Stopped,
}

impl Fault {
    /// Whether fjall takes nothing any more: a write of its own has failed, or its thread that merges has ended. It does after a start.
    pub(in crate::embedded) fn is_for_good(&self) -> bool {
        let Self::Store { cause, .. } = self else {
            return false;
        };
        matches!(cause, fjall::Error::Poisoned)
    }

    /// Whether it says nothing of what is stored, so that another attempt may find all as it was: too many files are open, the
    /// disk is full or does not answer.
    pub(in crate::embedded) fn may_pass(&self) -> bool {
        let Self::Store { cause, .. } = self else {
            return false;
        };
        let first: &dyn Error = cause;
        let mut causes = std::iter::successors(Some(first), |error| (*error).source());
        let io = causes.find_map(|error| error.downcast_ref::<io::Error>());
        // Bytes that are bad end too soon, are no text, or name files and places that are not there; a file that is there and
        // should not be will not go by itself either.
        let of_bytes = |kind| {
            use io::ErrorKind::{
                AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof,
            };
            matches!(
                kind,
                AlreadyExists | InvalidData | InvalidInput | NotFound | UnexpectedEof
            )
        };
        matches!(cause, fjall::Error::Locked) || io.is_some_and(|error| !of_bytes(error.kind()))
    }
}

/// Names what was done in fjall's errors.
pub(in crate::embedded) trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, Fault>;
}

impl<T> Doing<T> for Result<T, fjall::Error> {
    fn doing(self, what: &'static str) -> Result<T, Fault> {
        self.map_err(|cause| Fault::Store { what, cause })
    }
}

impl From<Fault> for ViewsError {
    fn from(fault: Fault) -> Self {
        let is_damage = !fault.may_pass();
        match fault {
            // One that takes nothing any more does after a start.
            Fault::Store { what, cause }
                if is_damage && !matches!(cause, fjall::Error::Poisoned) =>
            {
                Self::Damaged(format!("{what}: {cause}"))
            }
            Fault::Store { what, cause } => Self::Io {
                what: what.to_owned(),
                cause: cause.to_string(),
            },
            Fault::Damaged(text) => Self::Damaged(text),
            Fault::Stopped => Self::Closed,
        }
    }
}
