//! Reserved ids: taken from sequences in blocks, given out in order.
//!
//! The stock belongs to the database, so that what one connection leaves over serves the next (DESIGN.md §2.4).
//!
//! What one block has to do with the sequence afterwards is known by the sequence's last value, which comes with each answer:
//! if that is the last id of the last block, nobody else has taken any.

mod position;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub(crate) use self::position::{Losses, Position, Positions};
use self::shelf::{Coming, Shelf};
use crate::reserve::Block;

/// Ids at hand, by sequence.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    sequences: BTreeMap<u32, Shelf>,
    /// Ids that were thrown away because the sequence had moved on.
    pub discarded: u64,
    /// Ids that rows got, from here or from Postgres itself.
    given: u64,
}

/// A transaction that takes as many ids of a sequence is no small one.
const MANY: usize = 32;
/// With fewer ids left, more are asked for where the sequence has to be asked anyway; and where ids are laid in, so many at least.
const FEW: u32 = 4;

/// How many ids of one sequence are reserved at a time, at first and at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub first: u32,
    pub max: u32,
}

impl Bounds {
    /// What is laid in at least where something is.
    fn few(self) -> u32 {
        self.first.min(FEW)
    }
}

/// What an insert needs of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub sequence: u32,
    pub descending: bool,
    pub count: usize,
    /// The ids are asked for, or the engine needs to know them.
    pub must_know: bool,
    /// Rows wait whose ids Postgres will assign: these have to be sent first.
    pub after_unassigned: bool,
}

impl Need {
    /// One id that nobody waits for yet.
    pub(crate) fn likely(sequence: u32, descending: bool, count: usize) -> Self {
        Self { sequence, descending, count, must_know: false, after_unassigned: false }
    }
}

/// What is asked of the server about one sequence. Until it is dropped others count on what comes.
#[derive(Debug)]
pub(crate) struct Request {
    pub sequence: u32,
    /// So many are taken as rows need them now: the program would take as many itself.
    pub needed: u32,
    /// So many more, as far as the sequence has plenty left.
    pub ahead: u32,
    /// But none at all if this is the sequence's last value: then what is at hand will do.
    pub unless_at: Option<i64>,
    /// The last id of the last block, when this was asked.
    end: Option<i64>,
    doubts: u64,
    /// It says nothing of what asking saves in transactions.
    for_group: bool,
    coming: Coming,
}

impl Request {
    fn limit(&mut self, ahead: u64) {
        let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
        self.coming.lower(self.ahead.saturating_sub(ahead));
        self.ahead = self.ahead.min(ahead);
    }
}

impl Stock {
    /// Takes the ids that `needs` ask for, all of them or none: a run for each need, one after the other.
    pub(crate) fn take(&mut self, needs: &[Need], positions: &mut Positions, out: &mut Vec<i64>) -> bool {
        if !self.has_all(needs, positions) {
            return false;
        }
        for need in needs {
            let Some(shelf) = self.sequences.get_mut(&need.sequence) else { continue };
            shelf.take(need.count, positions.get(need.sequence), out);
            self.given += need.count as u64;
            if let Some(&last) = out.last() {
                positions.set(need.sequence, Position::At(last));
            }
        }
        true
    }

    /// Whether there are as many as `needs` ask for.
    pub(crate) fn has_all(&self, needs: &[Need], positions: &Positions) -> bool {
        needs.iter().all(|need| {
            let at_hand = |shelf: &Shelf| shelf.at_hand(positions.get(need.sequence));
            self.sequences.get(&need.sequence).map_or(0, at_hand) >= need.count
        })
    }

    /// Takes as many as there are, up to what is needed.
    pub(crate) fn take_some(&mut self, need: &Need, positions: &mut Positions, out: &mut Vec<i64>) {
        let at_hand = |shelf: &Shelf| shelf.at_hand(positions.get(need.sequence));
        let count = self.sequences.get(&need.sequence).map_or(0, at_hand).min(need.count);
        self.take(&[Need { count, ..*need }], positions, out);
    }

