//! The ids at hand of one sequence, and what is known of the sequence itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::position::Position;
use super::{Bounds, FEW, Request};
use crate::reserve::Block;

/// How many inserts are sent as they are, at most, before ids are reserved again.
const MAX_PATIENCE: u32 = 8;
/// How many flushes or groups, at most, lay in no ids.
const MAX_CAUTION: u32 = 63;
/// How many inserts are sent as they are where the sequence has no room, before it is asked again.
const TIGHT_FOR: u32 = 64;

#[derive(Debug)]
pub(super) struct Shelf {
    /// In the order in which the sequence gives them, each once.
    ids: VecDeque<i64>,
    descending: bool,
    run: Option<Run>,
    /// How often others may have advanced the sequence, and up to which of these times it is known what became of it.
    doubts: u64,
    settled: u64,
    /// Ids that were asked for and are on their way.
    coming: Arc<AtomicU32>,
    /// How many ids to reserve for a transaction that has taken none yet.
    block: u32,
    /// Ids given out, ever, and since the last block came.
    given: u64,
    used: u32,
    /// Ids given out since some that were laid in were thrown away: a part of these is laid in, so that no more than that is lost the
    /// next time.
    lasting: u64,
    /// How many callers the largest group had, lately.
    group: u32,
    /// Inserts that wanted an id and found none.
    wanted: u32,
    /// How many such inserts are sent as they are before ids are reserved. More, where others advanced the sequence before
    /// the question had saved a round trip.
    patience: u32,
    /// Ids given out since the sequence was asked for what was needed, if it was since others last advanced it.
    saved: Option<u32>,
    /// Whether an id was ever asked for: then rows whose id nobody asks for get theirs from here too, or they would
    /// come later in the sequence than rows created after them.
    pub(super) asked: bool,
    /// How often nothing is laid in where ids that were are thrown away time and again, and for how often still.
    caution: u32,
    skips: u32,
    /// The last block had more than was needed then.
    is_laid_in: bool,
    /// How many inserts are still sent as they are, as nothing may be reserved ahead: the sequence is near its end.
    tight_for: u32,
}

/// Every id behind `after` up to `end` was reserved by this process: nobody else got one in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    after: i64,
    end: i64,
}

