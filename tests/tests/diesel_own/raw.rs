//! Raw SQL: `sql_query` and `batch_execute`.

use batch_core::{FlushCause, Reason};
use diesel::connection::SimpleConnection;
use diesel::dsl::insert_into;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{Integer, Nullable, Text};

use super::{USERS, User, error_text, like_plain, users};

#[derive(Debug, PartialEq, Eq, QueryableByName)]
struct Id {
    #[diesel(sql_type = Integer)]
    id: i32,
}

#[test]
fn raw_inserts_with_binds_wait() {
    let (counts, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (0..5)
                .map(|n| {
                    sql_query("INSERT INTO users (name, age) VALUES ($1, $2)")
                        .bind::<Text, _>(format!("user {n}"))
                        .bind::<Nullable<Integer>, _>((n % 2 == 0).then_some(n))
                        .execute(conn)
                })
                .collect::<QueryResult<Vec<usize>>>()
        })
        .unwrap());
    assert_eq!(counts, [1; 5]);
    assert_eq!(world.conn.stats().inserts_deferred, 5);
    assert_eq!(world.inserts_on_the_wire(), 1);
}

#[test]
fn raw_inserts_give_their_ids_by_name_and_wait() {
    let (ids, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (0..5)
                .map(|n| {
                    sql_query("INSERT INTO users (name) VALUES ($1) RETURNING id")
                        .bind::<Text, _>(format!("user {n}"))
                        .get_result::<Id>(conn)
                })
                .collect::<QueryResult<Vec<Id>>>()
        })
        .unwrap());
    assert_eq!(ids[4], Id { id: 5 });
    assert_eq!(world.conn.stats().inserts_deferred, 4);
}

#[test]
fn raw_inserts_give_all_columns_by_name_and_wait() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (0..3)
                .map(|n| {
                    sql_query("insert into users (name, age) values ($1, $2) returning *")
                        .bind::<Text, _>("x")
                        .bind::<Integer, _>(n)
                        .get_result::<User>(conn)
                })
                .collect::<QueryResult<Vec<User>>>()
        })
        .unwrap());
    assert_eq!(rows[2].hair.as_deref(), Some("brown"));
    assert_eq!(world.conn.stats().inserts_deferred, 2);
}

#[test]
fn boxed_raw_inserts_wait() {
    let (counts, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (1..4)
                .map(|rows| {
                    let mut query = sql_query("INSERT INTO users (name, age) VALUES ").into_boxed::<Pg>();
                    for row in 0..rows {
                        let comma = if row == 0 { "" } else { ", " };
                        query = query.sql(format!("{comma}(${}, ${})", 2 * row + 1, 2 * row + 2));
                    }
                    for row in 0..rows {
                        query = query.bind::<Text, _>(format!("user {row}")).bind::<Integer, _>(row);
                    }
                    query.execute(conn)
                })
                .collect::<QueryResult<Vec<usize>>>()
        })
        .unwrap());
    assert_eq!(counts, [1, 2, 3]);
    assert_eq!(world.conn.stats().inserts_deferred, 3);
    assert_eq!(world.inserts_on_the_wire(), 1);
}

#[test]
fn raw_inserts_and_those_of_the_query_builder_wait_for_each_other() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let mut ids = Vec::new();
            for n in 0..3 {
                let built = insert_into(users::table).values((users::name.eq("built"), users::age.eq(n)));
                ids.push(built.returning(users::id).get_result::<i32>(conn)?);
                let raw = sql_query("INSERT INTO users (name, age) VALUES ($1, $2) RETURNING id");
                ids.push(raw.bind::<Text, _>("raw").bind::<Integer, _>(n).get_result::<Id>(conn)?.id);
            }
            QueryResult::Ok(ids)
        })
        .unwrap());
    assert_eq!(rows, [1, 2, 3, 4, 5, 6]);
    assert_eq!(world.conn.stats().inserts_deferred, 5);
    assert_eq!(world.conn.stats().flush_statements, 1);
}

#[test]
fn a_wrong_number_of_binds_gives_what_plain_diesel_gives() {
    let (results, _world) = like_plain!(USERS, |conn| [0, 2].map(|count| {
        conn.transaction(|conn| {
            let mut query = sql_query("INSERT INTO users (name) VALUES ($1)").into_boxed::<Pg>();
            for _ in 0..count {
                query = query.bind::<Text, _>("x");
            }
            query.execute(conn)
        })
        .map_err(|error| error_text(&error))
    }));
    assert!(results[0].as_ref().unwrap_err().contains("bind message supplies 0 parameters"), "{results:?}");
    // Postgres takes one that is not used.
    assert_eq!(results[1], Ok(1));
}

