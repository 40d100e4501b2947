//! Kinds of frames and flags. A number once used is never used again.

use std::fmt;

/// Who sends frames of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Clients: a request.
    Client,
    /// Servers: an answer or a push.
    Server,
    /// Either.
    Both,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $number:literal $variant:ident $sender:ident)+) => {
        /// What a frame's body is. Numbers below 64 are requests, up to 127 answers, from 128 on pushes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum FrameKind {
            $($(#[$doc])* $variant = $number,)+
        }

        impl FrameKind {
            /// Every kind, in rising order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name: that of its body's message, unless the table in docs/PROTOCOL.md says otherwise.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                }
            }

            /// Who sends it.
            #[must_use]
            pub const fn sender(self) -> Sender {
                match self {
                    $(Self::$variant => Sender::$sender,)+
                }
            }
        }

        impl TryFrom<u8> for FrameKind {
            type Error = u8;

            /// The kind with this number, or the number back.
            fn try_from(number: u8) -> Result<Self, u8> {
                match number {
                    $($number => Ok(Self::$variant),)+
                    other => Err(other),
                }
            }
        }
    };
}

kinds! {
    /// The first frame of a client. Answer: Welcome.
    1 Hello Client
    /// A new access token. Answer: Refreshed.
    2 Refresh Client
    /// Is anybody there? Answer: Pong.
    3 Ping Client
    /// Drafts of events. Answer: receipts in Published frames.
    4 Publish Client
    /// Follows conversations. Answer: Subscribed.
    5 Subscribe Client
    /// Follows them no more. Answer: Done.
    6 Unsubscribe Client
    /// A page of a log. Answer: HistoryPage.
    7 History Client
    /// Moves one's markers. Answer: Marked.
    8 Mark Client
    /// Typing and the like. No answer unless refused.
    9 Signal Client
    /// Whose presence one wants to see. Answer: Presences.
    10 Watch Client
    /// What others see of this session. Answer: Done.
    11 SetPresence Client
    /// Opens a conversation. Answer: CreatedConversation.
    12 Create Client
    /// What a conversation is. Answer: Description.
    13 Describe Client
    /// A page of its members. Answer: MembersPage.
    14 Members Client
    /// A page of one's conversations. Answer: ConversationsPage.
    15 Conversations Client
    /// Preferences. Answer: Done.
    16 Prefer Client
    /// A refusal; with request id 0 of the connection itself.
    64 Error Server
    /// It is done.
    65 Done Server
    /// Answer to Hello.
    66 Welcome Server
    /// Answer to Refresh.
    67 Refreshed Server
    /// Answer to Ping.
    68 Pong Server
    /// Receipts of drafts; its own request id is 0.
    69 Published Server
    /// Answer to Subscribe.
    70 Subscribed Server
    /// Answer to History.
    71 HistoryPage Server
    /// Answer to Mark.
    72 Marked Server
    /// Answer to Watch; with request id 0 a push of what changed.
    73 Presences Server
    /// Answer to Create.
    74 CreatedConversation Server
    /// Answer to Describe.
    75 Description Server
    /// Answer to Members.
    76 MembersPage Server
    /// Answer to Conversations.
    77 ConversationsPage Server
    /// Push: events of a subscribed conversation.
    128 Deliver Server
    /// Push: a signal.
    129 Signalled Server
    /// Push: a subscription ended.
    130 SubscriptionEnded Server
    /// Push: reconnect soon.
    131 GoAway Server
}

impl FrameKind {
    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether it is a request, which needs a request id.
    #[must_use]
    pub const fn is_request(self) -> bool {
        self.number() < 64
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Flags of a frame. Bits without a meaning are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// None set.
    pub const NONE: Self = Self(0);
    /// The body is compressed with zstd.
    pub const COMPRESSED: Self = Self(1);
    /// The last frame of an answer.
    pub const LAST: Self = Self(2);

    /// The flags with these bits; none when one of them has no meaning.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !(Self::COMPRESSED.0 | Self::LAST.0) == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// Their bits on the wire.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// With `other` set too.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// With `other` cleared.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_back_to_their_kind_and_nothing_else_does() {
        let known: Vec<u8> = (0..=255)
            .filter(|number| FrameKind::try_from(*number).is_ok())
            .collect();
        let listed: Vec<u8> = FrameKind::ALL.iter().map(|kind| kind.number()).collect();
        assert_eq!(known, listed);
        assert_eq!(FrameKind::try_from(0), Err(0));
    }

    #[test]
    fn requests_are_sent_by_clients_and_all_else_by_servers() {
        for kind in FrameKind::ALL {
            assert_eq!(kind.is_request(), kind.sender() == Sender::Client, "{kind}");
        }
    }

    #[test]
    fn bits_without_a_meaning_are_refused() {
        assert_eq!(
            (0..=255)
                .filter(|bits| Flags::from_bits(*bits).is_some())
                .count(),
            4
        );
        let both = Flags::LAST.with(Flags::COMPRESSED);
        assert!(both.contains(Flags::LAST) && both.without(Flags::LAST) == Flags::COMPRESSED);
    }
}
