//! Error codes: stable numbers with a fixed name and text. A number once used is never used again.

use crate::v1;
use crate::v1::Retry;

macro_rules! codes {
    ($($code:literal $variant:ident $name:literal $retry:ident $text:literal)+) => {
        /// Why something was refused. The number is what programs go by; the text is for people.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum ErrorCode {
            $(#[doc = $text] $variant = $code,)+
        }

        impl ErrorCode {
            /// Every code, in rising order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code with this number.
            #[must_use]
            pub const fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Its name in documentation, logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What happened, and what to do next.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// Whether the same request may be sent again.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self {
                    $(Self::$variant => Retry::$retry,)+
                }
            }
        }
    };
}

codes! {
    100 MalformedFrame "malformed_frame" Never "The frame's header is not valid. Correct the client."
    101 FrameTooLarge "frame_too_large" Never "The frame is larger than this connection allows. Send smaller frames; Welcome names the limit."
    102 UnknownKind "unknown_kind" Never "The server does not know this frame kind. Send only kinds of this protocol version."
    103 MalformedBody "malformed_body" Never "The frame's body cannot be decoded. Correct the client."
    104 TooManyElements "too_many_elements" Never "A list in the frame's body is longer than allowed. Split the request."
    105 NotAuthenticated "not_authenticated" Never "Hello must be the first frame. Connect again and send it first."
    106 AlreadyAuthenticated "already_authenticated" Never "Hello was sent before on this connection. Use Refresh for a new token."
    107 HandshakeTimeout "handshake_timeout" Safe "No valid Hello came in time. Connect again and send it at once."
    108 IdleTimeout "idle_timeout" Safe "Nothing was heard for too long. Connect again, and send Ping when silent."
    109 UnexpectedKind "unexpected_kind" Never "This frame kind is sent by servers only. Correct the client."
    110 DecompressionFailed "decompression_failed" Never "The compressed body is damaged or beyond a limit, or compression was not agreed. Send it uncompressed."
    111 TooManyConnections "too_many_connections" Safe "The server or the user has too many connections. Close some, or connect later."
    200 TokenMalformed "token_malformed" Never "The access token cannot be read. Get a new one."
    201 TokenExpired "token_expired" Never "The access token has expired. Get a new one, then try again with it."
    202 TokenSignatureInvalid "token_signature_invalid" Never "The access token's signature does not fit. Get a new one from the issuer that this server trusts."
    203 TokenKeyUnknown "token_key_unknown" Never "The access token was signed with a key that this server does not know. Get a new one."
    204 TokenClaimsRefused "token_claims_refused" Never "The access token's issuer, audience or subject is not accepted here. Get one for this server."
    205 TokenOfAnotherUser "token_of_another_user" Never "The new access token belongs to another user. Open a connection of its own for that user."
    206 DevelopmentTokenRefused "development_token_refused" Never "Development tokens are accepted only while the server listens on loopback alone. Get an access token."
    300 NotAMember "not_a_member" Never "You are not a member of this conversation. Join it, or ask to be invited."
    301 RoleTooLow "role_too_low" Never "Your role does not allow this. Ask an admin of the conversation."
    302 Banned "banned" Never "You are banned from this conversation. Ask a moderator."
    303 ConversationNotFound "conversation_not_found" Never "No such conversation, or none that you may see. Check its id."
    304 WrittenBySystemOnly "written_by_system_only" Never "Only the system writes in this conversation. Read it instead."
    305 ConversationLocked "conversation_locked" Never "The conversation is locked. Wait until an admin unlocks it."
    306 NotTheAuthor "not_the_author" Never "Only its author may do this. Leave it, or ask a moderator."
    400 InvalidField "invalid_field" Never "A field is missing or has a value that is not allowed. Correct the request."
    401 BodyTooLarge "body_too_large" Never "The message's body is too large. Shorten it, or attach a file; Welcome names the limit."
    402 BodyNotUtf8 "body_not_utf8" Never "The message's body is not UTF-8. Encode it as UTF-8, or send an envelope."
    403 ClientIdInvalid "client_id_invalid" Never "The client_id is not a UUIDv7 of 16 bytes. Make a new one."
    404 TargetNotFound "target_not_found" Never "The conversation holds no such message. Check its seq."
    405 TargetDeleted "target_deleted" Never "The message has been deleted. Remove it from view."
    406 UnknownHandle "unknown_handle" Never "This handle names no subscription of this connection. Name the conversation by its id."
    407 TooManyItems "too_many_items" Never "The request names too many items. Split it."
    408 KindRefused "kind_refused" Never "Conversations of this kind do not allow this. Choose another kind of conversation or of content."
    409 ConversationExists "conversation_exists" Never "The id belongs to a conversation that somebody else created. Make a new id."
    410 SubscriptionLimit "subscription_limit" Never "This connection has as many subscriptions as it may. Unsubscribe from some first."
    411 MembershipUnchanged "membership_unchanged" Never "The membership is like that already. Nothing is left to do."
    412 LastOwner "last_owner" Never "A conversation keeps one owner at least. Make somebody else the owner first."
    413 DeviceInvalid "device_invalid" Never "The device id is not 16 bytes, or all zero. Make one and keep it."
    414 CursorDiverged "cursor_diverged" Never "The log does not hold the cursor's event. Discard what is stored of this conversation and read it again."
    415 ClientIdTooOld "client_id_too_old" Never "The client_id is older than the server remembers. Check the history, then send again with a new one."
    416 RequestIdMissing "request_id_missing" Never "Requests need a request id other than 0. Number them from 1."
    500 RateLimited "rate_limited" Safe "You send too fast. Send again after the time given."
    501 SlowMode "slow_mode" Safe "The conversation is in slow mode. Send again after the time given."
    502 Overloaded "overloaded" Safe "The server has more work than it can take. Send again after the time given."
    503 ShuttingDown "shutting_down" Safe "The server is stopping. Connect again and send again there."
    504 MemberLimit "member_limit" Never "The conversation has as many members as it may. Remove somebody first."
    600 StorageUnavailable "storage_unavailable" MaybeDuplicate "Storage did not answer, so it may have happened. Send again with the same client_id."
    601 InternalError "internal_error" MaybeDuplicate "The server failed, so it may have happened. Send again with the same client_id."
    602 OwnerMoved "owner_moved" MaybeDuplicate "The conversation moved to another broker meanwhile. Send again with the same client_id."
    603 Damaged "damaged" Never "What is stored of it cannot be read back. Tell the operator; the log says what is damaged."
}