#[test]
fn batch_execute_of_one_insert_with_literals_waits() {
    let ((), world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            conn.batch_execute("INSERT INTO users (name, age) VALUES ('it''s', 1), ('b', NULL)")?;
            conn.batch_execute("INSERT INTO users (name, hair) VALUES ('c', DEFAULT);")?;
            QueryResult::Ok(())
        })
        .unwrap());
    assert_eq!(world.conn.stats().inserts_deferred, 2);
    assert_eq!(world.inserts_on_the_wire(), 1);
}

#[test]
fn a_script_of_several_statements_is_sent_whole_after_what_waits() {
    let (names, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            conn.batch_execute(
                "UPDATE users SET name = name || '!'; INSERT INTO users (name) VALUES ('b'); -- the end;
                 INSERT INTO users (name) SELECT name || '?' FROM users;",
            )?;
            insert_into(users::table).values(users::name.eq("c")).execute(conn)?;
            users::table.order(users::id).select(users::name).load::<String>(conn)
        })
        .unwrap());
    assert_eq!(names, ["a!", "b", "a!?", "b?", "c"]);
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 2, "{stats}");
    assert_eq!(stats.flushes.get(&FlushCause::Statement), Some(&2), "{stats}");
}

#[test]
fn ids_stay_in_order_around_a_script_that_inserts() {
    // Not the same ids as plain Diesel: the script goes past those that are reserved.
    let mut world = super::world(USERS);
    let ids = world
        .conn
        .transaction(|conn| {
            let mut ids: Vec<i32> = Vec::new();
            for n in 0..4 {
                for _ in 0..3 {
                    let insert = insert_into(users::table).values((users::name.eq("x"), users::age.eq(n)));
                    ids.push(insert.returning(users::id).get_result(conn)?);
                }
                conn.batch_execute("SELECT 1; INSERT INTO users (name) VALUES ('script')")?;
                ids.push(users::table.select(diesel::dsl::max(users::id)).get_result::<Option<i32>>(conn)?.unwrap());
            }
            QueryResult::Ok(ids)
        })
        .unwrap();
    assert!(ids.is_sorted() && ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
    let seen: Vec<i32> = users::table.order(users::id).select(users::id).load(&mut world.conn).unwrap();
    assert_eq!(ids, seen);
    assert!(world.conn.stats().inserts_deferred >= 4);
}

#[test]
fn a_script_with_transaction_control_of_its_own_is_left_to_postgres() {
    let ((), world) = like_plain!(USERS, |conn| {
        conn.batch_execute(
            "BEGIN; INSERT INTO users (name) VALUES ('a'); INSERT INTO users (name) VALUES ('b'); COMMIT",
        )
        .unwrap();
        conn.batch_execute("BEGIN; INSERT INTO users (name) VALUES ('lost'); ROLLBACK").unwrap();
        insert_into(users::table).values(users::name.eq("c")).execute(conn).unwrap();
        conn.transaction(|conn| insert_into(users::table).values(users::name.eq("d")).execute(conn)).unwrap();
    });
    assert_eq!(world.count("SELECT count(*) FROM users"), 4);
    assert_eq!(world.conn.stats().inserts_deferred, 1);
}

#[test]
fn a_raw_transaction_batches_as_well() {
    let (ids, world) = like_plain!(USERS, |conn| {
        conn.batch_execute("BEGIN").unwrap();
        let mut ids = Vec::new();
        for _ in 0..4 {
            let insert = insert_into(users::table).values(users::name.eq("x"));
            ids.push(insert.returning(users::id).get_result::<i32>(conn).unwrap());
        }
        sql_query("COMMIT").execute(conn).unwrap();
        ids
    });
    assert_eq!(ids, [1, 2, 3, 4]);
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 3, "{stats}");
    assert_eq!(stats.flushes.get(&FlushCause::Commit), Some(&1), "{stats}");
}

