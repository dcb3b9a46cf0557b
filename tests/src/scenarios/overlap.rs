//! Flushes that the budget caused run while the program goes on, where the adapter can (`BatchOptions::overlap`).

use batch_core::{BatchOptions, FlushCause, Nested};

use super::both::{Both, same};
use crate::{Adapter, Batching, Failure, Session, Value, World};

const NOTES: &str = "CREATE TABLE notes (id serial PRIMARY KEY, text text CHECK (text <> 'bad'))";
const ADD_NOTE: &str = "INSERT INTO notes (text) VALUES ($1)";
const MAX_ROWS: usize = 10;

fn note(text: &str) -> [Value; 1] {
    [Value::text(text)]
}

fn world<A: Adapter>(options: BatchOptions) -> World<A> {
    World::with(NOTES, options.max_rows(MAX_ROWS))
}

/// Begins a transaction in which a flush is under way, and a row waits. The flush fails if one of its rows is bad.
fn launch<A: Adapter>(world: &mut World<A>, text: &str) {
    world.conn.begin().unwrap();
    for _ in 0..MAX_ROWS {
        world.conn.run(ADD_NOTE, &note(text)).unwrap();
    }
    world.conn.run(ADD_NOTE, &note("waits")).unwrap();
    assert_eq!(world.conn.stats().flushes_overlapped, 1);
}

fn is_of_the_flush(failure: &Failure) -> bool {
    failure.constraint.as_deref() == Some("notes_text_check")
}

/// §2.2: up to a budget of rows waits while another is on its way.
pub fn rows_wait_on_while_a_flush_by_the_budget_is_held_up<A: Adapter>() {
    if !A::OVERLAPS {
        return;
    }
    let mut world = world::<A>(BatchOptions::new());
    let mut other = world.plain();
    other.begin().unwrap();
    other.script("LOCK TABLE notes IN SHARE MODE").unwrap();
    launch(&mut world, "a");
    for _ in 1..MAX_ROWS {
        world.conn.run(ADD_NOTE, &note("b")).unwrap();
    }
    let stats = world.conn.stats();
    assert_eq!((stats.inserts_deferred, stats.flushes[&FlushCause::Budget]), (20, 1));
    other.rollback().unwrap();
    world.conn.commit().unwrap();
    assert_eq!(world.count("SELECT count(*) FROM notes"), 20);
}

/// §2.2: nothing is sent before it is done, and everything sees its rows.
pub fn whatever_is_sent_comes_behind_a_flush_under_way<A: Adapter>() {
    let mut both =
        Both::<A>::with(&format!("{NOTES}; CREATE TABLE other (a int)"), BatchOptions::new().max_rows(MAX_ROWS));
    let seen = same!(both, |conn| {
        conn.transaction(|conn| {
            let mut seen = Vec::new();
            for sql in [
                "SELECT count(*) FROM notes",
                "SELECT count(*) FROM other",
                "INSERT INTO other SELECT count(*) FROM notes RETURNING a",
                "UPDATE notes SET text = 'seen' RETURNING id",
                "DELETE FROM other RETURNING a",
            ] {
                for n in 0..=MAX_ROWS {
                    conn.run(ADD_NOTE, &note(&n.to_string()))?;
                }
                seen.push(conn.rows(sql, &[])?);
                for n in 0..=MAX_ROWS {
                    conn.run(ADD_NOTE, &note(&n.to_string()))?;
                }
                conn.transaction(|conn| {
                    for n in 0..=MAX_ROWS {
                        conn.run(ADD_NOTE, &note(&n.to_string()))?;
                    }
                    Ok(())
                })?;
            }
            Ok(seen)
        })
        .unwrap()
    });
    assert_eq!(seen[0][0][0].int(), 11);
    assert_eq!(both.world.conn.stats().flushes_overlapped > 0, A::OVERLAPS);
    both.same_rows("SELECT id, text FROM notes ORDER BY id");
}

