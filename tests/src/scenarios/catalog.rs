//! Reading the catalog never stops anyone: what others lock, drop or forbid meanwhile, and who reads when it is too old.

use std::time::{Duration, Instant};

use batch_core::{BatchOptions, Reason};
use batch_support::{Database, Proxy};

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

const USERS: &str = "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL)";

/// Keeps the catalog from being read: only that reads this table of it.
const KEEP: &str = "LOCK TABLE pg_catalog.pg_event_trigger IN ACCESS EXCLUSIVE MODE";

/// A database of which nobody has read the catalog yet, and who keeps it from being read.
fn unread<A: Adapter>() -> (World<A>, A::Plain) {
    let database = Database::create();
    database.execute(USERS);
    let proxy = Proxy::start(database.url(), Duration::ZERO);
    let conn = A::Batched::connect(proxy.url()).unwrap();
    let mut world: World<A> = World { database, proxy, conn };
    alter_database(&world, "lock_timeout = '50ms'");
    let mut holder = world.plain();
    holder.begin().unwrap();
    holder.script(KEEP).unwrap();
    world.conn = A::Batched::connect(world.proxy.url()).unwrap();
    (world, holder)
}

/// Times that the catalog was asked for on the wire.
fn readings<A: Adapter>(world: &World<A>) -> usize {
    world.wire().iter().filter(|sql| sql.contains("pg_catalog.pg_event_trigger")).count()
}

/// A short timeout, a role that may not: the program goes on, and what keeps the catalog from being read is not met again by every
/// insert.
pub fn a_program_that_cannot_read_the_catalog_goes_on_until_it_can<A: Adapter>() {
    let (mut world, mut holder) = unread::<A>();
    let start = Instant::now();
    world.conn.enable(BatchOptions::new()).unwrap();
    assert!(readings(&world) >= 1);
    for _ in 0..10 {
        assert_eq!(deferred::<A>(&mut world.conn, "users", 3), 0);
    }
    let tries = 1 + start.elapsed().as_secs() as usize;
    assert!(readings(&world) <= tries, "it is tried again and again");
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_sent[&Reason::CatalogUnreadable], 30, "{stats}");
    assert!(world.conn.explain().is_err(), "nothing is batched");

    holder.rollback().unwrap();
    world.conn.enable(BatchOptions::new()).unwrap();
    assert!(deferred::<A>(&mut world.conn, "users", 3) >= 2);
    assert_eq!(world.count("SELECT count(*) FROM users"), 33);
}

/// In a transaction too, which goes on.
pub fn turning_it_on_again_in_a_transaction_does_not_abort_it<A: Adapter>() {
    if A::POOLED {
        // A pool takes a connection of its own for it.
        return;
    }
    let mut world = World::<A>::new(USERS);
    alter_database(&world, "lock_timeout = '50ms'");
    world.conn = A::Batched::connect(world.proxy.url()).unwrap();
    let mut holder = world.plain();
    holder.begin().unwrap();
    holder.script(KEEP).unwrap();
    world.conn.begin().unwrap();
    world.conn.insert_name("users", "a").unwrap();
    world.conn.enable(BatchOptions::new()).unwrap();
    world.conn.insert_name("users", "b").unwrap();
    world.conn.commit().unwrap();
    assert_eq!(world.count("SELECT count(*) FROM users"), 2);
}

/// What one connection could not read, and another did, serves both.
pub fn a_catalog_that_could_not_be_read_once_is_not_given_up<A: Adapter>() {
    let mut world = World::<A>::new(USERS);
    alter_database(&world, "lock_timeout = '50ms'");
    let mut conns = A::Batched::several(world.proxy.url(), 4).unwrap();
    conns[0].enable(BatchOptions::new()).unwrap();
    // Whoever begins next has to read.
    world.conn.script("CREATE TABLE other (n int)").unwrap();
    conns[0].script("CREATE TABLE another (n int)").unwrap();
    let mut holder = world.plain();
    holder.begin().unwrap();
    holder.script(KEEP).unwrap();
    assert_eq!(deferred::<A>(&mut conns[0], "users", 3), 0);
    holder.rollback().unwrap();
    let [one, other, ..] = &mut conns[..] else { panic!("several") };
    other.enable(BatchOptions::new()).unwrap();
    for conn in [other, one] {
        for _ in 0..3 {
            assert!(deferred::<A>(conn, "users", 3) >= 2);
        }
    }
}

