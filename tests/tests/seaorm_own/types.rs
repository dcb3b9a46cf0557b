//! Types of models: each gives the models that SeaORM alone gives, and it is known which of them wait.

use std::collections::BTreeMap;
use std::fmt::Debug;

use batch_core::{BatchOptions, Reason, Stats};
use batch_tests::seaorm_adapter::block_on;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::prelude::*;
use sea_orm::sea_query::prelude::time::UtcOffset;
use sea_orm::{IntoActiveModel, Iterable, PrimaryKeyToColumn, QueryOrder, TransactionSession, TransactionTrait};
use serde_json::json;

use super::like_plain;

type ModelOf<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::Model;

/// How often each model is inserted.
const ROUNDS: usize = 3;

/// Inserts models in one transaction; each comes back as a query then finds it.
async fn insert_all<A, C>(db: &C, models: &[A]) -> Vec<ModelOf<A>>
where
    A: ActiveModelTrait + ActiveModelBehavior + Clone + Send,
    ModelOf<A>: IntoActiveModel<A> + PartialEq + Debug,
    C: TransactionTrait,
{
    let txn = db.begin().await.unwrap();
    let mut inserted = Vec::new();
    for _ in 0..ROUNDS {
        for model in models {
            inserted.push(model.clone().insert(&txn).await.unwrap());
        }
    }
    let id = <A::Entity as EntityTrait>::PrimaryKey::iter().next().unwrap().into_column();
    let stored = A::Entity::find().order_by_asc(id).all(&txn).await.unwrap();
    txn.commit().await.unwrap();
    assert_eq!(inserted, stored, "the models that came back, and those that are stored");
    inserted
}

/// Inserts models over SeaORM's own connection and over ours. Gives what ours did.
async fn inserts<A>(schema: &str, models: &[A]) -> (Vec<ModelOf<A>>, Stats)
where
    A: ActiveModelTrait + ActiveModelBehavior + Clone + Send,
    ModelOf<A>: IntoActiveModel<A> + PartialEq + Debug,
{
    let (inserted, pool) = like_plain!(schema, BatchOptions::new(), |db| insert_all(db, models).await);
    (inserted, pool.db.stats())
}

/// Checks that all of them wait, and gives them as SeaORM's own connection did.
async fn wait<A>(schema: &str, models: &[A]) -> Vec<ModelOf<A>>
where
    A: ActiveModelTrait + ActiveModelBehavior + Clone + Send,
    ModelOf<A>: IntoActiveModel<A> + PartialEq + Debug,
{
    let (inserted, stats) = inserts(schema, models).await;
    assert_eq!(stats.inserts_seen, (ROUNDS * models.len()) as u64, "{stats}");
    assert_eq!(stats.inserts_deferred, stats.inserts_seen, "{stats}");
    assert_eq!(stats.flush_statements, 1, "{stats}");
    inserted
}

/// Checks that all of them are sent at once, for one reason.
async fn are_sent<A>(schema: &str, models: &[A], reason: Reason) -> Vec<ModelOf<A>>
where
    A: ActiveModelTrait + ActiveModelBehavior + Clone + Send,
    ModelOf<A>: IntoActiveModel<A> + PartialEq + Debug,
{
    let (inserted, stats) = inserts(schema, models).await;
    assert_eq!(stats.inserts_sent, BTreeMap::from([(reason, (ROUNDS * models.len()) as u64)]), "{stats}");
    assert_eq!(stats.inserts_deferred, 0, "{stats}");
    inserted
}