#[test]
fn a_raw_savepoint_that_is_rolled_back_takes_its_rows_along() {
    // Without ids: those of the lost row are a gap in plain Diesel's.
    let (names, world) = like_plain!(super::WITHOUT_IDS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("kept")).execute(conn)?;
            sql_query("SAVEPOINT mine").execute(conn)?;
            insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
            sql_query("ROLLBACK TO SAVEPOINT mine").execute(conn)?;
            insert_into(users::table).values(users::name.eq("kept too")).execute(conn)?;
            users::table.order(users::name).select(users::name).load::<String>(conn)
        })
        .unwrap());
    assert_eq!(names, ["kept", "kept too"]);
    assert_eq!(world.conn.stats().rows_discarded, 1);
}

#[test]
fn a_syntax_error_is_postgres_own_and_comes_at_once() {
    let (errors, world) = like_plain!(USERS, |conn| {
        [
            "INSERT INTO users (name) VALUES ('a'",
            "INSERT INTO users (name) VALUE ('a')",
            "INSERT INTO nowhere (name) VALUES ('a')",
            "INSERT INTO users (nothing) VALUES ('a')",
            "INSERT INTO users (name) VALUES ('a') RETURNING nothing",
            "INSERT INTO users (name, name) VALUES ('a', 'b')",
            "INSERT INTO users (age, name) VALUES ('not a number', 'b')",
            "INSERT INTO users (name) VALUES ('a', 'b')",
            "INSERT INTO users (name, age) VALUES ('a')",
            "INSERT INTO users VALUES (1, 'a', 'b', 4, 5)",
        ]
        .map(|sql| {
            conn.transaction(|conn| sql_query(sql).execute(conn)).map_err(|error| error_text(&error)).unwrap_err()
        })
    });
    assert!(errors.iter().all(|error| !error.contains("batch")), "{errors:?}");
    let stats = world.conn.stats();
    assert_eq!((stats.inserts_seen, stats.inserts_deferred), (10, 0), "{stats}");
    assert_eq!(stats.inserts_sent.get(&Reason::NotInTransaction), None, "{stats}");
}

#[test]
fn an_insert_from_a_select_that_asks_for_lastval_gets_the_right_answer_or_a_clear_error() {
    let schema = format!("{USERS}; CREATE TABLE log (user_id bigint)");
    let mut world = super::world(&schema);
    let result = world.conn.transaction(|conn| {
        let mut last = 0;
        for _ in 0..3 {
            let insert = insert_into(users::table).values(users::name.eq("x"));
            last = insert.returning(users::id).get_result::<i32>(conn)?;
        }
        sql_query("INSERT INTO log SELECT lastval()").execute(conn)?;
        QueryResult::Ok(last)
    });
    match result {
        Ok(last) => assert_eq!(world.count("SELECT user_id FROM log"), i64::from(last)),
        Err(error) => assert!(error.to_string().contains("lastval"), "{error}"),
    }
}

#[test]
fn an_insert_from_a_select_that_sets_a_sequence_is_noticed() {
    let schema = format!("{USERS}; CREATE TABLE log (user_id bigint)");
    let mut world = super::world(&schema);
    let ids = world
        .conn
        .transaction(|conn| {
            let mut ids = Vec::new();
            for round in 0..4 {
                if round == 3 {
                    sql_query("INSERT INTO log SELECT setval('users_id_seq', 1000)").execute(conn)?;
                }
                let insert = insert_into(users::table).values(users::name.eq("x"));
                ids.push(insert.returning(users::id).get_result::<i32>(conn)?);
            }
            QueryResult::Ok(ids)
        })
        .unwrap();
    assert_eq!(ids, [1, 2, 3, 1001]);
}

#[test]
fn a_function_of_another_schema_with_a_harmless_name_is_not_trusted() {
    let schema = format!(
        "{USERS}; CREATE SCHEMA mine; CREATE FUNCTION mine.lower(text) RETURNS text LANGUAGE sql
         AS $$ SELECT setval('public.users_id_seq', 1000)::text $$"
    );
    let mut world = super::world(&schema);
    let ids = world
        .conn
        .transaction(|conn| {
            let mut ids = Vec::new();
            for round in 0..4 {
                if round == 3 {
                    sql_query("SELECT mine.lower('X')").execute(conn)?;
                }
                let insert = insert_into(users::table).values(users::name.eq("x"));
                ids.push(insert.returning(users::id).get_result::<i32>(conn)?);
            }
            QueryResult::Ok(ids)
        })
        .unwrap();
    assert_eq!(ids, [1, 2, 3, 1001]);
}
