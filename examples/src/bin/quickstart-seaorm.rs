//! Imports GenBank records twice with the same function, first over `sea_orm::DatabaseConnection`, then over
//! `batch_seaorm::DatabaseConnection`, through a proxy that adds the latency of a network, and compares the two.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use batch_examples::cli::{latency, progress_bar};
use batch_examples::genbank::{self, Record};
use batch_examples::measure::measure;
use batch_examples::report::{Run, print};
use batch_examples::{schema, seaorm_import};
use batch_support::{Database, Proxy, Server};
use sea_orm::{ConnectOptions, DbErr, TransactionTrait};
use tokio::runtime::{self, Runtime};

const HELP: &str = "\
Imports about 2,000 GenBank rows model by model with SeaORM, without and with batched inserts, and compares the two.

Usage: quickstart-seaorm [--latency-ms <MS>]

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
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;

    let (plain_database, batched_database) = (Database::create(), Database::create());
    let name = "sea_orm::DatabaseConnection";
    let plain = run(&runtime, name, &plain_database, latency, &records, async |url| connect(url).await)?;
    let name = "batch_seaorm::DatabaseConnection";
    let batched = run(&runtime, name, &batched_database, latency, &records, async |url| {
        batch_seaorm::enable_batch_inserts(&connect(url).await?).await
    })?;
    print(latency, (plain, &plain_database), (batched, &batched_database))
}

async fn connect(url: &str) -> Result<sea_orm::DatabaseConnection, DbErr> {
    let mut options = ConnectOptions::new(url);
    options.sqlx_logging(false);
    sea_orm::Database::connect(options).await
}

/// Imports the records over a connection of its own, closed at the end.
fn run<C: TransactionTrait>(
    runtime: &Runtime,
    name: &'static str,
    database: &Database,
    latency: Duration,
    records: &[Record],
    connect: impl AsyncFnOnce(&str) -> Result<C, DbErr>,
) -> Result<Run> {
    database.execute(schema::SQL);
    let rows = genbank::row_count(records);
    let proxy = Proxy::start(database.url(), latency);
    let bar = progress_bar(name, rows)?;

    let (db, start_up) =
        measure(&proxy, || runtime.block_on(connect(proxy.url()))).with_context(|| format!("{name}: connecting"))?;
    let ((), import) = measure(&proxy, || runtime.block_on(seaorm_import::import(&db, records, || bar.inc(1))))
        .with_context(|| format!("{name}: importing"))?;
    bar.finish();
    // The pool closes its connections on the runtime.
    let _context = runtime.enter();
    drop(db);
    Ok(Run { name, rows, start_up, import })
}
