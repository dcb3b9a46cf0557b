//! Types that Diesel binds and loads, the program's own among them.

use std::io::Write;
use std::ops::Bound;

use batch_core::Reason;
use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::dsl::insert_into;
use diesel::expression::AsExpression;
use diesel::pg::data_types::PgInterval;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::serialize::{self, IsNull, Output, ToSql, WriteTuple};
use diesel::sql_types::{Integer, Nullable, Text};
use ipnetwork::IpNetwork;
use serde_json::json;
use uuid::Uuid;

use super::like_plain;

#[allow(unreachable_pub, reason = "`table!` makes its columns public")]
mod sql {
    #[derive(Debug, Clone, Copy, Default, diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
    #[diesel(postgres_type(name = "mood"))]
    pub struct Mood;

    #[derive(Debug, Clone, Copy, Default, diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
    #[diesel(postgres_type(name = "place"))]
    pub struct Place;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql::Mood)]
enum Mood {
    Sad,
    Happy,
}

impl ToSql<sql::Mood, Pg> for Mood {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(match self {
            Self::Sad => b"sad",
            Self::Happy => b"happy",
        })?;
        Ok(IsNull::No)
    }
}

impl FromSql<sql::Mood, Pg> for Mood {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes() {
            b"sad" => Ok(Self::Sad),
            b"happy" => Ok(Self::Happy),
            _ => Err("no mood".into()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql::Place)]
struct Place {
    street: String,
    number: Option<i32>,
}

impl ToSql<sql::Place, Pg> for Place {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        WriteTuple::<(Text, Nullable<Integer>)>::write_tuple(&(self.street.as_str(), self.number), &mut out.reborrow())
    }
}

impl FromSql<sql::Place, Pg> for Place {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let (street, number) = FromSql::<diesel::sql_types::Record<(Text, Nullable<Integer>)>, Pg>::from_sql(value)?;
        Ok(Self { street, number })
    }
}

const PEOPLE: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
    CREATE TYPE place AS (street text, number int);
    CREATE TABLE people (id serial PRIMARY KEY, mood mood, moods mood[], home place);
    CREATE TABLE others (id serial PRIMARY KEY, name text NOT NULL)";

diesel::table! {
    use diesel::sql_types::*;
    use super::sql::{Mood, Place};

    people (id) {
        id -> Integer,
        mood -> Nullable<Mood>,
        moods -> Nullable<Array<Mood>>,
        home -> Nullable<Place>,
    }
}

diesel::table! {
    others (id) {
        id -> Integer,
        name -> Text,
    }
}

type Person = (i32, Option<Mood>, Option<Vec<Mood>>, Option<Place>);

#[test]
fn an_enum_of_the_programs_own_waits_and_comes_back() {
    let (rows, world) = like_plain!(PEOPLE, |conn| conn
        .transaction(|conn| {
            [Some(Mood::Happy), None, Some(Mood::Sad), Some(Mood::Happy)]
                .into_iter()
                .map(|mood| {
                    insert_into(people::table)
                        .values(people::mood.eq(mood))
                        .returning((people::id, people::mood))
                        .get_result(conn)
                })
                .collect::<QueryResult<Vec<(i32, Option<Mood>)>>>()
        })
        .unwrap());
    assert_eq!(rows[2], (3, Some(Mood::Sad)));
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 3, "{stats}");
    assert_eq!(stats.flush_statements, 1, "{stats}");
}

#[test]
fn the_lookup_of_a_custom_type_flushes_nothing() {
    let mut world = super::world(PEOPLE);
    world
        .conn
        .transaction(|conn| {
            insert_into(others::table).values(others::name.eq("waits")).execute(conn)?;
            // The type is new to this connection: Diesel asks Postgres for its oid while it collects the binds.
            insert_into(people::table).values(people::mood.eq(Mood::Happy)).execute(conn)
        })
        .unwrap();
    let wire = world.wire();
    let at = |what: &str| {
        let found: Vec<usize> = (0..wire.len()).filter(|&at| wire[at].contains(what)).collect();
        assert_eq!(found.len(), 1, "{what} in {wire:#?}");
        found[0]
    };
    assert!(at("pg_type") < at("INSERT INTO"), "{wire:#?}");
    assert_eq!(world.conn.stats().flush_statements, 1);
    assert_eq!(world.conn.stats().inserts_deferred, 2);
}