/// §2.4: rows of many flushes, of which some go out before the budget is reached.
pub fn a_program_that_outruns_its_flushes_finds_its_rows_in_order<A: Adapter>() {
    const ROWS: usize = 9_000;
    let mut both = Both::<A>::with(NOTES, BatchOptions::new().max_rows(1_500).max_id_block(700));
    same!(both, |conn| {
        conn.transaction(|conn| {
            for n in 0..ROWS {
                conn.one("INSERT INTO notes (text) VALUES ($1) RETURNING id", &note(&n.to_string()))?;
            }
            Ok(())
        })
        .unwrap()
    });
    let stats = both.world.conn.stats();
    assert_eq!(stats.rows_flushed, ROWS as u64 - A::FIRST_USES);
    assert_eq!(stats.flushes_overlapped >= 5, A::OVERLAPS, "{stats}");
    both.same_rows("SELECT text FROM notes ORDER BY id");
    assert_eq!(both.world.count("SELECT count(*) FROM notes"), ROWS as i64);
}

/// §2.6: the error comes out of the next call that would send something, which is not sent.
pub fn the_error_of_a_flush_under_way_comes_out_of_the_next_call_that_sends<A: Adapter>() {
    if !A::OVERLAPS {
        return;
    }
    type Call<A> = fn(&mut <A as Adapter>::Batched) -> crate::Outcome<()>;
    let calls: [(&str, Call<A>); 6] = [
        ("flush()", |conn| conn.flush()),
        ("a query", |conn| conn.rows("SELECT 1", &[]).map(drop)),
        ("an insert sent at once", |conn| conn.run("INSERT INTO notes SELECT -1, 'x'", &[]).map(drop)),
        ("a nested transaction", |conn| conn.begin()),
        ("the budget", |conn| (0..MAX_ROWS).try_for_each(|_| conn.run(ADD_NOTE, &note("b")).map(drop))),
        ("COMMIT", |conn| conn.commit()),
    ];
    for (what, call) in calls {
        let mut world = world::<A>(BatchOptions::new());
        launch(&mut world, "bad");
        world.conn.run(ADD_NOTE, &note("waits too")).unwrap();
        world.wire();
        let failure = call(&mut world.conn).unwrap_err();
        assert!(is_of_the_flush(&failure), "{what}: {failure:?}");
        let mut sent = world.wire();
        sent.retain(|sql| sql != "ROLLBACK");
        // On a runtime with one thread it is only sent once somebody waits for it.
        assert!(sent.len() <= 1 && sent.iter().all(|sql| sql.contains("unnest")), "{what}: {sent:?}");
        if what != "COMMIT" {
            world.conn.rollback().unwrap();
        }
        assert!(!world.conn.is_broken(), "{what}");
        world.conn.transaction(|conn| conn.run(ADD_NOTE, &note("later"))).unwrap();
        assert_eq!(world.count("SELECT count(*) FROM notes"), 1, "{what}");
    }
}

/// §2.6: rows that the program rolls back fail for nobody.
pub fn a_flush_under_way_that_fails_goes_with_what_is_rolled_back<A: Adapter>() {
    if !A::OVERLAPS {
        return;
    }
    for nested in [Nested::Flush, Nested::Merge] {
        let mut world = world::<A>(BatchOptions::new().nested(nested));
        launch(&mut world, "bad");
        world.conn.rollback().unwrap();
        world.conn.begin().unwrap();
        world.conn.run(ADD_NOTE, &note("outer")).unwrap();
        let result = world.conn.transaction(|conn| {
            for _ in 0..=MAX_ROWS {
                conn.run(ADD_NOTE, &note("bad"))?;
            }
            Err::<(), _>(Failure { kind: "changed my mind".into(), ..Failure::default() })
        });
        assert_eq!(result.unwrap_err().kind, "changed my mind");
        world.conn.run(ADD_NOTE, &note("outer")).unwrap();
        world.conn.commit().unwrap();
        assert_eq!(world.conn.stats().flushes_overlapped, 2, "{nested:?}");
        assert_eq!(world.count("SELECT count(*) FROM notes WHERE text = 'outer'"), 2, "{nested:?}");
        assert_eq!(world.count("SELECT count(*) FROM notes"), 2, "{nested:?}");
    }
}