/// An entity: its table, and the fields beside the id.
macro_rules! entity {
    ($name:ident, $table:literal, { $($(#[$attr:meta])* $field:ident: $type:ty,)* }) => {
        mod $name {
            #[allow(unused_imports, reason = "not every entity has a type of its own")]
            use super::own::*;
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
            #[sea_orm(table_name = $table)]
            pub(super) struct Model {
                #[sea_orm(primary_key)]
                pub id: i32,
                $($(#[$attr])* pub $field: $type,)*
            }

            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub(super) enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
        }
    };
}

/// Types that a program makes for itself.
mod own {
    use sea_orm::FromJsonQueryResult;
    use sea_orm::entity::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "Enum", enum_name = "tea")]
    pub(super) enum Tea {
        #[sea_orm(string_value = "EverydayTea")]
        Everyday,
        #[sea_orm(string_value = "Breakfast Tea")]
        Breakfast,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "Enum", db_type = "Enum", enum_name = "mood")]
    pub(super) enum Mood {
        #[sea_orm(string_value = "happy")]
        Happy,
        #[sea_orm(string_value = "sad")]
        Sad,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "String", db_type = "String(StringLen::N(1))")]
    pub(super) enum Size {
        #[sea_orm(string_value = "B")]
        Big,
        #[sea_orm(string_value = "S")]
        Small,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
    #[sea_orm(rs_type = "i32", db_type = "Integer")]
    pub(super) enum Color {
        #[sea_orm(num_value = 0)]
        Black,
        #[sea_orm(num_value = 1)]
        White,
    }

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
    pub(super) struct Settings {
        pub theme: String,
        pub tabs: Vec<u32>,
        pub parent: Option<Box<Settings>>,
    }

    #[derive(Clone, Debug, PartialEq, Eq, DeriveValueType)]
    pub(super) struct Kilograms(pub i32);

    #[derive(Clone, Debug, PartialEq, Eq, DeriveValueType)]
    pub(super) struct Words(pub Vec<String>);
}

use own::*;

entity!(numbers, "numbers", {
    small: i16,
    medium: i32,
    large: i64,
    unsigned: u32,
    float: f32,
    double: f64,
    flag: bool,
    weight: Kilograms,
});

#[test]
fn numbers_wait() {
    const SCHEMA: &str = "CREATE TABLE numbers (id serial PRIMARY KEY, small int2 NOT NULL, medium int4 NOT NULL,
        large int8 NOT NULL, unsigned int4 NOT NULL, float float4 NOT NULL, double float8 NOT NULL, flag bool NOT NULL,
        weight int4 NOT NULL)";
    let number = |small, medium, large, unsigned, float, double, flag| numbers::ActiveModel {
        id: NotSet,
        small: Set(small),
        medium: Set(medium),
        large: Set(large),
        unsigned: Set(unsigned),
        float: Set(float),
        double: Set(double),
        flag: Set(flag),
        weight: Set(Kilograms(medium)),
    };
    block_on(async {
        let models = [
            number(0, 0, 0, 0, 0.0, -0.0, false),
            number(i16::MIN, i32::MIN, i64::MIN, i32::MAX as u32, f32::MIN_POSITIVE, f64::INFINITY, true),
            number(i16::MAX, i32::MAX, i64::MAX, 1, f32::MAX, 0.1 + 0.2, true),
        ];
        wait(SCHEMA, &models).await;
    });
}

entity!(enums, "enums", {
    tea: Tea,
    tea_opt: Option<Tea>,
    mood: Mood,
    size: Size,
    size_opt: Option<Size>,
    color: Color,
    color_opt: Option<Color>,
});

/// SeaORM binds an enum as a text with a cast, and asks for it as a text.
#[test]
fn enums_wait_those_of_postgres_and_those_stored_as_texts_and_numbers() {
    const SCHEMA: &str =
        "CREATE TYPE tea AS ENUM ('EverydayTea', 'Breakfast Tea'); CREATE TYPE mood AS ENUM ('happy', 'sad');
        CREATE TABLE enums (id serial PRIMARY KEY, tea tea NOT NULL, tea_opt tea, mood mood NOT NULL,
        size varchar(1) NOT NULL, size_opt varchar(1), color int NOT NULL, color_opt int)";
    let model = |tea, tea_opt, mood, size, size_opt, color, color_opt| enums::ActiveModel {
        id: NotSet,
        tea: Set(tea),
        tea_opt: Set(tea_opt),
        mood: Set(mood),
        size: Set(size),
        size_opt: Set(size_opt),
        color: Set(color),
        color_opt: Set(color_opt),
    };
    block_on(async {
        let models = [
            model(Tea::Everyday, None, Mood::Sad, Size::Big, None, Color::White, None),
            model(
                Tea::Breakfast,
                Some(Tea::Breakfast),
                Mood::Happy,
                Size::Small,
                Some(Size::Big),
                Color::Black,
                Some(Color::White),
            ),
        ];
        wait(SCHEMA, &models).await;
    });
}

entity!(texts, "texts", {
    text: String,
    short: String,
    #[sea_orm(column_type = "Char(Some(6))")]
    padded: String,
    #[sea_orm(column_type = "Text", nullable)]
    text_opt: Option<String>,
    short_opt: Option<String>,
    padded_opt: Option<String>,
    bytes: Vec<u8>,
    bytes_opt: Option<Vec<u8>>,
    key: Uuid,
    key_opt: Option<Uuid>,
    key_text: TextUuid,
    host: IpNetwork,
    host_opt: Option<IpNetwork>,
});

const TEXTS: &str = "CREATE TABLE texts (id serial PRIMARY KEY, text text NOT NULL, short varchar(5) NOT NULL,
    padded char(6) NOT NULL, text_opt text, short_opt varchar, padded_opt char(3), bytes bytea NOT NULL, bytes_opt bytea,
    key uuid NOT NULL, key_opt uuid, key_text text NOT NULL, host inet NOT NULL, host_opt inet)";

