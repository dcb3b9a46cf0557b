//! `diesel_migrations`, with batching on.

use diesel::connection::BoxableConnection;
use diesel::dsl::insert_into;
use diesel::migration::{Migration, MigrationMetadata, MigrationName, MigrationSource, MigrationVersion};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{contents, users};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations");

diesel::table! {
    notes (id) {
        id -> Integer,
        user_id -> Integer,
        text -> Text,
    }
}

/// What is in the tables, without the times at which migrations ran.
fn tables(database: &batch_support::Database) -> Vec<(String, Vec<Option<String>>)> {
    let mut contents = contents(database);
    contents.retain(|(table, _)| table != "__diesel_schema_migrations");
    contents
}

fn versions(database: &batch_support::Database) -> Vec<Option<String>> {
    database.query("SELECT version FROM __diesel_schema_migrations ORDER BY 1").into_iter().flatten().collect()
}

#[test]
fn migrations_run_and_are_reverted_as_with_plain_diesel() {
    macro_rules! migrate {
        ($conn:expr, $database:expr) => {{
            let mut seen = Vec::new();
            assert!($conn.has_pending_migration(MIGRATIONS).unwrap());
            $conn.run_next_migration(MIGRATIONS).unwrap();
            seen.push((tables($database), versions($database)));
            let run = $conn.run_pending_migrations(MIGRATIONS).unwrap().len();
            assert_eq!(run, 1);
            assert!(!$conn.has_pending_migration(MIGRATIONS).unwrap());
            seen.push((tables($database), versions($database)));
            $conn.revert_last_migration(MIGRATIONS).unwrap();
            seen.push((tables($database), versions($database)));
            assert_eq!($conn.applied_migrations().unwrap().len(), 1);
            $conn.run_pending_migrations(MIGRATIONS).unwrap();
            $conn.revert_all_migrations(MIGRATIONS).unwrap();
            seen.push((tables($database), versions($database)));
            seen
        }};
    }
    let plain = super::Plain::new("");
    let expected = migrate!(plain.connect(), &plain.database);
    let mut world = super::world("");
    assert_eq!(migrate!(world.conn, &world.database), expected);
    assert_eq!(expected[1].0[0].1, [Some("(1,1,\"of the first\")".into())]);
}

#[test]
fn what_migrations_made_is_batched_at_once() {
    let mut world = super::world("");
    world.conn.run_pending_migrations(MIGRATIONS).unwrap();
    let before = world.conn.stats();
    world.proxy.reset();
    let (users, notes) = world
        .conn
        .transaction(|conn| {
            let mut ids = (Vec::new(), Vec::new());
            for n in 0..4 {
                let user = (users::name.eq("x"), users::age.eq(n));
                let user: i32 = insert_into(users::table).values(user).returning(users::id).get_result(conn)?;
                let note = (notes::user_id.eq(user), notes::text.eq("note"));
                ids.0.push(user);
                ids.1.push(insert_into(notes::table).values(note).returning(notes::id).get_result(conn)?);
            }
            QueryResult::Ok(ids)
        })
        .unwrap();
    assert_eq!((users, notes), (vec![2, 3, 4, 5], vec![2, 3, 4, 5]));
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred - before.inserts_deferred, 6, "{stats}");
    assert_eq!(world.count("SELECT count(*) FROM notes JOIN users ON users.id = user_id WHERE nick = 'nobody'"), 5);
}

#[test]
fn a_migration_that_changes_a_table_is_noticed_by_other_connections() {
    let mut world = super::world("");
    world.conn.run_next_migration(MIGRATIONS).unwrap();
    let mut other = batch_diesel::PgConnection::establish(world.proxy.url()).unwrap();
    let insert = |conn: &mut batch_diesel::PgConnection| {
        conn.transaction(|conn| {
            let rows = (0..3).map(|_| {
                diesel::sql_query("INSERT INTO users (name) VALUES ('x') RETURNING *").get_result::<Nick>(conn)
            });
            rows.collect::<QueryResult<Vec<Nick>>>()
        })
    };
    // The column does not exist yet.
    assert!(insert(&mut other).is_err());
    world.conn.run_next_migration(MIGRATIONS).unwrap();
    let nicks = insert(&mut other).unwrap();
    assert!(nicks.iter().all(|row| row.nick == "nobody"));
    assert!(other.stats().inserts_deferred > 0);
}

#[derive(QueryableByName)]
struct Nick {
    #[diesel(sql_type = diesel::sql_types::Text)]
    nick: String,
}

/// A migration in Rust: it gets a connection whose type is hidden.
struct InRust;

impl Migration<Pg> for InRust {
    fn run(&self, conn: &mut dyn BoxableConnection<Pg>) -> diesel::migration::Result<()> {
        conn.batch_execute("CREATE TABLE notes (id serial PRIMARY KEY, user_id int NOT NULL, text text NOT NULL)")?;
        // The way to run a query of the query builder: by the type that the program knows.
        let conn = conn.downcast_mut::<batch_diesel::PgConnection>().ok_or("another connection")?;
        for n in 0..5 {
            let note = (notes::user_id.eq(n), notes::text.eq("by a migration"));
            let id: i32 = insert_into(notes::table).values(note).returning(notes::id).get_result(conn)?;
            assert_eq!(id, n + 1);
        }
        Ok(())
    }

    fn revert(&self, conn: &mut dyn BoxableConnection<Pg>) -> diesel::migration::Result<()> {
        Ok(conn.batch_execute("DROP TABLE notes")?)
    }

    fn metadata(&self) -> &dyn MigrationMetadata {
        &InTransaction
    }

    fn name(&self) -> &dyn MigrationName {
        &Name
    }
}

struct InTransaction;

impl MigrationMetadata for InTransaction {
    fn run_in_transaction(&self) -> bool {
        true
    }
}

struct Name;

impl MigrationName for Name {
    fn version(&self) -> MigrationVersion<'_> {
        MigrationVersion::from("20240103000000")
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("in_rust")
    }
}

struct Source;

impl MigrationSource<Pg> for Source {
    fn migrations(&self) -> diesel::migration::Result<Vec<Box<dyn Migration<Pg>>>> {
        Ok(vec![Box::new(InRust)])
    }
}

#[test]
fn a_migration_in_rust_gets_our_connection_and_its_inserts_wait() {
    let mut world = super::world("");
    world.conn.run_pending_migrations(Source).unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 5);
    assert_eq!(versions(&world.database), [Some("20240103000000".to_owned())]);
    let stats = world.conn.stats();
    assert!(stats.inserts_deferred >= 4, "{stats}");
    world.conn.revert_all_migrations(Source).unwrap();
    assert!(tables(&world.database).is_empty());
}
