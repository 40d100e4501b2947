//! Shapes of conversations: what differs between many small groups, a few huge channels and a forum.

use std::fmt;
use std::str::FromStr;

use rialto_protocol::limits::MEMBERS_PER_CREATE_MAX;
use serde::{Deserialize, Serialize};

/// Exponent of Zipf's law where none is given: that of words in a text, and about that of threads in a forum.
pub const ZIPF_DEFAULT: f64 = 1.0;
/// Most conversations of a run: each costs the coordinator an entry and each follower a cursor.
pub const CONVERSATIONS_MAX: usize = 1_000_000;

/// Conversations of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Shape {
    /// Public channels. Each has a publisher at least, and all readers follow all of them.
    Channels {
        /// How many.
        count: usize,
    },
    /// Private groups. One publisher writes to each; the other members are readers.
    Groups {
        /// How many.
        count: usize,
        /// Members of each.
        members: usize,
    },
    /// Public threads, of which the k-th gets a share of the messages that goes with 1/k^zipf.
    Threads {
        /// How many.
        count: usize,
        /// The exponent.
        zipf: f64,
        /// Threads that each reader follows, by the same law; 0: all.
        follow: usize,
    },
}

/// Conversations of one kind, and their share of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// What they are.
    pub shape: Shape,
    /// Their share of the messages, in relation to those of the other parts.
    pub share: f64,
}

/// A text that is no shape, or one that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// The text is none of the forms.
    #[error(
        "`{0}` is no shape: channels:COUNT, groups:COUNT:MEMBERS or threads:COUNT[:ZIPF[:FOLLOW]]"
    )]
    Form(String),
    /// A number is out of range.
    #[error("{what} has to be from {min} to {max}")]
    Range {
        /// Which number.
        what: &'static str,
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
    /// The exponent is no number from 0 to 4.
    #[error("zipf has to be from 0 (all threads alike) to 4")]
    Zipf,
    /// A share is no number above 0.
    #[error("share has to be a number above 0")]
    Share,
}

impl Shape {
    /// How many conversations.
    #[must_use]
    pub const fn count(&self) -> usize {
        match *self {
            Self::Channels { count } | Self::Groups { count, .. } | Self::Threads { count, .. } => {
                count
            }
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// When one is out of range.
    pub fn check(&self) -> Result<(), ShapeError> {
        let range = |what, number: usize, min, max| {
            if (min..=max).contains(&number) {
                Ok(())
            } else {
                Err(ShapeError::Range { what, min, max })
            }
        };
        range("count", self.count(), 1, CONVERSATIONS_MAX)?;
        match *self {
            Self::Channels { .. } => Ok(()),
            Self::Groups { members, .. } => range("members", members, 1, MEMBERS_PER_CREATE_MAX),
            Self::Threads { zipf, .. } if (0.0..=4.0).contains(&zipf) => Ok(()),
            Self::Threads { .. } => Err(ShapeError::Zipf),
        }
    }
}

impl FromStr for Shape {
    type Err = ShapeError;

    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let form = || ShapeError::Form(text.to_owned());
        let number = |text: &str| text.parse().map_err(|_| form());
        let parts: Vec<&str> = text.split(':').collect();
        let shape = match *parts.as_slice() {
            ["channels", count] => Self::Channels {
                count: number(count)?,
            },
            ["groups", count, members] => Self::Groups {
                count: number(count)?,
                members: number(members)?,
            },
            ["threads", count, ref rest @ ..] if rest.len() <= 2 => Self::Threads {
                count: number(count)?,
                zipf: match rest.first() {
                    Some(zipf) => zipf.parse().map_err(|_| form())?,
                    None => ZIPF_DEFAULT,
                },
                follow: match rest.get(1) {
                    Some(follow) => number(follow)?,
                    None => 0,
                },
            },
            _ => return Err(form()),
        };
        shape.check()?;
        Ok(shape)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channels { count } => write!(out, "channels:{count}"),
            Self::Groups { count, members } => write!(out, "groups:{count}:{members}"),
            Self::Threads {
                count,
                zipf,
                follow,
            } => write!(out, "threads:{count}:{zipf}:{follow}"),
        }
    }
}

impl Part {
    /// One that gets its share among equals.
    #[must_use]
    pub const fn of(shape: Shape) -> Self {
        Self { shape, share: 1.0 }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// When one is out of range.
    pub fn check(&self) -> Result<(), ShapeError> {
        if !self.share.is_finite() || self.share <= 0.0 {
            return Err(ShapeError::Share);
        }
        self.shape.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_written_and_read_alike() {
        for (text, whole) in [
            ("channels:3", "channels:3"),
            ("groups:2000:8", "groups:2000:8"),
            ("threads:10000", "threads:10000:1:0"),
            ("threads:500:1.2", "threads:500:1.2:0"),
            ("threads:500:0.8:20", "threads:500:0.8:20"),
        ] {
            assert_eq!(text.parse::<Shape>().unwrap().to_string(), whole);
        }
    }

    #[test]
    fn what_is_no_shape_is_refused_with_what_is_wrong() {
        for (text, says) in [
            ("", "is no shape"),
            ("rooms:3", "is no shape"),
            ("channels", "is no shape"),
            ("channels:x", "is no shape"),
            ("threads:1:2:3:4", "is no shape"),
            ("channels:0", "count has to be from 1"),
            ("groups:5:501", "members has to be from 1 to 500"),
            ("threads:5:-1", "zipf"),
            ("threads:5:NaN", "zipf"),
        ] {
            let error = text.parse::<Shape>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let part = Part {
            share: 0.0,
            ..Part::of(Shape::Channels { count: 1 })
        };
        assert_eq!(part.check(), Err(ShapeError::Share));
    }
}
