//! DESIGN.md §2.4: how many ids are taken of a sequence, and how many of those are used.

use batch_core::{BatchOptions, GroupCommit};

use crate::{Adapter, Batching, Outcome, Session, Value, World};

const USERS: &str =
    "CREATE TABLE users (id bigserial PRIMARY KEY, name text NOT NULL, created timestamptz NOT NULL DEFAULT now())";
const TAKEN: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM users_id_seq";
/// Enough for blocks to grow.
const ROWS: i64 = 240;

/// One insert in a transaction of its own.
fn add<S: Session>(conn: &mut S, asked: &str) -> Outcome<()> {
    let sql = format!("INSERT INTO users (name) VALUES ($1) RETURNING {asked}");
    conn.transaction(|conn| conn.rows(&sql, &[Value::text("a")]).map(drop))
}

#[track_caller]
fn assert_nearly_all_used<A: Adapter>(world: &World<A>, rows: i64, what: &str) {
    let taken = world.count(TAKEN);
    assert_eq!(world.count("SELECT count(*) FROM users"), rows);
    assert!(taken * 100 <= rows * 105, "{what}: {taken} taken for {rows} rows");
}

/// Transactions of one row, whatever is asked for: nearly every id that is taken is used, and none costs more round trips than
/// without batching.
pub fn small_transactions_use_nearly_all_ids_that_they_take<A: Adapter>() {
    for asked in ["id", "created", "id, created", "id, name, created"] {
        let mut world = World::<A>::new(USERS);
        for _ in 0..ROWS {
            add(&mut world.conn, asked).unwrap();
        }
        // A BEGIN that travels costs no round trip.
        let statements = world.wire().iter().filter(|sql| !A::BEGIN_TRAVELS || *sql != "BEGIN").count() as i64;
        assert!(statements <= 3 * ROWS + 4, "{asked}: {statements} statements");
        assert_nearly_all_used(&world, ROWS, asked);
        let stats = world.conn.stats();
        assert_eq!(stats.ids_used, stats.ids_reserved - stats.ids_unused, "{stats}");
        assert!(stats.ids_unused * 20 <= ROWS as u64, "{stats}");
    }
}

/// The same for transactions of several rows of which some ask, and for a sequence that only goes down.
pub fn transactions_of_a_few_rows_use_nearly_all_ids_that_they_take<A: Adapter>() {
    for start in ["", "ALTER SEQUENCE users_id_seq INCREMENT -1 MINVALUE -100000 MAXVALUE 0 START 0 RESTART"] {
        let mut world = World::<A>::new(&format!("{USERS}; {start}"));
        for _ in 0..ROWS / 6 {
            let transaction = world.conn.transaction(|conn| {
                for asked in ["id", "id, created", "name", "created", "id", "id"] {
                    conn.rows(&format!("INSERT INTO users (name) VALUES ('a') RETURNING {asked}"), &[])?;
                }
                Ok(())
            });
            transaction.unwrap();
        }
        let taken = world.count("SELECT abs(last_value) FROM users_id_seq");
        assert!(taken * 100 <= ROWS * 107, "{start}: {taken} taken for {ROWS} rows");
    }
}

/// Several connections share what each has reserved, in and out of groups.
pub fn several_connections_use_nearly_all_ids_that_they_take<A: Adapter>() {
    const CONNECTIONS: i64 = 4;
    for grouped in [false, true] {
        let options = BatchOptions::new();
        let options = if grouped { options.group_commit(GroupCommit::new()) } else { options };
        let mut world = World::<A>::with(USERS, options);
        let mut connections = A::Batched::several(world.proxy.url(), CONNECTIONS as usize).unwrap();
        let each = ROWS / CONNECTIONS;
        world.database.scope(|scope| {
            for conn in &mut connections {
                scope.spawn(move || {
                    for n in 0..each {
                        if grouped {
                            let sql = "INSERT INTO users (name) VALUES ('a') RETURNING id, created";
                            conn.rows(sql, &[]).unwrap();
                        } else {
                            add(conn, if n % 2 == 0 { "id" } else { "id, created" }).unwrap();
                        }
                    }
                });
            }
        });
        let stats = world.conn.stats();
        let taken = world.count(TAKEN);
        assert_eq!(world.count("SELECT count(*) FROM users"), ROWS);
        // Each may have asked at the same time.
        assert!(taken * 100 <= ROWS * 110, "{grouped}: {taken} taken for {ROWS} rows: {stats}");
        add(&mut world.conn, "id").unwrap();
    }
}

