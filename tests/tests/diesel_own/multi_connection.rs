//! Connections whose type is hidden or chosen late.

use std::io::Write;

use batch_diesel::PgConnection;
use diesel::connection::{BoxableConnection, Connection};
use diesel::dsl::insert_into;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::serialize::{IsNull, Output, ToSql};

use super::{USERS, users};

/// The enum's derive makes modules of its own.
mod any {
    use batch_diesel::PgConnection;

    #[derive(diesel::MultiConnection)]
    #[allow(unreachable_pub, reason = "the derive names it from modules of its own")]
    pub enum AnyConnection {
        Postgres(PgConnection),
    }
}
use any::{AnyConnection, MultiBackend};

#[test]
fn a_multi_connection_batches() {
    let world = super::world(USERS);
    let mut conn = AnyConnection::establish(world.proxy.url()).unwrap();
    world.proxy.reset();
    let ids = conn
        .transaction(|conn| {
            // `returning` is not for a MultiBackend: ids are the program's own.
            for n in 0..5 {
                let user = (users::id.eq(n), users::name.eq(format!("user {n}")));
                assert_eq!(insert_into(users::table).values(user).execute(conn)?, 1);
            }
            let AnyConnection::Postgres(inner) = conn;
            assert_eq!(inner.stats().inserts_deferred, 5);
            users::table.order(users::id).select(users::id).load::<i32>(conn)
        })
        .unwrap();
    assert_eq!(ids, [0, 1, 2, 3, 4]);
    assert_eq!(world.inserts_on_the_wire(), 1);
}

#[derive(Debug, Clone, Copy, diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "mood"))]
#[allow(unreachable_pub, reason = "`table!` makes its columns public")]
pub struct MoodType;

#[derive(Debug, Clone, Copy, PartialEq, Eq, diesel::expression::AsExpression, diesel::deserialize::FromSqlRow)]
#[diesel(sql_type = MoodType)]
enum Mood {
    Sad,
    Happy,
}

impl ToSql<MoodType, Pg> for Mood {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> diesel::serialize::Result {
        out.write_all(if *self == Self::Sad { b"sad" } else { b"happy" })?;
        Ok(IsNull::No)
    }
}

impl diesel::deserialize::FromSql<MoodType, Pg> for Mood {
    fn from_sql(value: PgValue<'_>) -> diesel::deserialize::Result<Self> {
        Ok(if value.as_bytes() == b"sad" { Self::Sad } else { Self::Happy })
    }
}

// What a program with a type of its own writes for a MultiConnection.
impl ToSql<MoodType, MultiBackend> for Mood {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, MultiBackend>) -> diesel::serialize::Result {
        out.set_value((MoodType, self));
        Ok(IsNull::No)
    }
}

impl diesel::deserialize::FromSql<MoodType, MultiBackend> for Mood {
    fn from_sql(value: any::MultiRawValue<'_>) -> diesel::deserialize::Result<Self> {
        value.from_sql::<Self, MoodType>()
    }
}

impl diesel::sql_types::HasSqlType<MoodType> for MultiBackend {
    fn metadata(lookup: &mut Self::MetadataLookup) -> Self::TypeMetadata {
        Self::lookup_sql_type::<MoodType>(lookup)
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::MoodType;

    people (id) {
        id -> Integer,
        mood -> MoodType,
    }
}

#[test]
fn a_custom_type_waits_in_a_multi_connection() {
    let world =
        super::world("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TABLE people (id int, mood mood NOT NULL)");
    let mut conn = AnyConnection::establish(world.proxy.url()).unwrap();
    world.proxy.reset();
    let moods = conn
        .transaction(|conn| {
            for n in 0..4 {
                let mood = if n % 2 == 0 { Mood::Sad } else { Mood::Happy };
                insert_into(people::table).values((people::id.eq(n), people::mood.eq(mood))).execute(conn)?;
            }
            let AnyConnection::Postgres(inner) = conn;
            let stats = inner.stats();
            assert_eq!((stats.inserts_deferred, stats.flush_statements), (4, 0), "{stats}");
            people::table.order(people::id).select(people::mood).load::<Mood>(conn)
        })
        .unwrap();
    assert_eq!(moods, [Mood::Sad, Mood::Happy, Mood::Sad, Mood::Happy]);
    assert_eq!(world.inserts_on_the_wire(), 1);
}

#[test]
fn a_boxed_connection_batches_what_it_is_told_in_sql_and_gives_the_connection_back() {
    let world = super::world(USERS);
    let mut boxed: Box<dyn BoxableConnection<Pg>> = Box::new(PgConnection::establish(world.proxy.url()).unwrap());
    world.proxy.reset();
    boxed.batch_execute("BEGIN").unwrap();
    boxed.batch_execute("INSERT INTO users (name) VALUES ('a')").unwrap();
    assert!(boxed.downcast_mut::<diesel::PgConnection>().is_none());
    let conn = boxed.downcast_mut::<PgConnection>().unwrap();
    insert_into(users::table).values(users::name.eq("b")).execute(conn).unwrap();
    assert_eq!(conn.stats().inserts_deferred, 2);
    boxed.batch_execute("COMMIT").unwrap();
    assert_eq!(world.inserts_on_the_wire(), 1);
    assert_eq!(world.count("SELECT count(*) FROM users"), 2);
}

#[test]
fn a_generic_function_over_connections_takes_ours() {
    fn create<C>(conn: &mut C, name: &str) -> QueryResult<i32>
    where
        C: Connection<Backend = Pg> + diesel::connection::LoadConnection,
    {
        insert_into(users::table).values(users::name.eq(name)).returning(users::id).get_result(conn)
    }
    let (ids, world) = super::like_plain!(USERS, |conn| conn
        .transaction(|conn| ["a", "b", "c"].into_iter().map(|name| create(conn, name)).collect::<QueryResult<Vec<_>>>())
        .unwrap());
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(world.conn.stats().inserts_deferred, 2);
}