fn texts(text: &str, short: &str, padded: &str) -> texts::ActiveModel {
    texts::ActiveModel {
        id: NotSet,
        text: Set(text.to_owned()),
        short: Set(short.to_owned()),
        padded: Set(padded.to_owned()),
        text_opt: Set(None),
        short_opt: Set(None),
        padded_opt: Set(None),
        bytes: Set(Vec::new()),
        bytes_opt: Set(None),
        key: Set(Uuid::nil()),
        key_opt: Set(None),
        key_text: Set(TextUuid(Uuid::from_u128(9))),
        host: Set("192.168.0.7/24".parse().unwrap()),
        host_opt: Set(None),
    }
}

#[test]
fn texts_bytes_uuids_and_addresses_wait() {
    block_on(async {
        let filled = texts::ActiveModel {
            text_opt: Set(Some("\u{1F980} \" ' \\ \n".to_owned())),
            short_opt: Set(Some("any length".to_owned())),
            padded_opt: Set(Some("ü".to_owned())),
            bytes: Set(vec![0, 1, 255]),
            bytes_opt: Set(Some(Vec::new())),
            key_opt: Set(Some(Uuid::max())),
            host: Set("::1".parse().unwrap()),
            host_opt: Set(Some("10.1.0.0/16".parse().unwrap())),
            ..texts("", "äöüß€", "")
        };
        let inserted = wait(TEXTS, &[texts("text", "short", "padded"), filled]).await;
        assert_eq!(inserted[1].padded_opt.as_deref(), Some("ü  "));
    });
}

#[test]
fn texts_that_do_not_fit_are_sent_and_fail_where_they_failed_before() {
    block_on(async {
        let (errors, pool) = like_plain!(TEXTS, BatchOptions::new(), |db| {
            let mut errors = Vec::new();
            for bad in [texts("t", "too long", "p"), texts("t", "s", "too long too"), texts("nul \0", "s", "p")] {
                let txn = db.begin().await.unwrap();
                for _ in 0..3 {
                    texts("fine", "s", "p").insert(&txn).await.unwrap();
                }
                errors.push(bad.insert(&txn).await.unwrap_err().to_string());
                txn.rollback().await.unwrap();
            }
            errors
        });
        assert!(errors[0].contains("value too long for type character varying(5)"), "{errors:?}");
        assert_eq!(pool.db.stats().inserts_sent[&Reason::ValueDoesNotFit], 3);
    });
}

entity!(cast, "casts", {
    #[sea_orm(select_as = "text", save_as = "varchar")]
    saved: String,
    #[sea_orm(column_type = r#"custom("word")"#)]
    word: String,
});

#[test]
fn casts_that_change_nothing_and_domains_wait() {
    const SCHEMA: &str = "CREATE DOMAIN word AS text CHECK (VALUE <> '');
        CREATE TABLE casts (id serial PRIMARY KEY, saved varchar NOT NULL, word word NOT NULL)";
    block_on(async {
        let models = ["a", "b"].map(|text| cast::ActiveModel {
            id: NotSet,
            saved: Set(text.to_owned()),
            word: Set(text.to_owned()),
        });
        wait(SCHEMA, &models).await;
    });
}

entity!(network, "networks", {
    #[sea_orm(column_type = "Cidr")]
    network: IpNetwork,
});

/// SeaORM binds inet, which Postgres turns into `cidr` itself.
#[test]
fn values_for_a_cidr_column_are_sent() {
    const SCHEMA: &str = "CREATE TABLE networks (id serial PRIMARY KEY, network cidr NOT NULL)";
    block_on(async {
        let models = ["10.1.0.0/16", "::/0"]
            .map(|network| network::ActiveModel { id: NotSet, network: Set(network.parse().unwrap()) });
        are_sent(SCHEMA, &models, Reason::Cast).await;
    });
}

entity!(interval, "intervals", {
    #[sea_orm(column_type = r#"custom("interval")"#, select_as = "text", save_as = "interval")]
    length: String,
});

/// SeaORM has no type for it.
#[test]
fn an_interval_saved_by_a_cast_from_text_is_sent() {
    const SCHEMA: &str = "CREATE TABLE intervals (id serial PRIMARY KEY, length interval NOT NULL)";
    block_on(async {
        let models = ["90 minutes", "1 year 2 mons"]
            .map(|length| interval::ActiveModel { id: NotSet, length: Set(length.to_owned()) });
        let inserted = are_sent(SCHEMA, &models, Reason::Cast).await;
        assert_eq!(inserted[0].length, "01:30:00");
    });
}

