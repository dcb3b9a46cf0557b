//! `build_transaction`, test transactions, nested ones.

use batch_core::{BatchOptions, FlushCause, Reason};
use batch_diesel::Nested;
use diesel::connection::{AnsiTransactionManager, Connection, LoadConnection, SimpleConnection, TransactionManager};
use diesel::dsl::insert_into;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};

use super::{USERS, User, WITHOUT_IDS, error_text, like_plain, users};

#[test]
fn inserts_wait_in_a_built_transaction() {
    let (names, world) = like_plain!(WITHOUT_IDS, |conn| {
        let mut names: Vec<String> = Vec::new();
        let insert = |conn: &mut _, name: &str| {
            let insert = || insert_into(users::table).values(users::name.eq(name)).returning(users::name);
            Ok::<[String; 2], Error>([insert().get_result(conn)?, insert().get_result(conn)?])
        };
        for _ in 0..3 {
            names.extend(conn.build_transaction().serializable().run(|conn| insert(conn, "s")).unwrap());
            names
                .extend(conn.build_transaction().repeatable_read().read_write().run(|conn| insert(conn, "r")).unwrap());
            names.extend(
                conn.build_transaction().read_committed().not_deferrable().run(|conn| insert(conn, "c")).unwrap(),
            );
        }
        names
    });
    assert_eq!(names.concat(), "ssrrccssrrccssrrcc");
    let stats = world.conn.stats();
    // The first insert takes the snapshot where there is one for the whole transaction.
    assert_eq!((stats.inserts_deferred, stats.inserts_sent[&Reason::Snapshot]), (12, 6), "{stats}");
}

#[test]
fn a_read_only_transaction_fails_at_the_insert_as_it_would_have() {
    let (seen, world) = like_plain!(USERS, |conn| {
        let mut seen = Vec::new();
        let error = conn.build_transaction().read_only().run(|conn| {
            seen.push(insert_into(users::table).values(users::name.eq("x")).execute(conn).map_err(|e| error_text(&e)));
            QueryResult::Ok(())
        });
        seen.push(error.map(|()| 0).map_err(|e| error_text(&e)));
        let error = conn
            .build_transaction()
            .serializable()
            .read_only()
            .deferrable()
            .run(|conn| insert_into(users::table).values(users::name.eq("x")).get_result::<User>(conn));
        seen.push(error.map(|_| 0).map_err(|e| error_text(&e)));
        // A transaction that turns read-only later.
        let error = conn.transaction(|conn| {
            insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
            diesel::sql_query("SET TRANSACTION READ ONLY").execute(conn)?;
            insert_into(users::table).values(users::name.eq("x")).execute(conn)
        });
        seen.push(error.map_err(|e| error_text(&e)));
        seen
    });
    assert!(seen[0].as_ref().unwrap_err().starts_with("ReadOnlyTransaction"), "{seen:?}");
    assert!(seen[2].as_ref().unwrap_err().starts_with("ReadOnlyTransaction"), "{seen:?}");
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_sent.get(&Reason::ReadOnly), Some(&3), "{stats}");
}

#[test]
fn a_session_that_is_read_only_fails_at_the_insert_as_it_would_have() {
    let (error, _) = like_plain!(USERS, |conn| {
        conn.batch_execute("SET default_transaction_read_only = on").unwrap();
        conn.transaction(|conn| {
            let first = insert_into(users::table).values(users::name.eq("x")).execute(conn);
            // The transaction is aborted now; the error is that of the insert, not of the commit.
            first.map_err(|error| {
                assert!(matches!(error, Error::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _)), "{error}");
                error
            })
        })
        .map_err(|error| error_text(&error))
    });
    assert!(error.is_err());
}

#[test]
fn a_session_that_turned_read_only_before_batching_fails_in_the_same_transaction() {
    let mut world = super::world(USERS);
    world.conn.batch_execute("SET default_transaction_read_only = on").unwrap();
    for _ in 0..3 {
        let error = world.conn.transaction(|conn| {
            insert_into(users::table).values(users::name.eq("x")).execute(conn)?;
            insert_into(users::table).values(users::name.eq("y")).execute(conn)
        });
        let error = error.unwrap_err();
        assert!(matches!(error, Error::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _)), "{error}");
    }
    assert_eq!(world.count("SELECT count(*) FROM users"), 0);
}

