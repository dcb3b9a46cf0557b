//! Ingestion of a stream through an expensive stage: batches are committed while the next ones are extracted.
//!
//! ```text
//! source → stage (so many at a time) → batch N+1 fills up
//!                                      batch N is being committed
//! ```
//!
//! Items are committed in the order of the source, and memory is bounded: by the batches that may be held
//! ([`Ingest::max_batches`]), which share one budget of bytes, and by the items that the stage works on. The commit is the
//! program's own code, on the ORM's connection with batching on. It borrows the batch, which stays held until its commit is known
//! and can so be committed again ([`Ingest::retries`]).
//!
//! ```
//! use batch_core::ingest::{Extracted, Ingest};
//! use futures_util::stream;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let source = stream::iter((0..1_000).map(Ok::<u32, std::io::Error>));
//! let mut committed = Vec::new();
//! let report = Ingest::new()
//!     .max_rows(100)
//!     .run(
//!         source,
//!         async |n: u32| match n % 7 {
//!             0 => Ok(Extracted::bad("a multiple of seven")),
//!             _ => Ok(Extracted::new(n, 1, size_of::<u32>())),
//!         },
//!         async |batch| {
//!             // begin a transaction, insert batch.items with the ORM, commit
//!             committed.extend_from_slice(&batch.items);
//!             Ok::<(), std::io::Error>(())
//!         },
//!     )
//!     .await?;
//! assert_eq!((report.items, report.batches, report.bad.len()), (857, 9, 143));
//! # assert_eq!(committed.len(), 857);
//! # Ok(())
//! # }
//! ```

use std::collections::VecDeque;
use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::future::{self, Either};
use futures_util::stream::{Stream, StreamExt};

mod marks;
mod memory;
mod retry;

pub use marks::{BadMark, Marks};

use memory::Share;
use retry::Retry;

/// How a stream of `T` is ingested by a commit that fails with `C`.
pub struct Ingest<'a, T, C> {
    concurrency: usize,
    max_rows: usize,
    max_bytes: Option<usize>,
    memory: Share,
    max_batches: usize,
    max_bad: usize,
    marks: Option<Marks>,
    key: Option<Key<'a, T>>,
    retry: Retry<'a, C>,
    on_batch_committed: Option<OnCommitted<'a>>,
}

type Key<'a, T> = Box<dyn Fn(&T) -> String + Send + Sync + 'a>;
type OnCommitted<'a> = Box<dyn FnMut(&Committed) + Send + 'a>;

impl<T, C> fmt::Debug for Ingest<'_, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingest")
            .field("concurrency", &self.concurrency)
            .field("max_rows", &self.max_rows)
            .field("max_bytes", &self.max_bytes)
            .field("memory", &self.memory)
            .field("max_batches", &self.max_batches)
            .field("max_bad", &self.max_bad)
            .field("marks", &self.marks)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// What the stage made of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted<U>(Outcome<U>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome<U> {
    Good { value: U, rows: usize, bytes: usize },
    Bad { reason: String },
}

impl<U> Extracted<U> {
    /// Something to commit, which will be so many rows and takes so many bytes of memory.
    pub fn new(value: U, rows: usize, bytes: usize) -> Self {
        Self(Outcome::Good { value, rows, bytes })
    }

    /// An item that cannot be used: it is set aside, and the stream goes on.
    pub fn bad(reason: impl Into<String>) -> Self {
        Self(Outcome::Bad { reason: reason.into() })
    }
}

/// Items that are committed together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch<U> {
    /// Counted from 0 in this run.
    pub number: u64,
    /// How many tries to commit it have failed ([`Ingest::retries`]).
    pub attempt: u32,
    /// What the stage made, in the order of the source.
    pub items: Vec<U>,
    /// Their rows, as the stage said.
    pub rows: usize,
    /// Their bytes, as the stage said.
    pub bytes: usize,
    /// Items of the source that were set aside between those.
    pub bad: Vec<Bad>,
    /// The first position in the source that the batch stands for.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// The items' keys, where the source has [`Marks`].
    pub keys: Vec<String>,
    marks: Option<Marks>,
}

