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
    OverCapacity(String),
    ShutDown(String),
    OutcomeUnknown(String),
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

    /// Group commit holds as many rows as it may ([`WhenFull::Refuse`](crate::WhenFull::Refuse)).
    pub(crate) fn over_capacity(table: &str) -> Self {
        Self(Kind::OverCapacity(table.to_owned()))
    }

    pub(crate) fn shut_down(table: &str) -> Self {
        Self(Kind::ShutDown(table.to_owned()))
    }

    pub(crate) fn outcome_unknown(table: &str) -> Self {
        Self(Kind::OutcomeUnknown(table.to_owned()))
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
            Kind::OverCapacity(table) => write!(
                f,
                "over capacity: group commit holds as many rows as it may, and the row for {table} was not sent; try again \
                 later, or raise GroupCommit::max_queued_rows or max_queued_bytes"
            ),
            Kind::ShutDown(table) => {
                write!(f, "group commit was shut down: the row for {table} was not sent")
            }
            Kind::OutcomeUnknown(table) => write!(
                f,
                "the connection was lost while a group with this row for {table} was being committed: whether it is in is \
                 not known"
            ),
            Kind::SequenceState => f.write_str(
                "currval() and lastval() do not know the ids that batched writes gave out on this connection; \
                 use the id that the INSERT returned, or leave the table out of batching with BatchOptions::exclude",
            ),
        }
    }
}

impl std::error::Error for Error {}
