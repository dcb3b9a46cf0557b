//! Bad input: no Postgres, no permission, no table, no connection any more.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use batch_core::Reason;
use batch_diesel::{BatchOptions, PgConnection, enable_batch_inserts};
use batch_support::{Database, Proxy};
use diesel::connection::SimpleConnection;
use diesel::dsl::insert_into;
use diesel::prelude::*;
use diesel::r2d2::R2D2Connection;
use diesel::result::{DatabaseErrorKind, Error};

use super::{USERS, User, WITHOUT_IDS, error_text, like_plain, users};

/// What both kinds of connection say about a URL.
fn establish_errors(url: &str) -> (String, String) {
    let plain = diesel::PgConnection::establish(url).err().expect("no connection");
    let ours = PgConnection::establish(url).err().expect("no connection");
    (format!("{plain:?}"), format!("{ours:?}"))
}

#[test]
fn a_server_that_is_no_postgres_gives_diesels_own_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let (plain, ours) = establish_errors(&format!("postgres://me@127.0.0.1:{port}/db?sslmode=disable"));
    assert_eq!(ours, plain);
    assert!(ours.starts_with("BadConnection"), "{ours}");
}

#[test]
fn a_url_that_leads_nowhere_gives_diesels_own_error() {
    // Bound and dropped, so that nobody listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for url in [
        format!("postgres://me@127.0.0.1:{port}/db"),
        "postgres://me@127.0.0.1:0/db".into(),
        "not a url".into(),
        "http://127.0.0.1/db".into(),
        String::from("postgres://me@127.0.0.1:99999/db"),
        "host=127.0.0.1 port=nonsense".into(),
        "nul\0in it".into(),
    ] {
        let (plain, ours) = establish_errors(&url);
        assert_eq!(ours, plain, "{url:?}");
    }
}

#[test]
fn a_database_or_a_role_that_does_not_exist_gives_diesels_own_error() {
    let database = Database::create();
    let mut url = database.url().to_owned();
    let at = url.rfind('/').unwrap();
    let query = url[at..].find('?').map(|mark| url[at + mark..].to_owned()).unwrap_or_default();
    url.truncate(at);
    let (plain, ours) = establish_errors(&format!("{url}/no_such_database{query}"));
    assert_eq!(ours, plain);
    assert!(ours.contains("no_such_database"), "{ours}");
}

/// A role that may work with the tables. Roles belong to the whole server, so its name is the database's.
fn role(database: &Database) -> String {
    let name = format!("role_of_{}", database.query("SELECT current_database()")[0][0].as_deref().unwrap());
    database.execute(&format!(
        "CREATE ROLE \"{name}\"; GRANT ALL ON ALL TABLES IN SCHEMA public TO \"{name}\";
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO \"{name}\""
    ));
    name
}

/// Drops the role at the end of the test.
struct Cleanup<'a>(&'a Database, String);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        self.0.execute(&format!("DROP OWNED BY \"{0}\"; DROP ROLE \"{0}\"", self.1));
    }
}

#[test]
fn without_permission_on_the_catalog_the_program_goes_on_unbatched() {
    let database = Database::create();
    database.execute(USERS);
    let cleanup = Cleanup(&database, role(&database));
    database.execute("REVOKE SELECT ON pg_catalog.pg_trigger FROM PUBLIC");
    let mut conn = PgConnection::establish(database.url()).unwrap();
    conn.batch_execute(&format!("SET ROLE \"{}\"", cleanup.1)).unwrap();

    let insert = |conn: &mut PgConnection, name: &str| {
        insert_into(users::table).values(users::name.eq(name)).returning(users::id).get_result::<i32>(conn)
    };
    enable_batch_inserts(&mut conn).unwrap();
    let ids = conn.transaction(|conn| QueryResult::Ok([insert(conn, "a")?, insert(conn, "b")?])).unwrap();
    assert_eq!(ids, [1, 2]);
    assert_eq!(conn.stats().inserts_sent.get(&Reason::CatalogUnreadable), Some(&2), "{}", conn.stats());
    assert!(conn.explain().is_err());

    // Nor does it harm a transaction.
    conn.transaction(|conn| {
        enable_batch_inserts(conn)?;
        insert(conn, "c")
    })
    .unwrap();
    database.execute("GRANT SELECT ON pg_catalog.pg_trigger TO PUBLIC");
    enable_batch_inserts(&mut conn).unwrap();
    conn.transaction(|conn| QueryResult::Ok([insert(conn, "d")?, insert(conn, "e")?, insert(conn, "f")?])).unwrap();
    assert!(conn.stats().inserts_deferred >= 1, "{}", conn.stats());
}