impl Shelf {
    pub(super) fn new(descending: bool, bounds: Bounds) -> Self {
        Self {
            ids: VecDeque::new(),
            descending,
            run: None,
            doubts: 0,
            settled: 0,
            coming: Arc::default(),
            block: bounds.first,
            given: 0,
            used: 0,
            lasting: 0,
            group: 0,
            wanted: 0,
            patience: 1,
            saved: None,
            asked: false,
            caution: 0,
            skips: 0,
            is_laid_in: false,
            tight_for: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether the sequence gives `one` after `other`.
    fn is_past(&self, one: i64, other: i64) -> bool {
        if self.descending { one < other } else { one > other }
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.doubts > self.settled
    }

    /// How many ids there are for a connection at this position.
    pub(super) fn at_hand(&self, position: Position) -> usize {
        if self.is_doubted() { 0 } else { self.ids.len() - self.first_after(position) }
    }

    /// The same, if nobody else turns out to have advanced the sequence.
    fn at_hand_if_intact(&self, position: Position) -> usize {
        let is_open = self.is_doubted() || position.is_lost();
        let Some(run) = self.run.filter(|_| is_open) else { return self.at_hand(position) };
        let behind = self.first_after(Position::At(run.after));
        let own = self.first_after(position.known());
        self.ids.len() - behind.max(own)
    }

    fn first_after(&self, position: Position) -> usize {
        let position = match position {
            Position::Start => return 0,
            Position::At(id) => id,
            Position::Lost(_) => return self.ids.len(),
        };
        if self.ids.front().is_none_or(|&id| self.is_past(id, position)) {
            return 0;
        }
        self.ids.partition_point(|&id| !self.is_past(id, position))
    }

    /// Takes so many ids, which have to be [at hand](Self::at_hand).
    pub(super) fn take(&mut self, count: usize, position: Position, out: &mut Vec<i64>) {
        let from = self.first_after(position);
        out.extend(self.ids.drain(from..from + count));
        self.given += count as u64;
        self.lasting += count as u64;
        self.used = self.used.saturating_add(count as u32);
        if let Some(saved) = &mut self.saved {
            *saved = saved.saturating_add(count as u32);
        }
    }

    /// What to ask for where `count` ids are needed now, by a transaction that has taken `taken` before; ahead of any sign of a
    /// need no more than `allowed`.
    pub(super) fn request(
        &self,
        sequence: u32,
        count: u32,
        taken: usize,
        position: Position,
        bounds: Bounds,
        allowed: u64,
    ) -> Request {
        const MANY: u32 = super::MANY as u32;
        const FACTOR: u32 = 8;
        const LOOP: u32 = 2_560;
        let allowed = u32::try_from(allowed).unwrap_or(u32::MAX);
        // A transaction that comes back for more is a loop.
        let block = match u32::try_from(taken).unwrap_or(u32::MAX) {
            0 if self.skips > 0 => count,
            1..MANY if self.caution > 0 => self.block,
            0 => self.block.min(count.saturating_add(allowed)),
            taken @ 1..8 => FEW.max(2 * taken).min(count.saturating_add(allowed.max(taken))),
            taken @ 8..MANY => taken.saturating_mul(FACTOR),
            // A loop that others cut short, time and again, is likely to be cut short.
            taken if self.caution > 0 => taken,
            taken => taken.saturating_mul(FACTOR).max(LOOP),
        };
        let ahead = block.min(bounds.max).saturating_sub(count);
        self.asks(sequence, count, ahead, self.may_do(count, position))
    }

    /// The same for `count` callers, of whom each may take an id, but none the last.
    pub(super) fn request_for_group(
        &mut self,
        sequence: u32,
        count: u32,
        position: Position,
        bounds: Bounds,
    ) -> Request {
        let part = if self.skips() { 0 } else { self.part_for_groups(bounds) };
        let ahead = part.saturating_sub(self.coming.load(Ordering::Acquire)).min(bounds.max);
        let others = count.saturating_sub(1);
        let mut request = self.asks(sequence, 1, ahead.saturating_add(others), self.may_do(count, position));
        request.coming.lower(others);
        request.for_group = true;
        request
    }

    /// What to ask for while a group of `count` callers is sent: nothing as long as there are enough for two more, each as large as
    /// the largest lately.
    pub(super) fn refill_for_group(
        &mut self,
        sequence: u32,
        count: u32,
        position: Position,
        bounds: Bounds,
    ) -> Option<Request> {
        self.group = count.max(self.group - self.group / 8);
        let at_hand = self.at_hand(position) as u64 + u64::from(self.coming.load(Ordering::Acquire));
        if self.is_doubted() || at_hand >= 2 * u64::from(self.group) || self.skips() {
            return None;
        }
        let ahead = self.part_for_groups(bounds).max(self.group).min(bounds.max);
        Some(self.asks(sequence, 0, ahead, false))
    }

    /// What groups lay in, of all that were ever given out.
    fn part_for_groups(&self, bounds: Bounds) -> u32 {
        const PART: u64 = 24;
        u32::try_from(self.lasting / PART).unwrap_or(u32::MAX).max(bounds.few())
    }

    fn skips(&mut self) -> bool {
        let skips = self.skips > 0;
        self.skips = self.skips.saturating_sub(1);
        skips
    }

    /// Whether what is at hand will do, if nobody else turns out to have advanced the sequence.
    fn may_do(&self, count: u32, position: Position) -> bool {
        let is_open = self.is_doubted() || position.is_lost();
        // Where few are left, some more are asked for at once.
        is_open && self.at_hand_if_intact(position) >= count.max(self.block.min(FEW)).max(1) as usize
    }

    /// What to ask for while `taken` ids are flushed, so that as many again find enough, and some more, so that this is rare.
    pub(super) fn refill(
        &mut self,
        sequence: u32,
        taken: usize,
        is_long: bool,
        position: Position,
        bounds: Bounds,
    ) -> Option<Request> {
        /// Of all that were given out.
        const PART: u64 = 32;
        let taken = u32::try_from(taken).unwrap_or(u32::MAX);
        let least = if self.caution > 0 { 1 } else { bounds.few() };
        self.block = taken.max(least).min(bounds.max);
        let may_do = self.may_do(taken, position);
        let coming = self.coming.load(Ordering::Acquire) as usize;
        let at_hand = self.at_hand_if_intact(position) + coming;
        // Nothing says that there will be another transaction.
        let is_first = taken <= bounds.few() && self.given <= u64::from(taken);
        let is_enough = at_hand >= taken as usize;
        if !self.is_doubted() && (is_first || is_enough || self.skips()) {
            return None;
        }
        let rarer = u64::from(taken.saturating_mul(8).min(16)).min(self.lasting / 2).max(self.lasting / PART);
        // The next flush must not wait for ids.
        let wanted = u64::from(taken) + if is_long { u64::from(taken) } else { rarer };
        let ahead = if may_do { wanted } else { wanted.saturating_sub(at_hand as u64) };
        Some(self.asks(sequence, 0, ahead.min(u64::from(bounds.max)) as u32, may_do))
    }

    /// What to ask for on the way, while `count` ids of another sequence are of which `used` were taken since its last block: as
    /// many as it will use until those are used up, going by the use of both so far.
    pub(super) fn along(&self, sequence: u32, count: u32, used: u32, position: Position, bounds: Bounds) -> Request {
        let at_hand = self.at_hand_if_intact(position) as u64;
        let ahead = match (u64::from(self.used) * u64::from(count)).checked_div(u64::from(used)) {
            _ if at_hand == 0 || self.is_doubted() => u64::from(self.block),
            uses => uses.unwrap_or(0).saturating_sub(at_hand),
        };
        // At most `max`, which is 32 bits wide.
        let may_do = self.is_doubted() && at_hand > 0;
        self.asks(sequence, 0, ahead.min(u64::from(bounds.max)) as u32, may_do)
    }

    fn asks(&self, sequence: u32, needed: u32, ahead: u32, may_do: bool) -> Request {
        let end = self.run.map(|run| run.end);
        Request {
            sequence,
            needed,
            ahead,
            unless_at: end.filter(|_| may_do),
            end,
            doubts: self.doubts,
            for_group: false,
            coming: Coming::new(&self.coming, ahead),
        }
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Notes that an insert wants an id; `false` the first time ever, and more often where reserving did not pay.
    pub(super) fn wanted_before(&mut self) -> bool {
        let before = self.wanted >= self.patience;
        self.wanted = self.wanted.saturating_add(1);
        before
    }

    /// Whether no insert has wanted an id so far.
    pub(super) fn is_new(&self) -> bool {
        self.wanted == 0 && self.given == 0 && self.patience == 1
    }

    /// Whether this insert had better be sent as it is, as nothing can be reserved ahead for those that follow.
    pub(super) fn is_tight(&mut self) -> bool {
        let is_tight = self.tight_for > 0;
        self.tight_for = self.tight_for.saturating_sub(1);
        is_tight
    }

    /// What was asked for has come. Says how many ids were thrown away, and where the connection stands now that asked.
    pub(super) fn arrived(&mut self, request: &Request, block: &Block, position: Position) -> (u64, Position) {
        let first = block.ids.first().copied();
        let Some(at) = block.at.or_else(|| Some(first? - block.step)) else { return (0, position) };
        let was_doubted = self.doubts > self.settled && request.doubts > self.settled;
        let was_lost = position.is_lost();
        self.settled = self.settled.max(request.doubts);
        self.tight_for = if block.room == 0 { TIGHT_FOR } else { 0 };
        // Others of our connections may have reserved since.
        let is_intact = request
            .end
            .zip(self.run)
            .is_some_and(|(then, run)| at == then || self.is_past(at, then) && !self.is_past(at, run.end));
        let was_set_back = request.end.is_some_and(|then| self.is_past(then, at));
        let (before, position) = match self.run {
            Some(run) if is_intact => {
                let count = if was_doubted || was_lost { self.first_after(Position::At(run.after)) } else { 0 };
                (count, if was_lost { position.found(run.after, self.descending) } else { position })
            }
            _ => {
                // What is at hand the sequence has passed, or it will give it again.
                let count = if was_doubted || was_set_back { self.ids.len() } else { 0 };
                (count, if was_lost { position.found(at, self.descending) } else { position })
            }
        };
        self.ids.drain(..before);
        if before > 0 {
            self.was_in_vain();
        }
        if request.needed > 0 && !request.for_group {
            self.saved.get_or_insert(0);
        }
        self.note_run(at, block, is_intact, was_set_back);
        let Some(first) = first else { return (before as u64, position) };
        if self.is_laid_in && self.ids.is_empty() {
            self.caution /= 2;
        }
        self.is_laid_in = block.ids.len() > request.needed as usize;
        self.used = 0;
        self.put(&block.ids);
        // The connection goes where the sequence was set back to.
        let position = match position {
            Position::At(last) if !self.is_past(first, last) => Position::At(first - block.step),
            position => position,
        };
        (before as u64, position)
    }

    fn note_run(&mut self, at: i64, block: &Block, is_intact: bool, was_set_back: bool) {
        let Some(&end) = block.ids.last() else {
            if !is_intact {
                self.run = Some(Run { after: at, end: at });
            }
            return;
        };
        let pairs = block.ids.windows(2).rev().take_while(|pair| pair[1].checked_sub(pair[0]) == Some(block.step));
        let after = block.ids[block.ids.len() - 1 - pairs.count()].saturating_sub(block.step);
        self.run = Some(match self.run {
            Some(run) if run.end == after => Run { after: run.after, end },
            // It was reserved before what came before it.
            Some(run) if run.after == end => Run { after, end: run.end },
            Some(run) if !was_set_back && self.is_past(run.end, end) => run,
            _ => Run { after, end },
        });
    }

    /// Adds ids, most often behind all others.
    fn put(&mut self, ids: &[i64]) {
        let is_sorted = ids.windows(2).all(|pair| self.is_past(pair[1], pair[0]));
        if is_sorted && self.ids.back().zip(ids.first()).is_none_or(|(&back, &first)| self.is_past(first, back)) {
            self.ids.extend(ids);
            return;
        }
        let mut new = ids.to_vec();
        let first = |ids: &[i64], descending| if descending { ids.iter().max() } else { ids.iter().min() }.copied();
        let Some(first) = first(&new, self.descending) else { return };
        let from = self.ids.partition_point(|&id| self.is_past(first, id));
        new.extend(self.ids.drain(from..));
        new.sort_unstable_by(|a, b| if self.descending { b.cmp(a) } else { a.cmp(b) });
        new.dedup();
        self.ids.extend(new);
    }

    /// The sequence was advanced by others for sure: later ids must not be lower than what it has given since. Says how many
    /// were thrown away.
    pub(super) fn discard(&mut self) -> u64 {
        let left = self.ids.len() as u64;
        self.did_not_last();
        if left > 0 {
            self.was_in_vain();
        }
        self.ids.clear();
        self.used = 0;
        left
    }

    /// Nothing that was known of the sequence holds any more.
    pub(super) fn forget(&mut self) -> u64 {
        self.run = None;
        self.tight_for = 0;
        self.doubts += 1;
        self.discard()
    }

    /// Others may have advanced the sequence: what is at hand is given out once that is known.
    pub(super) fn doubt(&mut self) {
        self.did_not_last();
        self.doubts += 1;
    }

    fn did_not_last(&mut self) {
        match self.saved.take() {
            None => {}
            Some(0 | 1) => {
                self.patience = self.patience.saturating_mul(2).min(MAX_PATIENCE);
                self.wanted = 0;
            }
            Some(_) => self.patience = 1,
        }
    }

    /// Ids were laid in for nothing. Blocks follow use, so that a table whose inserts often go past the stock wastes few.
    fn was_in_vain(&mut self) {
        self.block = self.block.min(self.used).max(1);
        self.lasting = 0;
        self.caution = (2 * self.caution + 1).min(MAX_CAUTION);
        self.skips = self.caution;
        self.is_laid_in = false;
    }
}

/// Ids on their way, as long as this lives.
#[derive(Debug)]
pub(super) struct Coming(Arc<AtomicU32>, u32);

impl Coming {
    fn new(coming: &Arc<AtomicU32>, count: u32) -> Self {
        coming.fetch_add(count, Ordering::AcqRel);
        Self(Arc::clone(coming), count)
    }

    pub(super) fn lower(&mut self, count: u32) {
        self.0.fetch_sub(count, Ordering::AcqRel);
        self.1 -= count;
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}