    /// Whether an id of the sequence was ever wanted or reserved.
    pub(crate) fn knows(&self, sequence: u32) -> bool {
        self.sequences.contains_key(&sequence)
    }

    /// Whether there are ids for a connection at this position.
    pub(crate) fn has_any(&self, need: &Need, positions: &Positions) -> bool {
        let at_hand = |shelf: &Shelf| shelf.at_hand(positions.get(need.sequence));
        self.sequences.get(&need.sequence).map_or(0, at_hand) > 0
    }

    /// Whether the rows get their ids from here: if somebody asks, ever asked, or if there are some.
    pub(crate) fn wants(&mut self, need: &Need, positions: &Positions, bounds: Bounds) -> bool {
        let shelf = self.shelf(need, bounds);
        shelf.asked |= need.must_know;
        shelf.asked || shelf.at_hand(positions.get(need.sequence)) > 0
    }

    /// Notes that an insert wants an id; `false` the first time ever, and more often where reserving did not pay.
    pub(crate) fn wanted_before(&mut self, need: &Need) -> bool {
        self.sequences.get_mut(&need.sequence).is_some_and(Shelf::wanted_before)
    }

    /// Whether no insert has wanted an id of the sequence so far.
    pub(crate) fn is_new(&self, need: &Need) -> bool {
        self.sequences.get(&need.sequence).is_none_or(Shelf::is_new)
    }

    /// Whether the sequence is so near its end that an insert had better be sent as it is.
    pub(crate) fn is_tight(&mut self, need: &Need) -> bool {
        self.sequences.get_mut(&need.sequence).is_some_and(Shelf::is_tight)
    }

    /// What to ask for where these ids are needed now, by a transaction that has taken `taken` before.
    pub(crate) fn request(&mut self, need: &Need, taken: usize, positions: &Positions, bounds: Bounds) -> Request {
        self.request_within(self.allowed(bounds), need, taken, positions, bounds)
    }

    /// What to ask for where a transaction needs `need` and is likely to want ids of `below` as well, of which the last are those of
    /// the rows that are likely to be the most: what may be reserved without a sign of need goes to them.
    pub(crate) fn request_with(
        &mut self,
        need: &Need,
        taken: usize,
        below: &[Need],
        positions: &Positions,
        bounds: Bounds,
    ) -> Vec<Request> {
        let mut allowed = self.allowed(bounds);
        let share = if below.is_empty() { allowed } else { allowed / 3 };
        let first = self.request_within(share, need, taken, positions, bounds);
        allowed = allowed.saturating_sub(u64::from(first.ahead));
        let mut requests = vec![first];
        for (at, other) in below.iter().enumerate() {
            let share = if at + 1 == below.len() { allowed } else { allowed / 4 };
            if let Some(request) = self.along(other, &requests[0], share, positions, bounds) {
                allowed = allowed.saturating_sub(u64::from(request.ahead));
                requests.push(request);
            }
        }
        requests
    }

    fn request_within(
        &mut self,
        allowed: u64,
        need: &Need,
        taken: usize,
        positions: &Positions,
        bounds: Bounds,
    ) -> Request {
        let count = u32::try_from(need.count).unwrap_or(u32::MAX);
        let position = positions.get(need.sequence);
        self.shelf(need, bounds).request(need.sequence, count, taken, position, bounds, allowed)
    }

    /// What to ask for where several callers need an id each: of whom each may take one, but none the last.
    pub(crate) fn request_for_group(&mut self, need: &Need, positions: &Positions, bounds: Bounds) -> Request {
        let count = u32::try_from(need.count).unwrap_or(u32::MAX);
        let position = positions.get(need.sequence);
        self.shelf(need, bounds).request_for_group(need.sequence, count, position, bounds)
    }

