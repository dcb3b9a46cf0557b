use std::time::Instant;

use postgres::{Client, NoTls};

use super::*;
use crate::{Database, Server};

fn start(round_trip: Duration) -> (Database, Proxy) {
    let database = Database::create();
    let proxy = Proxy::start(database.url(), round_trip);
    (database, proxy)
}

fn connect(proxy: &Proxy) -> Client {
    Client::connect(proxy.url(), NoTls).expect("connects through the proxy")
}

#[test]
fn a_known_conversation_is_counted_exactly() {
    let (_database, proxy) = start(Duration::ZERO);
    let mut client = connect(&proxy);
    assert_eq!(proxy.wire(), Wire::default(), "start-up is not counted");

    client.batch_execute("SELECT 1").expect("runs");
    // Query: 5 + "SELECT 1\0". RowDescription 34, DataRow 12, CommandComplete 14, ReadyForQuery 6.
    // The embedded Postgres has more to say.
    let bytes_received = if Server::shared().serves_one_connection() { proxy.wire().bytes_received } else { 66 };
    assert_eq!(proxy.wire(), Wire { statements: 1, round_trips: 1, bytes_sent: 14, bytes_received });

    let statement = client.prepare("SELECT 2 + $1::int4").expect("prepares");
    client.query(&statement, &[&1]).expect("runs");
    client.query(&statement, &[&2]).expect("runs");
    let wire = proxy.wire();
    assert_eq!((wire.statements, wire.round_trips), (3, 4), "one to prepare, one each to run");

    let prepared = "SELECT 2 + $1::int4";
    let executed = format!("EXECUTE {prepared}");
    assert_eq!(proxy.trace(), ["SELECT 1", prepared, &executed, &executed]);

    proxy.reset();
    assert_eq!(proxy.wire(), Wire::default());
    assert!(proxy.trace().is_empty());
}

#[test]
fn a_round_trip_takes_at_least_as_long_as_asked() {
    let round_trip = Duration::from_millis(20);
    let (_database, proxy) = start(round_trip);
    let mut client = connect(&proxy);

    let begin = Instant::now();
    for _ in 0..5 {
        client.batch_execute("SELECT 1").expect("runs");
    }
    assert!(begin.elapsed() >= 5 * round_trip);
    assert_eq!(proxy.wire().round_trips, 5);
}

#[test]
fn a_message_larger_than_any_read_is_one_statement() {
    let (_database, proxy) = start(Duration::from_millis(1));
    let mut client = connect(&proxy);

    let text = "x".repeat(3_000_000);
    let row = client.query_one("SELECT $1::text", &[&text]).expect("runs");
    assert_eq!(row.get::<_, &str>(0), text);
    let wire = proxy.wire();
    assert_eq!(wire.statements, 1);
    assert!(wire.bytes_sent > 3_000_000 && wire.bytes_received > 3_000_000);
}

#[test]
fn a_cut_ends_connections_and_lets_new_ones_in() {
    let (_database, proxy) = start(Duration::ZERO);
    let mut client = connect(&proxy);

    proxy.cut();
    assert!(client.batch_execute("SELECT 1").is_err());
    drop(client);
    connect(&proxy).batch_execute("SELECT 1").expect("runs");
}

#[test]
fn the_server_runs_the_statement_whose_answer_is_cut() {
    let (database, proxy) = start(Duration::from_millis(1));
    database.execute("CREATE TABLE t (a int)");
    let mut client = connect(&proxy);

    proxy.cut_after_statements(1);
    client.execute("INSERT INTO t VALUES (1)", &[]).expect("passes");
    client.execute("INSERT INTO t VALUES (2)", &[]).expect_err("is not answered");
    drop(client);

    let mut client = connect(&proxy);
    client.execute("INSERT INTO t VALUES (3)", &[]).expect("the cut happens once");
    drop(client);
    let a = |n: &str| vec![Some(n.to_owned())];
    assert_eq!(database.query("SELECT a FROM t ORDER BY a"), [a("1"), a("2"), a("3")]);
}

#[test]
fn the_url_keeps_all_but_host_port_and_tls() {
    let url = "postgres://me:secret@db.example:6543/mine?sslmode=require&application_name=a+b";
    let through = url_through(url, SocketAddr::from(([127, 0, 0, 1], 1234))).expect("is a URL");
    assert_eq!(through, "postgres://me:secret@127.0.0.1:1234/mine?application_name=a+b&sslmode=disable");
}
