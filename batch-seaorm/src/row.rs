//! Answers as sqlx's own rows and results.
//!
//! A program reads a returned row by whatever Rust types it likes: a `timestamptz` as chrono's `DateTime<Utc>`, as its
//! `DateTime<FixedOffset>`, or as time's `OffsetDateTime`; by name or by position. Only a [`PgRow`] answers to all of
//! them as Postgres' own would, and only a connection of sqlx makes one. So answers go through such a connection: a
//! [`Mirror`] is one whose other end is held here, in the same process, and is told what it gets to read. It has sent one
//! query, and that never ends: each answer is some more of its result. That costs two system calls an answer and no
//! task or thread.
//!
//! The connection belongs to a runtime of its own that nobody drives: on the program's, each answer would wake a thread
//! that waits for events, to tell it what the thread that wrote the answer knows. What is written is there when it is
//! read, so that sqlx need not wait. Only where a socket cannot hold all of an answer is the runtime driven, by a thread
//! that ends with it.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::thread;

use batch_core::{Field, Rows};
use futures_util::Stream;
use futures_util::future::poll_fn;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection, PgQueryResult, PgRow, PgSslMode};
use sea_orm::sqlx::{self, ConnectOptions, Connection, Either, Executor};
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;

type Item = Result<Either<PgQueryResult, PgRow>, sqlx::Error>;
type Results = Pin<Box<dyn Stream<Item = Item> + Send>>;

/// What the connections belong to. Never dropped, as that is not allowed where a runtime is running.
fn reactor() -> io::Result<&'static Runtime> {
    static REACTOR: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let made = REACTOR
        .get_or_init(|| runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string()));
    made.as_ref().map_err(|error| io::Error::other(error.as_str()))
}

/// Waits for `work` on a thread that drives the connections' runtime for as long.
async fn driven<T: Send + 'static>(
    work: impl Future<Output = Result<T, sqlx::Error>> + Send + 'static,
) -> Result<T, sqlx::Error> {
    let reactor = reactor()?;
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new().name("batched-writes".into()).spawn(move || drop(sender.send(reactor.block_on(work))))?;
    receiver.await.unwrap_or_else(|_| Err(closed()))
}

/// A connection to ourselves.
pub(crate) struct Mirror {
    socket: wire::Socket,
    results: Results,
    fields: Option<Arc<[Field]>>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mirror")
    }
}

impl Mirror {
    /// # Errors
    ///
    /// Where the process may open no more sockets, or there is no folder for temporary files.
    pub(crate) async fn connect() -> Result<Self, sqlx::Error> {
        driven(Self::open()).await
    }

