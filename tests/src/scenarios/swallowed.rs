//! DESIGN.md §2.6: nothing is lost silently. A program may catch the error of a flush and go on as if nothing had happened;
//! whatever would then be reported as a success gives that error once more.
//!
//! What plain does is the measure: there the INSERT itself fails, and a program that does not catch that is told. Where a
//! statement of the program's own aborts the transaction, COMMIT is whatever the ORM makes of it.

use batch_core::{BatchOptions, Nested};

use super::both::{Both, same};
use crate::{Adapter, Batching, Failure, Outcome, Session, Value, World};

const SCHEMA: &str = "
    CREATE TABLE notes (text text UNIQUE, n int CHECK (n > 0));
    CREATE TABLE other (a int);
    INSERT INTO notes VALUES ('taken', 1)";
const ADD_NOTE: &str = "INSERT INTO notes (text) VALUES ($1)";
const MODES: [Nested; 2] = [Nested::Flush, Nested::Merge];

type Place<A> = fn(&mut <A as Adapter>::Batched) -> Outcome<()>;

fn add<S: Session>(conn: &mut S, text: &str) -> Outcome<()> {
    conn.run(ADD_NOTE, &[Value::text(text)]).map(drop)
}

fn changed_my_mind() -> Failure {
    Failure { kind: "changed my mind".into(), ..Failure::default() }
}

fn is_taken(failure: &Failure) -> bool {
    failure.kind == "UniqueViolation"
        && failure.constraint.as_deref() == Some("notes_text_key")
        && failure.table.as_deref() == Some("notes")
        && failure.detail.as_deref() == Some("Key (text)=(taken) already exists.")
}

/// Nothing of the transaction is in, and the connection goes on.
#[track_caller]
fn nothing_is_in<A: Adapter>(world: &mut World<A>, what: &str) {
    assert_eq!(world.count("SELECT count(*) FROM notes"), 1, "{what}");
    assert_eq!(world.count("SELECT count(*) FROM other"), 0, "{what}");
    assert!(!world.conn.is_broken(), "{what}");
    world.conn.transaction(|conn| add(conn, "later")).unwrap();
    world.conn.transaction(|conn| conn.run("DELETE FROM notes WHERE text = 'later'", &[])).unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 1, "{what}");
}

/// Where a flush may fail: each gives what the program is told there.
fn places<A: Adapter>() -> Vec<(&'static str, Place<A>)> {
    let mut places: Vec<(&'static str, Place<A>)> = vec![
        ("a nested transaction's start", |conn| conn.transaction(|_| Ok(()))),
        ("a nested transaction", |conn| conn.transaction(|conn| add(conn, "inside"))),
        ("a statement in a nested transaction", |conn| {
            conn.transaction(|conn| conn.one("SELECT count(*) FROM notes", &[]).map(drop))
        }),
        ("a nested transaction in another", |conn| {
            conn.transaction(|conn| conn.transaction(|conn| conn.one("SELECT count(*) FROM notes", &[]).map(drop)))
        }),
        ("a savepoint", |conn| conn.script("SAVEPOINT mine")),
        ("a query", |conn| conn.rows("SELECT count(*) FROM notes", &[]).map(drop)),
        ("two queries", |conn| {
            let first = conn.rows("SELECT count(*) FROM notes", &[]).map(drop);
            assert!(conn.rows("SELECT count(*) FROM notes", &[]).unwrap_err().message.contains("is aborted"));
            first
        }),
        ("a query that could go past", |conn| conn.rows("SELECT a FROM other", &[]).map(drop)),
        ("a script", |conn| conn.script("SELECT 1; SELECT 2")),
        ("a setting", |conn| conn.script("SET LOCAL work_mem = '1MB'")),
        ("an insert sent at once", |conn| conn.run("INSERT INTO other SELECT 1", &[]).map(drop)),
        ("the budget", |conn| (0..9).try_for_each(|n| add(conn, &n.to_string()))),
        ("flush()", |conn| conn.flush()),
        ("flush(), twice", |conn| {
            let first = conn.flush();
            assert_eq!(conn.flush(), first, "what flush() says of rows that failed");
            first
        }),
    ];
    if A::OVERLAPS {
        places.push(("a statement behind a flush under way", |conn| {
            (0..5).try_for_each(|n| add(conn, &n.to_string()))?;
            conn.rows("SELECT a FROM other", &[]).map(drop)
        }));
        places.push(("a nested transaction behind a flush under way", |conn| {
            (0..5).try_for_each(|n| add(conn, &n.to_string()))?;
            conn.transaction(|conn| conn.rows("SELECT a FROM other", &[]).map(drop))
        }));
    }
    places
}