#[test]
fn a_permission_that_is_revoked_later_does_not_harm_the_program() {
    let database = Database::create();
    database.execute(USERS);
    let cleanup = Cleanup(&database, role(&database));
    let mut conn = PgConnection::establish(database.url()).unwrap();
    // Every transaction begins with a new look.
    let options = BatchOptions::new().catalog_max_age(Duration::ZERO);
    batch_diesel::enable_batch_inserts_with(&mut conn, options).unwrap();
    let mut other = PgConnection::establish(database.url()).unwrap();
    other.batch_execute(&format!("SET ROLE \"{}\"", cleanup.1)).unwrap();
    database.execute("REVOKE SELECT ON pg_catalog.pg_trigger FROM PUBLIC");
    for conn in [&mut conn, &mut other] {
        for _ in 0..3 {
            conn.transaction(|conn| {
                for name in ["a", "b", "c"] {
                    insert_into(users::table).values(users::name.eq(name)).execute(conn)?;
                }
                users::table.count().get_result::<i64>(conn)
            })
            .unwrap();
        }
    }
    // The owner reads on; the other's inserts are sent one by one.
    let stats = other.stats();
    assert_eq!(stats.inserts_deferred, 0, "{stats}");
    assert!(stats.inserts_sent.contains_key(&Reason::CatalogUnreadable), "{stats}");
    assert_eq!(conn.stats().inserts_deferred, 9);
    assert_eq!(database.query("SELECT count(*) FROM users")[0][0].as_deref(), Some("18"));
}

#[test]
fn a_role_that_may_not_insert_gets_postgres_own_error() {
    let database = Database::create();
    database.execute(USERS);
    let cleanup = Cleanup(&database, role(&database));
    database.execute(&format!("REVOKE INSERT ON users FROM \"{}\"", cleanup.1));
    let mut conn = PgConnection::establish(database.url()).unwrap();
    enable_batch_inserts(&mut conn).unwrap();
    conn.batch_execute(&format!("SET ROLE \"{}\"", cleanup.1)).unwrap();
    let error = conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            insert_into(users::table).values(users::name.eq("b")).execute(conn)
        })
        .unwrap_err();
    assert!(error.to_string().contains("permission denied for table users"), "{error}");
}

#[test]
fn a_table_that_vanished_is_an_error_at_the_flush_and_nothing_is_half_written() {
    let mut world = super::world(&format!("{USERS}; CREATE TABLE notes (text text)"));
    world.database.execute("DROP TABLE notes");
    let error = world
        .conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            diesel::sql_query("INSERT INTO notes VALUES ('x')").execute(conn)
        })
        .unwrap_err();
    assert!(error_text(&error).starts_with("Unknown: relation \"notes\" does not exist"), "{error}");
    assert_eq!(world.count("SELECT count(*) FROM users"), 0);
    // The connection is good, and so are the other tables.
    world.conn.transaction(|conn| insert_into(users::table).values(users::name.eq("b")).execute(conn)).unwrap();
    assert_eq!(world.count("SELECT count(*) FROM users"), 1);
    assert!(!world.conn.is_broken());
}