impl<U> Batch<U> {
    /// The statement that marks the batch's items as done, to be run in the transaction of their rows; `None` where the
    /// source has no [`Marks`], or nothing was good.
    ///
    /// # Errors
    ///
    /// Where a key contains a NUL, which Postgres does not store.
    pub fn marks_sql(&self) -> Result<Option<String>, BadMark> {
        match &self.marks {
            Some(marks) if !self.keys.is_empty() => marks.insert_sql(&self.keys).map(Some),
            _ => Ok(None),
        }
    }

    /// The query that tells whether a try before this one has committed the batch, although its connection was lost before that
    /// was known: one row with one `bool`, `landed`. To be run before the rows are written; where it says true, they are there,
    /// and the commit is done. `None` in the first try, and where there are no marks.
    ///
    /// A commit that does not ask writes nothing twice: its marks fail on the table's key, and so the ingestion ends.
    ///
    /// # Errors
    ///
    /// Where a key contains a NUL, which Postgres does not store.
    pub fn landed_sql(&self) -> Result<Option<String>, BadMark> {
        match &self.marks {
            Some(marks) if self.attempt > 0 && !self.keys.is_empty() => marks.landed_sql(&self.keys).map(Some),
            _ => Ok(None),
        }
    }
}

/// An item that the stage could not use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Where it stood in the source, counted from 0.
    pub position: u64,
    /// Its key, where the source has [`Marks`].
    pub key: Option<String>,
    /// As the stage said.
    pub reason: String,
}

/// What was committed with one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// The batch's number, counted from 0.
    pub batch: u64,
    /// Items in it.
    pub items: usize,
    /// Rows in it.
    pub rows: usize,
    /// Bytes that it took.
    pub bytes: usize,
    /// Items set aside.
    pub bad: usize,
    /// The last position of the source that is dealt with.
    pub cursor: u64,
    /// How often the commit was tried again.
    pub retries: u32,
    /// How long the commit took, its retries and the pauses before them included.
    pub took: Duration,
}

/// What was ingested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Batches that were committed.
    pub batches: u64,
    /// Items in them.
    pub items: u64,
    /// Rows in them.
    pub rows: u64,
    /// Items that an earlier run had marked.
    pub skipped: u64,
    /// Items that were set aside.
    pub bad: Vec<Bad>,
    /// How often a commit was tried again, one that failed in the end among them.
    pub retries: u64,
}

/// Why an ingestion ended before its source did.
#[derive(Debug)]
#[non_exhaustive]
pub struct IngestError<E, C> {
    /// What failed.
    pub kind: IngestErrorKind<E, C>,
    /// What was committed before.
    pub report: Report,
    /// Positions in the source that came out of the stage and are not committed. Those that an earlier run had marked are
    /// among them, but not their keys.
    pub uncommitted: std::ops::Range<u64>,
    /// The keys of those that had been extracted, where the source has [`Marks`].
    pub uncommitted_keys: Vec<String>,
    /// Of the batch that failed.
    retries: u32,
}

/// What failed in an ingestion.
#[derive(Debug)]
pub enum IngestErrorKind<E, C> {
    /// The source or the stage. All that came before was committed.
    Extract(E),
    /// The commit of a batch, the last time that it was tried. Those before it are committed, it and what came behind is not. Only
    /// if its connection was lost it may be: the next run's marks tell.
    Commit(C),
    /// More items were set aside than [`Ingest::max_bad`] allows. All that came before was committed.
    TooManyBad,
}

