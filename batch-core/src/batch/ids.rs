//! Reserved ids: what is asked of the server, and what becomes of those at hand.

use super::{Batch, Running, Step, Taken};
use crate::database::lock;
use crate::ids::{Bounds, Need, Positions, Request, Stock};
use crate::reserve::{self, Block, Reservation};
use crate::statement::TextRow;
use crate::stats::FlushCause;

impl Batch {
    pub(super) fn id_bounds(&self) -> Bounds {
        self.options.id_bounds()
    }

    pub(super) fn with_ids<R>(&mut self, f: impl FnOnce(&mut Stock, &mut Positions) -> R) -> R {
        let mut positions = std::mem::take(&mut self.positions);
        let result = self.with_stock(|stock| f(stock, &mut positions));
        self.positions = positions;
        result
    }

    /// Asks for the ids that the rows at hand need, and on the same way for more of sequences that the transaction uses.
    pub(super) fn reserve(&mut self, needs: &[Need]) -> Step {
        let bounds = self.id_bounds();
        let wanted = std::mem::take(&mut self.transaction.wanted);
        let taken = std::mem::take(&mut self.transaction.taken);
        let in_all = |need: &Need| taken.iter().find(|taken| taken.need.sequence == need.sequence);
        let requests = self.with_ids(|stock, positions| {
            let taken = |need: &Need| in_all(need).map_or(0, |taken| taken.in_all);
            let is_needed = |other: &&Need| needs.iter().any(|need| need.sequence == other.sequence);
            let Some((first, others)) = needs.split_first() else { return Vec::new() };
            let below: Vec<Need> = wanted.iter().filter(|other| !is_needed(other)).copied().collect();
            let mut requests = stock.request_with(first, taken(first), &below, positions, bounds);
            requests.extend(others.iter().map(|need| stock.request(need, taken(need), positions, bounds)));
            requests
        });
        self.transaction.wanted = wanted;
        self.transaction.taken = taken;
        self.ask(requests)
    }

    /// Asks whether the session is still the same, and on the same way for the ids that the insert will want, if it waits.
    pub(super) fn ask_for_likely(&mut self, likely: &[Need]) -> Step {
        let bounds = self.id_bounds();
        let requests = self.with_ids(|stock, positions| {
            likely.iter().map(|need| stock.request_ahead(need, positions, bounds)).collect()
        });
        self.ask(requests)
    }

    fn ask(&mut self, requests: Vec<Request>) -> Step {
        self.running = Some(Running::Reserve);
        self.patience.asked();
        let mut query = reserve::query(&requests);
        self.asked = requests;
        query.begins = self.begin_travels && std::mem::take(&mut self.transaction.begin_is_held);
        lock(&self.prepared).note(&mut query);
        Step::Run(query)
    }

    /// What the stock is filled up with on the way of a flush, `assigned` being sequences of which the flush itself will use up
    /// some.
    pub(super) fn refill(&mut self, cause: FlushCause, assigned: &[u32]) -> Vec<Request> {
        let bounds = self.id_bounds();
        let is_long = self.transaction.is_long;
        let mut taken = std::mem::take(&mut self.transaction.taken);
        let used = taken.iter_mut().filter_map(|Taken { need, .. }| {
            let used = *need;
            need.count = 0;
            (used.count > 0).then_some(used)
        });
        // What is sent may be an insert into the same table, which makes the stock useless.
        let is_useful = |need: &Need| cause != FlushCause::InsertSentAtOnce && !assigned.contains(&need.sequence);
        let used: Vec<Need> = used.filter(is_useful).collect();
        self.transaction.taken = taken;
        self.with_ids(|stock, positions| {
            used.iter().filter_map(|need| stock.refill(need, is_long, positions, bounds)).collect()
        })
    }

    pub(super) fn took(&mut self, needs: &[Need]) {
        for need in needs {
            self.stats.ids_used += need.count as u64;
            match self.transaction.taken.iter_mut().find(|taken| taken.need.sequence == need.sequence) {
                Some(taken) => {
                    taken.need.count += need.count;
                    taken.in_all += need.count;
                }
                None => self.transaction.taken.push(Taken { need: *need, in_all: need.count }),
            }
        }
    }

    /// The rows that a flush brought.
    pub(super) fn flush_brought(&mut self, rows: &[TextRow]) {
        let Reservation { clocks, blocks, .. } = reserve::read(rows);
        self.transaction.clocks = clocks.or_else(|| self.transaction.clocks.take());
        self.ids_came(&blocks);
    }

    pub(super) fn ids_came(&mut self, blocks: &[Block]) {
        for block in blocks {
            // The first that asked is the first that is answered.
            let Some(at) = self.asked.iter().position(|asked| asked.sequence == block.sequence) else { continue };
            let request = self.asked.remove(at);
            self.stats.ids_reserved += block.ids.len() as u64;
            // The session's own currval and lastval have moved.
            self.used_reserved_ids |= !block.ids.is_empty();
            self.with_ids(|stock, positions| stock.arrived(&request, block, positions));
        }
    }

    /// Sequences may have gone back to where they were before the transaction.
    pub(super) fn forget_ids(&mut self) {
        self.with_stock(Stock::discard_all);
        self.positions.lose_all();
    }

    /// Sequences may have moved: what is at hand may come from before.
    pub(super) fn doubt_ids(&mut self) {
        self.transaction.sequences_changed |= self.transaction.open;
        self.with_stock(Stock::doubt_all);
        self.positions.lose_all();
    }
}