#[test]
fn a_table_that_was_made_anew_after_the_catalog_was_read_takes_its_rows_or_gives_postgres_error() {
    let mut world = super::world(USERS);
    let insert = |conn: &mut PgConnection| {
        conn.transaction(|conn| {
            (0..3)
                .map(|_| insert_into(users::table).values(users::name.eq("x")).returning(users::id).get_result(conn))
                .collect::<QueryResult<Vec<i32>>>()
        })
    };
    insert(&mut world.conn).unwrap();
    world.database.execute(&format!("DROP TABLE users; {USERS}"));
    // Reserved ids are from a sequence that is gone; at worst they leave a gap.
    let ids = insert(&mut world.conn).unwrap();
    let seen = world.seen("SELECT id FROM users ORDER BY id");
    let expected: Vec<_> = ids.iter().map(|id| vec![Some(id.to_string())]).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_poisoned_transaction_gives_the_errors_of_plain_diesel() {
    let (seen, world) = like_plain!(WITHOUT_IDS, |conn| {
        let mut seen = Vec::new();
        let result = conn.transaction(|conn| {
            insert_into(users::table).values(users::name.eq("before")).execute(conn)?;
            seen.push(error_text(&diesel::sql_query("SELECT 1/0").execute(conn).unwrap_err()));
            let insert = || insert_into(users::table).values(users::name.eq("after"));
            seen.push(error_text(&insert().execute(conn).unwrap_err()));
            seen.push(error_text(&insert().get_result::<User>(conn).unwrap_err()));
            seen.push(error_text(&insert().load_iter::<User, diesel::pg::PgRowByRowLoadingMode>(conn).err().unwrap()));
            seen.push(error_text(&conn.batch_execute("INSERT INTO users (name) VALUES ('x')").unwrap_err()));
            seen.push(error_text(&conn.transaction(|conn| insert().execute(conn)).unwrap_err()));
            seen.push(error_text(&users::table.count().get_result::<i64>(conn).unwrap_err()));
            // The program thinks that all is well, and commits.
            QueryResult::Ok(())
        });
        seen.push(format!("{:?}", result.map_err(|error| error_text(&error))));
        // And then it is.
        insert_into(users::table).values(users::name.eq("later")).execute(conn).unwrap();
        seen
    });
    assert!(seen[0].contains("division by zero"));
    assert!(seen[1..7].iter().all(|error| error.contains("current transaction is aborted")), "{seen:#?}");
    assert_eq!(world.conn.stats().inserts_deferred, 1);
}

#[test]
fn a_poisoned_nested_transaction_is_rolled_back_and_the_outer_one_goes_on_waiting() {
    let (names, world) = like_plain!(WITHOUT_IDS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("before")).execute(conn)?;
            let nested = conn.transaction(|conn| {
                insert_into(users::table).values(users::name.eq("lost")).execute(conn)?;
                let _ = diesel::sql_query("SELECT 1/0").execute(conn);
                insert_into(users::table).values(users::name.eq("refused")).execute(conn)
            });
            assert!(nested.is_err());
            insert_into(users::table).values(users::name.eq("after")).execute(conn)?;
            users::table.order(users::name).select(users::name).load::<String>(conn)
        })
        .unwrap());
    assert_eq!(names, ["after", "before"]);
    assert_eq!(world.conn.stats().inserts_deferred, 3);
}

/// Cuts the connection at the statement that starts with `marker` and gives the error, and whether the connection is
/// broken.
macro_rules! cut_at {
    ($connection:ty, $enable:expr, $fuse:expr) => {{
        let database = Database::create();
        database.execute(WITHOUT_IDS);
        let proxy = Proxy::start(database.url(), Duration::ZERO);
        let mut conn = <$connection>::establish(proxy.url()).unwrap();
        let enable: fn(&mut $connection) = $enable;
        enable(&mut conn);
        let result = conn.transaction(|conn| {
            // The transaction is more than one flush.
            conn.batch_execute("SELECT 1")?;
            proxy.cut_after_statements($fuse);
            for name in ["a", "b", "c"] {
                insert_into(users::table).values(users::name.eq(name)).execute(conn)?;
            }
            QueryResult::Ok(())
        });
        let error = result.unwrap_err();
        let again = conn.transaction(|conn| insert_into(users::table).values(users::name.eq("d")).execute(conn));
        let broken = conn.is_broken();
        drop(conn);
        // The server may take a moment to notice.
        let left = (0..50).find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            let open = database
                .query("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
            open.is_empty().then(|| database.query("SELECT count(*) FROM users")[0][0].clone().unwrap())
        });
        (kind(&error), kind(&again.unwrap_err()), broken, left.expect("the server noticed"))
    }};
}

