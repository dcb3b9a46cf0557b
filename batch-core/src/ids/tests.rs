use super::*;

const SEQUENCE: u32 = 7;
const BOUNDS: Bounds = Bounds { first: 48, max: 10_000 };

fn need(count: usize) -> Need {
    Need { must_know: true, ..Need::likely(SEQUENCE, false, count) }
}

fn take(stock: &mut Stock, positions: &mut Positions, count: usize) -> Option<Vec<i64>> {
    let mut out = Vec::new();
    stock.take(&[need(count)], positions, &mut out).then_some(out)
}

/// The sequence: what it gave last, and how much it may give ahead.
struct Server {
    last: i64,
    step: i64,
    room: u32,
}

impl Server {
    fn at(last: i64) -> Self {
        Self { last, step: 1, room: u32::MAX }
    }

    fn give(&mut self, count: u32) -> Vec<i64> {
        let ids = (1..=i64::from(count)).map(|n| self.last + n * self.step).collect();
        self.last += i64::from(count) * self.step;
        ids
    }

    fn answer(&mut self, request: &Request) -> Block {
        let at = self.last;
        let count = if request.unless_at == Some(at) { 0 } else { request.needed + request.ahead.min(self.room) };
        let ids = self.give(count);
        Block { sequence: request.sequence, at: Some(at), step: self.step, room: self.room, ids }
    }

    /// What the connection at `positions` asks for, and gets.
    fn reserve(&mut self, stock: &mut Stock, positions: &mut Positions, count: usize) -> usize {
        let request = stock.request(&need(count), 0, positions, BOUNDS);
        let block = self.answer(&request);
        stock.arrived(&request, &block, positions);
        block.ids.len()
    }
}

/// A stock with these ids, which are all that the sequence ever gave.
fn stocked(count: u32) -> (Stock, Server) {
    let (mut stock, mut server) = (Stock::default(), Server::at(0));
    let mut positions = Positions::default();
    let mut request = stock.request(&need(1), 0, &positions, BOUNDS);
    request.ahead = count - 1;
    let block = server.answer(&request);
    stock.arrived(&request, &block, &mut positions);
    (stock, server)
}

/// What comes to a connection of its own that asked when the stock was as it is.
fn arrives(stock: &mut Stock, positions: &mut Positions, at: i64, ids: &[i64]) {
    let request = stock.request(&need(1), 0, positions, BOUNDS);
    let block = Block { sequence: SEQUENCE, at: Some(at), step: 1, room: 1_000, ids: ids.to_vec() };
    stock.arrived(&request, &block, positions);
}

#[test]
fn ids_are_given_out_in_order_and_once() {
    let (mut stock, _) = stocked(3);
    let mut positions = Positions::default();
    assert_eq!(take(&mut stock, &mut positions, 2), Some(vec![1, 2]));
    assert_eq!(take(&mut stock, &mut positions, 1), Some(vec![3]));
    assert_eq!(take(&mut stock, &mut positions, 1), None);
}

#[test]
fn too_few_ids_are_left_where_they_are() {
    let (mut stock, _) = stocked(2);
    assert_eq!(take(&mut stock, &mut Positions::default(), 3), None);
    assert_eq!(stock.len(), 2);
}

#[test]
fn blocks_that_arrive_in_another_order_stand_in_that_of_the_sequence_and_none_twice() {
    let (mut stock, _) = stocked(2);
    let mut requests: Vec<Request> =
        (0..4).map(|_| stock.request(&need(1), 0, &Positions::default(), BOUNDS)).collect();
    for (at, ids) in [(6, &[7, 8][..]), (4, &[5, 6]), (2, &[3, 4]), (6, &[7, 8, 9])] {
        let block = Block { sequence: SEQUENCE, at: Some(at), step: 1, room: 1_000, ids: ids.to_vec() };
        stock.arrived(&requests.remove(0), &block, &mut Positions::default());
    }
    assert_eq!(take(&mut stock, &mut Positions::default(), 9), Some((1..=9).collect()));
    assert_eq!(stock.len(), 0);
}

#[test]
fn a_sequence_that_was_set_back_is_followed_and_what_it_will_give_again_goes() {
    let (mut stock, mut server) = stocked(10);
    let mut positions = Positions::default();
    assert_eq!(take(&mut stock, &mut positions, 7), Some((1..=7).collect()));
    server.last = 0;
    server.reserve(&mut stock, &mut positions, 4);
    assert_eq!(take(&mut stock, &mut positions, 4), Some(vec![1, 2, 3, 4]));
    assert_eq!(stock.discarded, 3);
}

