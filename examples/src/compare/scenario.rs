//! A piece of work that every way does, each as its users would write it.

use std::time::Duration;

use anyhow::Result;

use super::scenarios::{annotations, find_or_create, ingestion, one_table, selects};
use super::way::Way;

/// One piece of work, the tables that it is done on, and its ways.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// As `--scenario` calls it.
    pub name: &'static str,
    /// What the number of rows counts.
    pub counted: &'static str,
    /// What one of those consists of: so many rows, say.
    pub each: usize,
    /// What that is, of which the ways do so many per second.
    pub unit: &'static str,
    /// How many are done where nobody says.
    pub rows: usize,
    /// Of a round trip where nobody says.
    pub latency: Duration,
    /// How often each way runs where nobody says.
    pub rounds: usize,
    /// What the ratio to row by row is to show.
    pub goal: Goal,
    /// Creates the tables.
    pub schema: &'static str,
    /// Brings the tables back to where a way begins.
    pub reset: &'static str,
    /// Each ORM's plain way before what is compared with it.
    pub ways: &'static [Way],
    /// A query for all that is stored, a text for each row, in the order of ids.
    pub stored: &'static str,
    /// What that gives after so many.
    pub expected: fn(usize) -> Vec<String>,
    /// What the ways need to know of this machine.
    pub yardstick: Option<Yardstick>,
    /// How much private memory the process of a way may take, in KiB; the system's limit, if it is not said.
    pub memory_limit: Option<usize>,
}

/// Something that is measured once, before the ways run, and told to all of them.
#[derive(Clone, Copy, Debug)]
pub struct Yardstick {
    /// What takes that long.
    pub name: &'static str,
    /// Does it, on the database of this URL.
    pub measure: fn(&str) -> Result<Duration>,
}

/// What a scenario's comparison with row by row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// How many times faster: `112×`.
    Faster,
    /// How little slower: `+1.3 %`.
    NotSlower,
}

/// All scenarios; the first is done where nobody says which.
pub const SCENARIOS: [Scenario; 5] =
    [one_table::SCENARIO, annotations::SCENARIO, find_or_create::SCENARIO, selects::SCENARIO, ingestion::SCENARIO];

impl Scenario {
    /// The scenario of this name.
    pub fn named(name: &str) -> Option<Scenario> {
        SCENARIOS.into_iter().find(|scenario| scenario.name == name)
    }

    /// The way of this name.
    pub fn way(&self, name: &str) -> Option<Way> {
        self.ways.iter().copied().find(|way| way.name == name)
    }
}
