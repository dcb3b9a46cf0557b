//! DESIGN.md §2.6: errors, and nested transactions.

use batch_core::{BatchOptions, FlushCause, Nested};

use super::both::{Both, same};
use crate::{Adapter, Batching, Failure, Outcome, Session, Value, World};

const USERS: &str = "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL UNIQUE, age int CHECK (age > 0))";
const NOTES: &str = "CREATE TABLE notes (text text UNIQUE)";
const ADD_NOTE: &str = "INSERT INTO notes (text) VALUES ($1)";

fn note(text: &str) -> [Value; 1] {
    [Value::text(text)]
}

type Flush<A> = fn(&mut <A as Adapter>::Batched) -> Outcome<()>;

/// A failure that the program makes itself.
fn changed_my_mind() -> Failure {
    Failure { kind: "changed my mind".into(), ..Failure::default() }
}

/// §2.6: the error has its kind, constraint, table, column, message and detail as Postgres gave them.
pub fn a_failing_constraint_has_all_that_postgres_says<A: Adapter>() {
    let schema = format!(
        "{USERS}; CREATE TABLE posts (id int, user_id int REFERENCES users, during int4range, EXCLUDE USING gist (during WITH &&));
         CREATE DOMAIN small AS int CHECK (VALUE < 10); CREATE TABLE domains (a small);
         INSERT INTO users (id, name) VALUES (-1, 'taken')"
    );
    for (kind, sql, binds) in [
        ("UniqueViolation", "INSERT INTO users (name) VALUES ($1) RETURNING id", vec![Value::text("taken")]),
        ("UniqueViolation", "INSERT INTO users (id, name) VALUES ($1, 'other')", vec![Value::int4(-1)]),
        ("CheckViolation", "INSERT INTO users (name, age) VALUES ('b', $1)", vec![Value::int4(0)]),
        ("ForeignKeyViolation", "INSERT INTO posts (user_id) VALUES ($1)", vec![Value::int4(99)]),
        ("NotNullViolation", "INSERT INTO users (name) VALUES ($1)", vec![Value::text("").null()]),
        ("ExclusionViolation", "INSERT INTO posts (during) VALUES ($1), ($1)", vec![Value::int4range(1, 5)]),
        ("CheckViolation", "INSERT INTO domains (a) VALUES ($1)", vec![Value::int4(10)]),
    ] {
        if !binds.iter().all(A::Plain::can_bind) {
            continue;
        }
        let mut both = Both::<A>::new(&schema);
        let failure = same!(both, |conn| {
            conn.transaction(|conn| {
                conn.rows(sql, &binds)?;
                conn.rows("SELECT 'not reached'", &[])
            })
            .unwrap_err()
        });
        // Diesel has no kind of its own for an exclusion.
        assert!(failure.kind == kind || kind == "ExclusionViolation", "{sql}: {failure:?}");
        assert!(failure.constraint.is_some() || failure.column.is_some(), "{sql}: {failure:?}");
        both.same_rows("SELECT count(*) FROM users");
    }
}

/// §2.6: the error reaches the statement that caused the flush.
pub fn the_error_comes_out_of_the_statement_that_flushed<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    world.conn.begin().unwrap();
    world.conn.run(ADD_NOTE, &note("a")).unwrap();
    world.conn.run(ADD_NOTE, &note("a")).unwrap();
    world.wire();
    let failure = world.conn.rows("SELECT count(*) FROM notes", &[]).unwrap_err();
    assert_eq!((failure.kind.as_str(), failure.constraint.as_deref()), ("UniqueViolation", Some("notes_text_key")));
    let wire = world.wire();
    assert!(wire.last().unwrap().starts_with("INSERT"), "the SELECT is not sent: {wire:?}");
    // The transaction is as aborted as Postgres would have it.
    for sql in ["SELECT 1", "INSERT INTO notes (text) VALUES ('b')", "INSERT INTO notes SELECT 'c'"] {
        let failure = world.conn.rows(sql, &[]).unwrap_err();
        assert!(failure.message.starts_with("current transaction is aborted"), "{sql}: {failure}");
    }
    world.conn.rollback().unwrap();
    world.conn.transaction(|conn| conn.run(ADD_NOTE, &note("b"))).unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 1);
}