impl<E: fmt::Display, C: fmt::Display> fmt::Display for IngestError<E, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            IngestErrorKind::Extract(error) => {
                write!(f, "item {} of the source failed: {error}", self.uncommitted.end)?
            }
            IngestErrorKind::Commit(error) => {
                write!(f, "batch {} could not be committed", self.report.batches)?;
                if self.retries > 0 {
                    write!(f, ", tried {} times", self.retries + 1)?;
                }
                write!(f, ": {error}")?
            }
            IngestErrorKind::TooManyBad => {
                write!(f, "{} items of the source are bad", self.report.bad.len())?;
                if let Some(last) = self.report.bad.last() {
                    write!(f, ", the last of them item {}: {}", last.position, last.reason)?;
                }
            }
        }
        let std::ops::Range { start, end } = self.uncommitted;
        match end.checked_sub(start) {
            Some(0) | None => write!(f, "; all items before it are committed"),
            Some(_) => write!(f, "; items {start} to {} are not committed", end - 1),
        }
    }
}

impl<E, C> std::error::Error for IngestError<E, C>
where
    E: std::error::Error + 'static,
    C: std::error::Error + 'static,
{
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            IngestErrorKind::Extract(error) => Some(error),
            IngestErrorKind::Commit(error) => Some(error),
            IngestErrorKind::TooManyBad => None,
        }
    }
}