/// §2.6: the commit of a transaction that a flush aborted gives the flush's error, whatever the program did with that.
pub fn an_error_of_a_flush_that_the_program_catches_comes_out_of_the_commit<A: Adapter>() {
    for nested in MODES {
        let mut world = World::<A>::with(SCHEMA, BatchOptions::new().max_rows(4).nested(nested));
        for (what, place) in places::<A>() {
            let what = format!("{what}, {nested:?}");
            let mut caught = Ok(());
            let outcome = world.conn.transaction(|conn| {
                conn.run("INSERT INTO other (a) VALUES (1)", &[])?;
                add(conn, "taken")?;
                caught = place(conn);
                Ok(())
            });
            let failure = outcome.expect_err(&what);
            assert!(is_taken(&failure), "{what}: {failure:?}");
            // Merged nested transactions may have sent nothing.
            if let Err(caught) = caught {
                assert_eq!(caught, failure, "{what}: the same error each time");
            } else {
                assert_eq!(nested, Nested::Merge, "{what}");
            }
            nothing_is_in(&mut world, &what);
        }
    }
}

/// §2.6: an error that the end of a nested transaction gives, or anything in it, is undone with it, as it would be.
pub fn an_error_of_a_flush_that_is_rolled_back_to_a_savepoint_is_forgotten<A: Adapter>() {
    for nested in MODES {
        let inside: [(&str, Place<A>); 4] = [
            ("a query", |conn| conn.rows("SELECT count(*) FROM notes", &[]).map(drop)),
            ("flush()", |conn| conn.flush()),
            ("a nested transaction", |conn| conn.transaction(|conn| conn.rows("SELECT 1", &[]).map(drop))),
            ("the budget", |conn| (0..9).try_for_each(|n| add(conn, &n.to_string()))),
        ];
        let mut world = World::<A>::with(SCHEMA, BatchOptions::new().max_rows(4).nested(nested));
        for (what, place) in inside {
            let what = format!("{what}, {nested:?}");
            let outcome = world.conn.transaction(|conn| {
                add(conn, "kept")?;
                let undone = conn.transaction(|conn| {
                    add(conn, "undone")?;
                    add(conn, "taken")?;
                    let caught = place(conn).expect_err("the row cannot be in");
                    assert!(is_taken(&caught), "{caught:?}");
                    Err::<(), _>(changed_my_mind())
                });
                assert_eq!(undone.unwrap_err().kind, "changed my mind", "{what}");
                add(conn, "kept too")
            });
            outcome.unwrap_or_else(|failure| panic!("{what}: {failure:?}"));
            let kept = world.seen("SELECT string_agg(text, ', ' ORDER BY ctid) FROM notes");
            assert_eq!(kept, [[Some("taken, kept, kept too".to_owned())]], "{what}");
            world.conn.run("DELETE FROM notes WHERE text LIKE 'kept%'", &[]).unwrap();
        }
    }
}

/// §2.6: an error at the end of a nested transaction is its own; those around it go on.
pub fn an_error_at_a_nested_transactions_end_is_undone_with_it<A: Adapter>() {
    let mut both = Both::<A>::new(SCHEMA);
    same!(both, |conn| {
        conn.transaction(|conn| {
            add(conn, "kept")?;
            let failure = conn.transaction(|conn| add(conn, "taken")).unwrap_err();
            assert!(is_taken(&failure), "{failure:?}");
            add(conn, "kept too")
        })
    })
    .unwrap();
    assert_eq!(both.same_rows("SELECT text FROM notes ORDER BY text").len(), 3);
    // Under `Nested::Merge` it comes from the outer flush, and no later success hides it.
    let mut world = World::<A>::with(SCHEMA, BatchOptions::new().nested(Nested::Merge));
    let failure = world.conn.transaction(|conn| {
        add(conn, "first")?;
        conn.transaction(|conn| add(conn, "taken"))?;
        let _ = conn.rows("SELECT count(*) FROM notes", &[]);
        Ok(())
    });
    assert!(is_taken(failure.as_ref().unwrap_err()), "{failure:?}");
    nothing_is_in(&mut world, "merged");
}

