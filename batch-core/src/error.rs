//! What can go wrong in the engine itself. Errors of the database pass through the adapters whole.

use std::fmt;

/// Why the engine refuses: an error for people, opaque to programs.
#[derive(Debug)]
pub struct Error(Kind);

#[derive(Debug)]
enum Kind {
    Catalog(String),
    NotSupported(String),
    SequenceState,
    Cancelled,
    Lost,
}

impl Error {
    pub(crate) fn catalog(what: impl Into<String>) -> Self {
        Self(Kind::Catalog(what.into()))
    }

    pub(crate) fn not_supported(product: &str) -> Self {
        Self(Kind::NotSupported(product.to_owned()))
    }

    pub(crate) fn cancelled() -> Self {
        Self(Kind::Cancelled)
    }

    /// The error of a query is not to be had: the runtime that ran it is gone, or an adapter is at fault.
    pub fn lost() -> Self {
        Self(Kind::Lost)
    }

    pub(crate) fn sequence_state() -> Self {
        Self(Kind::SequenceState)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Catalog(what) => write!(f, "batched writes could not read the catalog: {what}"),
            Kind::NotSupported(product) => {
                write!(f, "batched writes need PostgreSQL 13 or later, but this server is {product:?}")
            }
            Kind::Cancelled => f.write_str(
                "a future of this transaction was dropped while batched rows were being sent: whether they are in is not \
                 known, so the transaction can only be rolled back",
            ),
            Kind::Lost => f.write_str("batched writes lost the error of a failed query; please report this"),
            Kind::SequenceState => f.write_str(
                "currval() and lastval() do not know the ids that batched writes gave out on this connection; \
                 use the id that the INSERT returned, or leave the table out of batching with BatchOptions::exclude",
            ),
        }
    }
}

impl std::error::Error for Error {}
