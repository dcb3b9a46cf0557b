//! The scenarios: a module for each, and in it a file for each library, where there are several.

pub(super) mod annotations;
pub mod find_or_create;
pub(super) mod ingestion;
pub(super) mod one_table;
pub(super) mod selects;
