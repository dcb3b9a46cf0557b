//! Group commit on `AsyncPgConnection`: connections whose futures are dropped.

use batch_core::GroupCommit;
use tokio::time::{sleep, timeout};

use super::*;

#[test]
fn a_statement_after_a_dropped_leader_comes_behind_its_group() {
    block_on(async {
        let database = database();
        let group_commit = GroupCommit::new().groups_per_table(1).lock_timeout(Duration::from_secs(60));
        let options = BatchOptions::new().group_commit(group_commit);
        let (proxy, mut leader) = batched_with(&database, Duration::ZERO, options).await;
        let mut others = Vec::new();
        for _ in 0..2 {
            others.push(AsyncPgConnection::establish(proxy.url()).await.unwrap());
        }
        // So that there are ids at hand.
        leader.transaction(async |conn| user(conn, "first").await).await.unwrap();
        let mut blocker = diesel_async::AsyncPgConnection::establish(database.url()).await.unwrap();
        blocker.begin_test_transaction().await.unwrap();
        diesel::sql_query("LOCK TABLE users IN SHARE MODE").execute(&mut blocker).await.unwrap();
        // It leads a group of one and is held up by the lock; then it is dropped.
        timeout(Duration::from_millis(100), user(&mut leader, "dropped")).await.unwrap_err();
        let waiting: Vec<_> = others
            .into_iter()
            .zip(["b", "c"])
            .map(|(mut conn, name)| tokio::spawn(async move { user(&mut conn, name).await }))
            .collect();
        while leader.stats().group_commit.depth < 3 {
            sleep(Duration::from_millis(1)).await;
        }
        let next = async {
            leader
                .transaction(async |conn| {
                    user(conn, "rolled back").await?;
                    QueryResult::<()>::Err(diesel::result::Error::RollbackTransaction)
                })
                .await
        };
        let unlock = async {
            sleep(Duration::from_millis(50)).await;
            drop(blocker);
        };
        let (next, ()) = tokio::join!(next, unlock);
        assert_eq!(next, Err(diesel::result::Error::RollbackTransaction));
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        let names = database.query("SELECT name FROM users ORDER BY name").concat();
        assert_eq!(names, ["b", "c", "dropped", "first"].map(|name| Some(name.to_owned())));
    });
}
