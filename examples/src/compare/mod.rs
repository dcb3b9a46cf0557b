//! Every way of writing rows that users of the two ORMs have, measured side by side by `--bin compare`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`ways`] | the ways, each a function that writes rows in one transaction |
//! | [`contest`] | runs each in a process of its own, in turn, and takes medians |
//! | [`table`] | the figures as Markdown |
//! | [`plot`] | the figures as an SVG |

pub mod contest;
pub mod plot;
pub mod table;
pub mod ways;