#[test]
fn a_custom_type_that_does_not_exist_gives_the_error_of_plain_diesel() {
    let schema = "CREATE TABLE people (id serial PRIMARY KEY, mood text, moods text[], home text);
                  CREATE TABLE others (id serial PRIMARY KEY, name text NOT NULL)";
    let (error, _world) = like_plain!(schema, |conn| conn
        .transaction(|conn| {
            insert_into(others::table).values(others::name.eq("x")).execute(conn)?;
            insert_into(people::table).values(people::mood.eq(Mood::Happy)).execute(conn)
        })
        .map_err(|error| super::error_text(&error))
        .unwrap_err());
    assert!(error.contains("mood"), "{error}");
}

#[test]
fn an_enum_in_a_schema_off_the_search_path_gives_the_error_of_plain_diesel_and_harms_nothing() {
    let schema = "CREATE SCHEMA hidden; CREATE TYPE hidden.mood AS ENUM ('sad', 'happy');
                  CREATE TABLE people (id serial PRIMARY KEY, mood hidden.mood, moods text[], home text)";
    let (results, _world) = like_plain!(schema, |conn| {
        let first =
            conn.transaction(|conn| insert_into(people::table).values(people::mood.eq(Mood::Sad)).execute(conn));
        let second = insert_into(people::table).default_values().returning(people::id).get_result::<i32>(conn);
        (first.map_err(|error| super::error_text(&error)), second.unwrap())
    });
    assert!(results.0.is_err());
}

#[test]
fn arrays_of_custom_types_and_composites_come_back_as_plain_diesel_gives_them() {
    let (rows, world) = like_plain!(PEOPLE, |conn| conn
        .transaction(|conn| {
            (0..4)
                .map(|n| {
                    let home = Place { street: "Main, \"Street\"".into(), number: (n % 2 == 0).then_some(n) };
                    let moods = vec![Mood::Sad, Mood::Happy];
                    insert_into(people::table)
                        .values((people::mood.eq(Mood::Happy), people::moods.eq(moods), people::home.eq(home)))
                        .get_result(conn)
                })
                .collect::<QueryResult<Vec<Person>>>()
        })
        .unwrap());
    assert_eq!(rows[3].3, Some(Place { street: "Main, \"Street\"".into(), number: None }));
    // What Postgres makes of a composite is not foreseen, so that it answers itself.
    assert_eq!(world.conn.stats().inserts_sent.get(&Reason::AnswerUnknown), Some(&4));
}

#[test]
fn arrays_of_custom_types_and_composites_wait_where_nobody_asks_for_them() {
    let (ids, world) = like_plain!(PEOPLE, |conn| conn
        .transaction(|conn| {
            (0..4)
                .map(|n| {
                    let home = Place { street: format!("Street {n}"), number: Some(n) };
                    let moods = if n == 2 { vec![] } else { vec![Mood::Sad; n as usize] };
                    insert_into(people::table)
                        .values((people::moods.eq(moods), people::home.eq((n > 1).then_some(home))))
                        .returning(people::id)
                        .get_result(conn)
                })
                .collect::<QueryResult<Vec<i32>>>()
        })
        .unwrap());
    assert_eq!(ids, [1, 2, 3, 4]);
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 3, "{stats}");
    assert_eq!(stats.flush_statements, 1, "{stats}");
}

const THINGS: &str = "
    CREATE TABLE things (
        id bigserial PRIMARY KEY,
        key uuid NOT NULL,
        tags text[],
        grid int[],
        doc jsonb,
        plain json,
        at timestamptz,
        local timestamp,
        day date,
        clock time,
        price numeric,
        cents numeric(10, 2),
        net cidr,
        host inet,
        blob bytea,
        flag boolean,
        small smallint,
        big bigint,
        ratio double precision,
        half real,
        code char(4),
        short varchar(8),
        span int4range,
        mac macaddr,
        took interval
    )";

