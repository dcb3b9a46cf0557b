//! SeaORM.

use std::ops::Range;

use anyhow::Result;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{ActiveModelTrait, DatabaseConnection, EntityTrait, TransactionSession, TransactionTrait};

use super::{EACH, name, note, start};
use crate::compare::way::{CHUNK, chunks};

mod sequence {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "sequences")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub name: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

mod annotation {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "annotations")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub sequence_id: i32,
        pub start: i32,
        pub note: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

fn sequence(row: usize) -> sequence::ActiveModel {
    sequence::ActiveModel { id: NotSet, name: Set(name(row)) }
}

/// The annotations of the sequence that has this id.
fn annotations_of(row: usize, sequence_id: i32) -> impl Iterator<Item = annotation::ActiveModel> {
    (0..EACH).map(move |at| annotation::ActiveModel {
        id: NotSet,
        sequence_id: Set(sequence_id),
        start: Set(start(at)),
        note: Set(note(row, at)),
    })
}

pub(super) async fn write_rows<C: TransactionTrait>(db: &C, rows: Range<usize>) -> Result<()> {
    let txn = db.begin().await?;
    for row in rows {
        let stored = sequence(row).insert(&txn).await?;
        for annotation in annotations_of(row, stored.id) {
            annotation.insert(&txn).await?;
        }
    }
    Ok(txn.commit().await?)
}

pub(super) async fn write_chunks(db: &DatabaseConnection, rows: Range<usize>) -> Result<()> {
    let txn = db.begin().await?;
    for chunk in chunks(rows, CHUNK) {
        let stored = sequence::Entity::insert_many(chunk.clone().map(sequence)).exec_with_returning(&txn).await?;
        let models: Vec<_> = chunk.zip(stored).flat_map(|(row, stored)| annotations_of(row, stored.id)).collect();
        for models in models.chunks(CHUNK) {
            annotation::Entity::insert_many(models.to_vec()).exec_without_returning(&txn).await?;
        }
    }
    Ok(txn.commit().await?)
}
