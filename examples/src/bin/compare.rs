//! Measures every way of writing rows that users of Diesel, diesel-async and SeaORM have, in one run.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use batch_examples::cli::milliseconds;
use batch_examples::compare::contest::{self, Contest};
use batch_examples::compare::plot;
use batch_support::Server;

const HELP: &str = "\
Writes rows into one table in one transaction, in every way that Diesel, diesel-async, SeaORM and tokio-postgres have and
with batched inserts, each several times in turn and in a process of its own, and compares them.

Usage: compare [OPTIONS]

Options:
      --rows <N,…>        Rows of the transaction; several numbers make a series [default: 1000]
      --latency-ms <MS>   Round-trip time added to the connection, in milliseconds [default: 3]
      --rounds <N>        How often each way is run [default: 5]
      --markdown <FILE>   Writes the tables to a file as well
      --plot <FILE.svg>   Draws rows per second over rows
  -h, --help              Print this help

Before the transaction that is measured, each way writes 100 rows in one of its own: statements are prepared and ids in
stock as in a service that has run for a while. Row by row is left out above 100,000 rows.

Postgres is taken from DATABASE_URL, else from Docker, else from the machine's own server binaries; which one it was is
printed. The database is a fresh one, dropped at the end.
";

/// What the command line asks for.
struct Arguments {
    rows: Vec<usize>,
    latency: Duration,
    rounds: usize,
    markdown: Option<PathBuf>,
    plot: Option<PathBuf>,
    /// The process is to do one way, for another that measures.
    way: Option<(String, String)>,
}

fn main() -> Result<()> {
    let Some(arguments) = arguments()? else {
        write!(std::io::stdout(), "{HELP}")?;
        return Ok(());
    };
    if let Some((way, url)) = &arguments.way {
        return contest::serve(way, arguments.rows[0], url);
    }
    Server::try_shared()?;
    let mut contests = Vec::new();
    for &rows in &arguments.rows {
        let held = Contest::hold(rows, arguments.latency, arguments.rounds)?;
        writeln!(std::io::stdout(), "{held}")?;
        contests.push(held);
    }
    if let Some(file) = &arguments.markdown {
        let tables: Vec<String> = contests.iter().map(ToString::to_string).collect();
        std::fs::write(file, tables.join("\n")).with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &arguments.plot {
        plot::draw(&contests, file)?;
    }
    Ok(())
}

fn arguments() -> Result<Option<Arguments>> {
    use lexopt::prelude::*;

    let mut arguments = Arguments {
        rows: vec![1_000],
        latency: Duration::from_millis(3),
        rounds: 5,
        markdown: None,
        plot: None,
        way: None,
    };
    let (mut way, mut url) = (None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("rows") => arguments.rows = numbers(&parser.value()?.string()?)?,
            Long("latency-ms") => arguments.latency = milliseconds(&parser.value()?)?,
            Long("rounds") => arguments.rounds = *numbers(&parser.value()?.string()?)?.first().unwrap_or(&1),
            Long("markdown") => arguments.markdown = Some(parser.value()?.into()),
            Long("plot") => arguments.plot = Some(parser.value()?.into()),
            Long("way") => way = Some(parser.value()?.string()?),
            Long("url") => url = Some(parser.value()?.string()?),
            Short('h') | Long("help") => return Ok(None),
            other => bail!("{}; try --help", other.unexpected()),
        }
    }
    arguments.way = way.zip(url);
    Ok(Some(arguments))
}

/// `1000,10_000`
fn numbers(text: &str) -> Result<Vec<usize>> {
    let number = |part: &str| part.trim().replace('_', "").parse().ok().filter(|&number| number > 0);
    let numbers: Option<Vec<usize>> = text.split(',').map(number).collect();
    numbers.with_context(|| format!("{text:?} is not a number above 0, nor several with commas between"))
}