#[test]
fn a_connection_never_gets_a_lower_id_after_a_higher_one() {
    let (mut stock, _) = stocked(2);
    let mut ahead = Positions::default();
    arrives(&mut stock, &mut ahead, 69, &[70, 71]);
    ahead.set(SEQUENCE, Position::At(69));
    assert_eq!(take(&mut stock, &mut ahead, 1), Some(vec![70]));
    assert_eq!(take(&mut stock, &mut Positions::default(), 2), Some(vec![1, 2]));
    assert_eq!(take(&mut stock, &mut ahead, 1), Some(vec![71]));
}

#[test]
fn a_connection_that_lost_its_position_takes_nothing_until_it_knows_it() {
    let (mut stock, mut server) = stocked(2);
    let mut positions = Positions::default();
    positions.lose(SEQUENCE);
    assert_eq!(take(&mut stock, &mut positions, 1), None);
    // Somebody got 3.
    server.last = 3;
    server.reserve(&mut stock, &mut positions, 8);
    assert_eq!(take(&mut stock, &mut positions, 1), Some(vec![4]));
    assert_eq!(take(&mut stock, &mut Positions::default(), 1), Some(vec![1]));
    positions.lose_all();
    assert_eq!(take(&mut stock, &mut positions, 1), None);
    // Nobody got any since, so that what comes after 3 is as good as new.
    let request = stock.request(&need(1), 0, &positions, BOUNDS);
    assert_eq!(request.unless_at, Some(server.last));
    let block = server.answer(&request);
    assert!(block.ids.is_empty());
    stock.arrived(&request, &block, &mut positions);
    assert_eq!(take(&mut stock, &mut positions, 1), Some(vec![5]));
}

#[test]
fn what_may_come_before_others_ids_is_given_out_once_that_is_known() {
    for (moved, taken) in [(false, 1), (true, 12)] {
        let (mut stock, mut server) = stocked(10);
        stock.doubt_all();
        let mut positions = Positions::default();
        assert_eq!(take(&mut stock, &mut positions, 1), None);
        assert!(!stock.has_any(&need(1), &positions));
        server.last += i64::from(moved);
        server.reserve(&mut stock, &mut positions, 1);
        // For all.
        assert_eq!(take(&mut stock, &mut Positions::default(), 1), Some(vec![taken]));
        assert_eq!(stock.discarded, if moved { 10 } else { 0 });
    }
}

#[test]
fn an_answer_from_before_a_doubt_does_not_settle_it() {
    let (mut stock, mut server) = stocked(10);
    let mut positions = Positions::default();
    stock.doubt(SEQUENCE);
    let request = stock.request(&need(1), 0, &positions, BOUNDS);
    let block = server.answer(&request);
    stock.doubt(SEQUENCE);
    stock.arrived(&request, &block, &mut positions);
    assert_eq!(take(&mut stock, &mut positions, 1), None);
}

#[test]
fn a_check_counts_though_another_connection_reserves_meanwhile() {
    let (mut stock, mut server) = stocked(10);
    let mut positions = Positions::default();
    stock.doubt(SEQUENCE);
    let request = stock.request(&need(1), 0, &positions, BOUNDS);
    // Asked before, and answered after.
    let mut other = Positions::default();
    let mut others = stock.request(&need(11), 0, &other, BOUNDS);
    others.ahead = 0;
    others.unless_at = None;
    let others_block = server.answer(&others);
    stock.arrived(&others, &others_block, &mut other);
    let block = server.answer(&request);
    stock.arrived(&request, &block, &mut positions);
    assert_eq!(take(&mut stock, &mut positions, 12), Some((1..=12).collect()));
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
    assert_eq!(positions.get(SEQUENCE), Position::Lost(Some(6)));
    let since = losses.count();
    // Those of another table do not matter.
    positions.lose(OTHER);
    positions.reach(SEQUENCE, 9, false, Some(since));
    assert_eq!((positions.get(SEQUENCE), positions.get(OTHER)), (Position::At(9), Position::Lost(None)));
    positions.reach(SEQUENCE, 7, false, Some(before));
    assert_eq!(positions.get(SEQUENCE), Position::At(9));
    positions.lose_all();
    positions.reach(SEQUENCE, 11, false, Some(since));
    assert_eq!(positions.get(SEQUENCE), Position::Lost(Some(11)));
}

