//! Rows through an expensive stage into one table, the stage overlapped with the commits or not.
//!
//! The stage is given a page of 1,000 rows at a time: it waits, as for a service that makes the page, and then parses the text that
//! came. The wait is so long that the stage takes its part of the time where nothing overlaps, by what the commit of a page was
//! measured to take. Both ways are the same code: not overlapped is [`Ingest::max_batches`] of 1.

use std::num::ParseIntError;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Result;
use batch_core::ingest::{Batch, Extracted, Ingest};
use batch_diesel::AsyncPgConnection;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};
use futures_util::stream;
use tokio::time::sleep;

use super::one_table::{self, users};
use crate::compare::connections as on;
use crate::compare::contest::median;
use crate::compare::scenario::{Scenario, Yardstick};
use crate::compare::way::{Job, Way, chunks};

/// Rows of an item of the source.
const PAGE: usize = 1_000;
/// Rows of a batch.
const BATCH: usize = 10_000;
/// Batches whose commits are measured for the yardstick.
const MEASURED: usize = 3;

const SEQUENTIAL_95: &str = "stage of 95 %, then commit";
const SEQUENTIAL_50: &str = "stage of 50 %, then commit";

pub(in crate::compare) const SCENARIO: Scenario = Scenario {
    name: "ingestion",
    rows: 100_000,
    latency: Duration::ZERO,
    rounds: 3,
    ways: &[
        Way::plain(SEQUENTIAL_95, |job| ingest(job, 0.95, 1)),
        Way::batched("stage of 95 %, overlapped", SEQUENTIAL_95, |job| ingest(job, 0.95, 2)),
        Way::plain(SEQUENTIAL_50, |job| ingest(job, 0.5, 1)),
        Way::batched("stage of 50 %, overlapped", SEQUENTIAL_50, |job| ingest(job, 0.5, 2)),
    ],
    yardstick: Some(Yardstick { name: "what a page of 1,000 rows takes to commit", measure }),
    memory_limit: Some(256 << 10),
    ..one_table::SCENARIO
};

struct User {
    name: String,
    age: i32,
}

/// `part` is the stage's of the time where nothing overlaps; so many batches are in memory.
fn ingest(job: &mut Job<'_>, part: f64, batches: usize) -> Result<Duration> {
    let wait = job.yardstick.mul_f64(part / (1.0 - part));
    on::diesel_async_batched(job, async |conn, rows| {
        // One page at a time, so that the stage's time is the sum of its pages'.
        let ingest = Ingest::new().concurrency(1).max_rows(BATCH).max_batches(batches);
        let pages = stream::iter(chunks(rows, PAGE).map(Ok));
        let stage = async |page| extract(page, wait).await;
        let commit = async |batch: &Batch<Vec<User>>| commit(conn, batch.items.iter().flatten()).await;
        ingest.run(pages, stage, commit).await?;
        Ok(())
    })
}

/// The stage; `wait` is for a whole page.
async fn extract(page: Range<usize>, wait: Duration) -> Result<Extracted<Vec<User>>, ParseIntError> {
    sleep(wait.mul_f64(page.len() as f64 / PAGE as f64)).await;
    let users = parse(&text(page))?;
    let bytes = users.iter().map(|user| size_of_val(user) + user.name.len()).sum();
    let rows = users.len();
    Ok(Extracted::new(users, rows, bytes))
}

/// `user 17,17`, a line a row.
fn text(page: Range<usize>) -> String {
    page.map(|row| format!("{},{row}\n", one_table::name(row))).collect()
}

fn parse(page: &str) -> Result<Vec<User>, ParseIntError> {
    let line = |line: &str| {
        let (name, age) = line.split_once(',').unwrap_or((line, ""));
        Ok(User { name: name.to_owned(), age: age.parse()? })
    };
    page.lines().map(line).collect()
}

async fn commit(conn: &mut AsyncPgConnection, users: impl Iterator<Item = &User> + Send) -> QueryResult<()> {
    conn.transaction(async |conn| {
        for user in users {
            let values = (users::name.eq(&user.name), users::age.eq(user.age));
            diesel::insert_into(users::table).values(values).execute(conn).await?;
        }
        Ok(())
    })
    .await
}

/// What a page's part of a commit takes, alone.
fn measure(url: &str) -> Result<Duration> {
    let mut times = Vec::new();
    let mut job = Job { url, rows: MEASURED * BATCH, yardstick: Duration::ZERO, ready: &mut || Ok(()) };
    on::diesel_async_batched(&mut job, async |conn, rows| {
        times.clear();
        for batch in chunks(rows, BATCH) {
            let users = parse(&text(batch))?;
            let start = Instant::now();
            commit(conn, users.iter()).await?;
            times.push(start.elapsed());
        }
        Ok(())
    })?;
    Ok(median(times.into_iter(), Duration::cmp) / (BATCH / PAGE) as u32)
}
