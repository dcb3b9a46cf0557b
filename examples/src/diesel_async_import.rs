//! Records → rows, as one writes it first: a loop, an `INSERT` for each row, its id used for the rows below it.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, RunQueryDsl};

use crate::genbank::Record;
use crate::models::{Feature, NewFeature, NewQualifier, NewSequence, Qualifier, Sequence};
use crate::schema::{features, qualifiers, sequences};

/// Stores the records in one transaction; `on_row` is called after each row.
///
/// An application would name its connection, `conn: &mut AsyncPgConnection`. Here one function has to serve
/// `diesel_async::AsyncPgConnection` and `batch_diesel::AsyncPgConnection` alike, hence the type parameter.
///
/// # Errors
///
/// Whatever Postgres says to one of the rows or to the commit; nothing is stored then.
pub async fn import<C>(conn: &mut C, records: &[Record], mut on_row: impl FnMut() + Send) -> QueryResult<()>
where
    C: AsyncConnection<Backend = Pg>,
{
    conn.transaction(async |conn| {
        for record in records {
            let sequence = diesel::insert_into(sequences::table)
                .values(&NewSequence::new(record))
                .returning(Sequence::as_returning())
                .get_result(conn)
                .await?;
            on_row();

            for (ordinal, feature) in (1..).zip(&record.features) {
                let stored = diesel::insert_into(features::table)
                    .values(&NewFeature::new(&sequence, ordinal, feature))
                    .returning(Feature::as_returning())
                    .get_result(conn)
                    .await?;
                on_row();

                for (ordinal, qualifier) in (1..).zip(&feature.qualifiers) {
                    diesel::insert_into(qualifiers::table)
                        .values(&NewQualifier::new(&stored, ordinal, qualifier))
                        .returning(Qualifier::as_returning())
                        .get_result(conn)
                        .await?;
                    on_row();
                }
            }
        }
        Ok(())
    })
    .await
}
