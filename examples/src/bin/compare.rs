//! Measures every way of writing rows that users of Diesel, diesel-async and SeaORM have, in one run.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use batch_examples::cli::milliseconds;
use batch_examples::compare::contest::{self, Contest, Rules};
use batch_examples::compare::plot;
use batch_examples::compare::scenario::{SCENARIOS, Scenario};
use batch_support::Server;

const HELP: &str = "\
Does one piece of work in one transaction, in every way that Diesel, diesel-async, SeaORM and tokio-postgres have and with
batched inserts, each several times in turn and in a process of its own, and compares them.

Usage: compare [OPTIONS]

Options:
      --scenario <NAME>        What is done [default: table]
                                 table           N rows into one table
                                 annotations     N sequences, and 6 annotations that refer to each by its id
                                 find-or-create  N items, half of them repeated: SELECT by name, INSERT if it is not there
                                 selects         N SELECTs by primary key, which are to take no longer with batching
                                 ingestion       N rows through an expensive stage into transactions of 10,000, which is
                                                 overlapped with them or not; each process may take 256 MiB
      --rows <N,…>             How many; several numbers make a series [default: 1000, for selects 3000, for ingestion 100000]
      --latency-ms <MS>        Round-trip time added to the connection, in milliseconds [default: 3, for selects and ingestion 0]
      --rounds <N>             How often each way is run [default: 5, for selects 31, for ingestion 3]
      --row-by-row-up-to <N>   Leaves the plain ways, row by row or not overlapped, out of larger numbers of rows, as at 3 ms
                               they take an hour for a million [default: 100000]
      --markdown <FILE>        Writes the tables to a file as well
      --plot <FILE.svg>        Draws the speed over the number of rows
  -h, --help                   Print this help

Before the transaction that is measured, each way does 100 of the same in one of its own: statements are prepared and ids in
stock as in a service that has run for a while. Every other round goes from the last way to the first. After each run the
rows are checked.

Statements and round trips are counted by the proxy that adds the latency. Without latency there is nothing between the ways
and Postgres while they are timed, and they are counted in a round before.

Postgres is taken from DATABASE_URL, else from Docker, else from the machine's own server binaries; which one it was is
printed. The database is a fresh one, dropped at the end.
";

/// What the command line asks for.
struct Arguments {
    scenario: Scenario,
    rows: Vec<usize>,
    rules: Rules,
    markdown: Option<PathBuf>,
    plot: Option<PathBuf>,
    /// The process is to do one way, for another that measures.
    way: Option<(String, String)>,
    /// What that has measured for all ways.
    yardstick: Duration,
}

fn main() -> Result<()> {
    let Some(arguments) = arguments()? else {
        write!(std::io::stdout(), "{HELP}")?;
        return Ok(());
    };
    if let Some((way, url)) = &arguments.way {
        return contest::serve(arguments.scenario, way, arguments.rows[0], arguments.yardstick, url);
    }
    Server::try_shared()?;
    let mut contests = Vec::new();
    for &rows in &arguments.rows {
        let held = Contest::hold(arguments.scenario, rows, arguments.rules)?;
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

    let mut scenario = SCENARIOS[0];
    let (mut rows, mut latency, mut rounds) = (None, None, None);
    let mut row_by_row_up_to = 100_000;
    let (mut markdown, mut plot) = (None, None);
    let (mut way, mut url, mut yardstick) = (None, None, Duration::ZERO);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("scenario") => scenario = named(&parser.value()?.string()?)?,
            Long("rows") => rows = Some(parser.value()?.string()?.split(',').map(number).collect::<Result<_>>()?),
            Long("latency-ms") => latency = Some(milliseconds(&parser.value()?)?),
            Long("rounds") => rounds = Some(number(&parser.value()?.string()?)?),
            Long("row-by-row-up-to") => row_by_row_up_to = number(&parser.value()?.string()?)?,
            Long("markdown") => markdown = Some(parser.value()?.into()),
            Long("plot") => plot = Some(parser.value()?.into()),
            Long("way") => way = Some(parser.value()?.string()?),
            Long("url") => url = Some(parser.value()?.string()?),
            Long("yardstick-us") => yardstick = Duration::from_micros(parser.value()?.parse()?),
            Short('h') | Long("help") => return Ok(None),
            other => bail!("{}; try --help", other.unexpected()),
        }
    }
    let rules = Rules {
        latency: latency.unwrap_or(scenario.latency),
        rounds: rounds.unwrap_or(scenario.rounds),
        row_by_row_up_to,
    };
    let rows = rows.unwrap_or_else(|| vec![scenario.rows]);
    Ok(Some(Arguments { scenario, rows, rules, markdown, plot, way: way.zip(url), yardstick }))
}

fn named(name: &str) -> Result<Scenario> {
    Scenario::named(name).with_context(|| {
        let names = SCENARIOS.map(|scenario| scenario.name);
        format!("there is no scenario {name:?}, but {}", names.join(", "))
    })
}

/// `10_000`
fn number(text: &str) -> Result<usize> {
    let number = text.trim().replace('_', "").parse().ok().filter(|&number| number > 0);
    number.with_context(|| format!("{text:?} is not a number above 0"))
}
