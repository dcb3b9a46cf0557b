//! SELECTs in both loading modes.

use batch_core::{FlushCause, Reason};
use diesel::connection::DefaultLoadingMode;
use diesel::dsl::insert_into;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use diesel::result::Error;
use diesel::sql_types::Integer;

use super::{USERS, User, error_text, like_plain, users};

/// Fails at its third row.
const FAILS_LATE: &str = "SELECT 1/(3-x) AS n FROM generate_series(1,5) x";

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    n: i32,
}

#[test]
fn a_select_sees_the_rows_that_waited() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let mut counts = Vec::new();
            for n in 1..4_i64 {
                insert_into(users::table).values(users::name.eq(format!("user {n}"))).execute(conn)?;
                assert_eq!(users::table.count().get_result::<i64>(conn)?, n);
                counts.push(users::table.order(users::id).load::<User>(conn)?);
            }
            QueryResult::Ok(counts)
        })
        .unwrap());
    assert_eq!(rows[2].len(), 3);
    // The first SELECT of each round flushes; for the second there is nothing to flush.
    assert_eq!(world.conn.stats().flushes.get(&FlushCause::Statement), Some(&3));
}

#[test]
fn rows_are_read_in_either_loading_mode() {
    let (rows, _world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values([users::name.eq("a"), users::name.eq("b")]).execute(conn)?;
            let all = users::table.order(users::id);
            let whole = all.load_iter::<User, DefaultLoadingMode>(conn)?.collect::<QueryResult<Vec<_>>>()?;
            let single = all.load_iter::<User, PgRowByRowLoadingMode>(conn)?.collect::<QueryResult<Vec<_>>>()?;
            insert_into(users::table).values(users::name.eq("c")).execute(conn)?;
            let mut partly = all.load_iter::<User, PgRowByRowLoadingMode>(conn)?;
            let first = partly.next().unwrap()?;
            drop(partly);
            // What was not read is gone; the connection goes on.
            let count: i64 = users::table.count().get_result(conn)?;
            QueryResult::Ok((whole, single, first, count))
        })
        .unwrap());
    assert_eq!(rows.0, rows.1);
    assert_eq!(rows.3, 3);
}

#[test]
fn an_import_inserts_while_it_goes_over_what_it_loaded() {
    let schema = "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, hair text DEFAULT 'brown', age int);
        INSERT INTO users (name) VALUES ('a'), ('b'), ('c')";
    let (names, world) = like_plain!(schema, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("d")).execute(conn)?;
            let all = users::table.order(users::id).select(users::name);
            for name in all.load_iter::<String, DefaultLoadingMode>(conn)? {
                insert_into(users::table).values(users::name.eq(format!("{} again", name?))).execute(conn)?;
            }
            // Several at once, of what was sent and of what waits.
            let sent = all.load_iter::<String, DefaultLoadingMode>(conn)?;
            let mut made = Vec::new();
            for name in ["x", "y"] {
                let insert = insert_into(users::table).values(users::name.eq(name)).returning(users::name);
                made.push(insert.load_iter::<String, DefaultLoadingMode>(conn)?);
            }
            sent.chain(made.into_iter().flatten()).collect::<QueryResult<Vec<_>>>()
        })
        .unwrap());
    assert_eq!(names, ["a", "b", "c", "d", "a again", "b again", "c again", "d again", "x", "y"]);
    assert!(world.conn.stats().inserts_deferred >= 6, "{}", world.conn.stats());
}

#[test]
fn a_row_is_read_by_name_and_by_position_wherever_it_comes_from() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let sql = "INSERT INTO users (name) VALUES ('a') RETURNING users.id, name AS name, hair, users.age";
            let mut by_name: Vec<User> = Vec::new();
            for _ in 0..3 {
                by_name.extend(diesel::sql_query(sql).load::<User>(conn)?);
            }
            let by_position: User = insert_into(users::table).values(users::name.eq("b")).get_result(conn)?;
            QueryResult::Ok((by_name, by_position))
        })
        .unwrap());
    assert_eq!(rows.0[2].id, 3);
    assert_eq!(rows.1.id, 4);
    assert_eq!(world.conn.stats().inserts_deferred, 3);
}

