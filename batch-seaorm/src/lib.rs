//! Batched writes for SeaORM on Postgres.
//!
//! This crate is a placeholder: the adapter is not written yet. The engine it will drive is `batch-core`, and
//! `batch-diesel` shows what an adapter looks like.
