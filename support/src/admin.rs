//! The connections that set up and look at databases.

use std::panic;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use postgres::{Client, NoTls, SimpleQueryMessage};
use url::Url;

use crate::Error;

/// How long a server may take to let a client in.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `work` on a thread of its own, because the client drives an async runtime, which panics when the caller
/// is inside another one.
pub(crate) fn off_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
}

/// Connects, gives up after a while, and leaves the connection to the caller.
pub(crate) fn connect(url: &str) -> Result<Client, Error> {
    let (sender, receiver) = mpsc::channel();
    let target = url.to_owned();
    thread::spawn(move || {
        let _ = sender.send(Client::connect(&target, NoTls));
    });

    match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => Err(Error::because(format_args!("cannot connect to {}", shown(url)), &error)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(Error::new(format!(
            "{} let no client in for {} s (an embedded Postgres serves one connection at a time: is one open?)",
            shown(url),
            PATIENCE.as_secs(),
        ))),
    }
}

/// Connects for the length of `work`.
pub(crate) fn with_client<T: Send>(
    url: &str,
    work: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send,
) -> Result<T, Error> {
    off_thread(|| {
        let mut client = connect(url)?;
        work(&mut client).map_err(|error| Error::because("Postgres says", &error))
    })
}

/// Runs one statement or several, over a connection of its own.
#[track_caller]
pub(crate) fn execute(url: &str, sql: &str) {
    if let Err(error) = with_client(url, |client| client.batch_execute(sql)) {
        panic!("{error}\n{sql}");
    }
}

/// The rows of a query, each value as text, over a connection of its own.
#[track_caller]
pub(crate) fn rows(url: &str, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = match with_client(url, |client| client.simple_query(sql)) {
        Ok(messages) => messages,
        Err(error) => panic!("{error}\n{sql}"),
    };

    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()).collect()
}

/// The URL without its password.
pub(crate) fn shown(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) if url.password().is_some() => {
            let _ = url.set_password(Some("***"));
            url.into()
        }
        _ => url.to_owned(),
    }
}
