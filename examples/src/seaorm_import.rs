//! Records → rows, as one writes it first: a loop, an `insert` for each row, its id used for the rows below it.

use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{ActiveModelTrait, DbErr, TransactionSession, TransactionTrait};

use crate::entities::{feature, qualifier, sequence};
use crate::genbank::Record;

/// Stores the records in one transaction; `on_row` is called after each row.
///
/// An application would name its connection, `db: &DbConn`. Here one function has to serve `sea_orm::DatabaseConnection`
/// and `batch_seaorm::DatabaseConnection` alike, hence the type parameter.
///
/// # Errors
///
/// Whatever Postgres says to one of the rows or to the commit; nothing is stored then.
pub async fn import<C>(db: &C, records: &[Record], mut on_row: impl FnMut()) -> Result<(), DbErr>
where
    C: TransactionTrait,
{
    let txn = db.begin().await?;
    for record in records {
        let sequence = sequence::ActiveModel {
            id: NotSet,
            accession: Set(record.accession.clone()),
            version: Set(record.version.clone()),
            name: Set(record.name.clone()),
            definition: Set(record.definition.clone()),
            organism: Set(record.organism.clone()),
            molecule_type: Set(record.molecule_type.clone()),
            topology: Set(record.topology.clone()),
            division: Set(record.division.clone()),
            length: Set(record.length),
        };
        let sequence = sequence.insert(&txn).await?;
        on_row();

        for (ordinal, feature) in (1..).zip(&record.features) {
            let stored = feature::ActiveModel {
                id: NotSet,
                sequence_id: Set(sequence.id),
                ordinal: Set(ordinal),
                kind: Set(feature.kind.clone()),
                location: Set(feature.location.clone()),
                complement: Set(feature.complement),
            };
            let stored = stored.insert(&txn).await?;
            on_row();

            for (ordinal, qualifier) in (1..).zip(&feature.qualifiers) {
                let qualifier = qualifier::ActiveModel {
                    id: NotSet,
                    feature_id: Set(stored.id),
                    ordinal: Set(ordinal),
                    key: Set(qualifier.key.clone()),
                    value: Set(qualifier.value.clone()),
                };
                qualifier.insert(&txn).await?;
                on_row();
            }
        }
    }
    txn.commit().await
}
