//! Reserved ids: taken from sequences in blocks, given out in order.
//!
//! The stock belongs to the database, so that what one connection leaves over serves the next (DESIGN.md §2.4).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many ids the first block of a sequence has.
const FIRST_BLOCK: u32 = 64;
/// By how much the next block is larger than one that was used up.
const GROWTH: u32 = 32;
/// How many inserts are sent as they are, at most, before ids are reserved again.
const MAX_PATIENCE: u32 = 8;

/// Ids at hand, by sequence.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    sequences: BTreeMap<u32, Shelf>,
    /// Ids that were thrown away because the sequence had moved on.
    pub discarded: u64,
}

#[derive(Debug)]
struct Shelf {
    /// In the order in which the sequence gives them.
    ids: VecDeque<i64>,
    descending: bool,
    /// How many ids to reserve at a time.
    block: u32,
    /// Ids given out since the last block came.
    used: u32,
    /// Inserts that wanted an id and found none.
    wanted: u32,
    /// How many such inserts are sent as they are before ids are reserved. More, where reserved ids were thrown away
    /// before they saved a round trip.
    patience: u32,
    /// Whether an id was ever asked for: then rows whose id nobody asks for get theirs from here too, or they would
    /// come later in the sequence than rows created after them.
    asked: bool,
}

/// A connection's own position in each sequence: it never gets a lower id after a higher one.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    known: Vec<Known>,
    /// Where the connection stands in a sequence that is not among those.
    others: Position,
}

#[derive(Debug)]
struct Known {
    sequence: u32,
    position: Position,
    losses: Losses,
}

/// How often a connection or a pool lost its position in a sequence: what it got meanwhile is unknown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Losses(Arc<AtomicU64>);

impl Losses {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Position {
    /// It has no id of the sequence yet: any may come.
    #[default]
    Start,
    /// The last id that it has.
    At(i64),
    /// Postgres gave it an id that was not told. What is at hand may come from before, even if it is added later: while
    /// this connection inserted, another's reservation was on its way.
    Lost,
}

impl Position {
    /// The later of both; an id that was told is later than one that was not, if it came after it.
    fn later(self, other: Self, descending: bool) -> Self {
        match (self, other) {
            (Self::At(one), Self::At(other)) => Self::At(if descending { one.min(other) } else { one.max(other) }),
            (Self::Start | Self::Lost, later) => later,
            (at @ Self::At(_), _) => at,
        }
    }

    /// Where nobody stands who stands at one of these: later than all.
    pub(crate) fn behind(all: impl Iterator<Item = Self>, descending: bool) -> Self {
        all.fold(Self::Start, |last, next| match (last, next) {
            (Self::Lost, _) | (_, Self::Lost) => Self::Lost,
            (last, next) => last.later(next, descending),
        })
    }
}

impl Known {
    fn new(sequence: u32, position: Position) -> Self {
        Self { sequence, position, losses: Losses::default() }
    }

