//! Who the server is: clusters that are crashed, copied, promoted and moved behind an address that stays.

mod crashes;
mod moves;
mod strings;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use batch_core::BatchOptions;
use batch_support::{Cluster, Proxy};
use batch_tests::diesel_adapter::Diesel;
use batch_tests::diesel_async_adapter::DieselAsync;
use batch_tests::seaorm_adapter::SeaOrm;
use batch_tests::{Adapter, Batching, Outcome, Session};

const PARENTS: &str = "CREATE TABLE parents (id serial PRIMARY KEY, name text)";
const TAGS: &str = "CREATE TABLE tags (id serial PRIMARY KEY, name text)";

/// What a program does once something has happened to its server.
type Then = Box<dyn FnOnce()>;

/// A scenario for each adapter: what it does before something happens to its server, and what then.
macro_rules! each {
    ($scenario:ident($($argument:expr),*)) => {
        [
            $scenario::<Diesel>($($argument),*),
            $scenario::<DieselAsync>($($argument),*),
            $scenario::<SeaOrm>($($argument),*),
        ]
    };
}
use each;

/// Lets each adapter's program go on; those after one that fails are heard as well.
fn finish(then: [Then; 3]) {
    let failed = then.map(|then| catch_unwind(AssertUnwindSafe(then)).err());
    if let Some(panic) = failed.into_iter().flatten().next() {
        resume_unwind(panic);
    }
}

/// A cluster of the test's own, or none and why.
fn cluster() -> Option<Cluster> {
    match Cluster::start() {
        Ok(cluster) => Some(cluster),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// A database's or role's name that is this adapter's own.
fn named<A: Adapter>(name: &str) -> String {
    format!("{name}_{}", A::NAME.replace('-', "_"))
}

/// A program with batching on, whose connection goes through a proxy.
struct Program<A: Adapter> {
    proxy: Proxy,
    conn: A::Batched,
}

impl<A: Adapter> Program<A> {
    fn start(url: &str) -> Self {
        Self::start_with(url, BatchOptions::new())
    }

    fn start_with(url: &str, options: BatchOptions) -> Self {
        let proxy = Proxy::start(url, Duration::ZERO);
        let mut conn = A::Batched::connect(proxy.url()).unwrap();
        conn.enable(options).unwrap();
        Self { proxy, conn }
    }

    /// Its connection was lost: a program makes another, a pool does so by itself.
    fn reconnect(&mut self) {
        match A::POOLED {
            true => while self.conn.one("SELECT 1", &[]).is_err() {},
            false => self.conn = A::Batched::connect(self.proxy.url()).unwrap(),
        }
    }

    /// Its inserts that waited.
    fn deferred(&self) -> u64 {
        self.conn.stats().inserts_deferred
    }
}

/// So many names in one transaction; their ids.
fn names(conn: &mut impl Session, table: &str, count: usize) -> Outcome<Vec<i64>> {
    conn.transaction(|conn| (0..count).map(|at| conn.insert_name(table, &format!("name {at}"))).collect())
}

/// Another program without batching inserts as many, each for itself; their ids.
fn plain_names<A: Adapter>(url: &str, table: &str, count: usize) -> Outcome<Vec<i64>> {
    let mut plain = A::Plain::connect(url)?;
    (0..count).map(|_| plain.insert_name(table, "plain")).collect()
}
