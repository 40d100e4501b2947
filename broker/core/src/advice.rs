//! When something that was refused for now is worth another try, and what never is. What has a moment of its own (a rate, slow
//! mode) says that.

use rialto_protocol::error::ErrorCode;

use crate::io::Answer;

/// What is told where a read has brought nothing that could be gone on with.
#[must_use]
pub(crate) fn read_failure(answer: Option<&Answer>) -> ErrorCode {
    match answer {
        Some(Answer::Damaged) => ErrorCode::Damaged,
        _ => ErrorCode::StorageUnavailable,
    }
}

/// Milliseconds; 0: no advice.
#[must_use]
pub const fn retry_hint_ms(code: ErrorCode) -> u32 {
    match code {
        ErrorCode::Overloaded | ErrorCode::TooManyConnections => 1_000,
        ErrorCode::StorageUnavailable => 2_000,
        _ => 0,
    }
}
