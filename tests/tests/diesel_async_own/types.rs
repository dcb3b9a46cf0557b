//! Custom types, whose oids only the server knows.

use std::io::Write as _;
use std::time::Duration;

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel_async::{AsyncConnection, RunQueryDsl};

use batch_support::Database;

use super::{batched, block_on, database};

#[allow(unreachable_pub, reason = "`table!` makes its columns public")]
mod sql {
    #[derive(Debug, Clone, Copy, diesel::query_builder::QueryId, diesel::sql_types::SqlType)]
    #[diesel(postgres_type(name = "mood"))]
    pub struct Mood;

    #[derive(Debug, Clone, Copy, diesel::query_builder::QueryId, diesel::sql_types::SqlType)]
    #[diesel(postgres_type(name = "nowhere"))]
    pub struct Nowhere;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql::Mood)]
#[diesel(sql_type = sql::Nowhere)]
enum Mood {
    Happy,
    Sad,
}

impl ToSql<sql::Mood, Pg> for Mood {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(if *self == Mood::Happy { b"happy" } else { b"sad" })?;
        Ok(IsNull::No)
    }
}

impl ToSql<sql::Nowhere, Pg> for Mood {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<sql::Mood, Pg>::to_sql(self, out)
    }
}

impl FromSql<sql::Mood, Pg> for Mood {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes() {
            b"happy" => Ok(Mood::Happy),
            b"sad" => Ok(Mood::Sad),
            _ => Err("no mood".into()),
        }
    }
}

const MOODS: &str =
    "CREATE TYPE mood AS ENUM ('happy', 'sad'); CREATE TABLE moods (n int NOT NULL, mood mood, others mood[])";

diesel::table! {
    use super::sql::Mood;
    use diesel::sql_types::*;
    moods (n) {
        n -> Integer,
        mood -> Nullable<Mood>,
        others -> Nullable<Array<Mood>>,
    }
}

diesel::table! {
    use super::sql::Nowhere;
    use diesel::sql_types::*;
    lost (n) {
        n -> Integer,
        mood -> Nullable<Nowhere>,
    }
}

type Row = (i32, Option<Mood>, Option<Vec<Mood>>);

#[test]
fn an_enum_waits_from_the_first_row_on_and_its_type_is_looked_up_once() {
    block_on(async {
        let database = database();
        Database::execute(&database, MOODS);
        let (proxy, mut conn) = batched(&database, Duration::ZERO).await;
        let returned: Vec<Row> = conn
            .transaction(async |conn| {
                let mut rows = Vec::new();
                for n in 0..3 {
                    let row = diesel::insert_into(moods::table).values((moods::n.eq(n), moods::mood.eq(Mood::Sad)));
                    rows.push(row.get_result(conn).await?);
                }
                QueryResult::Ok(rows)
            })
            .await
            .unwrap();
        assert_eq!(returned, [0, 1, 2].map(|n| (n, Some(Mood::Sad), None)));
        assert_eq!(conn.stats().inserts_deferred, 3, "{}", conn.stats());
        let lookups = proxy.trace().iter().filter(|sql| sql.starts_with("EXECUTE") && sql.contains("regtype")).count();
        assert_eq!(lookups, 1, "{:#?}", proxy.trace());
        let stored: Vec<Row> = moods::table.order(moods::n).load(&mut conn).await.unwrap();
        assert_eq!(stored, returned);
    });
}

#[test]
fn an_array_of_enums_has_its_elements_oid() {
    block_on(async {
        let database = database();
        Database::execute(&database, MOODS);
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        let others = vec![Mood::Happy, Mood::Sad];
        conn.transaction(async |conn| {
            for n in 0..3 {
                let values = (moods::n.eq(n), moods::others.eq(others.clone()));
                diesel::insert_into(moods::table).values(values).execute(conn).await?;
            }
            QueryResult::Ok(())
        })
        .await
        .unwrap();
        let stored: Vec<Row> = moods::table.order(moods::n).load(&mut conn).await.unwrap();
        assert_eq!(stored, [0, 1, 2].map(|n| (n, None, Some(others.clone()))));
        // The first is sent, as its bytes contain the oid.
        assert_eq!(conn.stats().inserts_deferred, 2, "{}", conn.stats());
    });
}

#[test]
fn a_type_that_is_not_there_gives_diesel_asyncs_own_error() {
    macro_rules! attempt {
        ($conn:expr) => {
            $conn
                .transaction::<_, diesel::result::Error, _>(async |conn| {
                    let values = (lost::n.eq(1), lost::mood.eq(Mood::Happy));
                    let first = diesel::insert_into(lost::table).values(values).execute(conn).await;
                    let second = diesel::insert_into(lost::table).values(values).execute(conn).await;
                    Ok((first, second))
                })
                .await
        };
    }
    block_on(async {
        let database = database();
        Database::execute(&database, "CREATE TABLE lost (n int, mood text)");
        let mut plain = diesel_async::AsyncPgConnection::establish(database.url()).await.unwrap();
        let (_proxy, mut conn) = batched(&database, Duration::ZERO).await;
        let (expected, seen) = (attempt!(plain), attempt!(conn));
        assert_eq!(format!("{seen:?}"), format!("{expected:?}"));
        assert!(format!("{seen:?}").contains("nowhere"), "{seen:?}");
    });
}
