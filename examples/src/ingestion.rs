//! GenBank files, over and over, through a pipeline: a file is parsed on another thread while the batch before is committed. A
//! connection that is lost is made anew, and what it was committing is committed once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use anyhow::{Context, Result};
use batch_core::ingest::{Batch, Committed, Extracted, Ingest, Marks, Report};
use batch_diesel::{AsyncPgConnection, BatchOptions};
use diesel::ConnectionError;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::upsert::excluded;
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::stream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::genbank::{self, FILES, Record};

/// The tables: organisms are shared by sequences of many batches.
pub const SQL: &str = "
CREATE TABLE organisms (name text PRIMARY KEY, division text NOT NULL);
CREATE TABLE sequences (
    id serial PRIMARY KEY, accession text NOT NULL, organism text NOT NULL REFERENCES organisms, length int NOT NULL
);
CREATE TABLE features (
    id serial PRIMARY KEY, sequence_id int NOT NULL REFERENCES sequences, kind text NOT NULL, location text NOT NULL,
    complement bool NOT NULL
);";

mod tables {
    diesel::table! {
        organisms (name) {
            name -> Text,
            division -> Text,
        }
    }

    diesel::table! {
        sequences (id) {
            id -> Integer,
            accession -> Text,
            organism -> Text,
            length -> Integer,
        }
    }

    diesel::table! {
        features (id) {
            id -> Integer,
            sequence_id -> Integer,
            kind -> Text,
            location -> Text,
            complement -> Bool,
        }
    }
}
use tables::{features, organisms, sequences};

/// The name under which items are marked.
const SOURCE: &str = "genbank";
/// Files that are parsed at a time.
const PARSERS: u32 = 4;
/// Of a commit: with their pauses they last for half a minute, in which Postgres may be started anew.
const RETRIES: u32 = 12;

/// One of the files, the so-many-th time: an item of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    file: usize,
    copy: usize,
}

impl fmt::Display for Item {
    /// What the item is known by.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", FILES[self.file].0, self.copy)
    }
}

/// The files in turn, so often.
pub fn items(copies: usize) -> impl Iterator<Item = Item> {
    (0..copies).flat_map(|copy| (0..FILES.len()).map(move |file| Item { file, copy }))
}

/// How many features one copy of all files has.
///
/// # Errors
///
/// As [`genbank::records`].
pub fn features_of_a_copy() -> Result<usize> {
    Ok(genbank::records()?.iter().map(|record| record.features.len()).sum())
}

/// How many organisms the files name; copies share them.
///
/// # Errors
///
/// As [`genbank::records`].
pub fn organisms() -> Result<usize> {
    Ok(genbank::records()?.iter().map(organism).collect::<BTreeSet<_>>().len())
}

/// Ingests so many copies of the files, but for what an earlier run has committed.
///
/// # Errors
///
/// Where Postgres fails and goes on to. What was committed before stays, and a second run goes on behind it.
pub async fn ingest(url: &str, copies: usize, on_committed: impl FnMut(&Committed) + Send) -> Result<Report> {
    let marks = Marks::new(SOURCE);
    let mut conn = connect(url, &marks).await?;
    conn.batch_execute(Marks::CREATE_TABLE_SQL).await?;
    let done: Vec<Done> = diesel::sql_query(marks.select_sql()?).load(&mut conn).await?;
    let marked = marks.clone().with_done(done.into_iter().map(|done| done.item));
    let mut conn = Some(conn);

    let parsers = Arc::new(Semaphore::new(PARSERS as usize));
    let ingest = Ingest::new()
        .concurrency(PARSERS as usize)
        .marks(marked, Item::to_string)
        .retries(RETRIES, Failed::is_transient)
        .on_batch_committed(on_committed);
    let result = ingest
        .run(
            stream::iter(items(copies).map(Ok)),
            async |item| extract(item, &parsers).await,
            async |batch| {
                // One that may be lost goes before another one comes, as it holds the lock.
                let working = match conn.take().filter(|_| batch.attempt == 0) {
                    Some(conn) => conn,
                    None => connect(url, &marks).await?,
                };
                commit(conn.insert(working), batch).await
            },
        )
        .await;
    // Where a commit has failed, nobody waits for the files that are being parsed; their threads go on.
    let _idle = parsers.acquire_many(PARSERS).await?;
    Ok(result?)
}

/// A connection that is the only one to ingest this source.
async fn connect(url: &str, marks: &Marks) -> Result<AsyncPgConnection> {
    let mut conn = AsyncPgConnection::establish(url).await?;
    batch_diesel::enable_batch_inserts_with(&mut conn, BatchOptions::new()).await?;
    // The server may still be at work for a run that was killed, or a connection that was lost.
    conn.batch_execute(&marks.lock_sql()?).await?;
    Ok(conn)
}