    fn lose(&mut self) {
        self.position = Position::Lost;
        self.losses.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Positions {
    /// A connection that stands there in one sequence.
    pub(crate) fn at(sequence: u32, position: Position) -> Self {
        Self { known: vec![Known::new(sequence, position)], others: Position::Start }
    }

    /// The connection has got this id, and may have a later one. It tells where a lost one is if it was reserved after the last
    /// loss, that is, after `losses_before` of them: in a pool others insert meanwhile, and may have got later ids.
    pub(crate) fn reach(&mut self, sequence: u32, id: i64, descending: bool, losses_before: Option<u64>) {
        let known = self.known(sequence);
        if known.position != Position::Lost || losses_before == Some(known.losses.count()) {
            known.position = known.position.later(Position::At(id), descending);
        }
    }

    pub(crate) fn losses(&mut self, sequence: u32) -> Losses {
        self.known(sequence).losses.clone()
    }

    pub(crate) fn get(&self, sequence: u32) -> Position {
        self.known.iter().find(|known| known.sequence == sequence).map_or(self.others, |known| known.position)
    }

    /// The sequence gave `id` to this connection just now. That tells where it is if that was lost, or if the sequence
    /// was set back.
    fn follow(&mut self, sequence: u32, id: i64, descending: bool) {
        let before = if descending { id.saturating_add(1) } else { id.saturating_sub(1) };
        match self.get(sequence) {
            Position::Start => {}
            Position::At(last) if if descending { id < last } else { id > last } => {}
            Position::At(_) | Position::Lost => self.set(sequence, Position::At(before)),
        }
    }

    /// Postgres itself gave the connection ids of the sequence.
    pub(crate) fn lose(&mut self, sequence: u32) {
        self.known(sequence).lose();
    }

    pub(crate) fn lose_all(&mut self) {
        self.known.iter_mut().for_each(Known::lose);
        self.others = Position::Lost;
    }

    fn set(&mut self, sequence: u32, position: Position) {
        self.known(sequence).position = position;
    }

    fn known(&mut self, sequence: u32) -> &mut Known {
        let at = self.known.iter().position(|known| known.sequence == sequence).unwrap_or_else(|| {
            self.known.push(Known::new(sequence, self.others));
            self.known.len() - 1
        });
        &mut self.known[at]
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

impl Stock {
    /// Takes the ids that `needs` ask for, all of them or none: a run for each need, one after the other.
    pub(crate) fn take(&mut self, needs: &[Need], positions: &mut Positions, out: &mut Vec<i64>) -> bool {
        let enough = needs.iter().all(|need| {
            let shelf = self.shelf(need);
            shelf.ids.len() - shelf.first_after(positions.get(need.sequence)) >= need.count
        });
        if !enough {
            return false;
        }
        for need in needs {
            let shelf = self.shelf(need);
            let from = shelf.first_after(positions.get(need.sequence));
            out.extend(shelf.ids.drain(from..from + need.count));
            shelf.used = shelf.used.saturating_add(need.count as u32);
            if let Some(&last) = out.last() {
                positions.set(need.sequence, Position::At(last));
            }
        }
        true
    }

    /// Whether an id of the sequence was ever wanted or reserved.
    pub(crate) fn knows(&self, sequence: u32) -> bool {
        self.sequences.contains_key(&sequence)
    }

    /// Whether there are ids for a connection at this position.
    pub(crate) fn has_any(&mut self, need: &Need, positions: &Positions) -> bool {
        let shelf = self.shelf(need);
        shelf.first_after(positions.get(need.sequence)) < shelf.ids.len()
    }

    /// Whether the rows get their ids from here: if somebody asks, ever asked, or if there are some.
    pub(crate) fn wants(&mut self, need: &Need, positions: &Positions) -> bool {
        let shelf = self.shelf(need);
        shelf.asked |= need.must_know;
        shelf.asked || self.has_any(need, positions)
    }

    /// Notes that an insert wants an id; `false` the first time ever, and more often where reserving did not pay.
    pub(crate) fn wanted_before(&mut self, need: &Need) -> bool {
        let shelf = self.shelf(need);
        let before = shelf.wanted >= shelf.patience;
        shelf.wanted = shelf.wanted.saturating_add(1);
        before
    }

    /// How many ids to reserve.
    pub(crate) fn block(&mut self, need: &Need, max: u32) -> u32 {
        let needed = u32::try_from(need.count).unwrap_or(u32::MAX);
        self.shelf(need).next_block(max).max(needed)
    }

    /// How many ids of `other` to reserve on the way, while `count` ids of `first` are: as many as it will use until
    /// those are used up, going by the use of both so far.
    pub(crate) fn along(&mut self, other: &Need, first: &Need, count: u32, positions: &Positions, max: u32) -> u32 {
        let used = u64::from(self.shelf(first).used);
        let shelf = self.shelf(other);
        let at_hand = (shelf.ids.len() - shelf.first_after(positions.get(other.sequence))) as u64;
        if at_hand == 0 {
            return shelf.next_block(max);
        }
        let Some(uses) = (u64::from(shelf.used) * u64::from(count)).checked_div(used) else { return 0 };
        // At most `max`, which is 32 bits wide.
        uses.min(u64::from(max)).saturating_sub(at_hand) as u32
    }

    /// How many ids to reserve while what was taken of `need` is flushed: none as long as there are as many again.
    pub(crate) fn refill(&mut self, need: &Need, positions: &Positions, max: u32) -> u32 {
        let taken = u32::try_from(need.count).unwrap_or(u32::MAX);
        let shelf = self.shelf(need);
        let at_hand = shelf.ids.len() - shelf.first_after(positions.get(need.sequence));
        if at_hand >= need.count || matches!(positions.get(need.sequence), Position::Lost) {
            return 0;
        }
        shelf.block.max(taken).saturating_mul(2).min(max)
    }

    /// Adds a block that the sequence gave to the connection at `positions`.
    pub(crate) fn add(&mut self, sequence: u32, ids: &[i64], positions: &mut Positions, max: u32) {
        // Whoever reserved has made the shelf by asking for the block's size.
        let Some(shelf) = self.sequences.get_mut(&sequence) else { return };
        let came = u32::try_from(ids.len()).unwrap_or(u32::MAX).min(max);
        shelf.block = shelf.block.max(came);
        if shelf.used >= 2 {
            shelf.patience = 1;
        }
        shelf.used = 0;
        shelf.ids.extend(ids);
        let descending = shelf.descending;
        if let Some(&first) = ids.first() {
            positions.follow(sequence, first, descending);
        }
        shelf.ids.make_contiguous().sort_unstable_by(|a, b| if descending { b.cmp(a) } else { a.cmp(b) });
    }

    /// Somebody goes on from this id, which the sequence gave just now, and not from what is at hand: nobody gets what comes before
    /// it. A pool's next transaction begins anywhere, and may be of whoever got the later id.
    pub(crate) fn discard_before(&mut self, sequence: u32, id: i64) {
        if let Some(shelf) = self.sequences.get_mut(&sequence) {
            let before = shelf.ids.len();
            let descending = shelf.descending;
            shelf.ids.retain(|&other| if descending { other < id } else { other > id });
            self.discarded += (before - shelf.ids.len()) as u64;
        }
    }

    /// The sequence was advanced by others: later ids must not be lower than what it has given since.
    pub(crate) fn discard(&mut self, sequence: u32) {
        if let Some(shelf) = self.sequences.get_mut(&sequence) {
            self.discarded += shelf.discard();
        }
    }

    pub(crate) fn discard_all(&mut self) {
        for shelf in self.sequences.values_mut() {
            self.discarded += shelf.discard();
        }
    }

    /// Ids at hand, over all sequences.
    pub(crate) fn len(&self) -> usize {
        self.sequences.values().map(|shelf| shelf.ids.len()).sum()
    }

    fn shelf(&mut self, need: &Need) -> &mut Shelf {
        self.sequences.entry(need.sequence).or_insert_with(|| Shelf {
            ids: VecDeque::new(),
            descending: need.descending,
            block: FIRST_BLOCK,
            used: 0,
            wanted: 0,
            patience: 1,
            asked: false,
        })
    }
}

impl Shelf {
    /// Larger than the last one if that was used up.
    fn next_block(&self, max: u32) -> u32 {
        let growth = if self.used >= self.block { GROWTH } else { 1 };
        self.block.saturating_mul(growth).min(max)
    }

    fn first_after(&self, position: Position) -> usize {
        let position = match position {
            Position::Start => return 0,
            Position::At(id) => id,
            Position::Lost => return self.ids.len(),
        };
        let is_past = |id: i64| if self.descending { id < position } else { id > position };
        if self.ids.front().is_none_or(|&id| is_past(id)) {
            return 0;
        }
        self.ids.partition_point(|&id| !is_past(id))
    }

    fn discard(&mut self) -> u64 {
        let left = self.ids.len() as u64;
        if left > 0 {
            // Blocks follow use, so that a table whose inserts often go past the stock wastes few ids.
            self.block = self.used.saturating_mul(2).clamp(1, FIRST_BLOCK);
            match self.used {
                // They came on the way, for nothing.
                0 => {}
                1 => {
                    self.patience = self.patience.saturating_mul(2).min(MAX_PATIENCE);
                    self.wanted = 0;
                }
                _ => self.patience = 1,
            }
        }
        self.ids.clear();
        self.used = 0;
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEQUENCE: u32 = 7;

    fn need(count: usize) -> Need {
        Need { sequence: SEQUENCE, descending: false, count, must_know: true, after_unassigned: false }
    }

    fn take(stock: &mut Stock, positions: &mut Positions, count: usize) -> Option<Vec<i64>> {
        let mut out = Vec::new();
        stock.take(&[need(count)], positions, &mut out).then_some(out)
    }

    fn stocked(ids: impl IntoIterator<Item = i64>) -> Stock {
        let mut stock = Stock::default();
        stock.block(&need(1), 4096);
        stock.add(SEQUENCE, &ids.into_iter().collect::<Vec<_>>(), &mut Positions::default(), 4096);
        stock
    }

    #[test]
    fn ids_are_given_out_in_order_and_once() {
        let mut stock = stocked([5, 6, 7]);
        let mut positions = Positions::default();
        assert_eq!(take(&mut stock, &mut positions, 2), Some(vec![5, 6]));
        assert_eq!(take(&mut stock, &mut positions, 1), Some(vec![7]));
        assert_eq!(take(&mut stock, &mut positions, 1), None);
    }

    #[test]
    fn a_sequence_that_was_set_back_is_followed() {
        let mut stock = stocked([70, 71]);
        let mut positions = Positions::default();
        take(&mut stock, &mut positions, 2);
        stock.add(SEQUENCE, &[1, 2], &mut positions, 4096);
        assert_eq!(take(&mut stock, &mut positions, 2), Some(vec![1, 2]));
    }

    #[test]
    fn too_few_ids_are_left_where_they_are() {
        let mut stock = stocked([5, 6]);
        assert_eq!(take(&mut stock, &mut Positions::default(), 3), None);
        assert_eq!(stock.len(), 2);
    }

    #[test]
    fn a_connection_never_gets_a_lower_id_after_a_higher_one() {
        let mut stock = stocked([5, 6, 70, 71]);
        let mut ahead = Positions::default();
        ahead.set(SEQUENCE, Position::At(69));
        assert_eq!(take(&mut stock, &mut ahead, 1), Some(vec![70]));
        assert_eq!(take(&mut stock, &mut Positions::default(), 2), Some(vec![5, 6]));
        assert_eq!(take(&mut stock, &mut ahead, 1), Some(vec![71]));
    }

    #[test]
    fn a_connection_that_lost_its_position_takes_nothing_but_what_it_reserved_since() {
        let mut stock = stocked([5, 6]);
        let mut positions = Positions::default();
        positions.lose(SEQUENCE);
        assert_eq!(take(&mut stock, &mut positions, 1), None);
        stock.add(SEQUENCE, &[70, 71], &mut positions, 4096);
        assert_eq!(take(&mut stock, &mut positions, 1), Some(vec![70]));
        assert_eq!(take(&mut stock, &mut Positions::default(), 1), Some(vec![5]));
        positions.lose_all();
        assert_eq!(take(&mut stock, &mut positions, 1), None);
    }

    #[test]
    fn an_id_that_was_reserved_before_a_loss_does_not_tell_where_a_pool_is() {
        const OTHER: u32 = SEQUENCE + 1;
        let mut positions = Positions::default();
        positions.lose(SEQUENCE);
        let losses = positions.losses(SEQUENCE);
        let before = losses.count();
        // Another of the pool's callers gets an id from Postgres.
        positions.lose(SEQUENCE);
        positions.reach(SEQUENCE, 5, false, Some(before));
        positions.reach(SEQUENCE, 6, false, None);
        assert_eq!(positions.get(SEQUENCE), Position::Lost);
        let since = losses.count();
        // Those of another table do not matter.
        positions.lose(OTHER);
        positions.reach(SEQUENCE, 9, false, Some(since));
        assert_eq!((positions.get(SEQUENCE), positions.get(OTHER)), (Position::At(9), Position::Lost));
        positions.reach(SEQUENCE, 7, false, Some(before));
        assert_eq!(positions.get(SEQUENCE), Position::At(9));
        positions.lose_all();
        positions.reach(SEQUENCE, 11, false, Some(since));
        assert_eq!(positions.get(SEQUENCE), Position::Lost);
    }

    #[test]
    fn what_comes_before_an_id_from_which_somebody_goes_on_is_thrown_away() {
        let mut stock = stocked([1, 2, 3, 10]);
        stock.discard_before(SEQUENCE, 4);
        assert_eq!((stock.len(), stock.discarded), (1, 3));
        assert_eq!(take(&mut stock, &mut Positions::default(), 1), Some(vec![10]));
    }

    #[test]
    fn blocks_grow_with_use_up_to_their_limit() {
        let mut stock = Stock::default();
        let mut last = 0;
        let mut reserve = |used: usize| {
            let size = i64::from(stock.block(&need(1), 4096));
            stock.add(SEQUENCE, &(last + 1..=last + size).collect::<Vec<_>>(), &mut Positions::default(), 4096);
            last += size;
            take(&mut stock, &mut Positions::default(), used).unwrap();
            size
        };
        // What is left over of a block does not make the next one larger.
        let sizes = [reserve(63), reserve(65), reserve(2048), reserve(4096), reserve(1)];
        assert_eq!(sizes, [64, 64, 2048, 4096, 4096]);
    }

    #[test]
    fn blocks_shrink_when_their_ids_are_thrown_away() {
        let mut stock = stocked(1..=64);
        take(&mut stock, &mut Positions::default(), 3);
        stock.discard(SEQUENCE);
        assert_eq!(stock.discarded, 61);
        assert_eq!(stock.block(&need(1), 4096), 6);
    }

    #[test]
    fn ids_are_reserved_more_rarely_where_they_are_thrown_away_unused() {
        let mut stock = Stock::default();
        // How many inserts find no ids until some are reserved, of which one is used.
        let mut patience = || {
            let sent = (0..).take_while(|_| !stock.wanted_before(&need(1))).count();
            stock.block(&need(1), 4096);
            stock.add(SEQUENCE, &[1, 2, 3], &mut Positions::default(), 4096);
            take(&mut stock, &mut Positions::default(), 1);
            stock.discard(SEQUENCE);
            sent
        };
        let sent: Vec<usize> = (0..7).map(|_| patience()).collect();
        assert_eq!(sent, [1, 2, 4, 8, 8, 8, 8]);
        // Once they are used, all is forgotten.
        stock.add(SEQUENCE, &[1, 2, 3], &mut Positions::default(), 4096);
        take(&mut stock, &mut Positions::default(), 2);
        stock.discard(SEQUENCE);
        assert!(stock.wanted_before(&need(1)) || stock.wanted_before(&need(1)));
    }

    #[test]
    fn a_sequence_is_filled_on_the_way_for_as_long_as_the_other_lasts() {
        let other = Need { sequence: 8, ..need(1) };
        let mut stock = stocked(1..=64);
        stock.block(&other, 4096);
        stock.add(8, &(1..=64).collect::<Vec<_>>(), &mut Positions::default(), 4096);
        take(&mut stock, &mut Positions::default(), 64);
        assert!(stock.take(&[Need { count: 16, ..other }], &mut Positions::default(), &mut Vec::new()));
        // A quarter of the use, so a quarter of the block, less the 48 that are there.
        assert_eq!(stock.along(&other, &need(1), 2048, &Positions::default(), 4096), 512 - 48);
    }

    #[test]
    fn descending_sequences_give_the_highest_id_first() {
        let mut stock = Stock::default();
        let need = Need { descending: true, ..need(2) };
        stock.block(&need, 4096);
        stock.add(SEQUENCE, &[-1, -2, -3], &mut Positions::default(), 4096);
        let mut out = Vec::new();
        assert!(stock.take(&[need], &mut Positions::default(), &mut out));
        assert_eq!(out, [-1, -2]);
    }
}
