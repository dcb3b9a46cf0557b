//! Which statements go past rows that wait: those that provably cannot see or touch them (DESIGN.md §2.2).

use super::Batch;
use crate::catalog::Catalog;
use crate::looks::Sight;
use crate::recognise::Recognised;
use crate::statement::Binds;
use crate::stored;

impl Batch {
    /// Whether rows wait that the statement cannot see or touch.
    pub(super) fn passes(&mut self, recognised: &Recognised, binds: &Binds) -> bool {
        let is_known = self.transaction.open
            && self.transaction.aborted.is_none()
            && !self.transaction.is_lost
            && !self.transaction.is_uncertain
            && self.session.unsettled.is_none();
        // A savepoint that was held back has to be there should the statement fail.
        if recognised.sight == Sight::Anything || !is_known || self.pending.is_empty() || self.pending.holds_savepoint()
        {
            return false;
        }
        let Some(catalog) = self.catalog() else { return false };
        let Some(tables) = catalog.named(&recognised.names) else { return false };
        // What names no table may know of one in another way.
        let mut tables = tables.peekable();
        if tables.peek().is_none() {
            return false;
        }
        match recognised.sight {
            Sight::Anything => false,
            Sight::Reads => tables.all(|table| {
                table.is_plain
                    && (!self.pending.has_rows(table.oid) || self.demands_others(recognised, binds, &catalog))
            }),
            Sight::Changes => tables.all(|table| {
                let mut tied = catalog.tables().iter().filter(|other| other.island == table.island);
                table.is_plain && tied.all(|tied| tied.is_quiet && !self.pending.has_rows(tied.oid))
            }),
        }
    }

    /// Whether a SELECT of one table demands a value that no waiting row of the table has.
    fn demands_others(&mut self, recognised: &Recognised, binds: &Binds, catalog: &Catalog) -> bool {
        let Some(demands) = recognised.demands() else { return false };
        let Some(table) = catalog.table(&demands.table) else { return false };
        demands.of.iter().any(|demand| {
            let at = table.column(&demand.column);
            let bound = binds.types.get(demand.index).zip(binds.values.get(demand.index));
            let (Some(at), Some((bind, value))) = (at, bound) else { return false };
            // Nothing is equal to NULL.
            let Some(value) = value else { return true };
            let column = &table.columns[at];
            stored::is_compared_as_bound(bind.oid, demand.cast.as_ref(), column)
                && stored::key_hash(value, column, self.pending.hasher())
                    .is_some_and(|key| !self.pending.may_hold(table.oid, at, key))
        })
    }
}
