//! Everything that an INSERT can return.

use batch_core::{FlushCause, Reason};
use diesel::connection::DefaultLoadingMode;
use diesel::dsl::insert_into;
use diesel::pg::PgRowByRowLoadingMode;
use diesel::prelude::*;
use diesel::upsert::excluded;

use super::{NewUser, USERS, User, like_plain, new_user, users};

/// The first insert that asks for an id is sent as it is; all others wait.
fn assert_all_but_the_first_waited(world: &batch_tests::World<batch_tests::diesel_adapter::Diesel>, inserts: u64) {
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_seen, inserts, "{stats}");
    assert_eq!(stats.inserts_deferred, inserts - 1, "{stats}");
    assert_eq!(stats.inserts_sent.get(&Reason::FirstUse), Some(&1), "{stats}");
    assert_eq!(stats.flushes.get(&FlushCause::Commit), Some(&1), "{stats}");
    assert_eq!(stats.flush_statements, 1, "{stats}");
}

#[test]
fn execute_gives_the_count_and_waits() {
    let (counts, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (0..5)
                .map(|n| insert_into(users::table).values(users::name.eq(format!("user {n}"))).execute(conn))
                .collect::<QueryResult<Vec<usize>>>()
        })
        .unwrap());
    assert_eq!(counts, [1; 5]);
    // Nobody asks for an id, so that not even the first is sent at once.
    assert_eq!(world.conn.stats().inserts_deferred, 5);
    assert_eq!(world.inserts_on_the_wire(), 1);
}

#[test]
fn get_result_gives_the_whole_row_and_waits() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (0..5)
                .map(|n| insert_into(users::table).values(users::name.eq(format!("user {n}"))).get_result(conn))
                .collect::<QueryResult<Vec<User>>>()
        })
        .unwrap());
    assert_eq!(rows[4], User { id: 5, name: "user 4".into(), hair: Some("brown".into()), age: None });
    assert_all_but_the_first_waited(&world, 5);
}

#[test]
fn returning_the_id_waits() {
    let (ids, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (0..5)
                .map(|n| {
                    let user = (users::name.eq(format!("user {n}")), users::age.eq(n));
                    insert_into(users::table).values(user).returning(users::id).get_result(conn)
                })
                .collect::<QueryResult<Vec<i32>>>()
        })
        .unwrap());
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    assert_all_but_the_first_waited(&world, 5);
}

#[test]
fn an_insert_without_a_required_column_fails_at_once_as_it_would_have() {
    let (error, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            insert_into(users::table).values(users::age.eq(1)).returning(users::id).get_result::<i32>(conn)
        })
        .map_err(|error| super::error_text(&error))
        .unwrap_err());
    assert!(error.starts_with("NotNullViolation"), "{error}");
    assert_eq!(world.conn.stats().inserts_sent.get(&Reason::Null), Some(&1));
}

#[test]
fn returning_a_model_waits() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (0..5)
                .map(|n| {
                    insert_into(users::table)
                        .values(new_user(&format!("user {n}"), Some("red"), Some(n)))
                        .returning(User::as_returning())
                        .get_result(conn)
                })
                .collect::<QueryResult<Vec<User>>>()
        })
        .unwrap());
    assert_eq!(rows[4], User { id: 5, name: "user 4".into(), hair: Some("red".into()), age: Some(4) });
    assert_all_but_the_first_waited(&world, 5);
}

#[test]
fn returning_tuples_nested_ones_and_columns_twice_and_out_of_order_waits() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (0..5)
                .map(|n| {
                    insert_into(users::table)
                        .values((users::name.eq(format!("user {n}")), users::age.eq(Some(n))))
                        .returning((users::age, (users::hair, users::id), users::id, users::name))
                        .get_result(conn)
                })
                .collect::<QueryResult<Vec<(Option<i32>, (Option<String>, i32), i32, String)>>>()
        })
        .unwrap());
    assert_eq!(rows[1], (Some(1), (Some("brown".into()), 2), 2, "user 1".into()));
    assert_all_but_the_first_waited(&world, 5);
}

