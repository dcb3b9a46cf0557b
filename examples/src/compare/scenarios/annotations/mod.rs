//! Sequences, each with annotations that refer to its id.

use std::time::Duration;

use crate::compare::connections as on;
use crate::compare::scenario::{Goal, Scenario};
use crate::compare::way::{DIESEL, DIESEL_ASYNC, SEAORM, Way};

mod diesel;
mod diesel_async;
mod driver;
mod seaorm;

/// Annotations of a sequence.
const EACH: usize = 6;

pub(in crate::compare) const SCENARIO: Scenario = Scenario {
    name: "annotations",
    counted: "sequences with 6 annotations each",
    each: 1 + EACH,
    unit: "rows",
    rows: 1_000,
    latency: Duration::from_millis(3),
    rounds: 5,
    goal: Goal::Faster,
    schema: "CREATE TABLE sequences (id serial PRIMARY KEY, name text NOT NULL);
        CREATE TABLE annotations (
            id serial PRIMARY KEY, sequence_id int4 NOT NULL REFERENCES sequences, start int4 NOT NULL, note text NOT NULL
        )",
    reset: "TRUNCATE sequences, annotations",
    ways: &[
        Way::plain(DIESEL, |job| on::diesel(job, diesel::write_rows)),
        Way::bulk("Diesel, values(&vec)", DIESEL, |job| on::diesel(job, diesel::write_chunks)),
        Way::batched("Diesel, batched", DIESEL, |job| on::diesel_batched(job, diesel::write_rows)),
        Way::plain(DIESEL_ASYNC, |job| on::diesel_async(job, diesel_async::write_rows)),
        Way::bulk("diesel-async, values(&vec)", DIESEL_ASYNC, |job| on::diesel_async(job, diesel_async::write_chunks)),
        Way::batched("diesel-async, batched", DIESEL_ASYNC, |job| {
            on::diesel_async_batched(job, diesel_async::write_rows)
        }),
        Way::plain(SEAORM, |job| on::seaorm(job, seaorm::write_rows)),
        Way::bulk("SeaORM, insert_many", SEAORM, |job| on::seaorm(job, seaorm::write_chunks)),
        Way::batched("SeaORM, batched", SEAORM, |job| on::seaorm_batched(job, seaorm::write_rows)),
        Way::bulk("unnest by hand", DIESEL_ASYNC, |job| {
            on::tokio_postgres(job, driver::prepare_unnest, driver::write_arrays)
        }),
        Way::bulk("tokio-postgres, pipelined", DIESEL_ASYNC, |job| {
            on::tokio_postgres(job, driver::prepare_inserts, driver::pipeline_rows)
        }),
        Way::copy("binary COPY, ids reserved by hand", DIESEL_ASYNC, |job| {
            on::tokio_postgres(job, driver::prepare_reserve, driver::copy_rows)
        }),
    ],
    stored: "SELECT s.name || ' ' || coalesce(a.start || ' ' || a.note, 'bare')
        FROM sequences s LEFT JOIN annotations a ON a.sequence_id = s.id ORDER BY s.id, a.id",
    expected: |rows| {
        let annotations = |row| (0..EACH).map(move |at| format!("{} {} {}", name(row), start(at), note(row, at)));
        (0..rows).flat_map(annotations).collect()
    },
    yardstick: None,
    memory_limit: None,
};

/// The name of a sequence.
fn name(row: usize) -> String {
    format!("sequence {row}")
}

/// Where a sequence's annotation begins.
fn start(at: usize) -> i32 {
    100 * at as i32
}

/// What it says.
fn note(row: usize, at: usize) -> String {
    format!("note {at} on {row}")
}