    async fn open() -> Result<Self, sqlx::Error> {
        let listener = wire::Listener::open()?;
        let options = listener
            .at(PgConnectOptions::new_without_pgpass())
            .ssl_mode(PgSslMode::Disable)
            .username("batch")
            .database("batch")
            .disable_statement_logging();
        let mut results: Results = Box::pin(async_stream::try_stream! {
            let mut conn = PgConnection::connect_with(&options).await?;
            let mut results = conn.fetch_many(sqlx::query("answers").persistent(false));
            while let Some(result) = futures_util::StreamExt::next(&mut results).await {
                yield result?;
            }
        });
        let socket = poll_fn(|cx| {
            if let Poll::Ready(result) = results.as_mut().poll_next(cx) {
                return Poll::Ready(Err(result.map_or_else(|| Ok(()), |r| r.map(drop)).err().unwrap_or_else(closed)));
            }
            match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                accepted => Poll::Ready(accepted.map_err(sqlx::Error::from)),
            }
        })
        .await?;
        let mut mirror = Self { socket, results, fields: None, buffer: Vec::new() };
        mirror.greet();
        let (mirror, first) = mirror.wait(1).await?;
        debug_assert!(matches!(*first, [Either::Left(_)]), "the greeting ends with a result");
        Ok(mirror)
    }

    /// All that a server says until the query runs, up to a first result.
    fn greet(&mut self) {
        let ready = |buffer: &mut Vec<u8>| message(buffer, b'Z', |body| body.push(b'I'));
        // AuthenticationOk
        message(&mut self.buffer, b'R', |body| body.extend_from_slice(&0_i32.to_be_bytes()));
        ready(&mut self.buffer);
        // ParseComplete, ParameterDescription of no parameters, NoData
        message(&mut self.buffer, b'1', |_| ());
        message(&mut self.buffer, b't', |body| body.extend_from_slice(&0_i16.to_be_bytes()));
        message(&mut self.buffer, b'n', |_| ());
        ready(&mut self.buffer);
        // BindComplete
        message(&mut self.buffer, b'2', |_| ());
        complete(&mut self.buffer, 0);
    }

    /// The rows of an answer. Like [`Mirror::count`], it takes the connection, so that a future that is dropped leaves
    /// none that is out of step.
    pub(crate) async fn rows(mut self, rows: &Rows) -> Result<(Self, Vec<PgRow>), sqlx::Error> {
        if rows.is_empty() {
            return Ok((self, Vec::new()));
        }
        if self.fields.as_deref() != Some(rows.fields()) {
            describe(&mut self.buffer, rows.fields());
            self.fields = Some(rows.fields().into());
        }
        for row in 0..rows.len() {
            message(&mut self.buffer, b'D', |body| {
                body.extend_from_slice(&(rows.fields().len() as i16).to_be_bytes());
                for column in 0..rows.fields().len() {
                    let value = rows.get(row, column);
                    body.extend_from_slice(&value.map_or(-1, |value| value.len() as i32).to_be_bytes());
                    body.extend_from_slice(value.unwrap_or_default());
                }
            });
        }
        let (mirror, results) = self.read(rows.len()).await?;
        let rows = results.into_iter().map(|result| result.right().ok_or_else(closed));
        Ok((mirror, rows.collect::<Result<_, _>>()?))
    }

    /// The result of a statement that inserted so many rows.
    pub(crate) async fn count(mut self, rows: usize) -> Result<(Self, PgQueryResult), sqlx::Error> {
        complete(&mut self.buffer, rows);
        let (mirror, mut results) = self.read(1).await?;
        let result = results.pop().and_then(Either::left).ok_or_else(closed)?;
        Ok((mirror, result))
    }

    /// So many results of what is in the buffer.
    async fn read(mut self, count: usize) -> Result<(Self, Vec<Either<PgQueryResult, PgRow>>), sqlx::Error> {
        self.write()?;
        if !self.buffer.is_empty() {
            return driven(self.wait(count)).await;
        }
        let mut results = Vec::with_capacity(count);
        poll_fn(|cx| {
            while results.len() < count {
                match self.results.as_mut().poll_next(cx) {
                    Poll::Ready(Some(result)) => results.push(result?),
                    Poll::Ready(None) | Poll::Pending => return Poll::Ready(Err(closed())),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        Ok((self, results))
    }

    /// Like [`Mirror::read`], for what the socket cannot hold at once.
    async fn wait(mut self, count: usize) -> Result<(Self, Vec<Either<PgQueryResult, PgRow>>), sqlx::Error> {
        let mut results = Vec::with_capacity(count);
        while results.len() < count {
            results.push(poll_fn(|cx| self.poll(cx)).await?);
        }
        Ok((self, results))
    }

    /// Writes what is to be read, as much as there is room for, and reads.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Item> {
        self.write()?;
        loop {
            match self.results.as_mut().poll_next(cx) {
                Poll::Ready(result) => return Poll::Ready(result.unwrap_or_else(|| Err(closed()))),
                // What was read may have made room for the rest. Where it did not, there is more to read.
                Poll::Pending if self.write()? => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// As much as there is room for; whether there was any.
    fn write(&mut self) -> io::Result<bool> {
        let mut written = 0;
        while written < self.buffer.len() {
            match self.socket.write(&self.buffer[written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.buffer.drain(..written);
        Ok(written > 0)
    }
}

fn closed() -> sqlx::Error {
    sqlx::Error::Protocol("batched writes: the connection that makes rows is out of step".to_owned())
}

/// A message of the server: its kind, its length and its body.
fn message(buffer: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    buffer.push(kind);
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    body(buffer);
    let len = (buffer.len() - start) as i32;
    buffer[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// RowDescription
fn describe(buffer: &mut Vec<u8>, fields: &[Field]) {
    message(buffer, b'T', |body| {
        body.extend_from_slice(&(fields.len() as i16).to_be_bytes());
        for field in fields {
            body.extend_from_slice(field.name.as_bytes());
            body.push(0);
            // Of no table and no column of one.
            body.extend_from_slice(&[0; 6]);
            body.extend_from_slice(&field.type_oid.to_be_bytes());
            // Its length and modifier matter to nobody; the format is binary.
            body.extend_from_slice(&(-1_i16).to_be_bytes());
            body.extend_from_slice(&(-1_i32).to_be_bytes());
            body.extend_from_slice(&1_i16.to_be_bytes());
        }
    });
}

/// CommandComplete
fn complete(buffer: &mut Vec<u8>, rows: usize) {
    message(buffer, b'C', |body| body.extend_from_slice(format!("INSERT 0 {rows}\0").as_bytes()));
}

/// A socket that nobody else can connect to: its file is in a folder of our own, and gone as soon as the connection is
/// there.
#[cfg(unix)]
mod wire {
    use std::io;
    use std::os::unix::fs::DirBuilderExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;

    use sea_orm::sqlx::postgres::PgConnectOptions;

    pub(super) type Socket = UnixStream;

    pub(super) struct Listener {
        listener: UnixListener,
        folder: PathBuf,
    }

    impl Listener {
        pub(super) fn open() -> io::Result<Self> {
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
            let name = format!("batch-{:x}", u64::from_ne_bytes(random));
            let folder = std::env::temp_dir().join(name);
            std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
            let listener = UnixListener::bind(folder.join(".s.PGSQL.5432")).inspect_err(|_| remove(&folder))?;
            let opened = Self { listener, folder };
            opened.listener.set_nonblocking(true)?;
            Ok(opened)
        }

        pub(super) fn at(&self, options: PgConnectOptions) -> PgConnectOptions {
            options.socket(&self.folder).port(5432)
        }

        pub(super) fn accept(&self) -> io::Result<Socket> {
            let (socket, _) = self.listener.accept()?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        }
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            remove(&self.folder);
        }
    }

    /// What cannot be removed is an empty folder for the system to clean up.
    fn remove(folder: &PathBuf) {
        drop(std::fs::remove_dir_all(folder));
    }
}

/// A connection over loopback. A process of the same machine that connects to the port in the moment between `open` and
/// `accept` would get the answers in our place, and our own connection none.
#[cfg(not(unix))]
mod wire {
    use std::io;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use sea_orm::sqlx::postgres::PgConnectOptions;

    pub(super) type Socket = TcpStream;

    pub(super) struct Listener(TcpListener);

    impl Listener {
        pub(super) fn open() -> io::Result<Self> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok(Self(listener))
        }

        pub(super) fn at(&self, options: PgConnectOptions) -> PgConnectOptions {
            let port = self.0.local_addr().map_or(0, |address| address.port());
            options.host("127.0.0.1").port(port)
        }

        pub(super) fn accept(&self) -> io::Result<Socket> {
            let (socket, _) = self.0.accept()?;
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            Ok(socket)
        }
    }
}