/// §2.6: so each of the other things that flush.
pub fn the_error_comes_out_of_whatever_flushed<A: Adapter>() {
    let flushes: [(&str, Flush<A>); 7] = [
        ("flush()", |conn| conn.flush()),
        ("a script", |conn| conn.script("SELECT 1; SELECT 2")),
        ("SET", |conn| conn.script("SET LOCAL work_mem = '1MB'")),
        ("an insert sent at once", |conn| conn.run("INSERT INTO notes SELECT 'x'", &[]).map(drop)),
        ("a nested transaction", |conn| conn.begin()),
        ("the budget", |conn| (0..5).try_for_each(|n| conn.run(ADD_NOTE, &note(&n.to_string())).map(drop))),
        ("COMMIT", |conn| conn.commit()),
    ];
    for (what, flush) in flushes {
        let mut world = World::<A>::with(NOTES, BatchOptions::new().max_rows(4).overlap(false));
        world.conn.begin().unwrap();
        world.conn.run(ADD_NOTE, &note("a")).unwrap();
        world.conn.run(ADD_NOTE, &note("a")).unwrap();
        let failure = flush(&mut world.conn).unwrap_err();
        assert_eq!(failure.constraint.as_deref(), Some("notes_text_key"), "{what}: {failure:?}");
        if what != "COMMIT" {
            world.conn.rollback().unwrap();
        }
        assert_eq!(world.count("SELECT count(*) FROM notes"), 0, "{what}");
        assert!(!world.conn.is_broken(), "{what}");
        world.conn.transaction(|conn| conn.run(ADD_NOTE, &note("b"))).unwrap();
        assert_eq!(world.count("SELECT count(*) FROM notes"), 1, "{what}");
    }
}

/// §2.6: a commit that fails has ended the transaction, and nothing is in.
pub fn a_commit_that_fails_leaves_nothing_in_and_the_connection_usable<A: Adapter>() {
    let mut both = Both::<A>::new(&format!("{NOTES}; CREATE TABLE other (a int)"));
    let failure = same!(both, |conn| {
        let failure = conn.transaction(|conn| {
            conn.run("INSERT INTO other VALUES (1)", &[])?;
            conn.run(ADD_NOTE, &note("a"))?;
            conn.run(ADD_NOTE, &note("a"))
        });
        conn.script("INSERT INTO other VALUES (2)").unwrap();
        conn.transaction(|conn| conn.run(ADD_NOTE, &note("later"))).unwrap();
        failure.unwrap_err()
    });
    assert_eq!(failure.detail.as_deref(), Some("Key (text)=(a) already exists."));
    assert_eq!(both.same_rows("SELECT text FROM notes"), [[Some("later".to_owned())]]);
    assert_eq!(both.same_rows("SELECT a FROM other"), [[Some("2".to_owned())]]);
}

/// §2.6: a flush never leaves half of its rows in.
pub fn a_flush_that_fails_leaves_none_of_its_rows_in<A: Adapter>() {
    for options in [BatchOptions::new(), BatchOptions::new().nested(Nested::Merge)] {
        let mut world = World::<A>::with(&format!("{NOTES}; CREATE TABLE other (a int)"), options);
        world
            .conn
            .transaction(|conn| {
                conn.run(ADD_NOTE, &note("before"))?;
                conn.flush()?;
                let nested = conn.transaction(|conn| {
                    conn.run("INSERT INTO other VALUES (1)", &[])?;
                    conn.run(ADD_NOTE, &note("one"))?;
                    conn.run("INSERT INTO other VALUES (2)", &[])?;
                    conn.run(ADD_NOTE, &note("before"))?;
                    conn.flush()
                });
                assert_eq!(nested.unwrap_err().kind, "UniqueViolation");
                conn.run(ADD_NOTE, &note("after"))
            })
            .unwrap();
        assert_eq!(world.count("SELECT count(*) FROM other"), 0);
        assert_eq!(
            world.seen("SELECT string_agg(text, ' ' ORDER BY text) FROM notes"),
            [[Some("after before".to_owned())]]
        );
    }
}

/// §2.6: by default an error inside comes out of the nested call, where the program may catch it.
pub fn an_error_inside_a_nested_transaction_comes_out_of_it<A: Adapter>() {
    let mut both = Both::<A>::new(USERS);
    let failures = same!(both, |conn| {
        conn.transaction(|conn| {
            let mut failures = Vec::new();
            for name in ["a", "b", "a", "c", "b", "d"] {
                let nested = conn.transaction(|conn| {
                    conn.insert_name("users", &format!("{name} (first)"))?;
                    conn.run("INSERT INTO users (name) VALUES ($1)", &note(name))
                });
                if let Err(failure) = nested {
                    failures.push(failure);
                }
            }
            conn.insert_name("users", "last")?;
            Ok(failures)
        })
        .unwrap()
    });
    assert_eq!(failures.len(), 2);
    // The first insert of each failing attempt is undone with it, as its name was taken already.
    both.same_rows("SELECT name FROM users ORDER BY name");
}