entity!(decimals, "decimals", {
    #[sea_orm(column_type = "Decimal(Some((8, 2)))")]
    price: Decimal,
    #[sea_orm(column_type = "Decimal(None)", nullable)]
    any: Option<Decimal>,
    #[sea_orm(column_type = "Decimal(Some((20, 6)))")]
    big_price: BigDecimal,
    big: Option<BigDecimal>,
});

const DECIMALS: &str = "CREATE TABLE decimals (id serial PRIMARY KEY, price numeric(8,2) NOT NULL, \"any\" numeric,
    big_price numeric(20,6) NOT NULL, big numeric)";

fn decimals(price: &str, any: Option<&str>, big_price: &str, big: Option<&str>) -> decimals::ActiveModel {
    decimals::ActiveModel {
        id: NotSet,
        price: Set(price.parse().unwrap()),
        any: Set(any.map(|any| any.parse().unwrap())),
        big_price: Set(big_price.parse().unwrap()),
        big: Set(big.map(|big| big.parse().unwrap())),
    }
}

#[test]
fn decimals_wait_and_come_back_with_the_scale_of_their_column() {
    block_on(async {
        let models = [
            decimals("0", None, "0", None),
            decimals("12.5", Some("12.50000"), "-0.000001", Some("123456789012345678901234567890.123456789")),
            decimals("-999999.99", Some("79228162514264337593543950335"), "99999999999999.5", Some("1000")),
            decimals("10000", Some("0.0000000000000000000000000001"), "1.100000", Some("-0.00000000000000000001")),
        ];
        let inserted = wait(DECIMALS, &models).await;
        assert_eq!(inserted[1].price.to_string(), "12.50");
        assert_eq!(inserted[1].any.unwrap().to_string(), "12.50000");
        assert_eq!(inserted[3].big_price, "1.1".parse::<BigDecimal>().unwrap());
    });
}

#[test]
fn decimals_that_postgres_rounds_are_sent() {
    block_on(async {
        let (inserted, stats) =
            inserts(DECIMALS, &[decimals("1.005", None, "1", None), decimals("1", None, "0.1234567", None)]).await;
        assert_eq!(inserted[0].price.to_string(), "1.01");
        let sent = (ROUNDS * 2) as u64;
        assert_eq!((stats.inserts_deferred, stats.inserts_sent[&Reason::ValueDoesNotFit]), (0, sent), "{stats}");
    });
}

entity!(json, "json", {
    #[sea_orm(column_type = "JsonBinary")]
    value: Json,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    value_opt: Option<Json>,
    #[sea_orm(column_type = "JsonBinary")]
    settings: Settings,
    #[sea_orm(column_type = "JsonBinary", nullable)]
    settings_opt: Option<Settings>,
});

const JSON: &str = "CREATE TABLE json (id serial PRIMARY KEY, value jsonb NOT NULL, value_opt jsonb,
    settings jsonb NOT NULL, settings_opt jsonb)";

fn with_json(value: Json, value_opt: Option<Json>) -> json::ActiveModel {
    let settings = |parent| Settings { theme: "dark".to_owned(), tabs: vec![4, 2], parent };
    json::ActiveModel {
        id: NotSet,
        value: Set(value),
        value_opt: Set(value_opt),
        settings: Set(settings(Some(Box::new(settings(None))))),
        settings_opt: Set(None),
    }
}

#[test]
fn jsonb_waits_where_its_numbers_are_integers() {
    block_on(async {
        let deep =
            json!({ "bb": [1, { "z": null, "a": [] }], "a": { "": "\u{e4}\u{1F980} \" \\ \n \u{7f}" }, "ccc": -7 });
        let filled = json::ActiveModel {
            settings_opt: Set(Some(Settings { theme: String::new(), tabs: Vec::new(), parent: None })),
            ..with_json(json!(u64::MAX), Some(json!(null)))
        };
        wait(JSON, &[with_json(json!({}), None), with_json(deep, Some(json!([true, "text", 0]))), filled]).await;
    });
}

