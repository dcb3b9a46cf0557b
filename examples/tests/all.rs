//! The example programs' parts.
#![allow(clippy::unwrap_used, reason = "a test's helpers may panic like the test itself")]

mod compare;
mod genbank_import;
mod ingest;
mod web;