#[test]
fn a_test_transaction_batches_and_leaves_nothing() {
    let (counts, world) = like_plain!(WITHOUT_IDS, |conn| {
        conn.begin_test_transaction().unwrap();
        for n in 0..3 {
            insert_into(users::table).values((users::name.eq("x"), users::age.eq(n))).execute(conn).unwrap();
        }
        // A transaction of the program's own is a nested one here.
        conn.transaction(|conn| insert_into(users::table).values(users::name.eq("y")).execute(conn)).unwrap();
        let count = users::table.count().get_result::<i64>(conn).unwrap();
        AnsiTransactionManager::rollback_transaction(conn).unwrap();
        (count, users::table.count().get_result::<i64>(conn).unwrap())
    });
    assert_eq!(counts, (4, 0));
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 4, "{stats}");
    assert_eq!(stats.flushes.get(&FlushCause::Savepoint), Some(&1), "{stats}");
    assert_eq!(stats.flushes.get(&FlushCause::Release), Some(&1), "{stats}");
}

#[test]
fn test_transaction_batches_and_leaves_nothing() {
    let mut world = super::world(USERS);
    let ids = world.conn.test_transaction(|conn| {
        (0..3)
            .map(|_| insert_into(users::table).values(users::name.eq("x")).returning(users::id).get_result(conn))
            .collect::<QueryResult<Vec<i32>>>()
    });
    assert_eq!(ids, [1, 2, 3]);
    // Sent, so that a row that fails fails the test.
    assert_eq!(world.conn.stats().rows_flushed, 2);
    assert_eq!(world.count("SELECT count(*) FROM users"), 0);
}

/// What becomes of a test: whether it succeeds, as its own result or a panic say.
fn outcome<C: Connection>(conn: &mut C, test: impl FnOnce(&mut C) -> QueryResult<()>) -> Result<(), String> {
    let run = std::panic::AssertUnwindSafe(|| conn.test_transaction(test));
    std::panic::catch_unwind(run).map_err(|panic| *panic.downcast::<String>().unwrap())
}

#[test]
fn a_test_transaction_fails_where_a_row_of_it_does() {
    fn add<C: LoadConnection<Backend = Pg>>(conn: &mut C, name: &str) -> QueryResult<usize> {
        insert_into(users::table).values(users::name.eq(name)).execute(conn)
    }
    let schema =
        format!("{WITHOUT_IDS}; ALTER TABLE users ADD UNIQUE (name); INSERT INTO users (name) VALUES ('taken')");
    let (outcomes, _) = like_plain!(&schema, |conn| {
        vec![
            // The row still waits at the end, or fails where the program catches it.
            outcome(conn, |conn| add(conn, "taken").map(drop)),
            outcome(conn, |conn| {
                add(conn, "taken")?;
                let _ = conn.transaction(|conn| add(conn, "b"));
                Ok(())
            }),
            outcome(conn, |conn| {
                add(conn, "taken")?;
                let _ = users::table.count().get_result::<i64>(conn);
                Ok(())
            }),
            // A nested transaction that fails by itself is undone.
            outcome(conn, |conn| {
                add(conn, "a")?;
                let _ = conn.transaction(|conn| add(conn, "taken"));
                add(conn, "b").map(drop)
            }),
            // What the program itself aborts and catches is no failure to Diesel.
            outcome(conn, |conn| {
                add(conn, "a")?;
                let _ = diesel::sql_query("SELECT 1 / 0").execute(conn);
                Ok(())
            }),
            outcome(conn, |conn| {
                add(conn, "a")?;
                Err(Error::NotFound)
            }),
            outcome(conn, |conn| add(conn, "a").map(drop)),
        ]
    });
    let failed = [true, true, true, false, false, true, false];
    assert_eq!(outcomes.iter().map(Result::is_err).collect::<Vec<_>>(), failed, "{outcomes:?}");
    assert!(outcomes[0].as_ref().unwrap_err().contains("UniqueViolation"), "{outcomes:?}");
}

