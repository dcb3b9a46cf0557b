//! `COPY FROM` and `save_changes`, which Diesel binds to connection types one by one.

use std::sync::Arc;

use batch_core::Recognised;
use diesel::associations::HasTable;
use diesel::dsl::Update;
use diesel::expression::{MixedAggregates, ValidGrouping, is_aggregate};
use diesel::pg::CopyFromQuery;
use diesel::prelude::*;
use diesel::query_builder::{AsChangeset, IntoUpdateTarget};
use diesel::query_dsl::UpdateAndFetchResults;
use diesel::query_dsl::methods::LoadQuery;
use diesel::result::{Error, QueryResult};

use crate::PgConnection;

impl<T, A> ExecuteCopyFromDsl<PgConnection> for CopyFromQuery<T, A>
where
    Self: ExecuteCopyFromDsl<diesel::PgConnection>,
    <Self as ExecuteCopyFromDsl<diesel::PgConnection>>::Error: From<Error>,
{
    type Error = <Self as ExecuteCopyFromDsl<diesel::PgConnection>>::Error;

    fn execute(self, conn: &mut PgConnection) -> Result<usize, Self::Error> {
        conn.around(Arc::new(Recognised::rows_only()), |inner| ExecuteCopyFromDsl::execute(self, inner))
    }
}

impl<'b, Changes, Output> UpdateAndFetchResults<Changes, Output> for PgConnection
where
    Changes: Copy + AsChangeset<Target = <Changes as HasTable>::Table> + IntoUpdateTarget,
    Update<Changes, Changes>: LoadQuery<'b, PgConnection, Output>,
    <Changes::Table as Table>::AllColumns: ValidGrouping<()>,
    <<Changes::Table as Table>::AllColumns as ValidGrouping<()>>::IsAggregate:
        MixedAggregates<is_aggregate::No, Output = is_aggregate::No>,
{
    fn update_and_fetch(&mut self, changeset: Changes) -> QueryResult<Output> {
        diesel::update(changeset).set(changeset).get_result(self)
    }
}
