//! The engine's refusals as errors of Diesel's own kind, and errors that are given more than once.

use std::fmt::{self, Debug, Display};
use std::sync::Arc;

use batch_core::Failure;
use diesel::result::{DatabaseErrorInformation, Error};

/// The statement was not sent, so this is no database error.
pub(crate) fn refusal(error: batch_core::Error) -> Error {
    Error::QueryBuilderError(Box::new(error))
}

/// The engine asked for the error of a query that did not fail: a fault of this crate, kept from panicking.
pub(crate) fn missing() -> Error {
    refusal(batch_core::Error::lost())
}

/// Keeps an error for [`give`].
pub(crate) fn keep(error: Error) -> Failure {
    Failure::new(error)
}

/// An error that was kept. Diesel's cannot be cloned, but all that a program can ask of one can be asked of this.
pub(crate) fn give(failure: &Failure) -> Error {
    let Some(error) = failure.error::<Error>() else { return missing() };
    let shared = Shared(Arc::clone(&error));
    match &*error {
        Error::DatabaseError(kind, _) => Error::DatabaseError(*kind, Box::new(shared)),
        Error::DeserializationError(_) => Error::DeserializationError(Box::new(shared)),
        Error::SerializationError(_) => Error::SerializationError(Box::new(shared)),
        Error::InvalidCString(error) => Error::InvalidCString(error.clone()),
        Error::NotFound => Error::NotFound,
        Error::BrokenTransactionManager => Error::BrokenTransactionManager,
        // A query gives no other.
        _ => Error::QueryBuilderError(Box::new(shared)),
    }
}

/// What is in an error that is given more than once.
#[derive(Clone)]
struct Shared(Arc<Error>);

impl Shared {
    fn inner(&self) -> &(dyn std::error::Error + 'static) {
        match &*self.0 {
            Error::QueryBuilderError(inner) | Error::DeserializationError(inner) | Error::SerializationError(inner) => {
                &**inner
            }
            other => other,
        }
    }

    fn about(&self) -> Option<&(dyn DatabaseErrorInformation + Send + Sync)> {
        match &*self.0 {
            Error::DatabaseError(_, about) => Some(&**about),
            _ => None,
        }
    }
}

impl Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(self.inner(), f)
    }
}

impl Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self.inner(), f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner().source()
    }
}

impl DatabaseErrorInformation for Shared {
    fn message(&self) -> &str {
        self.about().map_or("", |about| about.message())
    }

    fn details(&self) -> Option<&str> {
        self.about()?.details()
    }

    fn hint(&self) -> Option<&str> {
        self.about()?.hint()
    }

    fn table_name(&self) -> Option<&str> {
        self.about()?.table_name()
    }

    fn column_name(&self) -> Option<&str> {
        self.about()?.column_name()
    }

    fn constraint_name(&self) -> Option<&str> {
        self.about()?.constraint_name()
    }

    fn statement_position(&self) -> Option<i32> {
        self.about()?.statement_position()
    }
}