#[test]
fn rollback_transaction_discards_what_waits() {
    let (error, world) = like_plain!(WITHOUT_IDS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
            QueryResult::<()>::Err(Error::RollbackTransaction)
        })
        .map_err(|error| error_text(&error)));
    assert_eq!(error, Err("RollbackTransaction".into()));
    assert_eq!(world.conn.stats().rows_discarded, 1);
    assert_eq!(world.inserts_on_the_wire(), 0);
}

#[test]
fn an_error_of_the_programs_own_discards_what_waits() {
    #[derive(Debug)]
    enum Mine {
        Diesel,
        Own,
    }
    impl From<Error> for Mine {
        fn from(_: Error) -> Self {
            Self::Diesel
        }
    }
    let mut world = super::world(USERS);
    let result = world.conn.transaction(|conn| {
        insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
        Err::<(), _>(Mine::Own)
    });
    assert!(matches!(result, Err(Mine::Own)));
    assert_eq!(world.inserts_on_the_wire(), 0);
    // A failing flush is an error of Diesel's, which the program's own type takes.
    let schema = format!("{USERS}; CREATE UNIQUE INDEX ON users (name)");
    let mut world = super::world(&schema);
    let result = world.conn.transaction(|conn| {
        insert_into(users::table).values(users::name.eq("twice")).execute(conn)?;
        insert_into(users::table).values(users::name.eq("twice")).execute(conn)?;
        Ok(())
    });
    assert!(matches!(result, Err(Mine::Diesel)));
}

#[test]
fn nested_transactions_keep_and_lose_their_rows() {
    let (names, world) = like_plain!(WITHOUT_IDS, |conn| conn
        .transaction(|conn| {
            let insert = |name: &'static str| insert_into(users::table).values(users::name.eq(name));
            insert("outer").execute(conn)?;
            conn.transaction(|conn| {
                insert("kept").execute(conn)?;
                let lost = conn.transaction(|conn| {
                    insert("lost").execute(conn)?;
                    QueryResult::<()>::Err(Error::RollbackTransaction)
                });
                assert!(lost.is_err());
                insert("kept too").execute(conn)
            })?;
            insert("last").execute(conn)?;
            users::table.order(users::name).select(users::name).load::<String>(conn)
        })
        .unwrap());
    assert_eq!(names, ["kept", "kept too", "last", "outer"]);
    assert_eq!(world.conn.stats().inserts_deferred, 5);
    assert_eq!(world.conn.stats().rows_discarded, 1);
}

#[test]
fn a_violation_comes_out_of_the_nested_transaction_and_is_survived() {
    let schema = format!("{WITHOUT_IDS}; CREATE UNIQUE INDEX ON users (name)");
    let (error, world) = like_plain!(&schema, |conn| conn
        .transaction(|conn| {
            let insert = |name: &'static str| insert_into(users::table).values(users::name.eq(name));
            insert("a").execute(conn)?;
            let nested = conn.transaction(|conn| {
                insert("b").execute(conn)?;
                insert("a").execute(conn)?;
                QueryResult::Ok(())
            });
            insert("c").execute(conn)?;
            QueryResult::Ok(error_text(&nested.unwrap_err()))
        })
        .unwrap());
    assert!(error.starts_with("UniqueViolation"), "{error}");
    assert_eq!(world.count("SELECT count(*) FROM users"), 2);
}

#[test]
fn merged_nested_transactions_are_one_flush() {
    let options = BatchOptions::new().nested(Nested::Merge);
    let mut world = batch_tests::World::<batch_tests::diesel_adapter::Diesel>::with(WITHOUT_IDS, options);
    world
        .conn
        .transaction(|conn| {
            for n in 0..4 {
                let nested = conn.transaction(|conn| {
                    insert_into(users::table).values((users::name.eq("x"), users::age.eq(n))).execute(conn)?;
                    if n == 2 { Err(Error::RollbackTransaction) } else { Ok(()) }
                });
                assert_eq!(nested.is_err(), n == 2);
            }
            QueryResult::Ok(())
        })
        .unwrap();
    assert_eq!(world.wire().len(), 1, "the flush");
    assert_eq!(world.count("SELECT count(*) FROM users"), 3);
    assert_eq!(world.count("SELECT count(*) FROM users WHERE age = 2"), 0);
}