impl<'a, T, C> Ingest<'a, T, C> {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            concurrency: 4,
            max_rows: 10_000,
            max_bytes: None,
            memory: Share::default(),
            max_batches: 2,
            max_bad: 1_000,
            marks: None,
            key: None,
            retry: Retry::default(),
            on_batch_committed: None,
        }
    }

    /// So many items are in the stage at a time. They are futures of one task: a stage that computes hands its work to
    /// other threads (`tokio::task::spawn_blocking`). A commit that fails drops the futures; what they handed to threads goes
    /// on, unless the program waits for it.
    ///
    /// Defaults to 4.
    ///
    /// # Panics
    ///
    /// Panics if `items` is 0.
    pub fn concurrency(mut self, items: usize) -> Self {
        assert!(items > 0, "a stage that takes no items never ends");
        self.concurrency = items;
        self
    }

    /// A batch is full with so many rows, or with the item that goes past it.
    ///
    /// Defaults to 10,000.
    ///
    /// # Panics
    ///
    /// Panics if `rows` is 0.
    pub fn max_rows(mut self, rows: usize) -> Self {
        assert!(rows > 0, "a batch has at least one row");
        self.max_rows = rows;
        self
    }

    /// All batches in memory together take so many bytes, as the stage counts them, and an item each beyond.
    ///
    /// Defaults to a part of the memory that the process may use (its cgroup's limit, or the machine's):
    /// [`memory_fraction`](Self::memory_fraction), [`memory_floor`](Self::memory_floor),
    /// [`memory_ceiling`](Self::memory_ceiling).
    ///
    /// # Panics
    ///
    /// Panics if `bytes` is 0.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        assert!(bytes > 0, "a batch has at least one byte");
        self.max_bytes = Some(bytes);
        self
    }

    /// Which part of the memory that the process may use all batches take together, where [`max_bytes`](Self::max_bytes) does
    /// not say how many bytes.
    ///
    /// Defaults to an eighth, 0.125.
    ///
    /// # Panics
    ///
    /// Panics if `fraction` is not above 0 and at most 1.
    pub fn memory_fraction(mut self, fraction: f64) -> Self {
        assert!(fraction > 0.0 && fraction <= 1.0, "a part of the memory is above 0 and at most 1");
        self.memory.fraction = fraction;
        self
    }

    /// That part is at least so many bytes, however little memory there is.
    ///
    /// Defaults to 8 MiB.
    pub fn memory_floor(mut self, bytes: usize) -> Self {
        self.memory.floor = bytes;
        self
    }

    /// That part is at most so many bytes, even if the floor is above.
    ///
    /// Defaults to 256 MiB.
    ///
    /// # Panics
    ///
    /// Panics if `bytes` is 0.
    pub fn memory_ceiling(mut self, bytes: usize) -> Self {
        assert!(bytes > 0, "a batch has at least one byte");
        self.memory.ceiling = bytes;
        self
    }

    /// So many batches are in memory at a time: the one that is being committed, and those that are extracted meanwhile.
    ///
    /// Defaults to 2. With 1, nothing is extracted during a commit.
    ///
    /// # Panics
    ///
    /// Panics if `batches` is 0.
    pub fn max_batches(mut self, batches: usize) -> Self {
        assert!(batches > 0, "there is at least the batch that is committed");
        self.max_batches = batches;
        self
    }

    /// Ends the ingestion where more items than these are bad.
    ///
    /// Defaults to 1,000. They are kept, with their reasons, for the report.
    pub fn max_bad(mut self, items: usize) -> Self {
        self.max_bad = items;
        self
    }

    /// Skips the items whose keys are marked, and gives each batch the statement that marks its own
    /// ([`Batch::marks_sql`]). `key` is what an item is known by: the same in each run, and no other's.
    pub fn marks(mut self, marks: Marks, key: impl Fn(&T) -> String + Send + Sync + 'a) -> Self {
        self.marks = Some(marks);
        self.key = Some(Box::new(key));
        self
    }

    /// Tries a commit again, up to so many times a batch, where `is_transient` says that its error may not come again: a
    /// serialization failure or a deadlock (SQLSTATE 40001 and 40P01), a connection that was lost. Meanwhile the batch is held, and
    /// the next one is extracted.
    ///
    /// The commit is called anew with the same batch, so it brings a connection that works and a transaction of its own. Of a
    /// connection that was lost nobody knows whether the batch had landed: count it as transient only with
    /// [`marks`](Self::marks), and ask [`Batch::landed_sql`] first. As a try that was given up may land even behind that
    /// question, and the next one then fails on rows that are there, one failure behind a transient one is tried once more
    /// whatever it is, where there are marks.
    ///
    /// ```
    /// use batch_core::ingest::{Batch, Extracted, Ingest, Marks};
    /// # use futures_util::stream;
    /// # use std::io::{Error, ErrorKind};
    /// # struct Client;
    /// # async fn connect() -> Result<Client, Error> { Ok(Client) }
    /// # impl Client {
    /// #     async fn ask(&self, _: &str) -> Result<bool, Error> { Ok(false) }
    /// #     async fn execute(&self, _: &str) -> Result<(), Error> { Ok(()) }
    /// # }
    ///
    /// async fn commit(batch: &Batch<u32>) -> Result<(), Error> {
    ///     let client = connect().await?; // or from a pool
    ///     client.execute("BEGIN").await?;
    ///     if let Some(sql) = batch.landed_sql().map_err(Error::other)?
    ///         && client.ask(&sql).await?
    ///     {
    ///         return Ok(()); // an earlier try got that far
    ///     }
    ///     // insert batch.items with the ORM, then:
    ///     if let Some(sql) = batch.marks_sql().map_err(Error::other)? {
    ///         client.execute(&sql).await?;
    ///     }
    ///     client.execute("COMMIT").await
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let source = stream::iter((0..1_000).map(Ok::<u32, Error>));
    /// # let stage = async |n: u32| Ok(Extracted::new(n, 1, 4));
    /// Ingest::new()
    ///     .marks(Marks::new("numbers"), u32::to_string)
    ///     .retries(5, |error: &Error| error.kind() == ErrorKind::ConnectionReset)
    ///     .run(source, stage, commit)
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Defaults to none.
    pub fn retries(mut self, retries: u32, is_transient: impl Fn(&C) -> bool + Send + Sync + 'a) -> Self {
        self.retry.retries = retries;
        self.retry.is_transient = Some(Box::new(is_transient));
        self
    }

    /// How long a batch waits before its commit is tried again: the first time so long, and twice as long as before each
    /// further time, but never longer than `longest`.
    ///
    /// Defaults to 50 ms and 5 s.
    pub fn retry_pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.retry.first_pause = first;
        self.retry.longest_pause = longest;
        self
    }

    /// Calls `f` after each commit. Beside it, `tracing` is told: `DEBUG` of each commit, `WARN` of each retry.
    pub fn on_batch_committed(mut self, f: impl FnMut(&Committed) + Send + 'a) -> Self {
        self.on_batch_committed = Some(Box::new(f));
        self
    }

    /// Takes every item of the source through the stage and commits what it makes, in the order of the source.
    ///
    /// Stage and commit are futures of one task: a commit that computes without waiting holds the stage up. Inserts that batching
    /// keeps in memory on the async adapters give way by themselves, every 64 rows.
    ///
    /// Where this future is dropped, so is what is in flight: the commit as well, whose transaction then rolls back.
    ///
    /// # Errors
    ///
    /// [`IngestError`], which says what is not committed. Where the source or the stage fails, what came before is committed
    /// first; where a commit fails, the stage is cancelled: no future of it is left when this returns.
    pub async fn run<U, E>(
        mut self,
        source: impl Stream<Item = Result<T, E>>,
        stage: impl AsyncFn(T) -> Result<Extracted<U>, E>,
        mut commit: impl AsyncFnMut(&Batch<U>) -> Result<(), C>,
    ) -> Result<Report, IngestError<E, C>> {
        let key = self.key.take();
        let marks = self.marks.take();
        let stage = &stage;
        let keyed = source.enumerate().map(|(position, item)| {
            let item = item.map(|item| (key.as_ref().map(|key| key(&item)), item));
            let is_done = match (&item, &marks) {
                (Ok((Some(key), _)), Some(marks)) => marks.is_done(key),
                _ => false,
            };
            (position as u64, item, is_done)
        });
        let extracted = keyed.map(async |(position, item, is_done)| {
            let arrived = match item {
                _ if is_done => Ok(Arrived::Skipped),
                Ok((key, item)) => stage(item).await.map(|Extracted(outcome)| Arrived::Extracted(key, outcome)),
                Err(error) => Err(error),
            };
            (position, arrived)
        });
        let stream = pin!(extracted.buffered(self.concurrency));
        let total = self.max_bytes.unwrap_or_else(|| self.memory.bytes());
        let mut filling = Filling {
            stream,
            marks: marks.as_ref(),
            max_rows: self.max_rows,
            max_bytes: (total / self.max_batches).max(1),
            max_bad: self.max_bad,
            ready: VecDeque::new(),
            open: None,
            numbered: 0,
            bad: 0,
            skipped: 0,
            read: 0,
            end: None,
        };
        let mut report = Report::default();
        let mut committed_to = 0;
        while let Some(mut batch) = filling.next().await {
            let start = Instant::now();
            let result = {
                let committing = pin!(self.retry.commit(&mut batch, &mut commit));
                match future::select(committing, pin!(filling.fill(self.max_batches - 1))).await {
                    Either::Left((result, _)) => result,
                    Either::Right(((), committing)) => committing.await,
                }
            };
            report.retries += u64::from(batch.attempt);
            if let Err(error) = result {
                let retries = batch.attempt;
                report.skipped = filling.skipped;
                let uncommitted = committed_to..filling.read;
                let batches = std::iter::once(batch).chain(filling.ready).chain(filling.open);
                let uncommitted_keys = batches.flat_map(|batch| batch.keys).collect();
                let kind = IngestErrorKind::Commit(error);
                return Err(IngestError { kind, report, uncommitted, uncommitted_keys, retries });
            }
            let done = Committed {
                batch: batch.number,
                items: batch.items.len(),
                rows: batch.rows,
                bytes: batch.bytes,
                bad: batch.bad.len(),
                cursor: batch.last,
                retries: batch.attempt,
                took: start.elapsed(),
            };
            tracing::debug!(
                batch = done.batch,
                items = done.items,
                rows = done.rows,
                bad = done.bad,
                cursor = done.cursor,
                retries = done.retries,
                took = ?done.took,
                "a batch is committed"
            );
            committed_to = done.cursor + 1;
            report.batches += 1;
            report.items += done.items as u64;
            report.rows += done.rows as u64;
            report.bad.extend(batch.bad);
            if let Some(on_batch_committed) = &mut self.on_batch_committed {
                on_batch_committed(&done);
            }
        }
        report.skipped = filling.skipped;
        let kind = match filling.end {
            None | Some(End::Source) => return Ok(report),
            Some(End::Failed(error)) => IngestErrorKind::Extract(error),
            Some(End::TooManyBad) => IngestErrorKind::TooManyBad,
        };
        let uncommitted = filling.read..filling.read;
        Err(IngestError { kind, report, uncommitted, uncommitted_keys: Vec::new(), retries: 0 })
    }
}

