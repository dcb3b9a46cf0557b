//! The engine's refusals as errors of Diesel's own kind.

use diesel::result::Error;

/// The statement was not sent, so this is no database error.
pub(crate) fn refusal(error: batch_core::Error) -> Error {
    Error::QueryBuilderError(Box::new(error))
}

/// The engine asked for the error of a query that did not fail: a fault of this crate, kept from panicking.
pub(crate) fn missing() -> Error {
    refusal(batch_core::Error::lost())
}