#[test]
fn jsonb_with_fractions_and_texts_that_postgres_refuses_is_sent() {
    block_on(async {
        let models = [
            with_json(json!({ "a": 1.5 }), None),
            with_json(json!(1), Some(json!([1e300]))),
            with_json(json!(0.1 + 0.2), Some(json!(-0.0))),
        ];
        let (_, stats) = inserts(JSON, &models).await;
        assert_eq!(stats.inserts_deferred, 0, "{stats}");
        let (errors, _) = like_plain!(JSON, BatchOptions::new(), |db| {
            let txn = db.begin().await.unwrap();
            for _ in 0..3 {
                with_json(json!(1), None).insert(&txn).await.unwrap();
            }
            let error = with_json(json!("\0"), None).insert(&txn).await.unwrap_err().to_string();
            txn.rollback().await.unwrap();
            error
        });
        assert!(errors.contains("unsupported Unicode escape sequence"), "{errors}");
    });
}

entity!(json_text, "json_text", {
    value: Json,
    #[sea_orm(nullable)]
    value_opt: Option<Json>,
});

/// SeaORM binds jsonb, which Postgres turns into `json` itself.
#[test]
fn values_for_a_json_column_are_sent() {
    const SCHEMA: &str = "CREATE TABLE json_text (id serial PRIMARY KEY, value json NOT NULL, value_opt json)";
    block_on(async {
        let model = |value: Json, value_opt| json_text::ActiveModel {
            id: NotSet,
            value: Set(value),
            value_opt: Set(value_opt),
        };
        let models = [model(json!({ "b": 1, "a": [1.5, null] }), None), model(json!("x"), Some(json!({ "k": 1e9 })))];
        are_sent(SCHEMA, &models, Reason::Cast).await;
    });
}

entity!(times, "times", {
    day: Date,
    time: Time,
    at: DateTime,
    utc: DateTimeUtc,
    zoned: DateTimeWithTimeZone,
    local: DateTimeLocal,
    seconds: ChronoUnixTimestamp,
    millis: Option<ChronoUnixTimestampMillis>,
    day_opt: Option<Date>,
    time_opt: Option<Time>,
    at_opt: Option<DateTime>,
    utc_opt: Option<DateTimeUtc>,
    zoned_opt: Option<DateTimeWithTimeZone>,
    local_opt: Option<DateTimeLocal>,
});

entity!(time_times, "times", {
    day: TimeDate,
    time: TimeTime,
    at: TimeDateTime,
    utc: TimeDateTimeWithTimeZone,
    zoned: TimeDateTimeWithTimeZone,
    local: TimeDateTimeWithTimeZone,
    seconds: TimeUnixTimestamp,
    millis: Option<TimeUnixTimestampMillis>,
    day_opt: Option<TimeDate>,
    time_opt: Option<TimeTime>,
    at_opt: Option<TimeDateTime>,
    utc_opt: Option<TimeDateTimeWithTimeZone>,
    zoned_opt: Option<TimeDateTimeWithTimeZone>,
    local_opt: Option<TimeDateTimeWithTimeZone>,
});

const TIMES: &str = "CREATE TABLE times (id serial PRIMARY KEY, day date NOT NULL, time time NOT NULL, at timestamp NOT NULL,
    utc timestamptz NOT NULL, zoned timestamptz NOT NULL, local timestamptz NOT NULL, seconds int8 NOT NULL, millis int8,
    day_opt date, time_opt time, at_opt timestamp, utc_opt timestamptz, zoned_opt timestamptz, local_opt timestamptz)";

/// The same with fewer digits than microseconds have.
const ROUNDED_TIMES: &str = "CREATE TABLE times (id serial PRIMARY KEY, day date NOT NULL, time time(3) NOT NULL,
    at timestamp(0) NOT NULL, utc timestamptz(3) NOT NULL, zoned timestamptz(0) NOT NULL, local timestamptz NOT NULL,
    seconds int8 NOT NULL, millis int8, day_opt date, time_opt time, at_opt timestamp, utc_opt timestamptz,
    zoned_opt timestamptz, local_opt timestamptz)";

fn chrono_times(text: &str) -> times::ActiveModel {
    let zoned: DateTimeWithTimeZone = text.parse().unwrap();
    times::ActiveModel {
        id: NotSet,
        day: Set(zoned.date_naive()),
        time: Set(zoned.time()),
        at: Set(zoned.naive_local()),
        utc: Set(zoned.to_utc()),
        zoned: Set(zoned),
        local: Set(zoned.into()),
        seconds: Set(ChronoUnixTimestamp(chrono::SubsecRound::trunc_subsecs(zoned.to_utc(), 0))),
        millis: Set(None),
        day_opt: Set(None),
        time_opt: Set(None),
        at_opt: Set(None),
        utc_opt: Set(None),
        zoned_opt: Set(None),
        local_opt: Set(None),
    }
}

