//! A way of inserting rows one by one by many clients at a time.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use batch_core::{BatchOptions, GroupCommit, GroupStats};
use futures_util::future::try_join_all;
use tokio::runtime::{self, Runtime};

use super::client::{Client, Log, Window};
use super::{diesel, diesel_async, seaorm};

/// One way.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// As the tables call it.
    pub name: &'static str,
    /// As `--orm` calls its ORM.
    pub orm: &'static str,
    /// Whether it is what the other of the ORM is compared with.
    pub is_plain: bool,
    run: fn(Job<'_>) -> Result<Done>,
}

/// All ways; each ORM's plain one before the one with group commit.
pub const WAYS: [Way; 6] = [
    Way { name: "Diesel", orm: "diesel", is_plain: true, run: diesel::plain },
    Way { name: "Diesel, group commit", orm: "diesel", is_plain: false, run: diesel::group_commit },
    Way { name: "diesel-async", orm: "diesel-async", is_plain: true, run: diesel_async::plain },
    Way { name: "diesel-async, group commit", orm: "diesel-async", is_plain: false, run: diesel_async::group_commit },
    Way { name: "SeaORM", orm: "seaorm", is_plain: true, run: seaorm::plain },
    Way { name: "SeaORM, group commit", orm: "seaorm", is_plain: false, run: seaorm::group_commit },
];

/// What the clients of a way have to do, and with what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job<'a> {
    pub url: &'a str,
    pub clients: usize,
    /// How long it is measured.
    pub time: Duration,
    /// Connections of a pool that clients take one from for each insert. None: Diesel and diesel-async have a connection for
    /// each client, and SeaORM a pool of [`Job::MOST`].
    pub pool: Option<usize>,
    /// Of a hundred inserts, so many have a text that is taken.
    pub duplicates: u32,
    /// Worker threads of tokio.
    pub threads: usize,
    pub group_commit: GroupCommit,
}

/// What all clients of a way did.
#[derive(Debug)]
pub(super) struct Done {
    /// Of each client.
    pub logs: Vec<Log>,
    /// What group commit counted meanwhile.
    pub groups: Option<Groups>,
}

/// Statements that were sent for rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    pub rows: u64,
    pub statements: u64,
}

impl Groups {
    /// Those between two readings of the counters.
    pub(super) fn between(before: &GroupStats, after: &GroupStats) -> Self {
        let alone = after.alone - before.alone;
        Self { rows: alone + after.rows - before.rows, statements: alone + after.groups - before.groups }
    }
}

impl Way {
    pub(super) fn run(self, job: Job<'_>) -> Result<Done> {
        (self.run)(job).with_context(|| self.name.to_owned())
    }
}

impl Job<'_> {
    const MOST: usize = 64;

    /// How many connections a pool has.
    pub(super) fn connections(&self) -> u32 {
        self.pool.unwrap_or(self.clients.min(Self::MOST)) as u32
    }

    /// The clients, who insert from now on.
    pub(super) fn clients(&self) -> impl Iterator<Item = Client> + use<> {
        Client::several(self.clients, self.duplicates, Window::open(self.time))
    }

    pub(super) fn options(&self) -> BatchOptions {
        BatchOptions::new().group_commit(self.group_commit)
    }

    pub(super) fn runtime(&self) -> Result<Runtime> {
        Ok(runtime::Builder::new_multi_thread().worker_threads(self.threads).enable_all().build()?)
    }
}

/// Runs each client by a task of its own.
pub(super) async fn tasks<F>(clients: impl Iterator<Item = F>) -> Result<Vec<Log>>
where
    F: Future<Output = Result<Log>> + Send + 'static,
{
    let tasks: Vec<_> = clients.map(tokio::spawn).collect();
    try_join_all(tasks).await?.into_iter().collect()
}
