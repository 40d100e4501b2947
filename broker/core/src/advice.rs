//! When something that was refused for now is worth another try. What has a moment of its own (a rate, slow mode) says that.

use rialto_protocol::error::ErrorCode;

/// Milliseconds; 0: no advice.
#[must_use]
pub const fn retry_hint_ms(code: ErrorCode) -> u32 {
    match code {
        ErrorCode::Overloaded | ErrorCode::TooManyConnections => 1_000,
        ErrorCode::StorageUnavailable => 2_000,
        _ => 0,
    }
}
