//! Statements that the server and the ORM keep prepared.

use crate::{Adapter, Session, Value, World};

const TABLES: usize = 12;

/// Twelve tables of an integer and a text.
fn world<A: Adapter>() -> World<A> {
    let tables: Vec<String> = (0..TABLES).map(|at| format!("CREATE TABLE t{at} (a int, b text)")).collect();
    World::new(&tables.join("; "))
}

/// Runs a transaction of inserts into these tables, of both columns or of one.
fn insert<S: Session>(conn: &mut S, tables: impl IntoIterator<Item = (usize, bool)>) {
    conn.transaction(|conn| {
        for (table, both) in tables {
            if both {
                let sql = format!("INSERT INTO t{table} (a, b) VALUES ($1, $2)");
                conn.run(&sql, &[Value::int4(1), Value::text("x")])?;
            } else {
                conn.run(&format!("INSERT INTO t{table} (a) VALUES ($1)"), &[Value::int4(1)])?;
            }
        }
        Ok(())
    })
    .unwrap();
}

/// Runs transactions that each write another set of tables and columns.
fn insert_at_random<S: Session>(conn: &mut S, transactions: usize) {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % n
    };
    for _ in 0..transactions {
        let count = 2 + below(4);
        let tables: Vec<_> = (0..count).map(|_| (below(TABLES), below(2) == 0)).collect();
        insert(conn, tables);
    }
}

/// Each set of tables and columns is a text of its own.
pub fn few_statements_are_prepared_whatever_is_written_together<A: Adapter>() {
    let mut world = world::<A>();
    let prepared =
        |world: &mut World<A>| world.conn.one("SELECT count(*) FROM pg_prepared_statements", &[]).unwrap().int();
    insert_at_random(&mut world.conn, 200);
    let pairs = |world: &mut World<A>| {
        for (one, other) in (0..TABLES).flat_map(|one| (0..TABLES).map(move |other| (one, other))) {
            insert(&mut world.conn, [(one, true), (other, true)]);
        }
    };
    // More texts than are kept, each often.
    (0..4).for_each(|_| pairs(&mut world));
    let kept = prepared(&mut world);
    assert!(kept <= 40, "{kept} are prepared");
    // What comes often from now on finds a place.
    for _ in 0..300 {
        insert(&mut world.conn, [(3, true), (1, false), (2, true)]);
    }
    world.proxy.reset();
    insert(&mut world.conn, [(3, true), (1, false), (2, true)]);
    let trace = world.proxy.trace();
    assert!(trace.len() == 1 && trace[0].starts_with("EXECUTE WITH"), "{trace:?}");
}

/// The ORM keeps the program's own statements prepared.
pub fn flushes_do_not_drive_the_programs_statements_out_of_the_orms_cache<A: Adapter>() {
    let mut world = world::<A>();
    let own: Vec<String> = (0..50).map(|n| format!("SELECT a + {n} FROM t0 WHERE a = $1")).collect();
    let run = |world: &mut World<A>| {
        for sql in &own {
            world.conn.rows(sql, &[Value::int4(1)]).unwrap();
        }
    };
    run(&mut world);
    insert_at_random(&mut world.conn, 120);
    world.proxy.reset();
    run(&mut world);
    let trace = world.proxy.trace();
    let prepared: Vec<_> = trace.iter().filter(|said| !said.starts_with("EXECUTE")).collect();
    assert!(prepared.is_empty() && trace.len() == own.len(), "{prepared:?}");
}

/// A few flushes that repeat cost what one prepared statement costs.
pub fn flushes_that_repeat_cost_no_more_round_trips<A: Adapter>() {
    let mut world = world::<A>();
    let round = |world: &mut World<A>| (0..4).for_each(|at| insert(&mut world.conn, [(at, true), (at + 1, true)]));
    for times in 1..=8 {
        world.proxy.reset();
        round(&mut world);
        let (wire, said) = (world.proxy.wire(), world.proxy.trace().len());
        // libpq prepares what comes for the fourth time, and says what is not prepared in the same round trip; the other drivers
        // prepare what comes for the first time.
        let prepares = times == if A::OVERLAPS { 1 } else { 4 };
        assert_eq!(wire.statements, 4, "{times}");
        assert_eq!(said, if prepares || times < 4 && !A::OVERLAPS { 8 } else { 4 }, "{times}");
        // A pool asks its connections whether they are alive.
        if !A::POOLED {
            assert_eq!(wire.round_trips, if prepares { 8 } else { 4 }, "{times}");
        }
    }
}
