//! Before batching is on; `flush`, `stats`, `explain`, `exclude`.

use batch_core::{BatchOptions, FlushCause, Reason};
use batch_diesel::PgConnection;
use batch_support::{Database, Proxy};
use batch_tests::World;
use batch_tests::diesel_adapter::Diesel;
use diesel::connection::SimpleConnection;
use diesel::dsl::insert_into;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};

use super::{USERS, User, WITHOUT_IDS, users};

/// What reaches Postgres.
macro_rules! trace {
    ($connection:ty) => {{
        let database = Database::create();
        database.execute(USERS);
        let proxy = Proxy::start(database.url(), std::time::Duration::ZERO);
        let conn = &mut <$connection>::establish(proxy.url()).unwrap();
        let rows = conn
            .transaction(|conn| {
                let mut rows: Vec<User> = Vec::new();
                for n in 0..3 {
                    let user = (users::name.eq(format!("user {n}")), users::age.eq(n));
                    rows.push(insert_into(users::table).values(user).get_result(conn)?);
                    let _ = conn.transaction(|conn| {
                        insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
                        QueryResult::<()>::Err(Error::RollbackTransaction)
                    });
                }
                diesel::sql_query("INSERT INTO users (name) VALUES ('raw')").execute(conn)?;
                conn.batch_execute("INSERT INTO users (name) VALUES ('a'); SELECT 1")?;
                let rows_by_row = users::table.load_iter::<User, diesel::pg::PgRowByRowLoadingMode>(conn)?;
                rows.extend(rows_by_row.collect::<QueryResult<Vec<_>>>()?);
                diesel::update(users::table).set(users::age.eq(1)).execute(conn)?;
                QueryResult::Ok(rows)
            })
            .unwrap();
        let (trace, wire) = (proxy.trace(), proxy.wire());
        (rows, trace, wire.statements, wire.round_trips, wire.bytes_sent)
    }};
}

#[test]
fn before_it_is_turned_on_everything_is_passed_through() {
    let plain = trace!(diesel::PgConnection);
    assert!(plain.1.len() > 20);
    assert_eq!(trace!(PgConnection), plain);
}

#[test]
fn before_it_is_turned_on_stats_are_zero_and_flush_does_nothing() {
    let database = Database::create();
    database.execute(USERS);
    let proxy = Proxy::start(database.url(), std::time::Duration::ZERO);
    let mut conn = PgConnection::establish(proxy.url()).unwrap();
    proxy.reset();
    conn.flush().unwrap();
    assert_eq!(conn.stats(), batch_diesel::Stats::default());
    assert_eq!(proxy.wire().statements, 0);
    conn.with_diesel(|conn| conn.batch_execute("SELECT 1")).unwrap();
    assert_eq!(proxy.wire().statements, 1);
}

#[test]
fn flush_sends_what_waits_once() {
    let mut world = super::world(WITHOUT_IDS);
    let conn = &mut world.conn;
    conn.flush().unwrap();
    conn.transaction(|conn| {
        conn.flush()?;
        insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
        insert_into(users::table).values(users::name.eq("b")).execute(conn)?;
        conn.flush()?;
        conn.flush()
    })
    .unwrap();
    let stats = conn.stats();
    assert_eq!(stats.flushes.into_iter().collect::<Vec<_>>(), [(FlushCause::Explicit, 1)]);
    assert_eq!(world.inserts_on_the_wire(), 1);
}

#[test]
fn flush_gives_the_error_at_that_point_and_the_transaction_is_aborted() {
    let schema = format!("{WITHOUT_IDS}; CREATE UNIQUE INDEX ON users (name)");
    let mut world = super::world(&schema);
    let result = world.conn.transaction(|conn| {
        insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
        insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
        let error = conn.flush().unwrap_err();
        assert!(matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)), "{error}");
        // Nothing is left to send, but the rows are not in.
        assert_eq!(super::error_text(&conn.flush().unwrap_err()), super::error_text(&error));
        insert_into(users::table).values(users::name.eq("b")).execute(conn)
    });
    assert!(super::error_text(&result.unwrap_err()).contains("current transaction is aborted"));
    assert_eq!(world.count("SELECT count(*) FROM users"), 0);
}

