//! `copy_from`, `copy_to`, `save_changes`, notifications.

use std::io::BufRead as _;

use batch_core::FlushCause;
use diesel::connection::SimpleConnection;
use diesel::dsl::insert_into;
use diesel::pg::CopyFormat;
use diesel::prelude::*;

use super::{USERS, User, like_plain, users};

/// COPY takes no DEFAULT.
#[derive(Insertable)]
#[diesel(table_name = users, treat_none_as_default_value = false)]
struct Copied {
    name: String,
    hair: Option<&'static str>,
    age: i32,
}

#[test]
fn copy_from_insertables_comes_after_what_waits() {
    let (result, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("before")).execute(conn)?;
            let new: Vec<Copied> =
                (0..5).map(|age| Copied { name: format!("copied {age}"), hair: None, age }).collect();
            let copied = diesel::copy_from(users::table).from_insertable(new).execute(conn)?;
            insert_into(users::table).values(users::name.eq("after")).execute(conn)?;
            let names = users::table.order(users::id).select(users::name).load::<String>(conn)?;
            QueryResult::Ok((copied, names))
        })
        .unwrap());
    assert_eq!(result.0, 5);
    assert_eq!(result.1.first().map(String::as_str), Some("before"));
    assert_eq!(result.1.last().map(String::as_str), Some("after"));
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 2, "{stats}");
    assert_eq!(stats.flushes.get(&FlushCause::Statement), Some(&2), "{stats}");
}

#[test]
fn copy_from_raw_data_comes_after_what_waits_and_its_ids_come_before_later_ones() {
    let mut world = super::world(USERS);
    let ids = world
        .conn
        .transaction(|conn| {
            let insert = || insert_into(users::table).values(users::name.eq("x")).returning(users::id);
            let mut ids: Vec<i32> = Vec::new();
            for _ in 0..3 {
                ids.push(insert().get_result(conn)?);
            }
            let copied = diesel::copy_from(users::table)
                .from_raw_data((users::name, users::age), |out| {
                    for n in 0..2 {
                        writeln!(out, "raw {n}\t{n}").unwrap();
                    }
                    QueryResult::Ok(())
                })
                .with_format(CopyFormat::Text)
                .execute(conn)?;
            assert_eq!(copied, 2);
            for _ in 0..3 {
                ids.push(insert().get_result(conn)?);
            }
            QueryResult::Ok(ids)
        })
        .unwrap();
    let names: Vec<(i32, String)> =
        users::table.order(users::id).select((users::id, users::name)).load(&mut world.conn).unwrap();
    let order: Vec<&str> = names.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(order, ["x", "x", "x", "raw 0", "raw 1", "x", "x", "x"]);
    let own: Vec<i32> = names.iter().filter(|(_, name)| name == "x").map(|(id, _)| *id).collect();
    assert_eq!(ids, own);
}

#[test]
fn a_copy_that_fails_leaves_later_inserts_not_waiting() {
    let (errors, _world) = like_plain!(USERS, |conn| {
        let mut errors = Vec::new();
        let error = conn.transaction(|conn| {
            insert_into(users::table).values(users::name.eq("before")).execute(conn)?;
            let copied = diesel::copy_from(users::table)
                .from_raw_data((users::name, users::age), |out| {
                    writeln!(out, "x\tnot a number").unwrap();
                    QueryResult::Ok(())
                })
                .execute(conn);
            errors.push(super::error_text(&copied.unwrap_err()));
            insert_into(users::table).values(users::name.eq("after")).execute(conn)
        });
        errors.push(super::error_text(&error.unwrap_err()));
        errors
    });
    assert!(errors[0].contains("invalid input syntax"), "{errors:?}");
    assert!(errors[1].contains("current transaction is aborted"), "{errors:?}");
}