/// The message names an address; the kind does not.
fn kind(error: &Error) -> String {
    match error {
        Error::DatabaseError(kind, _) => format!("{kind:?}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_connection_lost_in_the_middle_of_a_flush_is_diesels_own_error_and_nothing_is_half_written() {
    // The next statement: an INSERT with plain Diesel, the flush with ours.
    let plain = cut_at!(diesel::PgConnection, |_| (), 0);
    let ours = cut_at!(PgConnection, |conn| enable_batch_inserts(conn).unwrap(), 0);
    assert_eq!(ours, plain);
    assert!(ours.2, "the connection is broken");
    assert_eq!(ours.3, "0");
}

#[test]
fn a_connection_lost_at_the_commit_is_diesels_own_error() {
    // The answer to COMMIT is lost: the rows are in, or they are not, but not some of them.
    let plain = cut_at!(diesel::PgConnection, |_| (), 3);
    let ours = cut_at!(PgConnection, |conn| enable_batch_inserts(conn).unwrap(), 1);
    assert_eq!((&ours.0, &ours.1, ours.2), (&plain.0, &plain.1, plain.2));
    assert_eq!((plain.3.as_str(), ours.3.as_str()), ("3", "3"));
}

#[test]
fn a_connection_lost_while_ids_are_reserved_is_diesels_own_error() {
    let mut world = super::world(USERS);
    let error = world
        .conn
        .transaction(|conn| {
            let insert = || insert_into(users::table).values(users::name.eq("x")).returning(users::id);
            insert().get_result::<i32>(conn)?;
            world.proxy.cut_after_statements(0);
            insert().get_result::<i32>(conn)
        })
        .unwrap_err();
    assert_eq!(kind(&error), "ClosedConnection", "{error:?}");
    assert!(world.conn.is_broken());
    assert!(
        world.conn.transaction(|conn| insert_into(users::table).values(users::name.eq("y")).execute(conn)).is_err()
    );
}

#[test]
fn a_connection_lost_while_the_catalog_is_read_is_diesels_own_error() {
    let database = Database::create();
    let proxy = Proxy::start(database.url(), Duration::ZERO);
    let mut conn = PgConnection::establish(proxy.url()).unwrap();
    proxy.cut_after_statements(0);
    let error = enable_batch_inserts(&mut conn).unwrap_err();
    assert_eq!(kind(&error), "ClosedConnection", "{error:?}");
    assert!(conn.is_broken());
    // The database is not batched because of it.
    let mut fresh = PgConnection::establish(proxy.url()).unwrap();
    fresh.batch_execute("CREATE TABLE t (a int); BEGIN; INSERT INTO t VALUES (1); COMMIT").unwrap();
    assert_eq!(fresh.stats().inserts_seen, 0);
}

#[test]
fn a_backend_that_is_terminated_between_inserts_is_diesels_own_error() {
    macro_rules! terminated {
        ($conn:expr, $database:expr) => {{
            let conn = $conn;
            let error = conn
                .transaction(|conn| {
                    insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
                    let pid = diesel::dsl::sql::<diesel::sql_types::Integer>("pg_backend_pid()");
                    let pid: i32 = diesel::select(pid).get_result(conn)?;
                    insert_into(users::table).values(users::name.eq("b")).execute(conn)?;
                    $database.execute(&format!("SELECT pg_terminate_backend({pid}, 5000)"));
                    insert_into(users::table).values(users::name.eq("c")).execute(conn)
                })
                .unwrap_err();
            (kind(&error), conn.is_broken())
        }};
    }
    let plain = super::Plain::new(WITHOUT_IDS);
    let expected = terminated!(&mut plain.connect(), plain.database);
    let mut world = super::world(WITHOUT_IDS);
    // In a proxy the end of the connection may come late; straight to the server it is there at once.
    let mut conn = PgConnection::establish(world.proxy.url()).unwrap();
    let seen = terminated!(&mut conn, world.database);
    assert_eq!(seen, expected);
    assert_eq!(world.count("SELECT count(*) FROM users"), 0);
    // Others do not notice.
    world.conn.transaction(|conn| insert_into(users::table).values(users::name.eq("d")).execute(conn)).unwrap();
}

#[test]
fn a_statement_timeout_at_the_flush_is_its_own_error() {
    let mut world = super::world(USERS);
    let mut blocker = world.plain();
    let error = blocker
        .transaction(|blocker| {
            blocker.batch_execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")?;
            let result = world.conn.transaction(|conn| {
                conn.batch_execute("SET LOCAL lock_timeout = '50ms'")?;
                insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
                insert_into(users::table).values(users::name.eq("b")).execute(conn)
            });
            QueryResult::Ok(result.unwrap_err())
        })
        .unwrap();
    assert!(error.to_string().contains("canceling statement due to lock timeout"), "{error}");
    assert!(matches!(error, Error::DatabaseError(DatabaseErrorKind::Unknown, _)));
    assert!(!world.conn.is_broken());
    assert_eq!(world.count("SELECT count(*) FROM users"), 0);
}

#[test]
fn a_permission_that_a_role_within_the_transaction_lacks_does_not_harm_the_program() {
    let database = Database::create();
    database.execute(USERS);
    let cleanup = Cleanup(&database, role(&database));
    let mut conn = PgConnection::establish(database.url()).unwrap();
    enable_batch_inserts(&mut conn).unwrap();
    database.execute("REVOKE SELECT ON pg_catalog.pg_trigger FROM PUBLIC");
    for _ in 0..3 {
        conn.transaction(|conn| {
            conn.batch_execute(&format!("SET LOCAL ROLE \"{}\"", cleanup.1))?;
            for name in ["a", "b", "c"] {
                insert_into(users::table).values(users::name.eq(name)).execute(conn)?;
            }
            users::table.count().get_result::<i64>(conn)
        })
        .unwrap();
    }
    assert_eq!(database.query("SELECT count(*) FROM users")[0][0].as_deref(), Some("9"));
}

#[test]
fn a_violation_after_the_catalog_could_not_be_read_is_the_error_that_comes_out() {
    let database = Database::create();
    database.execute(&format!("{USERS}; CREATE UNIQUE INDEX ON users (name)"));
    let cleanup = Cleanup(&database, role(&database));
    let mut conn = PgConnection::establish(database.url()).unwrap();
    conn.batch_execute(&format!("SET ROLE \"{}\"", cleanup.1)).unwrap();
    enable_batch_inserts(&mut conn).unwrap();
    database.execute(&format!(
        "REVOKE SELECT ON pg_catalog.pg_trigger FROM PUBLIC; CREATE TABLE fresh (id int); GRANT ALL ON fresh TO \"{}\"",
        cleanup.1
    ));
    let error = conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            assert_eq!(conn.stats().inserts_deferred, 2);
            // A table that is not known: the catalog is asked, in vain, and then the rows go out.
            diesel::sql_query("INSERT INTO fresh VALUES (1)").execute(conn)
        })
        .unwrap_err();
    assert!(error_text(&error).starts_with("UniqueViolation"), "{error}");
    // The program goes on, unbatched.
    let count = conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            diesel::sql_query("INSERT INTO fresh VALUES (1)").execute(conn)
        })
        .unwrap();
    assert_eq!(count, 1);
}