impl<T, C> Default for Ingest<'_, T, C> {
    fn default() -> Self {
        Self::new()
    }
}

/// What came out of the stage.
enum Arrived<U> {
    Skipped,
    Extracted(Option<String>, Outcome<U>),
}

/// Why nothing more comes.
enum End<E> {
    Source,
    Failed(E),
    TooManyBad,
}

/// Makes batches of what comes out of the stage.
struct Filling<'a, S, U, E> {
    stream: S,
    marks: Option<&'a Marks>,
    max_rows: usize,
    /// Of one batch.
    max_bytes: usize,
    max_bad: usize,
    /// Full ones.
    ready: VecDeque<Batch<U>>,
    /// The one that fills up.
    open: Option<Batch<U>>,
    numbered: u64,
    bad: usize,
    skipped: u64,
    /// Positions that came out of the stage.
    read: u64,
    end: Option<End<E>>,
}

impl<S, U, E> Filling<'_, S, U, E>
where
    S: Stream<Item = (u64, Result<Arrived<U>, E>)> + Unpin,
{
    /// The next batch; the last one need not be full.
    async fn next(&mut self) -> Option<Batch<U>> {
        self.fill(1).await;
        self.ready.pop_front().or_else(|| self.open.take())
    }

    /// Takes items until so many batches are full, or none come any more. May be dropped at any time.
    async fn fill(&mut self, batches: usize) {
        while self.ready.len() < batches && self.end.is_none() {
            match self.stream.next().await {
                None => self.end = Some(End::Source),
                Some((_, Err(error))) => self.end = Some(End::Failed(error)),
                Some((position, Ok(arrived))) => {
                    self.read = position + 1;
                    self.take(position, arrived);
                }
            }
        }
    }

    fn take(&mut self, position: u64, arrived: Arrived<U>) {
        let (key, outcome) = match arrived {
            Arrived::Skipped => {
                self.skipped += 1;
                return;
            }
            Arrived::Extracted(key, outcome) => (key, outcome),
        };
        let (numbered, marks) = (&mut self.numbered, self.marks);
        let batch = self.open.get_or_insert_with(|| {
            *numbered += 1;
            Batch {
                number: *numbered - 1,
                attempt: 0,
                items: Vec::new(),
                rows: 0,
                bytes: 0,
                bad: Vec::new(),
                first: position,
                last: position,
                keys: Vec::new(),
                marks: marks.map(Marks::named),
            }
        });
        batch.last = position;
        match outcome {
            Outcome::Good { value, rows, bytes } => {
                batch.items.push(value);
                batch.rows += rows;
                batch.bytes += bytes;
                batch.keys.extend(key);
            }
            Outcome::Bad { reason } => {
                batch.bad.push(Bad { position, key, reason });
                self.bad += 1;
                if self.bad > self.max_bad {
                    self.end = Some(End::TooManyBad);
                }
            }
        }
        if batch.rows >= self.max_rows || batch.bytes >= self.max_bytes {
            self.ready.extend(self.open.take());
        }
    }
}

#[cfg(test)]
mod tests;