#[test]
fn a_commit_whose_flush_fails_leaves_the_connection_good() {
    let schema = format!("{USERS}; CREATE UNIQUE INDEX ON users (name)");
    let mut world = super::world(&schema);
    let conn = &mut world.conn;
    let error = conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            insert_into(users::table).values(users::name.eq("a")).execute(conn)
        })
        .unwrap_err();
    let text = error_text(&error);
    assert!(text.starts_with("UniqueViolation"), "{text}");
    assert!(text.contains("users_name_idx") && text.contains("Key (name)=(a) already exists."), "{text}");
    let depth = AnsiTransactionManager::transaction_manager_status_mut(conn).transaction_depth().unwrap();
    assert_eq!(depth, None);
    conn.transaction(|conn| insert_into(users::table).values(users::name.eq("b")).execute(conn)).unwrap();
    assert_eq!(users::table.select(users::name).load::<String>(conn).unwrap(), ["b"]);
}

#[test]
fn a_deferred_constraint_fails_at_the_commit_as_it_would_have() {
    let schema = "CREATE TABLE users (id int, name text NOT NULL, hair text DEFAULT 'brown', age int,
                  UNIQUE (name) DEFERRABLE INITIALLY DEFERRED)";
    let (seen, _) = like_plain!(schema, |conn| {
        let insert = |name: &'static str| insert_into(users::table).values(users::name.eq(name));
        let failed = conn.transaction(|conn| {
            insert("a").execute(conn)?;
            insert("a").execute(conn)
        });
        let mended = conn.transaction(|conn| {
            insert("b").execute(conn)?;
            insert("b").execute(conn)?;
            diesel::update(users::table)
                .set(users::name.eq(diesel::dsl::sql::<diesel::sql_types::Text>("ctid::text")))
                .execute(conn)
        });
        (failed.map_err(|error| error_text(&error)), mended.map_err(|error| error_text(&error)))
    });
    assert!(seen.0.unwrap_err().starts_with("UniqueViolation"));
    assert_eq!(seen.1, Ok(2));
}

#[test]
fn a_serializable_transaction_fails_and_can_be_tried_again() {
    let mut world = super::world(USERS);
    let mut other = world.plain();
    let mut tries = 0;
    loop {
        tries += 1;
        let result = world.conn.build_transaction().serializable().run(|conn| {
            let count = users::table.count().get_result::<i64>(conn)?;
            insert_into(users::table).values((users::name.eq("ours"), users::age.eq(count as i32))).execute(conn)?;
            if tries == 1 {
                other.build_transaction().serializable().run(|other| {
                    let count = users::table.count().get_result::<i64>(other)?;
                    insert_into(users::table)
                        .values((users::name.eq("theirs"), users::age.eq(count as i32)))
                        .execute(other)
                })?;
            }
            QueryResult::Ok(())
        });
        match result {
            Ok(()) => break,
            Err(Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(tries, 2);
    assert_eq!(world.count("SELECT count(*) FROM users WHERE name = 'ours' AND age = 1"), 1);
    assert_eq!(world.count("SELECT count(*) FROM users"), 2);
}

#[test]
fn a_panic_in_a_transaction_sends_nothing() {
    let mut world = super::world(WITHOUT_IDS);
    let conn = &mut world.conn;
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = conn.transaction(|conn| {
            insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
            if conn.stats().inserts_deferred == 1 {
                panic!("on purpose");
            }
            QueryResult::Ok(())
        });
    }));
    assert!(caught.is_err());
    assert_eq!(world.inserts_on_the_wire(), 0);
    // As with plain Diesel the transaction is still open: a pool throws the connection away.
    assert!(diesel::r2d2::R2D2Connection::is_broken(&mut world.conn));
    drop(world.conn);
    assert!(world.database.query("SELECT * FROM users").is_empty());
}