#[test]
fn optional_and_first_and_get_results_and_load_wait() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let mut rows: Vec<User> = Vec::new();
            let insert = |name: &'static str| insert_into(users::table).values(users::name.eq(name));
            rows.extend(insert("a").get_results::<User>(conn)?);
            rows.extend(insert("b").get_results::<User>(conn)?);
            rows.extend(insert("c").load::<User>(conn)?);
            rows.extend(insert("d").returning(User::as_returning()).load(conn)?);
            rows.extend(insert("e").get_result::<User>(conn).optional()?);
            QueryResult::Ok(rows)
        })
        .unwrap());
    assert_eq!(rows.iter().map(|user| user.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_all_but_the_first_waited(&world, 5);
}

#[test]
fn load_iter_waits_in_the_default_loading_mode() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let mut rows = Vec::new();
            for name in ["a", "b", "c"] {
                let insert = insert_into(users::table).values(users::name.eq(name));
                rows.extend(insert.load_iter::<User, DefaultLoadingMode>(conn)?.collect::<QueryResult<Vec<_>>>()?);
            }
            QueryResult::Ok(rows)
        })
        .unwrap());
    assert_eq!(rows.len(), 3);
    assert_all_but_the_first_waited(&world, 3);
}

#[test]
fn load_iter_waits_row_by_row_too() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let mut rows = Vec::new();
            for name in ["a", "b", "c"] {
                let insert = insert_into(users::table).values(users::name.eq(name));
                rows.extend(insert.load_iter::<User, PgRowByRowLoadingMode>(conn)?.collect::<QueryResult<Vec<_>>>()?);
            }
            QueryResult::Ok(rows)
        })
        .unwrap());
    assert_eq!(rows.len(), 3);
    assert_all_but_the_first_waited(&world, 3);
}

#[test]
fn a_row_that_waits_has_a_size_and_can_be_left_unread() {
    let (sizes, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let mut sizes = Vec::new();
            for _ in 0..3 {
                let insert = insert_into(users::table).values(users::name.eq("unread"));
                let iter = insert.load_iter::<User, DefaultLoadingMode>(conn)?;
                sizes.push(iter.size_hint());
            }
            QueryResult::Ok(sizes)
        })
        .unwrap());
    assert_eq!(sizes, [(1, Some(1)); 3]);
    assert_all_but_the_first_waited(&world, 3);
}

#[test]
fn a_vec_waits_as_one_statement_and_returns_its_rows_in_order() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let mut rows = Vec::new();
            for chunk in 0..3 {
                let new: Vec<NewUser> = (0..4).map(|n| new_user(&format!("{chunk}.{n}"), None, Some(n))).collect();
                rows.extend(insert_into(users::table).values(&new).get_results::<User>(conn)?);
            }
            QueryResult::Ok(rows)
        })
        .unwrap());
    let expected: Vec<(i32, String)> = (0..12).map(|n| (n + 1, format!("{}.{}", n / 4, n % 4))).collect();
    assert_eq!(rows.into_iter().map(|user| (user.id, user.name)).collect::<Vec<_>>(), expected);
    assert_all_but_the_first_waited(&world, 3);
}

#[test]
fn a_vec_of_any_length_waits_and_counts_its_rows() {
    let (counts, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (1..6)
                .map(|len| {
                    let new: Vec<_> =
                        (0..len).map(|n| (users::name.eq(format!("{len}.{n}")), users::age.eq(n))).collect();
                    insert_into(users::table).values(new).execute(conn)
                })
                .collect::<QueryResult<Vec<usize>>>()
        })
        .unwrap());
    assert_eq!(counts, [1, 2, 3, 4, 5]);
    assert_eq!(world.conn.stats().inserts_deferred, 5);
    assert_eq!(world.inserts_on_the_wire(), 1);
}

#[test]
fn an_array_and_a_slice_wait() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let array = [users::name.eq("a"), users::name.eq("b")];
            let first: Vec<i32> = insert_into(users::table).values(array).returning(users::id).get_results(conn)?;
            let two = [new_user("c", None, None), new_user("d", Some("grey"), None)];
            let second: Vec<User> = insert_into(users::table).values(&two).get_results(conn)?;
            let third: Vec<User> = insert_into(users::table).values(&two[..1]).get_results(conn)?;
            let boxed = Box::new([users::name.eq("e")]);
            let fourth = insert_into(users::table).values(boxed).execute(conn)?;
            QueryResult::Ok((first, second, third, fourth))
        })
        .unwrap());
    assert_eq!(rows.0, [1, 2]);
    assert_eq!(rows.1[1].hair.as_deref(), Some("grey"));
    assert_all_but_the_first_waited(&world, 4);
}