fn all_chrono_times(text: &str) -> times::ActiveModel {
    let zoned: DateTimeWithTimeZone = text.parse().unwrap();
    times::ActiveModel {
        millis: Set(Some(ChronoUnixTimestampMillis(chrono::SubsecRound::trunc_subsecs(zoned.to_utc(), 3)))),
        day_opt: Set(Some(zoned.date_naive())),
        time_opt: Set(Some(zoned.time())),
        at_opt: Set(Some(zoned.naive_local())),
        utc_opt: Set(Some(zoned.to_utc())),
        zoned_opt: Set(Some(zoned)),
        local_opt: Set(Some(zoned.into())),
        ..chrono_times(text)
    }
}

#[test]
fn dates_and_times_of_chrono_wait() {
    block_on(async {
        let models = [
            chrono_times("2024-02-29T23:59:59.999999+05:30"),
            all_chrono_times("1999-12-31T00:00:00-11:00"),
            all_chrono_times("0001-01-01T12:00:00.000001Z"),
            // Postgres has no nanoseconds: sqlx leaves them out.
            chrono_times("9999-12-31T23:59:58.123456789Z"),
        ];
        let inserted = wait(TIMES, &models).await;
        assert_eq!(inserted[3].time.to_string(), "23:59:58.123456");
    });
}

fn time_times(text: &str, some: bool) -> time_times::ActiveModel {
    let chrono: DateTimeWithTimeZone = text.parse().unwrap();
    let nanoseconds = i128::from(chrono.timestamp_nanos_opt().unwrap());
    let utc = TimeDateTimeWithTimeZone::from_unix_timestamp_nanos(nanoseconds).unwrap();
    let zoned = utc.to_offset(UtcOffset::from_hms(5, 30, 0).unwrap());
    let at = TimeDateTime::new(zoned.date(), zoned.time());
    time_times::ActiveModel {
        id: NotSet,
        day: Set(zoned.date()),
        time: Set(zoned.time()),
        at: Set(at),
        utc: Set(utc),
        zoned: Set(zoned),
        local: Set(zoned),
        seconds: Set(TimeUnixTimestamp(TimeDateTimeWithTimeZone::from_unix_timestamp(utc.unix_timestamp()).unwrap())),
        millis: Set(some.then_some(TimeUnixTimestampMillis(TimeDateTimeWithTimeZone::UNIX_EPOCH))),
        day_opt: Set(some.then_some(zoned.date())),
        time_opt: Set(some.then_some(zoned.time())),
        at_opt: Set(some.then_some(at)),
        utc_opt: Set(some.then_some(utc)),
        zoned_opt: Set(some.then_some(zoned)),
        local_opt: Set(some.then_some(zoned)),
    }
}

#[test]
fn dates_and_times_of_time_wait() {
    block_on(async {
        let models = [
            time_times("2024-02-29T23:59:59.999999Z", false),
            time_times("1969-12-31T23:59:59.000001Z", true),
            time_times("2100-01-01T00:00:00.123456789Z", true),
        ];
        wait(TIMES, &models).await;
    });
}

#[test]
fn times_wait_where_their_column_need_not_round_them() {
    block_on(async {
        wait(ROUNDED_TIMES, &[chrono_times("2024-05-06T07:08:09Z"), all_chrono_times("1924-05-06T07:08:00+02:00")])
            .await;
        let models = [chrono_times("2024-05-06T07:08:09.5Z"), chrono_times("2024-05-06T07:08:09.0004Z")];
        let (inserted, stats) = inserts(ROUNDED_TIMES, &models).await;
        assert_eq!(inserted[0].at.to_string(), "2024-05-06 07:08:10");
        let sent = (ROUNDS * models.len()) as u64;
        assert_eq!((stats.inserts_deferred, stats.inserts_sent[&Reason::ValueDoesNotFit]), (0, sent), "{stats}");
    });
}

entity!(arrays, "arrays", {
    bools: Vec<bool>,
    smalls: Vec<i16>,
    integers: Vec<i32>,
    larges: Vec<i64>,
    floats: Vec<f32>,
    doubles: Vec<f64>,
    texts: Vec<String>,
    words: Words,
    keys: Vec<Uuid>,
    bytes: Option<Vec<Vec<u8>>>,
    days: Vec<Date>,
    ats: Vec<DateTime>,
    utcs: Option<Vec<DateTimeUtc>>,
    colors: Vec<Color>,
    sizes: Option<Vec<Size>>,
});

const ARRAYS: &str = "CREATE TABLE arrays (id serial PRIMARY KEY, bools bool[] NOT NULL, smalls int2[] NOT NULL,
    integers int4[] NOT NULL, larges int8[] NOT NULL, floats float4[] NOT NULL, doubles float8[] NOT NULL,
    texts text[] NOT NULL, words text[] NOT NULL, keys uuid[] NOT NULL, bytes bytea[], days date[] NOT NULL,
    ats timestamp[] NOT NULL, utcs timestamptz[], colors int4[] NOT NULL, sizes text[])";

