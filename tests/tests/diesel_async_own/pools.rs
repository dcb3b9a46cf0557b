//! deadpool, bb8 and mobc, through diesel-async's `AsyncDieselConnectionManager`.

use std::collections::HashSet;
use std::ops::DerefMut;
use std::time::Duration;

use batch_diesel::{AsyncPgConnection, enable_batch_inserts};
use batch_support::{Database, Proxy};
use diesel::prelude::*;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use diesel_async::pooled_connection::{bb8, deadpool, mobc};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::FutureExt;

use super::{block_on, count, database, note, user, user_with_notes, users};

type Manager = AsyncDieselConnectionManager<AsyncPgConnection>;

const SIZE: usize = 3;

trait Pool: Clone + Send + Sync + 'static {
    type Conn: DerefMut<Target = AsyncPgConnection> + Send;

    fn of(manager: Manager) -> impl Future<Output = Self> + Send;
    fn get(&self) -> impl Future<Output = Self::Conn> + Send;
}

impl Pool for deadpool::Pool<AsyncPgConnection> {
    type Conn = deadpool::Object<AsyncPgConnection>;

    async fn of(manager: Manager) -> Self {
        Self::builder(manager).max_size(SIZE).build().unwrap()
    }

    async fn get(&self) -> Self::Conn {
        self.get().await.unwrap()
    }
}

impl Pool for bb8::Pool<AsyncPgConnection> {
    type Conn = bb8::PooledConnection<'static, AsyncPgConnection>;

    async fn of(manager: Manager) -> Self {
        Self::builder().max_size(SIZE as u32).build(manager).await.unwrap()
    }

    async fn get(&self) -> Self::Conn {
        self.get_owned().await.unwrap()
    }
}

impl Pool for mobc::Pool<AsyncPgConnection> {
    type Conn = mobc::PooledConnection<AsyncPgConnection>;

    async fn of(manager: Manager) -> Self {
        Self::builder().max_open(SIZE as u64).build(manager)
    }

    async fn get(&self) -> Self::Conn {
        self.get().await.unwrap()
    }
}

async fn process_id(conn: &mut AsyncPgConnection) -> i32 {
    diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("pg_backend_pid()")).get_result(conn).await.unwrap()
}

/// Each connection of a full pool batches after one was told, all at once, and their ids never collide.
async fn fills_and_batches<P: Pool>() {
    let database = database();
    let pool = P::of(Manager::new(database.url())).await;
    enable_batch_inserts(&mut pool.get().await).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..SIZE {
        all.push(pool.get().await);
    }
    let mut tasks = Vec::new();
    for (at, mut conn) in all.into_iter().enumerate() {
        tasks.push(tokio::spawn(async move {
            let before = conn.stats();
            let mut ids = Vec::new();
            for round in 0..15 {
                let name = format!("task {at} round {round}");
                ids.push(user_with_notes(&mut conn, &name, round % 4).await.unwrap());
            }
            let stats = conn.stats();
            (ids, stats.inserts_deferred - before.inserts_deferred, stats.catalog_reads - before.catalog_reads)
        }));
    }
    let mut ids = Vec::new();
    for task in tasks {
        let (of_task, deferred, catalog_reads) = task.await.unwrap();
        assert!(of_task.is_sorted(), "{of_task:?}");
        assert!(deferred > 20, "{deferred} deferred");
        assert_eq!(catalog_reads, 0, "one read the catalog for all");
        ids.extend(of_task);
    }
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "an id was given out twice");
    assert_eq!(count(&database, "SELECT count(*) FROM users"), 15 * SIZE as i64);
    assert_eq!(count(&database, "SELECT count(*) FROM notes"), 22 * SIZE as i64 - SIZE as i64);
}

/// Ids that one connection reserved and did not use serve the next.
async fn shares_ids<P: Pool>() {
    let database = database();
    let pool = P::of(Manager::new(database.url())).await;
    let (mut one, mut other) = (pool.get().await, pool.get().await);
    enable_batch_inserts(&mut one).await.unwrap();
    users(&mut one, "one", 10).await.unwrap();
    let unused = one.stats().ids_unused;
    assert!(unused > 0, "{}", one.stats());
    drop(one);
    users(&mut other, "other", 1).await.unwrap();
    let stats = other.stats();
    assert_eq!((stats.inserts_deferred, stats.ids_reserved, stats.ids_unused), (1, 0, unused - 1), "{stats}");
    assert_eq!(count(&database, "SELECT max(id) FROM users"), 11);
}

/// A connection that the server ends in the middle of a transaction costs that transaction, and no other.
async fn survives_a_broken_one<P: Pool>() {
    let database = database();
    let pool = P::of(Manager::new(database.url())).await;
    enable_batch_inserts(&mut pool.get().await).await.unwrap();
    for n in 0..4 {
        let mut conn = pool.get().await;
        let broken = process_id(&mut conn).await;
        let result = conn
            .transaction::<(), diesel::result::Error, _>(async |conn| {
                user(conn, &format!("lost {n}")).await?;
                user(conn, &format!("lost as well {n}")).await?;
                Database::execute(&database, &format!("SELECT pg_terminate_backend({broken}, 5000)"));
                Ok(())
            })
            .await;
        assert!(result.is_err());
        drop(conn);
        for m in 0..SIZE {
            let mut conn = pool.get().await;
            assert_ne!(process_id(&mut conn).await, broken);
            user_with_notes(&mut conn, &format!("kept {n} {m}"), 2).await.unwrap();
        }
    }
    assert_eq!(count(&database, "SELECT count(*) FROM users WHERE name LIKE 'lost%'"), 0);
    assert_eq!(count(&database, "SELECT count(*) FROM notes"), 8 * SIZE as i64);
}

