//! The scenarios: a module for each, and in it a file for each library.

pub(super) mod one_table;
