//! `AsyncMigrationHarness`, with batching on.

use std::time::Duration;

use diesel_async::AsyncMigrationHarness;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{batched, block_on, count, users};
use batch_support::Database;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

#[test]
fn migrations_run_and_are_reverted_and_what_they_make_is_batched() {
    block_on(async {
        let database = Database::create();
        let (_proxy, conn) = batched(&database, Duration::ZERO).await;
        let mut harness = AsyncMigrationHarness::new(conn);
        assert_eq!(harness.run_pending_migrations(MIGRATIONS).unwrap().len(), 2);
        let mut conn = harness.into_inner();
        let before = count(&database, "SELECT count(*) FROM users");
        users(&mut conn, "new", 4).await.unwrap();
        assert_eq!(count(&database, "SELECT count(*) FROM users"), before + 4);
        assert!(conn.stats().inserts_deferred >= 3, "{}", conn.stats());
        let mut harness = AsyncMigrationHarness::new(conn);
        assert_eq!(harness.revert_all_migrations(MIGRATIONS).unwrap().len(), 2);
        assert_eq!(count(&database, "SELECT count(*) FROM pg_tables WHERE tablename = 'users'"), 0);
    });
}