/// §2.6: a nested transaction whose inside swallows the error of its own rows does not end well either.
pub fn an_error_that_is_caught_inside_a_nested_transaction_comes_out_of_its_end<A: Adapter>() {
    for nested in MODES {
        let mut world = World::<A>::with(SCHEMA, BatchOptions::new().nested(nested));
        world
            .conn
            .transaction(|conn| {
                add(conn, "kept")?;
                let failure = conn.transaction(|conn| {
                    add(conn, "taken")?;
                    let _ = conn.transaction(|conn| conn.rows("SELECT 1", &[]).map(drop));
                    let _ = conn.rows("SELECT 1", &[]);
                    Ok(())
                });
                assert!(is_taken(failure.as_ref().unwrap_err()), "{nested:?}: {failure:?}");
                add(conn, "kept too")
            })
            .unwrap();
        let kept = world.seen("SELECT string_agg(text, ', ' ORDER BY ctid) FROM notes");
        assert_eq!(kept, [[Some("taken, kept, kept too".to_owned())]], "{nested:?}");
    }
}

/// §2.6: rows from before a savepoint that was held back fail before it is set. Rolling back to it does not undo them, even
/// where an earlier savepoint has its name.
pub fn rolling_back_to_a_savepoint_that_was_never_set_does_not_hide_the_rows_before_it<A: Adapter>() {
    for (budget, was_there) in [(10_000, false), (10_000, true), (4, false), (4, true)] {
        let what = format!("budget {budget}, an earlier one of its name: {was_there}");
        let options = BatchOptions::new().nested(Nested::Merge).max_rows(budget);
        let mut world = World::<A>::with(SCHEMA, options);
        let mut caught = None;
        let outcome = world.conn.transaction(|conn| {
            if was_there {
                // Rolled back to, it stays on the server.
                let undone = conn.transaction(|conn| {
                    conn.one("SELECT count(*) FROM notes", &[])?;
                    Err::<(), _>(changed_my_mind())
                });
                assert_eq!(undone.unwrap_err().kind, "changed my mind");
            }
            conn.run("INSERT INTO other (a) VALUES (1)", &[])?;
            add(conn, "taken")?;
            // With the small budget a flush is under way where the adapter overlaps.
            for n in 0..3 {
                conn.run("INSERT INTO other (a) VALUES ($1)", &[Value::int4(n)])?;
            }
            let nested = conn.transaction(|conn| {
                add(conn, "inside")?;
                conn.one("SELECT count(*) FROM notes", &[])
            });
            caught = nested.err();
            conn.run("INSERT INTO other (a) VALUES (2)", &[]).map(drop).or(Ok(()))
        });
        let failure = outcome.expect_err(&what);
        assert!(is_taken(&failure), "{what}: {failure:?}");
        // A flush by the budget that does not overlap fails before the nested transaction.
        assert!(caught.is_some() || (budget == 4 && !A::OVERLAPS), "{what}");
        nothing_is_in(&mut world, &what);
    }
}