#[test]
fn stats_count_what_happened() {
    let mut world = super::world(&format!("{USERS}; CREATE TABLE plain (id int, name text)"));
    let conn = &mut world.conn;
    conn.transaction(|conn| {
        for n in 0..10 {
            let user = (users::name.eq("x"), users::age.eq(n));
            insert_into(users::table).values(user).returning(users::id).get_result::<i32>(conn)?;
        }
        conn.batch_execute("INSERT INTO plain VALUES (1, 'a')")?;
        users::table.count().get_result::<i64>(conn)?;
        let _ = conn.transaction(|conn| {
            conn.batch_execute("INSERT INTO plain VALUES (2, 'b')")?;
            QueryResult::<()>::Err(Error::RollbackTransaction)
        });
        diesel::sql_query("INSERT INTO plain VALUES (3, upper('c'))").execute(conn)
    })
    .unwrap();
    insert_into(users::table).values(users::name.eq("outside")).execute(conn).unwrap();
    let stats = conn.stats();
    assert_eq!(stats.inserts_seen, 14);
    assert_eq!(stats.inserts_deferred, 11);
    let sent: Vec<(Reason, u64)> = stats.inserts_sent.iter().map(|(&reason, &count)| (reason, count)).collect();
    assert_eq!(sent, [(Reason::NotInTransaction, 1), (Reason::Expression, 1), (Reason::FirstUse, 1)]);
    assert_eq!(stats.flushes.iter().map(|(&c, &n)| (c, n)).collect::<Vec<_>>(), [(FlushCause::Statement, 1)]);
    assert_eq!((stats.flush_statements, stats.rows_flushed, stats.rows_discarded), (1, 10, 1));
    // All that were reserved are used, at hand, or thrown away when the insert outside went past them.
    assert_eq!(stats.ids_reserved, stats.ids_unused + 9);
    assert_eq!(stats.catalog_reads, 1);
    let text = stats.to_string();
    for line in ["inserts: 14 seen, 11 deferred", "1 sent at once: not in an explicit transaction", "10 rows"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn explain_says_for_each_table_whether_and_why() {
    let schema = format!(
        "{USERS};
         CREATE TABLE audited (id bigint GENERATED BY DEFAULT AS IDENTITY, at timestamptz DEFAULT clock_timestamp());
         CREATE TABLE watched (id int);
         CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER watch BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION watch();
         CREATE TABLE left_out (id int);
         CREATE VIEW seen AS SELECT * FROM users"
    );
    let mut world = World::<Diesel>::with(&schema, BatchOptions::new().exclude("left_out"));
    let explanation = world.conn.explain().unwrap();
    let table = |name: &str| explanation.table(name).unwrap_or_else(|| panic!("{name} in\n{explanation}"));
    assert_eq!(table("users").reason, None);
    assert_eq!(table("public.users").ids, [("id".to_owned(), "public.users_id_seq".to_owned())]);
    assert_eq!(table("audited").unless_given, [("at".to_owned(), Reason::VolatileDefault)]);
    assert_eq!(table("audited").ids.len(), 1);
    assert_eq!(table("watched").reason, Some(Reason::Trigger));
    assert_eq!(table("left_out").reason, Some(Reason::Excluded));
    assert_eq!(table("seen").reason, Some(Reason::NotATable));
    let text = explanation.to_string();
    for line in [
        "public.users: batched, id from public.users_id_seq\n",
        "public.watched: not batched: a trigger for INSERT\n",
        "public.left_out: not batched: left out by BatchOptions::exclude\n",
        "public.audited: batched, id from public.audited_id_seq, but not where at is left out: a default would give \
         another value later\n",
    ] {
        assert!(text.contains(line), "{line:?} in\n{text}");
    }
}

#[test]
fn explain_flushes_nothing_and_follows_the_schema() {
    let mut world = super::world(WITHOUT_IDS);
    world
        .conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("x")).execute(conn)?;
            let explanation = conn.explain()?;
            assert_eq!(conn.stats().flush_statements, 0);
            assert!(explanation.table("fresh").is_none());
            conn.batch_execute("CREATE TABLE fresh (id serial)")?;
            let explanation = conn.explain()?;
            assert_eq!(explanation.table("fresh").unwrap().ids.len(), 1);
            QueryResult::Ok(())
        })
        .unwrap();
}

#[test]
fn a_table_that_is_left_out_is_never_batched_but_others_are() {
    let schema = format!(
        "{WITHOUT_IDS}; CREATE SCHEMA other; CREATE TABLE other.users (id int, name text); CREATE TABLE logs (id int)"
    );
    let mut world = World::<Diesel>::with(&schema, BatchOptions::new().exclude("public.users").exclude("logs"));
    world
        .conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            conn.batch_execute("INSERT INTO logs VALUES (1)")?;
            conn.batch_execute("INSERT INTO other.users VALUES (1, 'b')")?;
            QueryResult::Ok(())
        })
        .unwrap();
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_sent.get(&Reason::Excluded), Some(&2), "{stats}");
    assert_eq!(stats.inserts_deferred, 1, "{stats}");
}
