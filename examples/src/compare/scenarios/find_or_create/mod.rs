//! Items by name, each created if it is not there.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::compare::connections as on;
use crate::compare::scenario::{Goal, Scenario};
use crate::compare::way::{DIESEL, DIESEL_ASYNC, SEAORM, Way};

mod diesel;
mod diesel_async;
mod driver;
mod seaorm;

pub(in crate::compare) const SCENARIO: Scenario = Scenario {
    name: "find-or-create",
    counted: "items, half of them repeated, found or created",
    each: 1,
    unit: "items",
    rows: 1_000,
    latency: Duration::from_millis(3),
    rounds: 5,
    goal: Goal::Faster,
    schema: "CREATE TABLE items (id serial PRIMARY KEY, name text NOT NULL UNIQUE)",
    reset: "TRUNCATE items",
    ways: &[
        Way::plain(DIESEL, |job| on::diesel(job, diesel::find_or_create_all)),
        Way::batched("Diesel, batched", DIESEL, |job| on::diesel_batched(job, diesel::find_or_create_all)),
        Way::plain(DIESEL_ASYNC, |job| on::diesel_async(job, diesel_async::find_or_create_all)),
        Way::batched("diesel-async, batched", DIESEL_ASYNC, |job| {
            on::diesel_async_batched(job, diesel_async::find_or_create_all)
        }),
        Way::plain(SEAORM, |job| on::seaorm(job, seaorm::find_or_create_all)),
        Way::batched("SeaORM, batched", SEAORM, |job| on::seaorm_batched(job, seaorm::find_or_create_all)),
        Way::bulk("unnest by hand, ON CONFLICT", DIESEL_ASYNC, |job| {
            on::tokio_postgres(job, driver::prepare, driver::find_or_create_all)
        }),
    ],
    stored: "SELECT name FROM items ORDER BY id",
    expected: |rows| (0..rows).filter(|&row| first_with_its_name(row) == row).map(name).collect(),
    yardstick: None,
    memory_limit: None,
};

/// The name of the item in a row. Every other row repeats one from anywhere before it.
pub fn name(row: usize) -> String {
    format!("item {}", first_with_its_name(row))
}

fn first_with_its_name(mut row: usize) -> usize {
    while row % 2 == 1 {
        // As good as random, and the same in every run.
        row = (row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % row;
    }
    row
}

/// Whether rows of one name, and no others, were given the same id.
fn check(rows: Range<usize>, ids: &[i32]) -> Result<()> {
    ensure!(rows.len() == ids.len(), "{} ids for {} rows", ids.len(), rows.len());
    let (mut of_names, mut of_ids) = (HashMap::new(), HashMap::new());
    for (row, &id) in rows.zip(ids) {
        let first = first_with_its_name(row);
        let (id_before, name_before) = (*of_names.entry(first).or_insert(id), *of_ids.entry(id).or_insert(first));
        ensure!(id_before == id && name_before == first, "row {row}, {}, was given the id {id}", name(row));
    }
    Ok(())
}