/// A pool that lost its position still knows the ids that it was told: one of a block that arrived late is none for it.
#[test]
fn an_id_below_one_that_was_told_is_not_given_to_a_pool_that_lost_its_position() {
    let (mut stock, mut server) = stocked(1);
    let mut positions = Positions::default();
    take(&mut stock, &mut positions, 1);
    let (late, early) =
        (stock.request(&need(3), 0, &positions, BOUNDS), stock.request(&need(3), 0, &positions, BOUNDS));
    let (late_block, early_block) = (server.answer(&late), server.answer(&early));
    stock.arrived(&early, &early_block, &mut Positions::default());
    positions.lose(SEQUENCE);
    let told = early_block.ids[1];
    assert!(take(&mut stock, &mut Positions::default(), 2).is_some_and(|ids| ids[1] == told));
    positions.reach(SEQUENCE, told, false, None);
    stock.arrived(&late, &late_block, &mut Positions::default());
    // The sequence is where it was left, so nobody else took any.
    let request = stock.request(&need(1), 0, &positions, BOUNDS);
    assert!(request.unless_at.is_some());
    let block = server.answer(&request);
    stock.arrived(&request, &block, &mut positions);
    let next = take(&mut stock, &mut positions, 1).unwrap()[0];
    assert!(next > told, "{next} after {told}");
}

/// Transactions of so many rows, each of which finds ids or asks for some, and whose flush brings more.
fn transactions(sizes: impl IntoIterator<Item = usize>) -> (i64, usize) {
    transactions_between_losses(sizes, usize::MAX)
}

/// The same, where what is at hand is lost after each so many of them.
fn transactions_between_losses(sizes: impl IntoIterator<Item = usize>, often: usize) -> (i64, usize) {
    let (mut stock, mut server) = (Stock::default(), Server::at(0));
    let mut positions = Positions::default();
    let mut questions = 0;
    for (number, size) in sizes.into_iter().enumerate() {
        if number % often == often - 1 {
            stock.discard(SEQUENCE);
        }
        for row in 0..size {
            while take(&mut stock, &mut positions, 1).is_none() {
                let request = stock.request(&need(1), row, &positions, BOUNDS);
                let block = server.answer(&request);
                stock.arrived(&request, &block, &mut positions);
                questions += 1;
            }
        }
        if let Some(request) = stock.refill(&need(size), false, &positions, BOUNDS) {
            let block = server.answer(&request);
            stock.arrived(&request, &block, &mut positions);
        }
    }
    (server.last, questions)
}

#[test]
fn small_transactions_use_nearly_all_that_they_take_and_ask_once() {
    for size in [1, 2, 3, 7, 20] {
        let count = 4_000 / size;
        let (taken, questions) = transactions(vec![size; count]);
        assert!(taken as f64 <= 1.05 * (size * count) as f64, "{taken} for {count} times {size}");
        assert!(questions <= 3, "{questions} for {count} times {size}");
    }
}

/// However much was ever used.
#[test]
fn a_program_that_loses_what_is_at_hand_time_and_again_loses_little() {
    for (size, often, allowed) in [(3, 40, 1.2), (40, 40, 1.2), (3, 5, 1.8), (100, 3, 3.0)] {
        let count = 60_000 / size;
        let (taken, _) = transactions_between_losses(vec![size; count], often);
        let times = taken as f64 / (size * count) as f64;
        assert!(times <= allowed, "{times} for {count} times {size}, lost each {often}");
    }
}

#[test]
fn one_large_transaction_asks_few_times() {
    assert_eq!(transactions([48]).1, 1);
    assert_eq!(transactions([2_000]).1, 2);
    assert!(transactions([10_000]).1 <= 3, "{}", transactions([10_000]).1);
    // And the next of its size none.
    assert_eq!(transactions([1_000, 1_000]).1, 2);
}

#[test]
fn a_program_of_few_rows_in_many_tables_takes_few_ids() {
    let mut stock = Stock::default();
    let mut taken = 0;
    for (table, rows) in (0..41).zip([1, 3, 2, 1, 4, 2].into_iter().cycle()) {
        let mut server = Server::at(0);
        let mut positions = Positions::default();
        let need = Need { sequence: table, ..need(1) };
        for row in 0..rows {
            while !stock.take(&[need], &mut positions, &mut Vec::new()) {
                let request = stock.request(&need, row, &positions, BOUNDS);
                let block = server.answer(&request);
                stock.arrived(&request, &block, &mut positions);
            }
        }
        if let Some(request) = stock.refill(&Need { count: rows, ..need }, false, &positions, BOUNDS) {
            let block = server.answer(&request);
            stock.arrived(&request, &block, &mut positions);
        }
        taken += server.last;
    }
    assert!(taken <= 200, "{taken}");
}

#[test]
fn what_is_on_its_way_is_not_asked_for_again() {
    let (mut stock, _) = stocked(4);
    take(&mut stock, &mut Positions::default(), 2);
    take(&mut stock, &mut Positions::default(), 2);
    let first = stock.refill(&need(2), false, &Positions::default(), BOUNDS);
    assert!(first.as_ref().is_some_and(|request| request.ahead >= 2));
    assert!(stock.refill(&need(2), false, &Positions::default(), BOUNDS).is_none());
    // The flush failed.
    drop(first);
    assert!(stock.refill(&need(2), false, &Positions::default(), BOUNDS).is_some());
}