#[test]
fn arrays_of_plain_types_wait() {
    block_on(async {
        let at: DateTimeUtc = "2024-05-06T07:08:09.123456Z".parse().unwrap();
        let empty = arrays::ActiveModel {
            id: NotSet,
            bools: Set(Vec::new()),
            smalls: Set(Vec::new()),
            integers: Set(Vec::new()),
            larges: Set(Vec::new()),
            floats: Set(Vec::new()),
            doubles: Set(Vec::new()),
            texts: Set(Vec::new()),
            words: Set(Words(Vec::new())),
            keys: Set(Vec::new()),
            bytes: Set(None),
            days: Set(Vec::new()),
            ats: Set(Vec::new()),
            utcs: Set(None),
            colors: Set(Vec::new()),
            sizes: Set(None),
        };
        let filled = arrays::ActiveModel {
            id: NotSet,
            bools: Set(vec![true, false]),
            smalls: Set(vec![i16::MIN]),
            integers: Set(vec![1, 2, 3]),
            larges: Set(vec![i64::MAX, 0]),
            floats: Set(vec![1.5]),
            doubles: Set(vec![0.1, f64::NEG_INFINITY]),
            texts: Set(vec!["a,b".to_owned(), String::new(), "{\"NULL\"}".to_owned()]),
            words: Set(Words(vec!["\u{1F980}".to_owned()])),
            keys: Set(vec![Uuid::max(), Uuid::nil()]),
            bytes: Set(Some(vec![vec![0], Vec::new()])),
            days: Set(vec![at.date_naive()]),
            ats: Set(vec![at.naive_utc()]),
            utcs: Set(Some(vec![at, at])),
            colors: Set(vec![Color::White, Color::Black]),
            sizes: Set(Some(vec![Size::Small])),
        };
        // A VALUES list, as `unnest` would flatten them; still one statement.
        wait(ARRAYS, &[empty, filled]).await;
    });
}

entity!(teas, "teas", {
    teas: Vec<Tea>,
    teas_opt: Option<Vec<Tea>>,
});

entity!(prices, "prices", {
    prices: Vec<Decimal>,
});

entity!(jsons, "jsons", {
    jsons: Vec<Json>,
});

#[test]
fn arrays_of_enums_decimals_and_jsonb_are_sent() {
    block_on(async {
        let schema = "CREATE TYPE tea AS ENUM ('EverydayTea', 'Breakfast Tea');
            CREATE TABLE teas (id serial PRIMARY KEY, teas tea[] NOT NULL, teas_opt tea[])";
        let models = [(vec![], None), (vec![Tea::Breakfast, Tea::Everyday], Some(vec![Tea::Everyday]))]
            .map(|(teas, teas_opt)| teas::ActiveModel { id: NotSet, teas: Set(teas), teas_opt: Set(teas_opt) });
        are_sent(schema, &models, Reason::Cast).await;

        let schema = "CREATE TABLE prices (id serial PRIMARY KEY, prices numeric(8,2)[] NOT NULL)";
        let prices = vec![Decimal::new(15, 1), Decimal::ZERO];
        let models = [prices::ActiveModel { id: NotSet, prices: Set(prices) }];
        let inserted = are_sent(schema, &models, Reason::ValueDoesNotFit).await;
        assert_eq!(inserted[0].prices[0].to_string(), "1.50");

        let schema = "CREATE TABLE jsons (id serial PRIMARY KEY, jsons jsonb[] NOT NULL)";
        let models = [jsons::ActiveModel { id: NotSet, jsons: Set(vec![json!({ "a": 1 }), json!(null)]) }];
        are_sent(schema, &models, Reason::AnswerUnknown).await;
    });
}

entity!(defaults, "defaults", {
    name: String,
    tea: Tea,
    mood: Option<Mood>,
    size: Size,
    color: Color,
    active: bool,
    count: i64,
    #[sea_orm(column_type = "Decimal(Some((6, 2)))")]
    price: Decimal,
    #[sea_orm(column_type = "JsonBinary")]
    meta: Json,
    tags: Vec<String>,
    note: Option<String>,
});