diesel::table! {
    use diesel::sql_types::*;

    things (id) {
        id -> BigInt,
        key -> Uuid,
        tags -> Nullable<Array<Nullable<Text>>>,
        grid -> Nullable<Array<Integer>>,
        doc -> Nullable<Jsonb>,
        plain -> Nullable<Json>,
        at -> Nullable<Timestamptz>,
        local -> Nullable<Timestamp>,
        day -> Nullable<Date>,
        clock -> Nullable<Time>,
        price -> Nullable<Numeric>,
        cents -> Nullable<Numeric>,
        net -> Nullable<Cidr>,
        host -> Nullable<Inet>,
        blob -> Nullable<Binary>,
        flag -> Nullable<Bool>,
        small -> Nullable<SmallInt>,
        big -> Nullable<BigInt>,
        ratio -> Nullable<Double>,
        half -> Nullable<Float>,
        code -> Nullable<Bpchar>,
        short -> Nullable<Varchar>,
        span -> Nullable<Range<Integer>>,
        mac -> Nullable<MacAddr>,
        took -> Nullable<Interval>,
    }
}

#[derive(Debug, Clone, PartialEq, Insertable)]
#[diesel(table_name = things)]
struct NewThing {
    key: Uuid,
    tags: Option<Vec<Option<String>>>,
    grid: Option<Vec<i32>>,
    doc: Option<serde_json::Value>,
    plain: Option<serde_json::Value>,
    at: Option<DateTime<Utc>>,
    local: Option<NaiveDateTime>,
    day: Option<NaiveDate>,
    clock: Option<NaiveTime>,
    price: Option<BigDecimal>,
    cents: Option<BigDecimal>,
    net: Option<IpNetwork>,
    host: Option<IpNetwork>,
    blob: Option<Vec<u8>>,
    flag: Option<bool>,
    small: Option<i16>,
    big: Option<i64>,
    ratio: Option<f64>,
    half: Option<f32>,
    code: Option<String>,
    short: Option<String>,
    span: Option<(Bound<i32>, Bound<i32>)>,
    mac: Option<[u8; 6]>,
    took: Option<PgInterval>,
}

/// Every type whose stored form is known.
#[derive(Debug, PartialEq, Queryable, Selectable)]
#[diesel(table_name = things, check_for_backend(Pg))]
struct Thing {
    id: i64,
    key: Uuid,
    tags: Option<Vec<Option<String>>>,
    grid: Option<Vec<i32>>,
    doc: Option<serde_json::Value>,
    plain: Option<serde_json::Value>,
    at: Option<DateTime<Utc>>,
    local: Option<NaiveDateTime>,
    day: Option<NaiveDate>,
    clock: Option<NaiveTime>,
    price: Option<BigDecimal>,
    cents: Option<BigDecimal>,
    net: Option<IpNetwork>,
    host: Option<IpNetwork>,
    blob: Option<Vec<u8>>,
    flag: Option<bool>,
    small: Option<i16>,
    big: Option<i64>,
    ratio: Option<f64>,
    half: Option<f32>,
    code: Option<String>,
    short: Option<String>,
    mac: Option<[u8; 6]>,
    took: Option<PgInterval>,
}