impl ErrorCode {
    /// Its number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// Whether the server closes the connection after it, whatever it answers: all of 1xx.
    #[must_use]
    pub const fn closes_connection(self) -> bool {
        self.code() < 200
    }

    /// Whether the server closes the connection after it when it answers Hello: all but those that another Hello may do better
    /// than, which are 3xx and 4xx.
    #[must_use]
    pub const fn closes_handshake(self) -> bool {
        self.code() < 300 || self.code() >= 500
    }

    /// Its message; `retry_after_ms` 0: no advice.
    #[must_use]
    pub fn to_proto(self, retry_after_ms: u32) -> v1::Error {
        v1::Error {
            code: u32::from(self.code()),
            text: self.text().to_owned(),
            retry: self.retry() as i32,
            retry_after_ms,
        }
    }

    /// The code of a received message; none when this version does not know it.
    #[must_use]
    pub fn from_proto(error: &v1::Error) -> Option<Self> {
        u16::try_from(error.code).ok().and_then(Self::from_code)
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    #[test]
    fn numbers_rise_and_lead_back_to_their_code() {
        assert!(ErrorCode::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(code.code()), Some(*code));
            assert_eq!(ErrorCode::from_proto(&code.to_proto(0)), Some(*code));
        }
        assert_eq!(ErrorCode::from_code(99), None);
        assert_eq!(ErrorCode::ALL.len(), 52);
    }

    #[test]
    fn names_are_the_variants_in_snake_case() {
        for code in ErrorCode::ALL {
            let mut snake = String::new();
            for letter in format!("{code:?}").chars() {
                if letter.is_ascii_uppercase() && !snake.is_empty() {
                    snake.push('_');
                }
                snake.push(letter.to_ascii_lowercase());
            }
            assert_eq!(snake, code.name());
        }
    }

    #[test]
    fn every_text_says_what_to_do_and_is_short() {
        for code in ErrorCode::ALL {
            let text = code.text();
            assert!(
                text.len() <= limits::ERROR_TEXT_BYTES_MAX,
                "{code}: {} bytes",
                text.len()
            );
            assert!(
                text.ends_with('.') && text.matches(". ").count() >= 1,
                "{code} has no second sentence"
            );
        }
    }

    #[test]
    fn only_1xx_and_a_refused_hello_close() {
        for code in ErrorCode::ALL {
            assert_eq!(code.closes_connection(), code.code() / 100 == 1);
            assert_eq!(
                code.closes_handshake(),
                ![3, 4].contains(&(code.code() / 100))
            );
        }
    }
}
