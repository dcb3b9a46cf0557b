//! Reading the catalog never stops anyone: what others lock, drop or forbid meanwhile, and who reads when it is too old.

use batch_core::BatchOptions;

use crate::{Adapter, Batching, Session, World};

/// One of each kind of thing that the catalog tells about, and `users` beside them.
const KINDS: &str = "
    CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE TYPE pair AS (a int, b int);
    CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE SEQUENCE numbers;
    CREATE TABLE things (id serial, n int CHECK (n > 0), t text DEFAULT 'x', m mood DEFAULT 'sad', p pair DEFAULT '(1,2)',
        ps pair[] DEFAULT '{\"(1,2)\"}', q positive DEFAULT 3, f int DEFAULT one(), s int DEFAULT nextval('numbers'),
        g text GENERATED ALWAYS AS (lower(t)) STORED, h int GENERATED ALWAYS AS (n + 1) STORED, CHECK (length(t) > n));
    CREATE UNIQUE INDEX ON things (lower(t)) WHERE n > 3;
    CREATE TABLE parts (id int, k int CHECK (k < 100)) PARTITION BY LIST (k);
    CREATE TABLE part PARTITION OF parts FOR VALUES IN (1);
    CREATE VIEW seen AS SELECT things.n, part.k FROM things JOIN part ON part.id = things.n;
    CREATE VIEW moving AS SELECT nextval('numbers') AS n;
    CREATE MATERIALIZED VIEW stored AS SELECT n FROM things;";

/// So many names in a transaction; how many of the inserts waited.
fn deferred<A: Adapter>(conn: &mut A::Batched, table: &str, times: usize) -> u64 {
    let before = conn.stats().inserts_deferred;
    conn.transaction(|conn| (0..times).try_for_each(|_| conn.insert_name(table, "x").map(drop))).unwrap();
    conn.stats().inserts_deferred - before
}

fn alter_database<A: Adapter>(world: &World<A>, setting: &str) {
    let name = world.seen("SELECT current_database()")[0][0].clone().unwrap();
    world.database.execute(&format!("ALTER DATABASE \"{name}\" SET {setting}"));
}

/// Another session has locked all there is.
pub fn reading_the_catalog_waits_for_nobodys_lock<A: Adapter>() {
    let world = World::<A>::new(KINDS);
    alter_database(&world, "lock_timeout = '2s'");
    let mut holder = world.plain();
    holder.begin().unwrap();
    for lock in [
        "LOCK TABLE things, parts, part, seen, moving",
        "ALTER TYPE pair ADD ATTRIBUTE c int CASCADE",
        "ALTER SEQUENCE numbers INCREMENT 2",
        "DROP MATERIALIZED VIEW stored",
        "DROP VIEW seen",
        "DROP FUNCTION one() CASCADE",
        "DROP TYPE mood CASCADE",
    ] {
        holder.script(lock).unwrap();
    }
    let mut conn = A::Batched::connect(world.database.url()).unwrap();
    conn.enable(BatchOptions::new()).unwrap();
    let explanation = conn.explain().unwrap();
    let names: Vec<&str> = explanation.tables.iter().map(|table| table.name.as_str()).collect();
    let all = ["moving", "part", "parts", "seen", "stored", "things", "users"].map(|name| format!("public.{name}"));
    assert_eq!(names, all);
    assert!(deferred::<A>(&mut conn, "users", 3) >= 2);
    holder.rollback().unwrap();
}

/// A transaction of one snapshot sees in the catalog what is gone.
pub fn what_others_have_dropped_does_not_stop_the_reading<A: Adapter>() {
    let mut world = World::<A>::new(KINDS);
    world
        .database
        .execute("CREATE SCHEMA more; CREATE TABLE more.t (id serial); CREATE VIEW more.v AS SELECT * FROM more.t");
    world.conn.begin().unwrap();
    world.conn.script("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").unwrap();
    world.conn.one("SELECT 1", &[]).unwrap();
    world.database.execute(
        "DROP MATERIALIZED VIEW stored; DROP VIEW seen, moving; DROP FUNCTION one() CASCADE; DROP TABLE things, parts;
         DROP TYPE mood, pair; DROP DOMAIN positive; DROP SEQUENCE numbers; DROP SCHEMA more CASCADE",
    );
    world.conn.script("CREATE TABLE mine (id serial, name text)").unwrap();
    let before = world.conn.stats().inserts_deferred;
    for name in ["a", "b", "c", "d"] {
        world.conn.insert_name("mine", name).unwrap();
    }
    assert!(world.conn.stats().inserts_deferred - before >= 2, "{}", world.conn.stats());
    world.conn.commit().unwrap();
    assert_eq!(world.count("SELECT count(*) FROM mine"), 4);
}

/// Nobody else can insert into them, and they come and go.
pub fn other_sessions_temporary_tables_are_not_read<A: Adapter>() {
    let mut world = World::<A>::new(KINDS);
    let mut other = world.plain();
    other.script("CREATE TEMP TABLE theirs (id serial); CREATE TEMP VIEW theirs_too AS SELECT * FROM theirs").unwrap();
    world.conn.script("CREATE TEMP TABLE mine (id serial, name text)").unwrap();
    world.conn.enable(BatchOptions::new()).unwrap();
    let explanation = world.conn.explain().unwrap();
    let has = |name: &str| explanation.tables.iter().any(|table| table.name.ends_with(&format!(".{name}")));
    assert!(has("mine") && has("users") && !has("theirs") && !has("theirs_too"), "{explanation}");
}