#[test]
fn constants_that_columns_default_to_are_answered() {
    const SCHEMA: &str =
        "CREATE TYPE tea AS ENUM ('EverydayTea', 'Breakfast Tea'); CREATE TYPE mood AS ENUM ('happy', 'sad');
        CREATE TABLE defaults (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL DEFAULT 'it''s',
        tea tea NOT NULL DEFAULT 'Breakfast Tea', mood mood DEFAULT 'sad', size varchar(1) NOT NULL DEFAULT 'S',
        color int NOT NULL DEFAULT 1, active bool NOT NULL DEFAULT true, count bigint NOT NULL DEFAULT '-5',
        price numeric(6,2) NOT NULL DEFAULT 1.5, meta jsonb NOT NULL DEFAULT '{\"b\": [], \"a\": 1}',
        tags text[] NOT NULL DEFAULT '{}', note text)";
    block_on(async {
        let bare = defaults::ActiveModel { name: Set("given".to_owned()), ..Default::default() };
        let given = defaults::ActiveModel {
            tea: Set(Tea::Everyday),
            mood: Set(None),
            count: Set(7),
            price: Set(Decimal::TEN),
            tags: Set(vec!["t".to_owned()]),
            ..Default::default()
        };
        let inserted = wait(SCHEMA, &[bare, given]).await;
        assert_eq!((inserted[2].tea, inserted[2].mood), (Tea::Breakfast, Some(Mood::Sad)));
        assert_eq!((inserted[3].tea, inserted[3].mood), (Tea::Everyday, None));
    });
}

entity!(stamps, "stamps", {
    name: String,
    key: Uuid,
    created: DateTimeWithTimeZone,
    created_utc: DateTimeUtc,
    created_time: TimeDateTimeWithTimeZone,
});

/// Each insert that leaves out what Postgres makes up: the clock of the transaction and random uuids.
#[test]
fn clocks_and_uuids_that_columns_default_to_are_answered() {
    async fn program<C: TransactionTrait + ConnectionTrait>(db: &C) -> Vec<(i32, String)> {
        let models = ["a", "b"].map(|name| stamps::ActiveModel { name: Set(name.to_owned()), ..Default::default() });
        let inserted = insert_all(db, &models).await;
        let keys: std::collections::BTreeSet<Uuid> = inserted.iter().map(|model| model.key).collect();
        assert_eq!(keys.len(), inserted.len());
        assert!(keys.iter().all(|key| key.get_version_num() == 4));
        for model in &inserted {
            assert_eq!((model.created, model.created_utc), (inserted[0].created, inserted[0].created_utc));
            assert_eq!(model.created, model.created_utc);
            let nanoseconds = i128::from(model.created.timestamp_nanos_opt().unwrap());
            assert_eq!(model.created_time.unix_timestamp_nanos(), nanoseconds);
        }
        // So that both databases hold the same.
        let constant = "UPDATE stamps SET key = '00000000-0000-0000-0000-000000000000', created = 'epoch',
            created_utc = 'epoch', created_time = 'epoch'";
        db.execute_unprepared(constant).await.unwrap();
        inserted.into_iter().map(|model| (model.id, model.name)).collect()
    }
    const SCHEMA: &str = "CREATE TABLE stamps (id serial PRIMARY KEY, name text NOT NULL,
        key uuid NOT NULL DEFAULT gen_random_uuid(), created timestamptz NOT NULL DEFAULT now(),
        created_utc timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
        created_time timestamptz NOT NULL DEFAULT transaction_timestamp())";
    block_on(async {
        let (_, pool) = like_plain!(SCHEMA, BatchOptions::new(), |db| program(db).await);
        let stats = pool.db.stats();
        assert_eq!((stats.inserts_seen, stats.inserts_deferred), (6, 6), "{stats}");
    });
}

mod keyed {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "keyed")]
    pub(super) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub part: String,
        pub value: Option<i32>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(super) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[test]
fn composite_keys_that_the_program_makes_wait() {
    const SCHEMA: &str = "CREATE TABLE keyed (id uuid, part text, value int, PRIMARY KEY (id, part))";
    async fn program<C: TransactionTrait>(db: &C) -> Vec<keyed::Model> {
        let txn = db.begin().await.unwrap();
        let mut inserted = Vec::new();
        for n in 0..6_u128 {
            let (id, part) = (Set(Uuid::from_u128(n / 2)), Set(format!("part {n}")));
            let model = keyed::ActiveModel { id, part, value: Set((n % 2 == 0).then_some(7)) };
            inserted.push(model.insert(&txn).await.unwrap());
        }
        txn.commit().await.unwrap();
        inserted
    }
    block_on(async {
        let (_, pool) = like_plain!(SCHEMA, BatchOptions::new(), |db| program(db).await);
        let stats = pool.db.stats();
        assert_eq!((stats.inserts_seen, stats.inserts_deferred), (6, 6), "{stats}");
    });
}