#[test]
fn none_is_the_default_and_some_is_the_value_in_whatever_order_they_come() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            [(None, None), (Some("red"), None), (None, Some(7)), (Some("blue"), Some(8)), (None, None)]
                .into_iter()
                .map(|(hair, age)| insert_into(users::table).values(&new_user("x", hair, age)).get_result(conn))
                .collect::<QueryResult<Vec<User>>>()
        })
        .unwrap());
    let hair: Vec<_> = rows.iter().map(|user| user.hair.as_deref().unwrap()).collect();
    assert_eq!(hair, ["brown", "red", "brown", "blue", "brown"]);
    assert_all_but_the_first_waited(&world, 5);
}

#[test]
fn none_is_null_where_the_struct_says_so() {
    #[derive(Insertable)]
    #[diesel(table_name = users, treat_none_as_default_value = false)]
    struct Exact {
        name: &'static str,
        hair: Option<&'static str>,
    }

    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            [None, Some("red"), None]
                .into_iter()
                .map(|hair| insert_into(users::table).values(&Exact { name: "x", hair }).get_result(conn))
                .collect::<QueryResult<Vec<User>>>()
        })
        .unwrap());
    assert_eq!(rows.iter().map(|user| user.hair.as_deref()).collect::<Vec<_>>(), [None, Some("red"), None]);
    assert_all_but_the_first_waited(&world, 3);
}

#[test]
fn a_vec_may_mix_defaults_and_values() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let mut rows: Vec<User> = Vec::new();
            for _ in 0..2 {
                let new =
                    vec![new_user("a", None, Some(1)), new_user("b", Some("red"), None), new_user("c", None, None)];
                rows.extend(insert_into(users::table).values(new).get_results(conn)?);
            }
            QueryResult::Ok(rows)
        })
        .unwrap());
    assert_eq!(rows[4].hair.as_deref(), Some("red"));
    assert_eq!(rows[5].hair.as_deref(), Some("brown"));
    assert_all_but_the_first_waited(&world, 2);
}

#[test]
fn an_option_of_a_whole_column_is_the_default_when_it_is_none() {
    let (rows, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (0..4)
                .map(|n| {
                    let hair = (n % 2 == 0).then(|| users::hair.eq("odd"));
                    insert_into(users::table).values((users::name.eq("x"), hair)).get_result(conn)
                })
                .collect::<QueryResult<Vec<User>>>()
        })
        .unwrap());
    assert_eq!(rows[2].hair.as_deref(), Some("odd"));
    assert_eq!(rows[3].hair.as_deref(), Some("brown"));
    assert_all_but_the_first_waited(&world, 4);
}

diesel::table! {
    ticks (id) {
        id -> BigInt,
        label -> Text,
    }
}

#[test]
fn default_values_wait() {
    let schema =
        "CREATE TABLE ticks (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, label text NOT NULL DEFAULT 'x')";
    let (rows, world) = like_plain!(schema, |conn| conn
        .transaction(|conn| {
            let rows = (0..4)
                .map(|_| insert_into(ticks::table).default_values().get_result(conn))
                .collect::<QueryResult<Vec<(i64, String)>>>()?;
            let more = insert_into(ticks::table).default_values().execute(conn)?;
            QueryResult::Ok((rows, more))
        })
        .unwrap());
    assert_eq!(rows.0[3], (4, "x".into()));
    assert_eq!(rows.1, 1);
    assert_all_but_the_first_waited(&world, 5);
}

#[test]
fn an_empty_vec_inserts_nothing_and_says_so() {
    let (result, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            let before = insert_into(users::table).values(users::name.eq("before")).execute(conn)?;
            let none = Vec::<NewUser>::new();
            let count = insert_into(users::table).values(&none).execute(conn)?;
            let rows: Vec<User> = insert_into(users::table).values(&none).get_results(conn)?;
            let one: Option<User> = insert_into(users::table).values(&none).get_result(conn).optional()?;
            QueryResult::Ok((before, count, rows, one))
        })
        .unwrap());
    assert_eq!(result, (1, 0, vec![], None));
    assert_eq!(world.count("SELECT count(*) FROM users"), 1);
}