#[test]
fn copy_to_sees_the_rows_that_waited() {
    let mut world = super::world(USERS);
    let (rows, lines) = world
        .conn
        .transaction(|conn| {
            for n in 0..3 {
                insert_into(users::table)
                    .values((users::name.eq(format!("user {n}")), users::age.eq(n)))
                    .execute(conn)?;
            }
            let rows = conn.with_diesel(|conn| {
                let rows = diesel::copy_to(users::table).load::<User, _>(conn)?;
                let rows = rows.collect::<QueryResult<Vec<User>>>()?;
                // Diesel leaves the end of the COPY unread, and the connection busy until the next simple query.
                conn.batch_execute("SELECT 1")?;
                QueryResult::Ok(rows)
            })?;
            insert_into(users::table).values(users::name.eq("last")).execute(conn)?;
            let lines = conn.with_diesel(|conn| {
                let raw = diesel::copy_to(users::table).with_format(CopyFormat::Csv).load_raw(conn)?;
                QueryResult::Ok(raw.lines().map(Result::unwrap).collect::<Vec<String>>())
            })?;
            QueryResult::Ok((rows, lines))
        })
        .unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(lines[3], "4,last,brown,");
    assert_eq!(world.conn.stats().inserts_deferred, 4);
}

#[test]
fn what_is_inserted_past_the_engine_keeps_ids_in_order() {
    let mut world = super::world(USERS);
    let ids = world
        .conn
        .transaction(|conn| {
            let insert = || insert_into(users::table).values(users::name.eq("x")).returning(users::id);
            let mut ids: Vec<i32> = Vec::new();
            for _ in 0..3 {
                ids.push(insert().get_result(conn)?);
                ids.push(insert().get_result(conn)?);
                ids.push(conn.with_diesel(|conn| insert().get_result(conn))?);
            }
            QueryResult::Ok(ids)
        })
        .unwrap();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
}

#[test]
fn a_failure_past_the_engine_leaves_later_inserts_not_waiting() {
    let mut world = super::world(USERS);
    let result = world.conn.transaction(|conn| {
        let failed: QueryResult<usize> = conn.with_diesel(|conn| diesel::sql_query("SELECT 1/0").execute(conn));
        assert!(failed.is_err());
        insert_into(users::table).values(users::name.eq("x")).execute(conn)
    });
    assert!(super::error_text(&result.unwrap_err()).contains("current transaction is aborted"));
    assert_eq!(world.conn.stats().inserts_deferred, 0);
}

#[derive(Debug, Clone, PartialEq, Eq, AsChangeset, Identifiable, Queryable)]
#[diesel(table_name = users)]
struct Change {
    id: i32,
    name: String,
    hair: Option<String>,
    age: Option<i32>,
}

#[test]
fn save_changes_updates_a_row_that_waited() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let mut saved: Vec<Change> = Vec::new();
            for n in 0..3 {
                let mut change: Change = insert_into(users::table).values(users::name.eq("x")).get_result(conn)?;
                change.name = format!("saved {n}");
                change.age = Some(n);
                saved.push(change.save_changes(conn)?);
                saved.push((&change).save_changes(conn)?);
            }
            QueryResult::Ok(saved)
        })
        .unwrap());
    assert_eq!(rows[5].name, "saved 2");
    assert_eq!(rows[5].hair.as_deref(), Some("brown"));
    assert_eq!(world.conn.stats().inserts_deferred, 2);
}

#[test]
fn updates_with_a_changeset_and_deletes_by_id_find_rows_that_waited() {
    let (counts, _world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let mut counts = Vec::new();
            for n in 0..3 {
                let user: User = insert_into(users::table).values(users::name.eq("x")).get_result(conn)?;
                let change = Change { id: user.id, name: "y".into(), hair: None, age: Some(n) };
                counts.push(diesel::update(&user).set(&change).execute(conn)?);
                if n == 1 {
                    counts.push(diesel::delete(&user).execute(conn)?);
                }
            }
            QueryResult::Ok(counts)
        })
        .unwrap());
    assert_eq!(counts, [1, 1, 1, 1]);
}

#[test]
fn notifications_arrive() {
    let (seen, world) = like_plain!(super::WITHOUT_IDS, |conn| {
        diesel::sql_query("LISTEN news").execute(conn).unwrap();
        conn.transaction(|conn| {
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            diesel::sql_query("NOTIFY news, 'inside'").execute(conn)
        })
        .unwrap();
        diesel::sql_query("NOTIFY news, 'outside'").execute(conn).unwrap();
        conn.notifications_iter()
            .map(|notification| notification.map(|n| (n.channel, n.payload)))
            .collect::<QueryResult<Vec<_>>>()
            .unwrap()
    });
    assert_eq!(seen, [("news".to_owned(), "inside".to_owned()), ("news".to_owned(), "outside".to_owned())]);
    assert_eq!(world.conn.stats().flushes.get(&FlushCause::Statement), Some(&1));
}