/// §2.6: a unique violation that the program catches and survives, again and again.
pub fn find_or_create_by_a_nested_transaction_survives<A: Adapter>() {
    let mut both = Both::<A>::new(NOTES);
    let created = same!(both, |conn| {
        conn.transaction(|conn| {
            let mut created = Vec::new();
            for n in 0..40 {
                let text = (n * n % 11).to_string();
                let nested = conn.transaction(|conn| conn.run(ADD_NOTE, &note(&text)));
                created.push(match nested {
                    Ok(_) => true,
                    Err(failure) => {
                        assert_eq!(failure.kind, "UniqueViolation");
                        assert_eq!(conn.one("SELECT text FROM notes WHERE text = $1", &note(&text))?.text(), text);
                        false
                    }
                });
            }
            Ok(created)
        })
        .unwrap()
    });
    assert_eq!(created.iter().filter(|&&created| created).count(), 6);
    both.same_rows("SELECT text FROM notes ORDER BY text");
}

/// §2.6: rows from before a nested transaction fail before it begins, and not out of it.
pub fn rows_from_before_a_nested_transaction_fail_at_its_start<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    world.conn.begin().unwrap();
    world.conn.run(ADD_NOTE, &note("a")).unwrap();
    world.conn.run(ADD_NOTE, &note("a")).unwrap();
    assert_eq!(world.conn.begin().unwrap_err().kind, "UniqueViolation");
    world.conn.rollback().unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 0);
}

/// §2.6: nested transactions three deep, with an error in each depth.
pub fn errors_at_each_depth_undo_that_depth_alone<A: Adapter>() {
    for options in [BatchOptions::new(), BatchOptions::new().nested(Nested::Merge)] {
        let mut both = Both::<A>::with(NOTES, options);
        same!(both, |conn| {
            conn.transaction(|conn| {
                conn.run(ADD_NOTE, &note("1"))?;
                let second = conn.transaction(|conn| {
                    conn.run(ADD_NOTE, &note("2"))?;
                    let third = conn.transaction(|conn| {
                        conn.run(ADD_NOTE, &note("3"))?;
                        Err::<(), _>(changed_my_mind())
                    });
                    assert!(third.is_err());
                    conn.transaction(|conn| conn.run(ADD_NOTE, &note("3 again")))?;
                    conn.run(ADD_NOTE, &note("2 after"))
                });
                assert!(second.is_ok());
                let undone = conn.transaction(|conn| {
                    conn.transaction(|conn| conn.run(ADD_NOTE, &note("undone")))?;
                    conn.one("SELECT count(*) FROM notes", &[])?;
                    Err::<(), _>(changed_my_mind())
                });
                assert!(undone.is_err());
                conn.run(ADD_NOTE, &note("1 after"))
            })
            .unwrap()
        });
        let kept = both.same_rows("SELECT string_agg(text, ', ' ORDER BY ctid) FROM notes");
        assert_eq!(kept, [[Some("1, 2, 3 again, 2 after, 1 after".to_owned())]]);
    }
}

/// §2.6: `Nested::Merge`: rows outlive a nested commit in which nothing else was sent.
pub fn merged_nested_transactions_cost_nothing<A: Adapter>() {
    let mut world = World::<A>::with(NOTES, BatchOptions::new().nested(Nested::Merge));
    world
        .conn
        .transaction(|conn| {
            for n in 0..20 {
                conn.transaction(|conn| conn.run(ADD_NOTE, &note(&n.to_string())))?;
            }
            Ok(())
        })
        .unwrap();
    let wire = world.wire();
    assert!(wire.len() == 1 && wire[0].starts_with("INSERT"), "{wire:?}");
    assert_eq!(world.conn.stats().flushes.keys().copied().collect::<Vec<_>>(), [FlushCause::Commit]);
    assert_eq!(world.count("SELECT count(*) FROM notes"), 20);
}

/// §2.6: `Nested::Merge`: errors then come from the outer flush.
pub fn the_error_of_a_merged_nested_transaction_comes_from_the_outer_flush<A: Adapter>() {
    let mut world = World::<A>::with(NOTES, BatchOptions::new().nested(Nested::Merge));
    let failure = world.conn.transaction(|conn| {
        conn.transaction(|conn| conn.run(ADD_NOTE, &note("a"))).unwrap();
        conn.transaction(|conn| conn.run(ADD_NOTE, &note("a"))).unwrap();
        Ok(())
    });
    assert_eq!(failure.unwrap_err().kind, "UniqueViolation");
    assert_eq!(world.count("SELECT count(*) FROM notes"), 0);
    world.conn.transaction(|conn| conn.run(ADD_NOTE, &note("a"))).unwrap();
}