fn thing(n: i32) -> NewThing {
    let day = NaiveDate::from_ymd_opt(2024, 2, 29).unwrap();
    let clock = NaiveTime::from_hms_micro_opt(23, 59, 58, 123_456).unwrap();
    let all = NewThing {
        key: Uuid::from_u128(n as u128),
        tags: Some(vec![Some("a,b".into()), None, Some("{\"}".into()), Some("ü".into())]),
        grid: Some(vec![n, -n, i32::MIN]),
        doc: Some(json!({ "key": [1, 2, { "deep": null }], "text": "\u{1f600} \"x\"\n", "long name": n })),
        plain: Some(json!({ "any": [1.5, true] })),
        at: Some(day.and_time(clock).and_utc()),
        local: Some(day.and_time(clock)),
        day: Some(day),
        clock: Some(clock),
        price: Some("-12345.678900".parse().unwrap()),
        cents: Some("99.9".parse().unwrap()),
        net: Some("10.1.0.0/16".parse().unwrap()),
        host: Some("fe80::1/64".parse().unwrap()),
        blob: Some(vec![0, 255, 10]),
        flag: Some(n % 2 == 0),
        small: Some(-7),
        big: Some(i64::MAX),
        ratio: Some(f64::MIN_POSITIVE),
        half: Some(-0.0),
        code: Some("ab".into()),
        short: Some("äöüß".into()),
        span: Some((Bound::Included(n), Bound::Excluded(n + 10))),
        mac: Some([1, 2, 3, 4, 5, 6]),
        took: Some(PgInterval::new(1, 2, 3)),
    };
    let none = NewThing {
        key: Uuid::max(),
        tags: None,
        grid: None,
        doc: None,
        plain: None,
        at: None,
        local: None,
        day: None,
        clock: None,
        price: None,
        cents: None,
        net: None,
        host: None,
        blob: None,
        flag: None,
        small: None,
        big: None,
        ratio: None,
        half: None,
        code: None,
        short: None,
        span: None,
        mac: None,
        took: None,
    };
    if n % 3 == 2 { none } else { all }
}

#[test]
fn every_type_that_diesel_knows_waits() {
    let (rows, world) = like_plain!(THINGS, |conn| conn
        .transaction(|conn| {
            (0..6)
                .map(|n| insert_into(things::table).values(thing(n)).returning(things::id).get_result(conn))
                .collect::<QueryResult<Vec<i64>>>()
        })
        .unwrap());
    assert_eq!(rows, [1, 2, 3, 4, 5, 6]);
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 5, "{stats}");
    assert_eq!(stats.flush_statements, 1, "{stats}");
}

#[test]
fn every_type_whose_stored_form_is_known_comes_back_without_the_server() {
    let (rows, world) = like_plain!(THINGS, |conn| conn
        .transaction(|conn| {
            (0..6)
                .map(|n| insert_into(things::table).values(thing(n)).returning(Thing::as_returning()).get_result(conn))
                .collect::<QueryResult<Vec<Thing>>>()
        })
        .unwrap());
    assert_eq!(rows[3].cents, Some("99.90".parse().unwrap()));
    assert_eq!(rows[3].cents.as_ref().unwrap().to_string(), "99.90");
    assert_eq!(rows[3].code.as_deref(), Some("ab  "));
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 5, "{stats}");
}

#[test]
fn a_range_is_answered_by_postgres_in_its_canonical_form() {
    let (rows, world) = like_plain!(THINGS, |conn| conn
        .transaction(|conn| {
            (0..3)
                .map(|n| {
                    let span = (Bound::Excluded(n), Bound::Included(n + 1));
                    insert_into(things::table)
                        .values((things::key.eq(Uuid::nil()), things::span.eq(span)))
                        .returning(things::span)
                        .get_result(conn)
                })
                .collect::<QueryResult<Vec<Option<(Bound<i32>, Bound<i32>)>>>>()
        })
        .unwrap());
    assert_eq!(rows[0], Some((Bound::Included(1), Bound::Excluded(2))));
    assert_eq!(world.conn.stats().inserts_sent.get(&Reason::AnswerUnknown), Some(&3));
}

