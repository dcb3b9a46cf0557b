//! Imports GenBank records twice with the same function, first over `diesel::PgConnection`, then over
//! `batch_diesel::PgConnection`, through a proxy that adds the latency of a network, and compares the two.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use batch_examples::cli::{latency, progress_bar};
use batch_examples::genbank::{self, Record};
use batch_examples::measure::measure;
use batch_examples::report::{Run, print};
use batch_examples::{diesel_import, schema};
use batch_support::{Database, Proxy, Server};
use diesel::Connection;
use diesel::connection::LoadConnection;
use diesel::pg::Pg;

const HELP: &str = "\
Imports about 2,000 GenBank rows one by one, without and with batched inserts, and compares the two.

Usage: quickstart [--latency-ms <MS>]

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

    let (plain_database, batched_database) = (Database::create(), Database::create());
    let plain = run("diesel::PgConnection", &plain_database, latency, &records, |url| {
        Ok(diesel::PgConnection::establish(url)?)
    })?;
    let batched = run("batch_diesel::PgConnection", &batched_database, latency, &records, |url| {
        let mut conn = batch_diesel::PgConnection::establish(url)?;
        batch_diesel::enable_batch_inserts(&mut conn)?;
        Ok(conn)
    })?;
    print(latency, (plain, &plain_database), (batched, &batched_database))
}

/// Imports the records over a connection of its own, closed at the end.
fn run<C>(
    name: &'static str,
    database: &Database,
    latency: Duration,
    records: &[Record],
    connect: impl FnOnce(&str) -> Result<C>,
) -> Result<Run>
where
    C: LoadConnection<Backend = Pg>,
{
    database.execute(schema::SQL);
    let rows = genbank::row_count(records);
    let proxy = Proxy::start(database.url(), latency);
    let bar = progress_bar(name, rows)?;

    let (mut conn, start_up) =
        measure(&proxy, || connect(proxy.url())).with_context(|| format!("{name}: connecting"))?;
    let ((), import) = measure(&proxy, || diesel_import::import(&mut conn, records, || bar.inc(1)))
        .with_context(|| format!("{name}: importing"))?;
    bar.finish();
    Ok(Run { name, rows, start_up, import })
}
