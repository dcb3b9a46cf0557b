//! The import over plain Diesel, so that a failure of the example is told from one of the batching.

use std::time::Duration;

use batch_examples::genbank::{self, Record};
use batch_examples::models::{Feature, Qualifier, Sequence};
use batch_examples::report::same_rows;
use batch_examples::schema::{self, features, qualifiers, sequences};
use batch_examples::{diesel_async_import, diesel_import, measure};
use batch_support::{Database, Proxy};
use diesel::prelude::*;
use diesel_async::AsyncConnection as _;

#[test]
fn what_was_imported_is_what_was_read() {
    let records = genbank::records().unwrap();
    let database = Database::create();
    database.execute(schema::SQL);
    let proxy = Proxy::start(database.url(), Duration::ZERO);
    let mut conn = PgConnection::establish(proxy.url()).unwrap();

    let mut rows_seen = 0;
    let ((), cost) =
        measure::measure(&proxy, || diesel_import::import(&mut conn, &records, || rows_seen += 1)).unwrap();
    assert_eq!(rows_seen, genbank::row_count(&records));
    assert!(cost.wire.statements >= rows_seen as u64 + 2, "each row, BEGIN and COMMIT: {:?}", cost.wire);

    assert_eq!(stored(&mut conn), records);
    // Ids count up from 1 in the order of the file, which is what the batched import is held to.
    assert_eq!(ids(&mut conn, "sequences"), (1..=8).collect::<Vec<_>>());
    assert_eq!(ids(&mut conn, "features"), (1..=338).collect::<Vec<_>>());
    assert_eq!(ids(&mut conn, "qualifiers"), (1..=1675).collect::<Vec<_>>());
}

#[test]
fn diesel_async_imports_the_same_with_and_without_batching() {
    let records = genbank::records().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (plain, batched) = (Database::create(), Database::create());
    plain.execute(schema::SQL);
    batched.execute(schema::SQL);
    runtime.block_on(async {
        let mut conn = diesel_async::AsyncPgConnection::establish(plain.url()).await.unwrap();
        diesel_async_import::import(&mut conn, &records, || ()).await.unwrap();

        let mut conn = batch_diesel::AsyncPgConnection::establish(batched.url()).await.unwrap();
        batch_diesel::enable_batch_inserts(&mut conn).await.unwrap();
        diesel_async_import::import(&mut conn, &records, || ()).await.unwrap();
        assert!(conn.stats().inserts_deferred > 2_000, "{}", conn.stats());
    });
    assert_eq!(same_rows(&plain, &batched).unwrap(), genbank::row_count(&records));
    assert_eq!(stored(&mut PgConnection::establish(batched.url()).unwrap()), records);
}

#[test]
fn an_import_that_fails_stores_nothing() {
    let record = genbank::records().unwrap().remove(2);
    let database = Database::create();
    database.execute(schema::SQL);
    let mut conn = PgConnection::establish(database.url()).unwrap();

    let twice_the_same_accession = [record.clone(), record];
    assert!(diesel_import::import(&mut conn, &twice_the_same_accession, || ()).is_err());
    assert_eq!(stored(&mut conn), []);
}

#[test]
fn the_first_row_that_differs_is_told() {
    let (left, right) = (Database::create(), Database::create());
    let sequences = "INSERT INTO sequences (accession, name, topology, division, length)
                     VALUES ('A1', 'one', 'linear', 'PLN', 5), ('A2', 'two', 'linear', 'PLN', 5)";
    for database in [&left, &right] {
        database.execute(schema::SQL);
        database.execute(sequences);
    }
    assert_eq!(same_rows(&left, &right).unwrap(), 2);

    left.execute("UPDATE sequences SET version = '' WHERE id = 2");
    let error = same_rows(&left, &right).unwrap_err().to_string();
    assert!(error.starts_with("the databases differ at row 2 of sequences:"), "{error}");
    assert!(error.contains(r#""version":"""#) && error.contains(r#""version":null"#), "{error}");

    right.execute("DELETE FROM sequences WHERE id = 2");
    let error = same_rows(&left, &right).unwrap_err().to_string();
    assert!(error.ends_with("no such row"), "{error}");
}

/// The records put together again from the three tables, by way of the foreign keys.
fn stored(conn: &mut PgConnection) -> Vec<Record> {
    let all_sequences = sequences::table.order(sequences::id).select(Sequence::as_select()).load(conn).unwrap();
    let all_features =
        Feature::belonging_to(&all_sequences).order(features::ordinal).select(Feature::as_select()).load(conn).unwrap();
    let all_qualifiers = Qualifier::belonging_to(&all_features)
        .order(qualifiers::ordinal)
        .select(Qualifier::as_select())
        .load(conn)
        .unwrap();

    let qualifiers_by_feature = all_qualifiers.grouped_by(&all_features);
    let features_by_sequence =
        all_features.into_iter().zip(qualifiers_by_feature).collect::<Vec<_>>().grouped_by(&all_sequences);
    all_sequences.into_iter().zip(features_by_sequence).map(record).collect()
}

fn record((sequence, features): (Sequence, Vec<(Feature, Vec<Qualifier>)>)) -> Record {
    Record {
        accession: sequence.accession,
        version: sequence.version,
        name: sequence.name,
        definition: sequence.definition,
        organism: sequence.organism,
        molecule_type: sequence.molecule_type,
        topology: sequence.topology,
        division: sequence.division,
        length: sequence.length,
        features: features.into_iter().map(feature).collect(),
    }
}

fn feature((feature, qualifiers): (Feature, Vec<Qualifier>)) -> genbank::Feature {
    genbank::Feature {
        kind: feature.kind,
        location: feature.location,
        complement: feature.complement,
        qualifiers: qualifiers
            .into_iter()
            .map(|qualifier| genbank::Qualifier { key: qualifier.key, value: qualifier.value })
            .collect(),
    }
}

fn ids(conn: &mut PgConnection, table: &str) -> Vec<i64> {
    #[derive(QueryableByName)]
    struct Id {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        id: i64,
    }
    let sql = format!("SELECT id::bigint AS id FROM {table} ORDER BY id");
    diesel::sql_query(sql).load::<Id>(conn).unwrap().into_iter().map(|row| row.id).collect()
}