/// §2.6: `Nested::Merge`: rolling a nested transaction back discards its rows, and no others.
pub fn rolling_a_merged_nested_transaction_back_discards_its_rows<A: Adapter>() {
    let mut world = World::<A>::with(NOTES, BatchOptions::new().nested(Nested::Merge));
    world
        .conn
        .transaction(|conn| {
            conn.run(ADD_NOTE, &note("outer"))?;
            let nested = conn.transaction(|conn| {
                conn.run(ADD_NOTE, &note("inner"))?;
                conn.transaction(|conn| conn.run(ADD_NOTE, &note("innermost")))?;
                Err::<(), _>(changed_my_mind())
            });
            assert_eq!(nested.unwrap_err().kind, "changed my mind");
            conn.run(ADD_NOTE, &note("after"))
        })
        .unwrap();
    assert_eq!(world.seen("SELECT string_agg(text, ' ' ORDER BY ctid) FROM notes"), [[Some("outer after".to_owned())]]);
    assert_eq!(world.wire().len(), 1);
    assert_eq!(world.conn.stats().rows_discarded, 2);
}

/// §2.6: `Nested::Merge`: a savepoint that is needed after all is there, and holds what it should.
pub fn a_savepoint_that_was_held_back_is_set_when_something_else_is_sent<A: Adapter>() {
    let mut both = Both::<A>::with(NOTES, BatchOptions::new().nested(Nested::Merge));
    same!(both, |conn| {
        conn.transaction(|conn| {
            conn.run(ADD_NOTE, &note("outer"))?;
            let nested = conn.transaction(|conn| {
                conn.run(ADD_NOTE, &note("inner"))?;
                let seen = conn.one("SELECT count(*) FROM notes", &[])?.int();
                assert_eq!(seen, 2);
                conn.run(ADD_NOTE, &note("inner"))?;
                conn.one("SELECT count(*) FROM notes", &[]).map(drop)
            });
            assert_eq!(nested.unwrap_err().kind, "UniqueViolation");
            let seen = conn.one("SELECT string_agg(text, ' ') FROM notes", &[])?.text();
            assert_eq!(seen, "outer");
            let empty = conn.transaction(|conn| conn.one("SELECT count(*) FROM notes", &[]));
            assert_eq!(empty?.int(), 1);
            conn.transaction(|_| Ok(()))?;
            conn.run(ADD_NOTE, &note("after"))
        })
        .unwrap()
    });
    both.same_rows("SELECT text FROM notes ORDER BY ctid");
}

/// §2.6: `Nested::Merge` with ids and binds of several types.
pub fn merged_rows_keep_their_order_and_their_values<A: Adapter>() {
    let schema = "CREATE TABLE t (id serial PRIMARY KEY, n bigint, name text DEFAULT 'none')";
    let mut both = Both::<A>::with(schema, BatchOptions::new().nested(Nested::Merge));
    same!(both, |conn| {
        conn.transaction(|conn| {
            (0..30)
                .map(|n| {
                    conn.transaction(|conn| match n % 3 {
                        0 => conn.rows("INSERT INTO t (n) VALUES ($1) RETURNING *", &[Value::int4(n)]),
                        1 => conn.rows(
                            "INSERT INTO t (n, name) VALUES ($1, $2) RETURNING *",
                            &[Value::int8(n.into()), Value::text("x")],
                        ),
                        _ => conn.rows("INSERT INTO t (name) VALUES (NULL) RETURNING *", &[]),
                    })
                })
                .collect::<Outcome<Vec<_>>>()
        })
        .unwrap()
    });
    both.same_rows("SELECT * FROM t ORDER BY ctid");
    assert!(both.world.conn.stats().inserts_deferred > 25);
}

/// §2.6: the ways around: `flush()`, and excluding a table.
pub fn flush_and_exclude_give_the_error_where_it_would_have_been<A: Adapter>() {
    let mut world = World::<A>::with(NOTES, BatchOptions::new().exclude("notes"));
    let failure = world.conn.transaction(|conn| {
        conn.run(ADD_NOTE, &note("a"))?;
        let failure = conn.run(ADD_NOTE, &note("a")).unwrap_err();
        Err::<(), _>(failure)
    });
    assert_eq!(failure.unwrap_err().kind, "UniqueViolation");
    assert_eq!(world.conn.stats().inserts_sent[&batch_core::Reason::Excluded], 2);
}

/// §2.6: Nothing is retried silently, nothing is lost silently: a connection lost in the middle of a flush.
pub fn a_connection_lost_in_the_middle_of_a_flush_is_an_error_and_nothing_is_in<A: Adapter>() {
    let mut world = World::<A>::new(NOTES);
    world.conn.begin().unwrap();
    world.conn.run(ADD_NOTE, &note("a")).unwrap();
    world.proxy.cut_after_statements(0);
    let failure = world.conn.flush().unwrap_err();
    assert!(!failure.message.is_empty(), "{failure:?}");
    assert!(world.conn.is_broken());
    assert!(world.conn.run(ADD_NOTE, &note("b")).is_err() || world.conn.flush().is_err());
    assert_eq!(world.count("SELECT count(*) FROM notes"), 0);
    world.conn = A::Batched::connect(world.proxy.url()).unwrap();
    world.conn.transaction(|conn| conn.run(ADD_NOTE, &note("c"))).unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 1);
}
