//! Rows by their primary key.

use std::time::Duration;

use crate::compare::connections as on;
use crate::compare::scenario::{Goal, Scenario};
use crate::compare::scenarios::one_table;
use crate::compare::way::{DIESEL, DIESEL_ASYNC, SEAORM, Way};

mod diesel;
mod diesel_async;
mod seaorm;

/// Rows of the table.
const FILLED: usize = 10_000;

pub(in crate::compare) const SCENARIO: Scenario = Scenario {
    name: "selects",
    counted: "SELECTs by primary key",
    unit: "SELECTs",
    // Many short rounds, as a ratio near to one is sought.
    rows: 3_000,
    latency: Duration::ZERO,
    rounds: 31,
    goal: Goal::NotSlower,
    // Fills the table once.
    reset: "INSERT INTO users SELECT row + 1, 'user ' || row, row FROM generate_series(0, 9999) row
        ON CONFLICT (id) DO NOTHING",
    ways: &[
        Way::plain(DIESEL, |job| on::diesel(job, diesel::read_rows)),
        Way::batched("Diesel, batched", DIESEL, |job| on::diesel_batched(job, diesel::read_rows)),
        Way::plain(DIESEL_ASYNC, |job| on::diesel_async(job, diesel_async::read_rows)),
        Way::batched("diesel-async, batched", DIESEL_ASYNC, |job| {
            on::diesel_async_batched(job, diesel_async::read_rows)
        }),
        Way::plain(SEAORM, |job| on::seaorm(job, seaorm::read_rows)),
        Way::batched("SeaORM, batched", SEAORM, |job| on::seaorm_batched(job, seaorm::read_rows)),
    ],
    expected: |_| (one_table::SCENARIO.expected)(FILLED),
    ..one_table::SCENARIO
};

/// The id that a row asks for, all over the table.
fn id(row: usize) -> i32 {
    (row * 7_919 % FILLED) as i32 + 1
}

/// The age of who has this id.
fn age(id: i32) -> i32 {
    id - 1
}
