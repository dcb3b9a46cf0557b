//! Rows into one table.

use std::time::Duration;

use crate::compare::connections as on;
use crate::compare::scenario::{Goal, Scenario};
use crate::compare::way::{DIESEL, DIESEL_ASYNC, SEAORM, Way};

mod diesel;
mod diesel_async;
mod driver;
mod seaorm;

pub(super) use diesel::users;
pub(super) use seaorm::user;

pub(in crate::compare) const SCENARIO: Scenario = Scenario {
    name: "table",
    counted: "rows",
    each: 1,
    unit: "rows",
    rows: 1_000,
    latency: Duration::from_millis(3),
    rounds: 5,
    goal: Goal::Faster,
    schema: "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, age int4 NOT NULL)",
    reset: "TRUNCATE users",
    ways: &[
        Way::plain(DIESEL, |job| on::diesel(job, diesel::write_rows)),
        Way::bulk("Diesel, values(&vec)", DIESEL, |job| on::diesel(job, diesel::write_chunks)),
        Way::batched("Diesel, batched", DIESEL, |job| on::diesel_batched(job, diesel::write_rows)),
        Way::batched_no_ids("Diesel, batched, no ids asked", DIESEL, |job| {
            on::diesel_batched(job, diesel::write_rows_without_ids)
        }),
        Way::plain(DIESEL_ASYNC, |job| on::diesel_async(job, diesel_async::write_rows)),
        Way::bulk("diesel-async, values(&vec)", DIESEL_ASYNC, |job| on::diesel_async(job, diesel_async::write_chunks)),
        Way::batched("diesel-async, batched", DIESEL_ASYNC, |job| {
            on::diesel_async_batched(job, diesel_async::write_rows)
        }),
        Way::batched_no_ids("diesel-async, batched, no ids asked", DIESEL_ASYNC, |job| {
            on::diesel_async_batched(job, diesel_async::write_rows_without_ids)
        }),
        Way::plain(SEAORM, |job| on::seaorm(job, seaorm::write_rows)),
        Way::bulk("SeaORM, insert_many", SEAORM, |job| on::seaorm(job, seaorm::write_chunks)),
        Way::batched("SeaORM, batched", SEAORM, |job| on::seaorm_batched(job, seaorm::write_rows)),
        Way::batched_no_ids("SeaORM, batched, no ids asked", SEAORM, |job| {
            on::seaorm_batched(job, seaorm::write_rows_without_ids)
        }),
        Way::bulk("unnest by hand", DIESEL_ASYNC, |job| {
            on::tokio_postgres(job, driver::prepare_unnest, driver::write_arrays)
        }),
        Way::bulk("tokio-postgres, pipelined", DIESEL_ASYNC, |job| {
            on::tokio_postgres(job, driver::prepare_insert, driver::pipeline_rows)
        }),
        Way::copy("binary COPY", DIESEL_ASYNC, |job| on::tokio_postgres(job, async |_| Ok(()), driver::copy_rows)),
    ],
    stored: "SELECT name || ' aged ' || age FROM users ORDER BY id",
    expected: |rows| (0..rows).map(|row| format!("{} aged {row}", name(row))).collect(),
    yardstick: None,
    memory_limit: None,
};

/// The name of a row.
pub(super) fn name(row: usize) -> String {
    format!("user {row}")
}