/// A program that inserts a few rows into each of many tables takes few ids, though it asks for those of children on the way.
pub fn a_short_program_takes_few_ids<A: Adapter>() {
    const PARENTS: usize = 11;
    let mut schema = String::new();
    for n in 0..PARENTS {
        schema += &format!(
            "CREATE TABLE p{n} (id serial PRIMARY KEY, name text, created timestamptz DEFAULT now());
             CREATE TABLE c{n} (id serial PRIMARY KEY, p int REFERENCES p{n}, name text);
             CREATE TABLE d{n} (id serial PRIMARY KEY, p int REFERENCES p{n}, name text);"
        );
    }
    let mut world = World::<A>::new(&schema);
    let mut rows = 0;
    for n in 0..PARENTS {
        world
            .conn
            .transaction(|conn| {
                let parent = conn.insert_name(&format!("p{n}"), "parent")?;
                for child in 0..n % 4 {
                    let sql = format!("INSERT INTO c{n} (p, name) VALUES ($1, 'child') RETURNING id");
                    conn.rows(&sql, &[Value::int4(parent as i32)])?;
                    rows += child.min(1);
                }
                for _ in 0..3 {
                    conn.insert_name(&format!("d{n}"), "other")?;
                }
                Ok(())
            })
            .unwrap();
        world.conn.transaction(|conn| conn.insert_name(&format!("p{n}"), "parent").map(drop)).unwrap();
    }
    let rows: i64 = world.count(&format!(
        "SELECT {}",
        (0..PARENTS)
            .map(|n| format!("(SELECT count(*) FROM p{n}) + (SELECT count(*) FROM c{n}) + (SELECT count(*) FROM d{n})"))
            .collect::<Vec<_>>()
            .join(" + ")
    ));
    let taken = world.count("SELECT sum(last_value)::int8 FROM pg_sequences WHERE last_value IS NOT NULL");
    assert!(taken <= 2 * rows + 20, "{taken} taken for {rows} rows");
}

/// An INSERT that fires a trigger which may advance any sequence, by means that nobody can look into, does not cost the ids that are
/// at hand, unless it did advance theirs; and then no id comes after a later one.
pub fn ids_at_hand_outlive_a_trigger_that_might_have_moved_the_sequence<A: Adapter>() {
    let schema = format!(
        "{USERS}; CREATE TABLE seen (n int);
         CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.n > 0 THEN EXECUTE 'SELECT nextval(''users_id_seq'')' INTO NEW.n; END IF; RETURN NEW; END $$;
         CREATE TRIGGER t BEFORE INSERT ON seen FOR EACH ROW EXECUTE FUNCTION act()"
    );
    for loud in [0, 1] {
        let mut world = World::<A>::new(&schema);
        let mut other = A::Batched::connect(world.proxy.url()).unwrap();
        let mut ids = Vec::new();
        for n in 0..30 {
            let conn = if n % 2 == 0 { &mut world.conn } else { &mut other };
            let transaction = conn.transaction(|conn| {
                for _ in 0..3 {
                    ids.push(conn.insert_name("users", "a")?);
                }
                let called = conn.one("INSERT INTO seen (n) VALUES ($1) RETURNING n", &[Value::int4(loud)])?.int();
                if loud > 0 {
                    ids.push(called);
                }
                for _ in 0..2 {
                    ids.push(conn.insert_name("users", "a")?);
                }
                Ok(())
            });
            transaction.unwrap();
        }
        assert!(ids.is_sorted_by(|a, b| a < b), "{loud}: {ids:?}");
        let taken = world.count(TAKEN);
        // Where it moved the sequence what was at hand is lost.
        let allowed = if loud == 0 { 105 } else { 180 };
        assert!(taken * 100 <= ids.len() as i64 * allowed + 800, "{loud}: {taken} for {} ids", ids.len());
    }
}

/// What the catalog tells of a trigger or a default is asked: an INSERT that is sent costs the ids of those tables only into which it
/// inserts, and no round trip of the others.
pub fn a_trigger_that_writes_elsewhere_costs_no_ids<A: Adapter>() {
    let mut world = World::<A>::new(&format!(
        "{USERS}; CREATE TABLE log (id serial PRIMARY KEY, name text); CREATE TABLE orders (id serial PRIMARY KEY, name text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO log (name) VALUES (NEW.name); RETURN NULL; END $$;
         CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note()"
    ));
    let mut ids = Vec::new();
    let mut logged = Vec::new();
    for n in 0..60 {
        let transaction = world.conn.transaction(|conn| {
            ids.push(conn.insert_name("users", "a")?);
            logged.push(conn.insert_name("log", "a")?);
            conn.insert_name("orders", "a")?;
            logged.push(conn.one("SELECT max(id) FROM log", &[])?.int());
            ids.push(conn.insert_name("users", "b")?);
            if n % 4 == 0 {
                logged.push(conn.insert_name("log", "b")?);
            }
            Ok(())
        });
        transaction.unwrap();
    }
    assert!(ids.is_sorted_by(|a, b| a < b) && logged.is_sorted_by(|a, b| a < b), "{ids:?} {logged:?}");
    assert_nearly_all_used(&world, 120, "users");
    let stats = world.conn.stats();
    let sent: u64 = stats.inserts_sent.values().sum();
    // The orders, what their trigger makes useless of the log, and a first use.
    assert!(sent <= 60 + 75 + 2, "{stats}");
}
