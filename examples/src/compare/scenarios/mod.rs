//! The scenarios: a module for each, and in it a file for each library.

pub(super) mod annotations;
pub mod find_or_create;
pub(super) mod one_table;
pub(super) mod selects;