#[test]
fn an_insert_from_a_select_is_sent_at_once_after_what_waits() {
    let (counts, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values((users::name.eq("a"), users::age.eq(1))).execute(conn)?;
            let copies = users::table.select((users::name, users::age));
            let copied = copies.insert_into(users::table).into_columns((users::name, users::age)).execute(conn)?;
            insert_into(users::table).values(users::name.eq("b")).execute(conn)?;
            let rows: Vec<User> = users::table
                .filter(users::age.is_not_null())
                .select((users::name, users::age))
                .insert_into(users::table)
                .into_columns((users::name, users::age))
                .get_results(conn)?;
            QueryResult::Ok((copied, rows.len()))
        })
        .unwrap());
    assert_eq!(counts, (1, 2));
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 2, "{stats}");
    assert_eq!(stats.inserts_sent.get(&Reason::Form), Some(&2), "{stats}");
    assert_eq!(stats.flushes.get(&FlushCause::InsertSentAtOnce), Some(&2), "{stats}");
}

#[test]
fn on_conflict_is_sent_at_once_after_what_waits() {
    let schema = format!("{USERS}; CREATE UNIQUE INDEX ON users (name)");
    let (result, world) = like_plain!(&schema, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(new_user("a", None, Some(1))).execute(conn)?;
            let nothing = insert_into(users::table)
                .values(new_user("a", None, Some(2)))
                .on_conflict(users::name)
                .do_nothing()
                .execute(conn)?;
            let updated: User = insert_into(users::table)
                .values(new_user("a", None, Some(3)))
                .on_conflict(users::name)
                .do_update()
                .set(users::age.eq(excluded(users::age)))
                .get_result(conn)?;
            let bare = insert_into(users::table)
                .values(new_user("a", None, Some(4)))
                .on_conflict_do_nothing()
                .execute(conn)?;
            QueryResult::Ok((nothing, updated.age, bare))
        })
        .unwrap());
    assert_eq!(result, (0, Some(3), 0));
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 1, "{stats}");
    assert_eq!(stats.inserts_sent.values().sum::<u64>(), 3, "{stats}");
    assert_eq!(stats.flushes.get(&FlushCause::InsertSentAtOnce), Some(&1), "{stats}");
}

#[test]
fn an_expression_among_the_values_is_sent_at_once() {
    let (names, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            insert_into(users::table).values(users::name.eq("a")).execute(conn)?;
            let upper = diesel::dsl::sql::<diesel::sql_types::Text>("upper('b')");
            insert_into(users::table).values(users::name.eq(upper)).returning(users::name).get_result::<String>(conn)
        })
        .unwrap());
    assert_eq!(names, "B");
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_sent.get(&Reason::Expression), Some(&1), "{stats}");
    assert_eq!(stats.flushes.get(&FlushCause::InsertSentAtOnce), Some(&1), "{stats}");
}

#[test]
fn an_insert_with_an_id_of_the_programs_own_waits_at_once() {
    let (ids, world) = like_plain!(USERS, |conn| conn
        .transaction(|conn| {
            (100..104)
                .map(|id| {
                    let user = (users::id.eq(id), users::name.eq("x"));
                    insert_into(users::table).values(user).returning(users::id).get_result(conn)
                })
                .collect::<QueryResult<Vec<i32>>>()
        })
        .unwrap());
    assert_eq!(ids, [100, 101, 102, 103]);
    assert_eq!(world.conn.stats().inserts_deferred, 4);
    assert_eq!(world.inserts_on_the_wire(), 1);
}

#[test]
fn an_insert_outside_a_transaction_is_sent_as_diesel_wrote_it() {
    let (results, world) = like_plain!(USERS, |conn| [None, Some("x"), None, Some("y")]
        .map(|name| insert_into(users::table).values(name.map(|name| users::name.eq(name))).execute(conn))
        .map(|result| result.map_err(|error| super::error_text(&error))));
    assert!(results[2].as_ref().unwrap_err().contains("NotNullViolation"));
    assert_eq!(results[3], Ok(1));
    assert_eq!(world.conn.stats().inserts_sent.get(&Reason::NotInTransaction), Some(&4));
}
