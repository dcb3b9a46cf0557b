//! Postgres for tests, examples and benches: a [`Server`] that is found or started, a fresh [`Database`] for
//! each test, and a [`Proxy`] that shows what goes over the wire.
//!
//! ```no_run
//! use std::time::Duration;
//! use batch_support::{Database, Proxy};
//!
//! let database = Database::create();
//! database.execute("CREATE TABLE authors (id serial PRIMARY KEY, name text)");
//!
//! let proxy = Proxy::start(database.url(), Duration::from_millis(3));
//! // ... connect to proxy.url() and work ...
//! println!("{:?}", proxy.wire());
//! ```
//!
//! # Where Postgres comes from
//!
//! | order | way | where it works | `BATCH_TEST_POSTGRES` |
//! |---|---|---|---|
//! | 1 | `DATABASE_URL`, with the right to create databases | where it is set | `url` |
//! | 2 | a container, through testcontainers | where a Docker engine answers and has, or can pull, `postgres:$BATCH_TEST_POSTGRES_TAG` | `container` |
//! | 3 | a throw-away cluster | where the server's programs are installed | `cluster` |
//! | 4 | an embedded one, Postgres 17 (`embedded/`) | everywhere, once it has been compiled, which takes minutes; one connection at a time | `embedded` |
//!
//! A way that does not work is passed over, and one line on standard error says which way was taken and why not
//! an earlier one. `BATCH_TEST_POSTGRES` insists on a way: if that fails, it is an error. So is a `DATABASE_URL`
//! that is set and does not work.
//!
//! Each test has databases of its own, and file systems take longer and longer to make files where as many were deleted just before (ext4 passes
//! over their inodes one by one). With `BATCH_TEST_POSTGRES_MEMORY=1` the files of a cluster or container are in memory: Linux' `/dev/shm`, or a tmpfs.
//!
//! What is started here ends with the process, also when that is killed.

mod admin;
mod database;
mod error;
mod memory;
mod proxy;
mod server;

pub use database::Database;
pub use error::Error;
pub use memory::peak_memory;
pub use proxy::{Proxy, Wire};
pub use server::{Cluster, Server};