/// §2.6: a COMMIT in another form is one all the same.
pub fn an_error_that_was_caught_comes_out_of_a_commit_in_any_form<A: Adapter>() {
    // SeaORM's own transactions end by its own means.
    if A::POOLED {
        return;
    }
    let mut world = World::<A>::new(SCHEMA);
    for commit in [
        "COMMIT",
        "END",
        "commit work",
        "COMMIT AND NO CHAIN",
        "COMMIT AND CHAIN",
        "PREPARE TRANSACTION 'mine'",
        "COMMIT; SELECT 1",
        "END; BEGIN",
    ] {
        world.conn.script("BEGIN").unwrap();
        add(&mut world.conn, "taken").unwrap();
        let caught = world.conn.script("SAVEPOINT mine").unwrap_err();
        let failure = world.conn.script(commit).expect_err(commit);
        assert_eq!(failure, caught, "{commit}");
        assert!(is_taken(&failure), "{commit}: {failure:?}");
        // The transaction has ended.
        world.conn.run("UPDATE notes SET n = 7", &[]).unwrap();
        assert_eq!(world.count("SELECT n FROM notes"), 7, "{commit}");
        world.conn.run("UPDATE notes SET n = 1", &[]).unwrap();
    }
    for rollback in ["ROLLBACK", "ABORT", "ROLLBACK AND NO CHAIN", "ROLLBACK; SELECT 1"] {
        world.conn.script("BEGIN").unwrap();
        add(&mut world.conn, "taken").unwrap();
        world.conn.script("SAVEPOINT mine").unwrap_err();
        world.conn.script(rollback).expect(rollback);
        world.conn.run("UPDATE notes SET n = 7", &[]).unwrap();
        assert_eq!(world.count("SELECT n FROM notes"), 7, "{rollback}");
        world.conn.run("UPDATE notes SET n = 1", &[]).unwrap();
    }
}

/// §2.6: a connection that is lost after the flush's error was caught does not change what went wrong.
pub fn an_error_that_was_caught_comes_out_of_the_commit_of_a_lost_connection<A: Adapter>() {
    for nested in MODES {
        let mut world = World::<A>::with(SCHEMA, BatchOptions::new().nested(nested));
        world.conn.begin().unwrap();
        add(&mut world.conn, "taken").unwrap();
        let caught = world.conn.rows("SELECT count(*) FROM notes", &[]).unwrap_err();
        world.proxy.cut();
        let failure = world.conn.commit().unwrap_err();
        // Diesel tells of both where its ROLLBACK fails too.
        assert!(failure == caught || failure.message.contains(&caught.message), "{nested:?}: {failure:?}");
        assert!(world.conn.is_broken() || A::POOLED, "{nested:?}");
        assert_eq!(world.count("SELECT count(*) FROM notes"), 1);
    }
    // And one that is lost in the flush itself is no success later.
    for nested in MODES {
        let mut world = World::<A>::with(SCHEMA, BatchOptions::new().nested(nested));
        world.conn.begin().unwrap();
        add(&mut world.conn, "lost").unwrap();
        world.proxy.cut_after_statements(0);
        assert!(world.conn.rows("SELECT count(*) FROM notes", &[]).is_err());
        assert!(world.conn.commit().is_err(), "{nested:?}");
        assert_eq!(world.count("SELECT count(*) FROM notes"), 1);
    }
}

/// §2.6: a transaction that a statement of the program's own aborted ends as the ORM alone would end it.
pub fn a_transaction_that_the_program_aborted_itself_ends_as_it_would<A: Adapter>() {
    let statements = [
        "INSERT INTO notes SELECT 'taken'",
        "SELECT 1 / (count(*) - 1) FROM notes WHERE text = 'taken'",
        // It goes past the rows that wait.
        "SELECT 1 / (a - a) FROM other",
        "SELECT 1 / 0",
        "SAVEPOINT nothing; ROLLBACK TO unknown",
    ];
    for nested in MODES {
        let schema = format!("{SCHEMA}; INSERT INTO other VALUES (1)");
        let mut both = Both::<A>::with(&schema, BatchOptions::new().nested(nested));
        for sql in statements {
            for then in ["", "SELECT 1", "SAVEPOINT mine", "INSERT INTO other SELECT 1"] {
                let what = format!("{sql}, then {then:?}, {nested:?}");
                let ended = same!(both, |conn| {
                    conn.transaction(|conn| {
                        add(conn, "waits")?;
                        conn.script(sql).or_else(|_| conn.rows(sql, &[]).map(drop)).expect_err(&what);
                        if !then.is_empty() {
                            conn.script(then).expect_err(&what);
                        }
                        Ok(())
                    })
                });
                // Each of the ORMs takes the server's ROLLBACK for a success.
                assert_eq!(ended, Ok(()), "{what}");
                assert_eq!(both.same_rows("SELECT text FROM notes").len(), 1, "{what}");
            }
        }
    }
}