    /// What is to come with a group's rows for those after it, `need` being what it took itself.
    pub(crate) fn refill_for_group(&mut self, need: &Need, positions: &Positions, bounds: Bounds) -> Option<Request> {
        let count = u32::try_from(need.count).unwrap_or(u32::MAX);
        let position = positions.get(need.sequence);
        self.shelf(need, bounds).refill_for_group(need.sequence, count, position, bounds)
    }

    /// What to ask for ahead of need, where an insert is about to want ids.
    pub(crate) fn request_ahead(&mut self, need: &Need, positions: &Positions, bounds: Bounds) -> Request {
        let mut request = self.request(need, 0, positions, bounds);
        request.ahead += std::mem::take(&mut request.needed);
        request
    }

    /// What to ask for of `other` on the way, while `first` is asked for.
    fn along(
        &mut self,
        other: &Need,
        first: &Request,
        allowed: u64,
        positions: &Positions,
        bounds: Bounds,
    ) -> Option<Request> {
        let used = self.sequences.get(&first.sequence).map_or(0, Shelf::used);
        let position = positions.get(other.sequence);
        let shelf = self.shelf(other, bounds);
        let is_small = (used as usize) < MANY;
        let mut request = shelf.along(other.sequence, first.needed + first.ahead, used, position, bounds);
        if is_small {
            request.limit(allowed);
        }
        (request.ahead > 0 || request.unless_at.is_some()).then_some(request)
    }

    /// What to ask for while what was taken of `need` is flushed: nothing as long as there are as many again.
    pub(crate) fn refill(
        &mut self,
        need: &Need,
        is_long: bool,
        positions: &Positions,
        bounds: Bounds,
    ) -> Option<Request> {
        let shelf = self.sequences.get_mut(&need.sequence)?;
        let position = positions.get(need.sequence);
        let mut request = shelf.refill(need.sequence, need.count, is_long, position, bounds)?;
        if need.count < MANY {
            request.limit(self.allowed(bounds));
        }
        (request.ahead > 0 || request.unless_at.is_some()).then_some(request)
    }

    /// What a request brought to the connection at `positions`.
    pub(crate) fn arrived(&mut self, request: &Request, block: &Block, positions: &mut Positions) {
        // Whoever asked has made the shelf.
        let Some(shelf) = self.sequences.get_mut(&request.sequence) else { return };
        let before = positions.get(request.sequence);
        let (discarded, after) = shelf.arrived(request, block, before);
        self.discarded += discarded;
        if after != before {
            positions.set(request.sequence, after);
        }
    }

    /// The sequence was advanced by others: later ids must not be lower than what it has given since.
    pub(crate) fn discard(&mut self, sequence: u32) {
        self.given += 1;
        if let Some(shelf) = self.sequences.get_mut(&sequence) {
            self.discarded += shelf.discard();
        }
    }

    /// The sequences may be others.
    pub(crate) fn discard_all(&mut self) {
        for shelf in self.sequences.values_mut() {
            self.discarded += shelf.forget();
        }
    }

    /// Others may have advanced the sequence: before anybody gets an id that is at hand, its last value tells.
    pub(crate) fn doubt(&mut self, sequence: u32) {
        if let Some(shelf) = self.sequences.get_mut(&sequence) {
            shelf.doubt();
        }
    }

    /// The same for all sequences.
    pub(crate) fn doubt_all(&mut self) {
        self.sequences.values_mut().for_each(Shelf::doubt);
    }

    /// Ids at hand, over all sequences.
    pub(crate) fn len(&self) -> usize {
        self.sequences.values().map(Shelf::len).sum()
    }

    /// How many may be reserved ahead of any sign that there will be use for them: a short program wastes few, by whatever
    /// number of tables it inserts into.
    fn allowed(&self, bounds: Bounds) -> u64 {
        (u64::from(bounds.first) * 3 / 2 + self.given / 4).saturating_sub(self.len() as u64)
    }

    fn shelf(&mut self, need: &Need, bounds: Bounds) -> &mut Shelf {
        self.sequences.entry(need.sequence).or_insert_with(|| Shelf::new(need.descending, bounds))
    }
}
