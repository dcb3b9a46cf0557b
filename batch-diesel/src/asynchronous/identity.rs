//! Which database a connection leads to of which only the server knows.

use std::sync::atomic::{AtomicU64, Ordering};

use batch_core::{Purpose, Query, SESSION_SQL};

use super::run::{self, Inner};

/// An address as [`batch_core::Batch::new`] takes it: the cluster, where it is, the database, and the session's settings
/// in the place of a login. Where the server does not tell, it is that of no other connection.
pub(super) async fn address(inner: &Inner) -> String {
    static UNKNOWN: AtomicU64 = AtomicU64::new(0);

    let sql = format!(
        "SELECT c.system_identifier::text, pg_catalog.host(pg_catalog.inet_server_addr()), \
         pg_catalog.inet_server_port()::text, d.oid::text, {SESSION_SQL} \
         FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
    );
    let query = Query { cacheable: false, ..Query::new(Purpose::Ask, sql) };
    // No server of its own to ask, no permission: batching is then turned on for this connection alone.
    let rows = run::run(inner, &query).await.unwrap_or_default();
    match rows
        .into_iter()
        .next()
        .map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>())
        .as_deref()
    {
        Some([cluster, host, port, database, session]) => {
            let session = session.replace('%', "%25").replace('&', "%26");
            format!("postgres://{cluster}.{host}:{port}/{database}?session={session}")
        }
        _ => format!("unknown {}", UNKNOWN.fetch_add(1, Ordering::Relaxed)),
    }
}
