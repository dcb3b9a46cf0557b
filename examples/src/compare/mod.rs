//! Every way of writing rows that users of the two ORMs have, measured side by side by `--bin compare`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`scenario`] | what a piece of work is |
//! | [`scenarios`] | the pieces of work, each with its tables and its ways |
//! | [`way`] | a way of doing one of them, in one transaction |
//! | [`contest`] | runs each in a process of its own, in turn, and takes medians |
//! | [`concurrent`] | another piece of work: single INSERTs by many clients at a time |
//! | [`table`] | the figures as Markdown |
//! | [`plot`] | the figures as an SVG |

pub mod concurrent;
pub mod contest;
pub mod plot;
pub mod scenario;
pub mod scenarios;
pub mod table;
pub mod way;

mod connections;
