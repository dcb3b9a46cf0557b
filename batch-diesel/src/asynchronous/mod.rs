//! [`AsyncPgConnection`]: diesel-async's connection with the engine in front.

mod changes;
mod connection;
mod flight;
mod group;
mod instrumentation;
#[cfg(any(feature = "bb8", feature = "deadpool", feature = "mobc", feature = "r2d2"))]
mod pool;
mod run;
mod stream;
mod transaction;
mod types;

pub use connection::AsyncPgConnection;
pub use stream::RowStream;
pub use transaction::{AsyncCallback, AsyncTransactionBuilder};