/// A reading may take long: whoever has an old catalog need not stand still.
pub fn while_one_connection_reads_an_old_catalog_again_the_others_go_on<A: Adapter>() {
    let world = World::<A>::new(USERS);
    // Time enough for whoever waits to be seen.
    alter_database(&world, "lock_timeout = '20s'");
    let mut conns = A::Batched::several(world.proxy.url(), 6).unwrap();
    conns[0].enable(BatchOptions::new().catalog_max_age(Duration::from_millis(1))).unwrap();
    deferred::<A>(&mut conns[0], "users", 3);
    let mut holder = world.plain();
    holder.begin().unwrap();
    holder.script(KEEP).unwrap();
    let [reader, others @ ..] = &mut conns[..] else { panic!("several") };
    world.database.scope(|scope| {
        let reader = scope.spawn(|| deferred::<A>(reader, "users", 3));
        let is_waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pg_event_trigger'::regclass";
        while world.count(is_waiting) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        world.wire();
        for other in others {
            assert_eq!(deferred::<A>(other, "users", 3), 3);
        }
        assert_eq!(readings(&world), 0);
        holder.rollback().unwrap();
        let waited = reader.join().unwrap();
        // A pool's handles count together.
        assert!(waited == 3 || A::POOLED, "{waited}");
    });
}

/// So many of a transaction's two inserts wait, on each of a few new connections that each run this first; and how often it was asked
/// what kind of session that makes.
fn after_setting<A: Adapter>(world: &World<A>, script: &str) -> (u64, usize) {
    world.wire();
    let mut waited = 0;
    for _ in 0..4 {
        let mut conn = A::Batched::connect(world.proxy.url()).unwrap();
        conn.script(script).unwrap();
        conn.transaction(|conn| {
            (0..2).try_for_each(|_| conn.run("INSERT INTO notes (text) VALUES ('a')", &[]).map(drop))
        })
        .unwrap();
        waited += conn.stats().inserts_deferred;
    }
    let questions = world.wire().iter().filter(|sql| sql.contains("SELECT 'session', current_schemas")).count();
    (waited, questions)
}

/// Pools run a `SET` on each new connection.
pub fn a_setting_on_each_new_connection_costs_no_transaction_its_first_insert<A: Adapter>() {
    let world = World::<A>::new("CREATE TABLE notes (text text)");
    // Each new connection asks once who the server is.
    let who = if A::POOLED { 0 } else { 4 };
    for script in [
        "SET TIME ZONE 'Asia/Tokyo'",
        "SET timezone = 'UTC'; SET statement_timeout = '30s'; SET application_name TO 'worker'; SET lock_timeout = '10s'",
        "SET SESSION client_min_messages = error",
        "SELECT set_config('app.tenant', '7', false)",
    ] {
        assert_eq!(after_setting(&world, script), (8, who), "{script}");
    }
    // Of a path the server says what it means when it says who it is. (A pool's reading of the catalog says both.)
    for script in
        ["SET search_path TO public", "SET search_path = 'public', 'pg_catalog'; SET statement_timeout = '30s'"]
    {
        assert_eq!(after_setting(&world, script), (8, who), "{script}");
    }
    assert_eq!(world.count("SELECT count(*) FROM notes"), 48);
}

/// The next connection's path is what it says, and not what the first one's was.
pub fn a_path_that_was_asked_about_leads_to_the_same_tables_on_each_connection<A: Adapter>() {
    let world = World::<A>::new(
        "CREATE SCHEMA one; CREATE SCHEMA two; CREATE TABLE one.t (n int); CREATE TABLE two.t (n text DEFAULT 'b', m int)",
    );
    for _ in 0..3 {
        for (path, insert) in [("one", "INSERT INTO t (n) VALUES (1)"), ("two", "INSERT INTO t (m) VALUES (1)")] {
            let mut conn = A::Batched::connect(world.proxy.url()).unwrap();
            conn.script(&format!("SET search_path = {path}")).unwrap();
            conn.transaction(|conn| (0..3).try_for_each(|_| conn.run(insert, &[]).map(drop))).unwrap();
            assert!(conn.stats().inserts_deferred >= 2, "{path}: {}", conn.stats());
        }
    }
    // Until the schemas are others.
    let mut conn = A::Batched::connect(world.proxy.url()).unwrap();
    conn.script("DROP SCHEMA one CASCADE; CREATE SCHEMA one; CREATE TABLE one.t (n int CHECK (n > 1))").unwrap();
    let mut conn = A::Batched::connect(world.proxy.url()).unwrap();
    conn.script("SET search_path = one").unwrap();
    conn.transaction(|conn| conn.run("INSERT INTO t (n) VALUES (1)", &[])).unwrap_err();
    assert_eq!(world.count("SELECT count(*) FROM one.t"), 0);
    assert_eq!(
        world.seen("SELECT DISTINCT n, count(*) FROM two.t GROUP BY n"),
        [["b", "9"].map(|s| Some(s.to_owned()))]
    );
}
