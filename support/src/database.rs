use std::panic::{self, AssertUnwindSafe};
use std::thread::{self, Scope};

use crate::server::{Embedded, Server};
use crate::{Error, admin};

/// A fresh, empty database in UTF-8 with the collation `C`, dropped at the end, or soon after, whoever is still connected.
///
/// On an embedded Postgres it is a server of its own, which serves one connection at a time: a test there closes
/// its connection before it calls [`execute`](Self::execute) or [`query`](Self::query).
#[derive(Debug)]
pub struct Database {
    url: String,
    home: Home,
}

#[derive(Debug)]
enum Home {
    Server { name: String },
    Own { _server: Embedded },
}

impl Database {
    /// Creates a database on the shared server.
    ///
    /// # Panics
    ///
    /// If there is no server, or it refuses.
    #[track_caller]
    pub fn create() -> Database {
        Self::try_create(Server::shared()).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_create(server: &'static Server) -> Result<Database, Error> {
        if let Some(embedded) = server.embedded() {
            let own = embedded?;
            return Ok(Database { url: own.url().to_owned(), home: Home::Own { _server: own } });
        }

        let (name, url) = server.create_database()?;
        Ok(Database { url, home: Home::Server { name } })
    }

    /// Where to connect.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Runs one statement or several, over a connection of its own.
    ///
    /// # Panics
    ///
    /// With the server's error.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        admin::execute(&self.url, sql);
    }

    /// The rows of a query, each value as text, over a connection of its own.
    ///
    /// # Panics
    ///
    /// With the server's error.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        admin::rows(&self.url, sql)
    }

    /// [`thread::scope`] for threads that use this database. If `work` panics, every session is ended: a thread that waits for
    /// a lock which `work` would have released is then done, and the panic comes out instead of a test that never ends.
    pub fn scope<'env, T>(&self, work: impl for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T) -> T {
        thread::scope(|scope| {
            panic::catch_unwind(AssertUnwindSafe(|| work(scope))).unwrap_or_else(|panic| {
                self.query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                );
                panic::resume_unwind(panic)
            })
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Home::Server { name } = &self.home
            && let Err(error) = Server::shared().drop_database(name)
        {
            // Not a panic: the test may be in one. The next run sweeps the database.
            eprintln!("the database {name} stays: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_empty_takes_statements_and_answers_queries() {
        let database = Database::create();
        assert!(database.query("SELECT 1 FROM pg_tables WHERE schemaname = 'public'").is_empty());

        database.execute("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'ü'), (2, NULL)");
        assert_eq!(
            database.query("SELECT a, b FROM t ORDER BY a"),
            [[Some("1".to_owned()), Some("ü".to_owned())], [Some("2".to_owned()), None]]
        );
    }

    #[test]
    fn databases_do_not_see_each_other() {
        let (one, other) = (Database::create(), Database::create());
        one.execute("CREATE TABLE t ()");
        other.execute("CREATE TABLE t ()");
    }

    #[test]
    #[should_panic(expected = "relation \"missing\" does not exist")]
    fn an_error_of_the_server_is_told_in_its_words() {
        Database::create().execute("SELECT * FROM missing");
    }

    #[test]
    fn a_dropped_database_is_gone_even_with_a_client_connected() {
        if Server::shared().serves_one_connection() {
            return;
        }
        let (database, witness) = (Database::create(), Database::create());
        let Home::Server { name } = &database.home else { panic!("not on the server") };
        let name = name.clone();
        let client = admin::connect(database.url()).expect("connects");

        drop(database);
        drop(client);
        // Nobody waits for that on a server which ends with this process.
        let is_there = || !witness.query(&format!("SELECT 1 FROM pg_database WHERE datname = '{name}'")).is_empty();
        let gone = (0..600).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            !is_there()
        });
        assert!(gone, "it is still there");
    }

    #[test]
    #[should_panic(expected = "the work failed")]
    fn a_panic_ends_threads_that_wait_for_a_lock() {
        if Server::shared().serves_one_connection() {
            panic!("the work failed");
        }
        let database = Database::create();
        database.execute("CREATE TABLE t ()");
        let mut holder = admin::connect(database.url()).expect("connects");
        holder.batch_execute("BEGIN; LOCK TABLE t").expect("locks");
        database.scope(|scope| {
            scope.spawn(|| drop(admin::with_client(database.url(), |client| client.batch_execute("TABLE t"))));
            panic!("the work failed");
        });
    }

    #[test]
    fn a_database_can_be_made_inside_an_async_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("builds");
        runtime.block_on(async { Database::create().execute("SELECT 1") });
    }
}
