//! A web service over `batch_seaorm`: a request that creates many posts reaches Postgres as one statement.

use std::io::Write;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use batch_examples::web;
use batch_support::{Database, Server};
use tokio::net::TcpListener;
use tokio::runtime;

const HELP: &str = "\
Serves posts over HTTP with axum and SeaORM, with batched inserts.

Usage: web-seaorm [--port <PORT>]

Options:
      --port <PORT>  Port on 127.0.0.1 to listen on; 0 finds a free one [default: 3000]
  -h, --help         Print this help

Postgres is taken from DATABASE_URL, else from Docker, else from the machine's own server binaries, else
an embedded one. The service has a fresh database of its own, dropped at the end.
";

fn main() -> Result<()> {
    let Some(port) = port()? else {
        write!(std::io::stdout(), "{HELP}")?;
        return Ok(());
    };
    Server::try_shared()?;
    let database = Database::create();
    database.execute(web::SCHEMA);
    runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(database.url(), port))
}

/// The port asked for, or `None` if it was the help.
fn port() -> Result<Option<u16>> {
    use lexopt::prelude::*;

    let mut port = 3000;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("port") => port = args.value()?.parse().context("--port takes a port, such as 3000")?,
            Short('h') | Long("help") => return Ok(None),
            other => bail!("{}; try --help", other.unexpected()),
        }
    }
    Ok(Some(port))
}

async fn serve(url: &str, port: u16) -> Result<()> {
    let db = sea_orm::Database::connect(url).await?;
    let db = batch_seaorm::enable_batch_inserts(&db).await?; // the only line that an application adds
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| format!("port {port}"))?;
    let at = listener.local_addr()?;
    writeln!(
        std::io::stdout(),
        "listening on http://{at}; Ctrl-C ends it. Try:

curl http://{at}/posts
curl http://{at}/posts -H 'content-type: application/json' -d '{{\"title\": \"one\", \"text\": \"…\", \"tags\": [\"a\"]}}'
curl http://{at}/posts/bulk -H 'content-type: application/json' \\
    -d '[{{\"title\": \"two\", \"text\": \"…\"}}, {{\"title\": \"three\", \"text\": \"…\", \"tags\": [\"a\", \"b\"]}}]'"
    )?;
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("cannot wait for Ctrl-C: {error}");
        }
    };
    axum::serve(listener, web::app(db.clone())).with_graceful_shutdown(interrupted).await?;
    write!(std::io::stdout(), "\n{}\n", db.stats())?;
    Ok(())
}
