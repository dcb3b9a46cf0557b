//! Postgres 17 inside this process: prints its URL, then lives until its standard input closes, so that it
//! cannot outlive whoever started it.
//!
//! It serves one connection at a time; a second one waits until the first has ended.

use std::io::{self, Write as _};
use std::time::Duration;
use std::{fs, process, thread};

use pglite_oxide::PgliteServer;

fn main() -> anyhow::Result<()> {
    let server = PgliteServer::temporary_tcp()?;

    let mut stdout = io::stdout();
    writeln!(stdout, "{}", server.database_url())?;
    stdout.flush()?;

    io::copy(&mut io::stdin(), &mut io::sink())?;

    // A shutdown waits for the client that is still connected, however long it stays.
    let root = server.root().to_owned();
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(2));
        let _ = fs::remove_dir_all(root);
        process::exit(0);
    });
    server.shutdown()
}
