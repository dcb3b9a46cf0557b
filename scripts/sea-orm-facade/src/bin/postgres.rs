//! A Postgres for scripts/sea-orm-tests: prints the URL of its server, and ends when standard input does.

use std::io::{Write as _, stdin, stdout};

use batch_support::Database;

fn main() -> std::io::Result<()> {
    let database = Database::create();
    let server = database.url().rsplit_once('/').map_or(database.url(), |(server, _)| server);
    println!("{server}");
    stdout().flush()?;
    std::io::copy(&mut stdin(), &mut std::io::sink())?;
    Ok(())
}
