//! Single INSERTs outside of transactions by many clients at a time, plain and with group commit.
//!
//! | module | what it holds |
//! |---|---|
//! | `client` | whoever inserts one row after the other, and what it had to wait |
//! | [`way`] | how clients insert with one of the ORMs: `diesel`, `diesel_async`, `seaorm` |
//! | [`trial`] | runs plain and group commit in turn, checks what they stored, and takes medians |
//! | `table` | the figures as Markdown |

mod client;
mod diesel;
mod diesel_async;
mod seaorm;
mod table;
pub mod trial;
pub mod way;

/// As `--scenario` calls it.
pub const NAME: &str = "concurrent";
