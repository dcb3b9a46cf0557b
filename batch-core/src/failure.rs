//! Failures of the engine's own statements, and who aborted a transaction.
//!
//! A program may catch the error of a flush and go on as if nothing had happened. Postgres answers the COMMIT of an aborted
//! transaction with ROLLBACK, which ORMs take for a success. So the error of a statement that the program did not issue is
//! kept for as long as the transaction is aborted by it, and given again where a success would be reported.

use std::any::Any;
use std::sync::Arc;

/// Why a statement of the engine failed: the adapter's own error. The program may have to be given it more than once.
#[derive(Clone, Debug)]
pub struct Failure(Arc<dyn Any + Send + Sync>);

impl Failure {
    /// Keeps an error.
    pub fn new<E: Any + Send + Sync>(error: E) -> Self {
        Self(Arc::new(error))
    }

    /// The error, for the adapter that kept it; `None` if it is of another type.
    pub fn error<E: Any + Send + Sync>(&self) -> Option<Arc<E>> {
        Arc::clone(&self.0).downcast().ok()
    }
}

/// By whose statement a transaction is aborted.
#[derive(Debug)]
pub(crate) enum AbortedBy {
    /// One of the program's, or so it seems: the ORM's error may be its own and not the server's.
    Program,
    /// One of the engine's.
    Engine(OwnFailure),
}

/// A failure of the engine's that the transaction has not overcome.
#[derive(Debug)]
pub(crate) struct OwnFailure {
    pub failure: Failure,
    /// Savepoints that the program was told are set, and that never were, the innermost last. What failed came before them,
    /// so that rolling back to one does not undo it.
    pub unset_savepoints: Vec<String>,
}

impl OwnFailure {
    /// Rolls back to a savepoint; whether the failure stands.
    pub(crate) fn outlasts(&mut self, savepoint: &str) -> bool {
        let Some(at) = self.unset_savepoints.iter().rposition(|name| name == savepoint) else { return false };
        self.unset_savepoints.truncate(at + 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_can_be_had_again_and_again_as_what_it_was() {
        let failure = Failure::new("the error".to_owned());
        let again = failure.clone();
        assert_eq!(failure.error::<String>().as_deref().map(String::as_str), Some("the error"));
        assert_eq!(again.error::<String>(), failure.error::<String>());
        assert_eq!(failure.error::<u8>(), None);
    }

    #[test]
    fn a_failure_outlasts_the_savepoints_behind_it() {
        let mut own =
            OwnFailure { failure: Failure::new(()), unset_savepoints: vec!["a".into(), "b".into(), "a".into()] };
        assert!(own.outlasts("b"), "it was never set");
        assert_eq!(own.unset_savepoints, ["a", "b"], "rolled back to, a savepoint stays, and those in it go");
        assert!(own.outlasts("a") && own.unset_savepoints == ["a"]);
        assert!(!own.outlasts("b"), "one that was set before");
    }
}