#[test]
fn values_that_postgres_would_round_cut_or_refuse_are_sent_at_once() {
    let (rows, world) = like_plain!(THINGS, |conn| {
        let cents = ["1.005", "123456789.00"].map(|cents| {
            let cents: BigDecimal = cents.parse().unwrap();
            conn.transaction(|conn| {
                insert_into(things::table)
                    .values((things::key.eq(Uuid::nil()), things::cents.eq(cents)))
                    .returning(things::cents)
                    .get_result::<Option<BigDecimal>>(conn)
            })
            .map_err(|error| super::error_text(&error))
        });
        let short = conn.transaction(|conn| {
            insert_into(things::table)
                .values((things::key.eq(Uuid::nil()), things::short.eq("much too long")))
                .execute(conn)
        });
        let floats = conn.transaction(|conn| {
            insert_into(things::table)
                .values((things::key.eq(Uuid::nil()), things::doc.eq(json!({ "x": 1.50 }))))
                .returning(things::doc)
                .get_result::<Option<serde_json::Value>>(conn)
        });
        (cents, short.map_err(|error| super::error_text(&error)), floats.unwrap())
    });
    assert_eq!(rows.0[0].as_ref().unwrap().as_ref().unwrap().to_string(), "1.01");
    assert!(rows.0[1].as_ref().unwrap_err().contains("numeric field overflow"));
    assert!(rows.1.as_ref().unwrap_err().contains("value too long"));
    let stats = world.conn.stats();
    assert_eq!(stats.inserts_deferred, 0, "{stats}");
    assert_eq!(stats.inserts_sent.get(&Reason::ValueDoesNotFit), Some(&3), "{stats}");
}

#[test]
fn none_and_some_for_a_varchar_column_wait_together() {
    // Diesel binds text for a varchar column, and leaves it out where it is None.
    let (_, world) = like_plain!(THINGS, |conn| conn
        .transaction(|conn| {
            for n in 0..6 {
                let short = (n % 2 == 1).then(|| format!("{n}"));
                let new = NewThing { short: short.clone(), code: short, ..thing(2) };
                insert_into(things::table).values(new).execute(conn)?;
            }
            QueryResult::Ok(())
        })
        .unwrap());
    let stats = world.conn.stats();
    assert_eq!((stats.inserts_deferred, stats.flush_statements), (6, 1), "{stats}");
}

/// Fails when Diesel asks for its bytes.
#[derive(Debug, AsExpression)]
#[diesel(sql_type = Text)]
struct Unwritable;

impl ToSql<Text, Pg> for Unwritable {
    fn to_sql<'b>(&'b self, _: &mut Output<'b, '_, Pg>) -> serialize::Result {
        Err("cannot be written".into())
    }
}

#[test]
fn a_value_that_cannot_be_written_gives_the_error_of_plain_diesel_and_the_transaction_goes_on() {
    let (error, world) = like_plain!(PEOPLE, |conn| conn
        .transaction(|conn| {
            insert_into(others::table).values(others::name.eq("a")).execute(conn)?;
            let error = insert_into(others::table).values(others::name.eq(Unwritable)).execute(conn).unwrap_err();
            insert_into(others::table).values(others::name.eq("b")).execute(conn)?;
            QueryResult::Ok(super::error_text(&error))
        })
        .unwrap());
    assert!(error.contains("cannot be written"), "{error}");
    let stats = world.conn.stats();
    assert_eq!((stats.inserts_deferred, stats.flush_statements), (2, 1), "{stats}");
}

#[test]
fn after_a_lookup_that_failed_inserts_fail_at_once_as_they_would_have() {
    let schema = "CREATE TABLE people (id serial PRIMARY KEY, mood text, moods text[], home text);
                  CREATE TABLE others (id int, name text NOT NULL)";
    let (errors, world) = like_plain!(schema, |conn| {
        let mut errors = Vec::new();
        for is_array in [false, true] {
            let _ = conn.transaction(|conn| {
                insert_into(others::table).values(others::name.eq("x")).execute(conn)?;
                let people = insert_into(people::table);
                // An array asks for the type of its elements while it is written.
                let lookup = match is_array {
                    true => people.values(people::moods.eq(vec![Mood::Sad])).execute(conn),
                    false => people.values(people::mood.eq(Mood::Sad)).execute(conn),
                };
                errors.push(super::error_text(&lookup.unwrap_err()));
                let later = insert_into(others::table).values(others::name.eq("y")).execute(conn);
                errors.push(super::error_text(&later.unwrap_err()));
                QueryResult::Ok(())
            });
        }
        errors
    });
    assert!(errors[1].contains("current transaction is aborted"), "{errors:?}");
    assert!(errors[3].contains("current transaction is aborted"), "{errors:?}");
    assert_eq!(world.conn.stats().inserts_deferred, 2);
}