#[test]
fn a_failure_in_the_middle_of_a_row_by_row_read_leaves_later_inserts_not_waiting() {
    let (result, world) = like_plain!(USERS, |conn| {
        let mut seen = Vec::new();
        let error = conn
            .transaction(|conn| {
                insert_into(users::table).values(users::name.eq("before")).execute(conn)?;
                let rows = diesel::sql_query(FAILS_LATE).load_iter::<Number, PgRowByRowLoadingMode>(conn)?;
                for row in rows {
                    seen.push(row.map(|row| row.n).map_err(|error| error_text(&error)));
                }
                let late = insert_into(users::table).values(users::name.eq("after")).execute(conn);
                seen.push(late.map(|count| count as i32).map_err(|error| error_text(&error)));
                QueryResult::Ok(())
            })
            .map_err(|error| error_text(&error));
        // The connection is good again.
        let after = insert_into(users::table).values(users::name.eq("later")).get_result::<User>(conn);
        (seen, error, after.map(|user| user.name).unwrap())
    });
    let (seen, _, _) = result;
    assert_eq!(seen[..2], [Ok(0), Ok(1)]);
    assert!(seen[2].as_ref().unwrap_err().contains("division by zero"), "{seen:?}");
    assert!(seen.last().unwrap().as_ref().unwrap_err().contains("current transaction is aborted"), "{seen:?}");
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_sent.get(&Reason::Aborted), Some(&1), "{stats}");
}

#[test]
fn the_same_failure_at_once_in_the_default_loading_mode_leaves_later_inserts_not_waiting() {
    let (error, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("before")).execute(conn)?;
            let failed = diesel::sql_query(FAILS_LATE).load::<Number>(conn);
            assert!(matches!(failed, Err(Error::DatabaseError(..))));
            insert_into(users::table).values(users::name.eq("after")).execute(conn)
        })
        .map_err(|error| error_text(&error)));
    assert!(error.unwrap_err().contains("current transaction is aborted"));
    assert_eq!(world.conn.stats().inserts_sent.get(&Reason::Aborted), Some(&1));
}

#[test]
fn a_nested_transaction_survives_a_failure_in_the_middle_of_a_row_by_row_read() {
    let (names, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("before")).execute(conn)?;
            let nested = conn.transaction(|conn| {
                insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
                let rows = diesel::sql_query(FAILS_LATE).load_iter::<Number, PgRowByRowLoadingMode>(conn)?;
                rows.collect::<QueryResult<Vec<_>>>()
            });
            assert!(nested.is_err());
            insert_into(users::table).values(users::name.eq("after")).execute(conn)?;
            users::table.order(users::name).select(users::name).load::<String>(conn)
        })
        .unwrap());
    assert_eq!(names, ["after", "before"]);
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 3, "{stats}");
}

#[test]
fn an_error_in_the_programs_own_type_leaves_the_transaction_usable_and_inserts_waiting() {
    let (count, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            // `hair` may be NULL, so this is not a String.
            insert_into(users::table).values((users::name.eq("b"), users::hair.eq(None::<String>))).execute(conn)?;
            let hair = diesel::dsl::sql::<diesel::sql_types::Text>("hair");
            let read = users::table.order(users::id).select(hair).load_iter::<String, PgRowByRowLoadingMode>(conn)?;
            let read: Vec<bool> = read.map(|row| row.is_ok()).collect();
            assert_eq!(read, [true, false]);
            insert_into(users::table).values(users::name.eq("c")).execute(conn)?;
            users::table.count().get_result::<i64>(conn)
        })
        .unwrap());
    assert_eq!(count, 3);
    assert_eq!(world.conn.stats().inserts_deferred, 3);
}

#[test]
fn updates_and_deletes_see_and_touch_the_rows_that_waited() {
    let (counts, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let names: Vec<_> = (0..5).map(|n| (users::name.eq("x"), users::age.eq(n))).collect();
            for name in names {
                insert_into(users::table).values(name).execute(conn)?;
            }
            let updated =
                diesel::update(users::table.filter(users::age.lt(3))).set(users::name.eq("y")).execute(conn)?;
            insert_into(users::table).values(users::name.eq("z")).execute(conn)?;
            let gone: Vec<String> =
                diesel::delete(users::table.filter(users::name.ne("y"))).returning(users::name).get_results(conn)?;
            QueryResult::Ok((updated, gone.len()))
        })
        .unwrap());
    assert_eq!(counts, (3, 3));
    assert_eq!(world.conn.stats().flushes.get(&FlushCause::Statement), Some(&2));
}