#[test]
fn a_sequence_near_its_end_gives_what_is_needed_and_is_left_alone_for_a_while() {
    let (mut stock, mut server) = (Stock::default(), Server { room: 0, ..Server::at(94) });
    let mut positions = Positions::default();
    assert!(!stock.is_tight(&need(1)));
    assert_eq!(server.reserve(&mut stock, &mut positions, 1), 1);
    assert_eq!(take(&mut stock, &mut positions, 1), Some(vec![95]));
    let sent = (0..1_000).take_while(|_| stock.is_tight(&need(1))).count();
    assert_eq!(sent, 64);
}

#[test]
fn a_group_takes_one_id_that_it_needs_and_the_others_as_far_as_there_are_plenty() {
    let mut stock = Stock::default();
    let request = stock.request_for_group(&need(10), &Positions::default(), BOUNDS);
    assert_eq!((request.needed, request.ahead), (1, 13));
    let mut server = Server { room: 2, ..Server::at(0) };
    let (mut positions, mut ids) = (Positions::default(), Vec::new());
    let block = server.answer(&request);
    stock.arrived(&request, &block, &mut positions);
    stock.take_some(&need(10), &mut positions, &mut ids);
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn blocks_shrink_when_their_ids_are_thrown_away() {
    let (mut stock, _) = stocked(64);
    take(&mut stock, &mut Positions::default(), 1);
    stock.discard(SEQUENCE);
    assert_eq!(stock.discarded, 63);
    let request = stock.request(&need(1), 0, &Positions::default(), BOUNDS);
    assert_eq!((request.needed, request.ahead), (1, 0));
}

#[test]
fn ids_are_reserved_more_rarely_where_they_are_thrown_away_unused() {
    let (mut stock, mut server) = (Stock::default(), Server::at(0));
    stock.wants(&need(1), &Positions::default(), BOUNDS);
    // How many inserts find no ids until some are reserved, of which one is used.
    let mut patience = || {
        let sent = (0..).take_while(|_| !stock.wanted_before(&need(1))).count();
        server.reserve(&mut stock, &mut Positions::default(), 3);
        take(&mut stock, &mut Positions::default(), 1);
        stock.discard(SEQUENCE);
        sent
    };
    let sent: Vec<usize> = (0..7).map(|_| patience()).collect();
    assert_eq!(sent, [1, 2, 4, 8, 8, 8, 8]);
    // Once they are used, all is forgotten.
    server.reserve(&mut stock, &mut Positions::default(), 3);
    take(&mut stock, &mut Positions::default(), 2);
    stock.discard(SEQUENCE);
    assert!(stock.wanted_before(&need(1)) || stock.wanted_before(&need(1)));
}

#[test]
fn a_sequence_is_filled_on_the_way_for_as_long_as_the_other_lasts() {
    let other = Need { sequence: 8, ..need(1) };
    let (mut stock, _) = stocked(64);
    let positions = Positions::default();
    let mut request = stock.request(&other, 0, &positions, BOUNDS);
    request.ahead = 63;
    let block = Server::at(0).answer(&request);
    stock.arrived(&request, &block, &mut Positions::default());
    take(&mut stock, &mut Positions::default(), 64);
    assert!(stock.take(&[Need { count: 16, ..other }], &mut Positions::default(), &mut Vec::new()));
    // A quarter of the use, so a quarter of the block, less the 48 that are there.
    let first = stock.request(&need(1), 64, &positions, BOUNDS);
    assert_eq!(first.needed + first.ahead, 2560);
    assert_eq!(stock.along(&other, &first, 0, &positions, BOUNDS).map(|request| request.ahead), Some(640 - 48));
}

#[test]
fn descending_sequences_give_the_highest_id_first() {
    let mut stock = Stock::default();
    let need = Need { descending: true, ..need(2) };
    let mut server = Server { step: -1, ..Server::at(0) };
    let mut positions = Positions::default();
    let mut request = stock.request(&need, 0, &positions, BOUNDS);
    request.ahead = 8;
    let block = server.answer(&request);
    stock.arrived(&request, &block, &mut positions);
    let mut out = Vec::new();
    assert!(stock.take(&[need], &mut positions, &mut out));
    assert_eq!(out, [-1, -2]);
    stock.doubt(SEQUENCE);
    let request = stock.request(&need, 0, &positions, BOUNDS);
    let block = server.answer(&request);
    assert!(block.ids.is_empty());
    stock.arrived(&request, &block, &mut positions);
    assert!(stock.take(&[need], &mut positions, &mut out));
    assert_eq!(out, [-1, -2, -3, -4]);
}
