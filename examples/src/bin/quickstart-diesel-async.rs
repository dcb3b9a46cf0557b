//! Imports GenBank records twice with the same function, first over `diesel_async::AsyncPgConnection`, then over
//! `batch_diesel::AsyncPgConnection`, through a proxy that adds the latency of a network, and compares the two.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use batch_examples::cli::{latency, progress_bar};
use batch_examples::genbank::{self, Record};
use batch_examples::measure::measure;
use batch_examples::report::{Run, print};
use batch_examples::{diesel_async_import, schema};
use batch_support::{Database, Proxy, Server};
use diesel::pg::Pg;
use diesel_async::AsyncConnection;
use tokio::runtime::{self, Runtime};

const HELP: &str = "\
Imports about 2,000 GenBank rows one by one with diesel-async, without and with batched inserts, and compares the two.

Usage: quickstart-diesel-async [--latency-ms <MS>]

Options:
      --latency-ms <MS>  Round-trip time added to the connection, in milliseconds [default: 3]
  -h, --help             Print this help

Postgres is taken from DATABASE_URL, else from Docker, else from the machine's own server binaries, else
an embedded one; which one it was is printed. Each run has a fresh database of its own, dropped at the end.
";

fn main() -> Result<()> {
    let Some(latency) = latency()? else {
        write!(std::io::stdout(), "{HELP}")?;
        return Ok(());
    };
    let records = genbank::records()?;
    Server::try_shared()?;

    let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;

    let (plain_database, batched_database) = (Database::create(), Database::create());
    let name = "diesel_async::AsyncPgConnection";
    let plain = run(&runtime, name, &plain_database, latency, &records, async |url| {
        Ok(diesel_async::AsyncPgConnection::establish(url).await?)
    })?;
    let name = "batch_diesel::AsyncPgConnection";
    let batched = run(&runtime, name, &batched_database, latency, &records, async |url| {
        let mut conn = batch_diesel::AsyncPgConnection::establish(url).await?;
        batch_diesel::enable_batch_inserts(&mut conn).await?;
        Ok(conn)
    })?;
    print(latency, (plain, &plain_database), (batched, &batched_database))
}

/// Imports the records over a connection of its own, closed at the end.
fn run<C: AsyncConnection<Backend = Pg>>(
    runtime: &Runtime,
    name: &'static str,
    database: &Database,
    latency: Duration,
    records: &[Record],
    connect: impl AsyncFnOnce(&str) -> Result<C>,
) -> Result<Run> {
    database.execute(schema::SQL);
    let rows = genbank::row_count(records);
    let proxy = Proxy::start(database.url(), latency);
    let bar = progress_bar(name, rows)?;

    let (mut conn, start_up) =
        measure(&proxy, || runtime.block_on(connect(proxy.url()))).with_context(|| format!("{name}: connecting"))?;
    let import = async { diesel_async_import::import(&mut conn, records, || bar.inc(1)).await };
    let ((), import) = measure(&proxy, || runtime.block_on(import)).with_context(|| format!("{name}: importing"))?;
    bar.finish();
    Ok(Run { name, rows, start_up, import })
}