/// A connection that comes back with rows that wait is not given out again, whether diesel-async knows of its
/// transaction, the program began it by hand, or a future was dropped in it.
async fn throws_away_what_waits<P: Pool>() {
    let database = database();
    let proxy = Proxy::start(database.url(), Duration::from_millis(10));
    let pool = P::of(Manager::new(proxy.url())).await;
    enable_batch_inserts(&mut pool.get().await).await.unwrap();
    user_with_notes(&mut *pool.get().await, "first", 3).await.unwrap();
    for how in 0..3 {
        let mut conn = pool.get().await;
        let process = process_id(&mut conn).await;
        let unfinished = async {
            match how {
                0 => {
                    conn.batch_execute("BEGIN").await.unwrap();
                    note(&mut conn, 1, "raw").await.unwrap();
                }
                1 => {
                    let never = conn.transaction(async |conn| {
                        note(conn, 1, "dropped").await?;
                        std::future::pending::<QueryResult<()>>().await
                    });
                    assert!(tokio::time::timeout(Duration::from_millis(200), never).await.is_err());
                }
                _ => {
                    conn.batch_execute("BEGIN").await.unwrap();
                    note(&mut conn, 1, "lost").await.unwrap();
                    assert!(tokio::time::timeout(Duration::from_millis(2), conn.flush()).await.is_err());
                }
            }
        };
        unfinished.await;
        drop(conn);
        let mut all = Vec::new();
        for _ in 0..SIZE {
            let mut conn = pool.get().await;
            assert_ne!(process_id(&mut conn).await, process, "case {how}");
            user_with_notes(&mut conn, &format!("case {how} {}", all.len()), 1).await.unwrap();
            all.push(conn);
        }
    }
    assert_eq!(count(&database, "SELECT count(*) FROM notes"), 3 + 3 * SIZE as i64);
}

/// A pool whose connections are set up by the program, as for TLS.
async fn takes_a_custom_setup<P: Pool>() {
    let database = database();
    let mut config = ManagerConfig::default();
    config.custom_setup = Box::new(|url| {
        async move {
            // Here a program gives its TLS connector.
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
                .await
                .map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
            AsyncPgConnection::try_from_client_and_connection(client, connection).await
        }
        .boxed()
    });
    let pool = P::of(Manager::new_with_config(database.url(), config)).await;
    let (mut one, mut other) = (pool.get().await, pool.get().await);
    enable_batch_inserts(&mut one).await.unwrap();
    user_with_notes(&mut one, "one", 3).await.unwrap();
    user_with_notes(&mut other, "other", 3).await.unwrap();
    assert!(other.stats().inserts_deferred >= 3, "{}", other.stats());
    assert_eq!(count(&database, "SELECT count(*) FROM notes"), 6);
}

/// A pool of one connection in a test transaction keeps it, rows that wait and all.
async fn keeps_a_test_transaction<P: Pool>(database: &Database) {
    let pool = P::of(Manager::new(database.url())).await;
    let mut conn = pool.get().await;
    enable_batch_inserts(&mut conn).await.unwrap();
    conn.begin_test_transaction().await.unwrap();
    let process = process_id(&mut conn).await;
    user_with_notes(&mut conn, "kept", 2).await.unwrap();
    drop(conn);
    let mut conn = pool.get().await;
    assert_eq!(process_id(&mut conn).await, process);
    assert_eq!(users::table.count().get_result::<i64>(&mut conn).await.unwrap(), 1);
}

macro_rules! pools {
    ($($pool:ident)*) => { $(
        mod $pool {
            use super::*;

            type Tested = diesel_async::pooled_connection::$pool::Pool<AsyncPgConnection>;

            #[test]
            fn a_full_pool_batches_on_all_its_connections_at_once() {
                block_on(fills_and_batches::<Tested>());
            }

            #[test]
            fn what_one_connection_leaves_of_its_ids_serves_the_others() {
                block_on(shares_ids::<Tested>());
            }

            #[test]
            fn a_broken_connection_costs_no_more_than_its_transaction() {
                block_on(survives_a_broken_one::<Tested>());
            }

            #[test]
            fn a_connection_returned_with_rows_that_wait_is_thrown_away_and_the_rows_are_lost() {
                block_on(throws_away_what_waits::<Tested>());
            }

            #[test]
            fn connections_can_be_set_up_by_the_program() {
                block_on(takes_a_custom_setup::<Tested>());
            }
        }
    )* };
}

mod of_each_kind {
    use super::*;
    pools!(deadpool bb8 mobc);
}

#[test]
fn a_pool_in_a_test_transaction_keeps_its_connection() {
    let database = database();
    block_on(keeps_a_test_transaction::<deadpool::Pool<AsyncPgConnection>>(&database));
    block_on(keeps_a_test_transaction::<bb8::Pool<AsyncPgConnection>>(&database));
    assert_eq!(count(&database, "SELECT count(*) FROM users"), 0);
}