#[derive(QueryableByName)]
struct Done {
    #[diesel(sql_type = diesel::sql_types::Text)]
    item: String,
}

#[derive(QueryableByName)]
struct Landed {
    #[diesel(sql_type = diesel::sql_types::Bool)]
    landed: bool,
}

/// The expensive stage.
async fn extract(item: Item, parsers: &Arc<Semaphore>) -> Result<Extracted<Vec<Record>>, Failed> {
    let permit = Arc::clone(parsers).acquire_owned().await.context("no parser is left")?;
    let parse = move || {
        let _permit = permit;
        genbank::parse(FILES[item.file].1)
    };
    let parsed = spawn_blocking(parse).await.context("the parser panicked")?;
    let mut records = match parsed {
        Ok(records) => records,
        Err(error) => return Ok(Extracted::bad(format!("{error:#}"))),
    };
    for record in &mut records {
        record.accession = format!("{}#{}", record.accession, item.copy);
    }
    let rows = records.iter().map(|record| 1 + record.features.len()).sum();
    let bytes = records.iter().map(size).sum();
    Ok(Extracted::new(records, rows, bytes))
}

/// About what it takes in memory.
fn size(record: &Record) -> usize {
    let features = record.features.iter().map(|feature| {
        let qualifiers = feature.qualifiers.iter();
        let said = qualifiers.map(|q| size_of_val(q) + q.key.len() + q.value.as_ref().map_or(0, String::len));
        size_of_val(feature) + feature.kind.len() + feature.location.len() + said.sum::<usize>()
    });
    size_of_val(record) + features.sum::<usize>()
}

/// One transaction, written row by row: with batching it is a statement for each budget of rows.
async fn commit(conn: &mut AsyncPgConnection, batch: &Batch<Vec<Record>>) -> Result<(), Failed> {
    let asked = batch.landed_sql().context("asking what is done")?;
    let done = batch.marks_sql().context("marking what is done")?;
    let records = || batch.items.iter().flatten();
    // Once each: the same row may not be written twice by one statement.
    let parents: BTreeMap<&str, &str> = records().map(|record| (organism(record), record.division.as_str())).collect();
    conn.transaction(async |conn| {
        if let Some(asked) = asked
            && diesel::sql_query(asked).get_result::<Landed>(conn).await?.landed
        {
            return Ok(());
        }
        for (name, division) in parents {
            diesel::insert_into(organisms::table)
                .values((organisms::name.eq(name), organisms::division.eq(division)))
                .on_conflict(organisms::name)
                .do_update()
                .set(organisms::division.eq(excluded(organisms::division)))
                .execute(conn)
                .await?;
        }
        for record in records() {
            let sequence: i32 = diesel::insert_into(sequences::table)
                .values((
                    sequences::accession.eq(&record.accession),
                    sequences::organism.eq(organism(record)),
                    sequences::length.eq(record.length),
                ))
                .returning(sequences::id)
                .get_result(conn)
                .await?;
            for feature in &record.features {
                diesel::insert_into(features::table)
                    .values((
                        features::sequence_id.eq(sequence),
                        features::kind.eq(&feature.kind),
                        features::location.eq(&feature.location),
                        features::complement.eq(feature.complement),
                    ))
                    .execute(conn)
                    .await?;
            }
        }
        if let Some(done) = done {
            conn.batch_execute(&done).await?;
        }
        QueryResult::Ok(())
    })
    .await
    .context("committing")?;
    Ok(())
}

fn organism(record: &Record) -> &str {
    record.organism.as_deref().unwrap_or("unknown")
}

/// Why an item could not be extracted or a batch not be committed.
#[derive(Debug)]
pub struct Failed(anyhow::Error);

impl Failed {
    /// Whether it may not come again.
    fn is_transient(&self) -> bool {
        use DatabaseErrorKind::{ClosedConnection, SerializationFailure, UnableToSendCommand};

        let error = match self.0.downcast_ref() {
            Some(Error::RollbackErrorOnCommit { commit_error, .. }) => Some(&**commit_error),
            error => error,
        };
        match error {
            // What tokio-postgres has no SQLSTATE for is a connection that was lost.
            Some(Error::DatabaseError(SerializationFailure | ClosedConnection | UnableToSendCommand, _)) => true,
            Some(Error::DatabaseError(_, said)) => said.message() == "deadlock detected",
            _ => self.0.is::<ConnectionError>(),
        }
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Failed {}
