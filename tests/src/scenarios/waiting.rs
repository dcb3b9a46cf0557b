//! DESIGN.md §2.1, §2.2: when an INSERT may wait, and when pending rows go out.

use crate::{Adapter, Session, World};

const USERS: &str = "CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL)";

/// The thinnest slice.
pub fn a_loop_of_inserts_in_a_transaction_is_one_flush<A: Adapter>() {
    let mut world = World::<A>::new(USERS);
    let conn = &mut world.conn;
    let ids = conn
        .transaction(|conn| {
            (0..100).map(|n| conn.insert_name("users", &format!("user {n}"))).collect::<Result<Vec<_>, _>>()
        })
        .unwrap();
    assert_eq!(ids, (1..=100).collect::<Vec<i64>>());
    let wire = world.wire();
    // The first is sent as it is, and a first block of ids serves 64: then a second one.
    assert_eq!(wire.iter().filter(|sql| sql.contains("INSERT INTO")).count(), 2);
    assert_eq!(world.count("SELECT count(*) FROM users"), 100);
}
