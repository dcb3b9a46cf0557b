//! Who waits, who leads, and what is on its way: the groups of one database.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::plan::Row;
use super::{Counters, GivenId, Group, Joined, Pass, Request, Shutdown, Terms};
use crate::database::lock;
use crate::eligible::Reason;
use crate::error::Error;
use crate::limits;
use crate::options::{GroupCommit, WhenFull};

/// The groups of one database, of adapters with the same rows and errors.
pub(crate) struct Groups<R, E> {
    state: Mutex<State<R, E>>,
    pub counters: Arc<Counters>,
}

/// Inserts that may share a statement, as far as the session and the table go: the login, the catalog's address and the
/// table's oid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub login: Arc<str>,
    pub catalog: usize,
    pub table: u32,
}

struct State<R, E> {
    queues: HashMap<Place, Queue<R, E>>,
    /// Numbers flights and tickets.
    next: u64,
    rows: usize,
    bytes: usize,
    /// Callers for whom there was no room, in the order in which they came.
    room: VecDeque<(u64, Waker)>,
    /// How long groups take, lately.
    recent: Duration,
    distance: Distance,
    /// Who waits for everything to be done.
    idle: Vec<Waker>,
}

/// How far away the server is: how long the fastest of what was on its way took, lately. Load and locks make others slower, but
/// not the fastest.
#[derive(Debug, Default)]
pub(super) struct Distance {
    fastest: Option<Duration>,
}

impl Distance {
    pub(super) fn note(&mut self, took: Duration) {
        let fastest = self.fastest.unwrap_or(took);
        // Slower ones count a little: the way may have become longer.
        self.fastest = Some(took.min(fastest + took.saturating_sub(fastest) / 64));
    }

    /// So many groups of a table on their way keep what arrives from waiting for a whole round trip. One is best where the
    /// server is near: it is then the server's work that takes the time, and less of that is done at once.
    pub(super) fn groups(&self) -> usize {
        const EACH: Duration = Duration::from_micros(500);
        let fastest = self.fastest.unwrap_or_default();
        1 + usize::try_from(fastest.as_micros() / EACH.as_micros()).unwrap_or(usize::MAX - 1)
    }
}

struct Queue<R, E> {
    /// The table's name.
    table: String,
    waiting: VecDeque<Arc<Entry<R, E>>>,
    /// Groups whose leader lost its connection.
    again: VecDeque<Again<R, E>>,
    flights: Vec<Flight>,
}

/// A group that has to be sent again by another.
#[derive(Debug)]
pub(crate) struct Again<R, E> {
    pub members: Vec<Member<R, E>>,
    pub tries: u32,
    pub is_uncertain: bool,
}

/// Something on its way to the server, which those that arrive wait for; but no longer than this.
#[derive(Debug)]
struct Flight {
    number: u64,
    since: Instant,
    patience: Duration,
    rows: usize,
}

impl Flight {
    /// Its lock waits are bounded by the server; what else may keep it is the connection.
    fn of_group(number: u64, since: Instant, rows: usize, options: &GroupCommit) -> Self {
        Self { number, since, patience: options.lock_timeout * 10, rows }
    }

    fn counts(&self, now: Instant) -> bool {
        now.duration_since(self.since) < self.patience
    }
}

/// An INSERT, and whoever waits for it.
#[derive(Debug)]
pub(crate) struct Entry<R, E> {
    pub terms: Terms,
    bytes: usize,
    since: Instant,
    cell: Mutex<Cell<R, E>>,
}

#[derive(Debug)]
struct Cell<R, E> {
    /// Until a group takes it.
    row: Option<Row>,
    joined: Option<Joined<R, E>>,
    waker: Option<Waker>,
    /// Nobody waits any more.
    is_gone: bool,
    /// Its connection was lost: it cannot lead.
    is_lost: bool,
    is_settled: bool,
}

impl<R, E> Cell<R, E> {
    fn can_lead(&self) -> bool {
        !self.is_gone && !self.is_lost
    }
}

/// A row of a group.
#[derive(Debug)]
pub(crate) struct Member<R, E> {
    pub entry: Arc<Entry<R, E>>,
    pub row: Row,
    /// The id that was reserved for it.
    pub id: Option<GivenId>,
}

/// Callers who have their result and are woken when this is dropped.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Told(Vec<Waker>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

/// What an INSERT does next.
pub(crate) enum Turn<R: Send + 'static, E: Send + 'static> {
    Done(Joined<R, E>),
    Lead(Group<R, E>),
}

/// Gives a flight's place back, whatever the rows and errors are.
pub(crate) trait Release: std::fmt::Debug + Send + Sync {
    fn release(&self, place: &Place, flight: u64, took: Duration);
}

impl<R, E> Groups<R, E> {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        let state = State {
            queues: HashMap::new(),
            next: 0,
            rows: 0,
            bytes: 0,
            room: VecDeque::new(),
            recent: Duration::ZERO,
            distance: Distance::default(),
            idle: Vec::new(),
        };
        Self { state: Mutex::new(state), counters }
    }

    /// Asks for room, which [`Groups::enter`] then takes; `ticket` is the caller's place in the line for it.
    pub(crate) fn ask_for_room(
        &self,
        request: &Request,
        ticket: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Duration, Error>> {
        let options = &request.terms.options;
        let table = || request.terms.plan.table.full_name();
        let mut state = lock(&self.state);
        if self.counters.is_closed() {
            state.leave_line(ticket);
            return Poll::Ready(Err(Error::shut_down(&table())));
        }
        let bytes = state.bytes + request.row.bytes;
        let fits = state.rows < options.max_queued_rows && bytes <= options.max_queued_bytes || state.rows == 0;
        let is_first = match ticket {
            Some(ticket) => state.room.front().is_none_or(|(first, _)| first == ticket),
            None => state.room.is_empty(),
        };
        if fits && is_first {
            state.leave_line(ticket);
            let pause = state.pause(options);
            state.rows += 1;
            state.bytes = bytes;
            let depth = state.rows as u64;
            // Whoever is next may fit as well.
            state.wake_first_in_line();
            drop(state);
            self.counters.note(|stats| {
                stats.depth = depth;
                stats.max_depth = stats.max_depth.max(depth);
            });
            return Poll::Ready(Ok(pause));
        }
        if options.when_full == WhenFull::Refuse {
            state.leave_line(ticket);
            drop(state);
            self.counters.note(|stats| stats.refused += 1);
            return Poll::Ready(Err(Error::over_capacity(&table())));
        }
        state.wait_in_line(ticket, cx.waker());
        Poll::Pending
    }

    /// The caller goes away while it waits for room.
    pub(crate) fn leave_line(&self, ticket: &mut Option<u64>) {
        let mut state = lock(&self.state);
        state.leave_line(ticket);
        state.wake_first_in_line();
    }

    /// Puts an INSERT into the queue of its table.
    pub(crate) fn enter(&self, request: Request) -> Arc<Entry<R, E>> {
        let Request { row, terms } = request;
        let bytes = row.bytes;
        let cell =
            Cell { row: Some(row), joined: None, waker: None, is_gone: false, is_lost: false, is_settled: false };
        let entry = Arc::new(Entry { terms, bytes, since: Instant::now(), cell: Mutex::new(cell) });
        let mut state = lock(&self.state);
        state.queue(&entry.terms).waiting.push_back(Arc::clone(&entry));
        entry
    }

    /// What an INSERT does next: its result, or to lead a group, or else to wait.
    pub(crate) fn poll(self: &Arc<Self>, entry: &Arc<Entry<R, E>>, cx: &mut Context<'_>) -> Poll<Turn<R, E>>
    where
        R: Send + 'static,
        E: Send + 'static,
    {
        let mut state = lock(&self.state);
        let is_lost = {
            let mut cell = lock(&entry.cell);
            if let Some(joined) = cell.joined.take() {
                return Poll::Ready(Turn::Done(joined));
            }
            cell.is_lost
        };
        let turn = if is_lost { state.stranded(entry) } else { state.turn(self, entry) };
        if let Some(turn) = turn {
            if matches!(turn, Turn::Done(_)) {
                // It is sent alone, and is no longer held here.
                lock(&entry.cell).is_settled = true;
                state.give_room(1, entry.bytes);
                let depth = state.rows as u64;
                drop(state);
                self.counters.note(|stats| {
                    stats.depth = depth;
                    stats.alone += 1;
                });
            }
            return Poll::Ready(turn);
        }
        lock(&entry.cell).waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Tells an INSERT how it went.
    pub(crate) fn settle(&self, entry: &Entry<R, E>, joined: Joined<R, E>) {
        drop(self.settle_all([(entry, joined)]));
    }

    /// Tells INSERTs how they went. All at once, as those who are told come back and want the same lock.
    pub(crate) fn settle_all<'a>(&self, all: impl IntoIterator<Item = (&'a Entry<R, E>, Joined<R, E>)>) -> Told
    where
        R: 'a,
        E: 'a,
    {
        let (mut wakers, mut held, mut bytes) = (Vec::new(), Vec::new(), 0);
        let (mut took, mut pace) = (Vec::new(), None);
        let now = Instant::now();
        let mut state = lock(&self.state);
        for (entry, joined) in all {
            let mut cell = lock(&entry.cell);
            if std::mem::replace(&mut cell.is_settled, true) {
                continue;
            }
            let time = now.saturating_duration_since(entry.since);
            // The others go on, and it is known later how long they took.
            if matches!(joined, Joined::Row { .. }) && !entry.terms.options.always {
                took.push(time);
                pace = Some(&entry.terms.pace);
            }
            cell.joined = Some(joined);
            wakers.extend(cell.waker.take());
            bytes += entry.bytes;
            held.push(time);
        }
        state.give_room(held.len(), bytes);
        let depth = state.rows as u64;
        drop(state);
        self.counters.note_held(depth, &held);
        // They are of one group, and so of one adapter.
        if let Some(pace) = pace {
            pace.note(took, now);
        }
        Told(wakers)
    }

    /// The caller goes away. Its row goes with it if it still waits.
    pub(crate) fn abandon(&self, entry: &Arc<Entry<R, E>>) {
        let place = &entry.terms.place;
        let mut state = lock(&self.state);
        {
            let mut cell = lock(&entry.cell);
            cell.is_gone = true;
            // It waits for nothing that others would have to do now.
            if cell.is_settled {
                return;
            }
        }
        let Some(queue) = state.queues.get_mut(place) else { return };
        let before = queue.waiting.len();
        queue.waiting.retain(|waiting| !Arc::ptr_eq(waiting, entry));
        let was_waiting = queue.waiting.len() < before;
        if was_waiting {
            lock(&entry.cell).is_settled = true;
            state.give_room(1, entry.bytes);
        }
        state.wake_next(place);
        let orphans = state.orphans(place);
        state.forget_empty(place);
        drop(state);
        self.give_up_on(orphans);
    }

    /// Tells the members of groups that nobody is left to send.
    fn give_up_on(&self, orphans: Vec<Again<R, E>>) {
        for orphan in orphans {
            let told = |member: &Member<R, E>| match orphan.is_uncertain {
                true => Joined::Refused(Error::outcome_unknown(&member.entry.terms.plan.table.full_name())),
                false => Joined::Alone(Pass::because(Reason::GroupFailed)),
            };
            drop(self.settle_all(orphan.members.iter().map(|member| (&*member.entry, told(member)))));
        }
    }

    /// The leader lost its connection: another member or whoever waits for the table sends the group again. Gives it back
    /// where there is nobody.
    pub(crate) fn hand_over(&self, place: &Place, leader: &Entry<R, E>, again: Again<R, E>) -> Result<(), Again<R, E>> {
        let mut state = lock(&self.state);
        lock(&leader.cell).is_lost = true;
        let queue = state.queue(&leader.terms);
        let result = if queue.can_lead(&again) {
            let members = again.members.iter().map(|member| &member.entry);
            for entry in members.chain(&queue.waiting) {
                lock(&entry.cell).waker.take().into_iter().for_each(Waker::wake);
            }
            queue.again.push_back(again);
            Ok(())
        } else {
            Err(again)
        };
        // This leader may have been the last who could send another group.
        let orphans = state.orphans(place);
        state.forget_empty(place);
        drop(state);
        self.give_up_on(orphans);
        result
    }

    /// Gives a flight's place back, or takes what waits for the table in its place: two at least, as what is alone is its
    /// caller's to send.
    pub(crate) fn take_next(&self, place: &Place, flight: u64, took: Duration) -> Option<Vec<Arc<Entry<R, E>>>> {
        let mut state = lock(&self.state);
        let now = Instant::now();
        // Others may have no place but this one.
        let others = state.queues.iter().filter(|(other, _)| *other != place);
        if others.map(|(_, queue)| queue).any(|queue| !queue.waiting.is_empty() && queue.flying(now, None) == 0) {
            return None;
        }
        let queue = state.queues.get(place)?;
        if !queue.again.is_empty() || queue.waiting.len() < 2 {
            return None;
        }
        let first = Arc::clone(queue.waiting.front()?);
        // Those that arrived may have lost their patience with this one and sent others past it.
        if !state.has_place(place, &first.terms.options, now, Some(flight)) {
            return None;
        }
        let queue = state.queues.get_mut(place)?;
        let taken = queue.take(&first, &first.terms.options);
        if taken.len() < 2 {
            // Its order among the others is that of its arrival, which it was first in.
            taken.into_iter().for_each(|entry| queue.waiting.push_front(entry));
            return None;
        }
        let of_group = Flight::of_group(flight, now, taken.len(), &first.terms.options);
        match queue.flights.iter_mut().find(|other| other.number == flight) {
            Some(own) => *own = of_group,
            None => queue.flights.push(of_group),
        }
        state.note_time(took);
        Some(taken)
    }

    /// Waits until nothing is held or on its way.
    pub(crate) fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        // Those who wait for room are refused.
        for (_, waker) in state.room.drain(..) {
            waker.wake();
        }
        if state.is_idle() {
            return Poll::Ready(());
        }
        state.idle.push(cx.waker().clone());
        Poll::Pending
    }

    /// Refuses what still waits, and counts by table: those, and those that are on their way.
    pub(crate) fn give_up(&self) -> Shutdown {
        let mut state = lock(&self.state);
        let (mut unsent, mut under_way, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for queue in state.queues.values_mut() {
            let flying: usize = queue.flights.iter().map(|flight| flight.rows).sum();
            let again: usize = queue.again.iter().map(|again| again.members.len()).sum();
            if flying + again > 0 {
                under_way.push((queue.table.clone(), flying + again));
            }
            if !queue.waiting.is_empty() {
                unsent.push((queue.table.clone(), queue.waiting.len()));
            }
            refused.extend(queue.waiting.drain(..));
        }
        let places: Vec<Place> = state.queues.keys().cloned().collect();
        let orphans = places.iter().flat_map(|place| state.orphans(place)).collect();
        drop(state);
        self.give_up_on(orphans);
        for entry in refused {
            self.settle(&entry, Joined::Refused(Error::shut_down(&entry.terms.plan.table.full_name())));
        }
        unsent.sort();
        under_way.sort();
        Shutdown { unsent, under_way }
    }
}

impl<R, E> std::fmt::Debug for Groups<R, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groups").finish_non_exhaustive()
    }
}

impl<R: Send, E: Send> Release for Groups<R, E> {
    fn release(&self, place: &Place, flight: u64, took: Duration) {
        let mut state = lock(&self.state);
        if let Some(queue) = state.queues.get_mut(place) {
            queue.flights.retain(|other| other.number != flight);
        }
        state.note_time(took);
        state.wake_next(place);
        state.forget_empty(place);
        if state.is_idle() {
            state.idle.drain(..).for_each(Waker::wake);
        }
    }
}

impl<R, E> State<R, E> {
    fn queue(&mut self, terms: &Terms) -> &mut Queue<R, E> {
        self.queues.entry(terms.place.clone()).or_insert_with(|| Queue {
            table: terms.plan.table.full_name(),
            waiting: VecDeque::new(),
            again: VecDeque::new(),
            flights: Vec::new(),
        })
    }

    /// What this INSERT may do now, if anything.
    fn turn(&mut self, groups: &Arc<Groups<R, E>>, entry: &Arc<Entry<R, E>>) -> Option<Turn<R, E>>
    where
        R: Send + 'static,
        E: Send + 'static,
    {
        let now = Instant::now();
        let options = entry.terms.options;
        let number = self.next;
        let place = &entry.terms.place;
        if !self.has_place(place, &options, now, None) {
            return None;
        }
        let queue = self.queues.get_mut(place)?;
        if let Some(again) = queue.again.pop_front() {
            self.next += 1;
            let group = Group::again(groups, entry, number, again);
            queue.flights.push(Flight::of_group(number, now, group.len(), &options));
            return Some(Turn::Lead(group));
        }
        let first = queue.waiting.front()?;
        // Whoever is first has been woken; if it does not come, others need not wait for it for ever.
        let is_first = Arc::ptr_eq(&first.terms.plan, &entry.terms.plan);
        if !is_first && now.duration_since(entry.since) < options.lock_timeout {
            return None;
        }
        let taken = queue.take(entry, &options);
        if taken.is_empty() {
            return None;
        }
        self.next += 1;
        if let [only] = taken.as_slice()
            && Arc::ptr_eq(only, entry)
            && !options.always
            && !entry.terms.has_id_at_hand()
        {
            // Its lock waits are its own: those that arrive do not wait for it longer than a group would for a lock.
            queue.flights.push(Flight { number, since: now, patience: options.lock_timeout, rows: 1 });
            let pass = Pass::new(Arc::clone(groups) as Arc<dyn Release>, place.clone(), number);
            return Some(Turn::Done(Joined::Alone(pass)));
        }
        queue.flights.push(Flight::of_group(number, now, taken.len(), &options));
        Some(Turn::Lead(Group::new(groups, entry, number, taken)))
    }

    /// Whether something of this table may go on its way beside what is there; `done` is a flight that no longer counts.
    fn has_place(&self, place: &Place, options: &GroupCommit, now: Instant, done: Option<u64>) -> bool {
        let flying = |queue: &Queue<R, E>| queue.flying(now, done);
        let of_table = self.queues.get(place).map_or(0, flying);
        let of_all: usize = self.queues.values().map(flying).sum();
        of_table < options.groups_per_table.unwrap_or(self.distance.groups()) && of_all < options.groups
    }

    /// How long a group took. Later ones count more than earlier ones.
    fn note_time(&mut self, took: Duration) {
        self.recent = (self.recent * 7 + took) / 8;
        self.distance.note(took);
    }

    /// What an INSERT may do whose connection was lost. Others take it along; where nobody is left who could, it is sent alone
    /// and has that connection's error, as without groups.
    fn stranded(&mut self, entry: &Arc<Entry<R, E>>) -> Option<Turn<R, E>>
    where
        R: Send + 'static,
        E: Send + 'static,
    {
        let queue = self.queues.get_mut(&entry.terms.place)?;
        let at = queue.waiting.iter().position(|waiting| Arc::ptr_eq(waiting, entry))?;
        let mut others = queue.waiting.iter().filter(|waiting| Arc::ptr_eq(&waiting.terms.plan, &entry.terms.plan));
        if others.any(|other| other.can_lead()) {
            return None;
        }
        queue.waiting.remove(at);
        Some(Turn::Done(Joined::Alone(Pass::free())))
    }

    fn give_room(&mut self, rows: usize, bytes: usize) {
        self.rows = self.rows.saturating_sub(rows);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.wake_first_in_line();
        if self.is_idle() {
            self.idle.drain(..).for_each(Waker::wake);
        }
    }

    fn is_idle(&self) -> bool {
        self.rows == 0 && self.queues.values().all(|queue| queue.flights.is_empty())
    }

    /// From half of what may be held on, a part of the time that a group takes: none at half, all of it when full.
    fn pause(&self, options: &GroupCommit) -> Duration {
        let rows = self.rows as f64 / options.max_queued_rows as f64;
        let bytes = self.bytes as f64 / options.max_queued_bytes.max(1) as f64;
        let over_half = (rows.max(bytes).min(1.0) - 0.5) * 2.0;
        if over_half > 0.0 { self.recent.mul_f64(over_half) } else { Duration::ZERO }
    }

    fn wait_in_line(&mut self, ticket: &mut Option<u64>, waker: &Waker) {
        let number = *ticket.get_or_insert(self.next);
        match self.room.iter_mut().find(|(other, _)| *other == number) {
            Some((_, known)) => known.clone_from(waker),
            None => {
                self.next += 1;
                self.room.push_back((number, waker.clone()));
            }
        }
    }

    fn leave_line(&mut self, ticket: &mut Option<u64>) {
        if let Some(number) = ticket.take() {
            self.room.retain(|(other, _)| *other != number);
        }
    }

    fn wake_first_in_line(&self) {
        if let Some((_, waker)) = self.room.front() {
            waker.wake_by_ref();
        }
    }

    /// Somebody may lead: whoever is first in this queue, or, as the places of all are counted too, in another.
    fn wake_next(&self, place: &Place) {
        let others = self.queues.iter().filter(|(other, _)| *other != place).map(|(_, queue)| queue);
        self.queues.get(place).into_iter().chain(others).for_each(Queue::wake_first);
    }

    /// Groups to be sent again that nobody is left to send.
    fn orphans(&mut self, place: &Place) -> Vec<Again<R, E>> {
        let Some(queue) = self.queues.get_mut(place) else { return Vec::new() };
        let again = std::mem::take(&mut queue.again);
        let (kept, orphans) = again.into_iter().partition(|again| queue.can_lead(again));
        queue.again = kept;
        Vec::from(orphans)
    }

    fn forget_empty(&mut self, place: &Place) {
        let is_empty =
            |queue: &Queue<R, E>| queue.waiting.is_empty() && queue.again.is_empty() && queue.flights.is_empty();
        if self.queues.get(place).is_some_and(is_empty) {
            self.queues.remove(place);
        }
    }
}

impl<R, E> Entry<R, E> {
    fn can_lead(&self) -> bool {
        lock(&self.cell).can_lead()
    }

    /// Whether it can lead and waits to be told so; who is slowed comes by itself.
    fn can_be_woken(&self) -> bool {
        let cell = lock(&self.cell);
        cell.can_lead() && cell.waker.is_some()
    }

    /// When it came.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Its row, for the group that takes it out of the queue.
    pub(crate) fn take_row(&self) -> Row {
        lock(&self.cell).row.take().unwrap_or_default()
    }
}

impl<R, E> Queue<R, E> {
    fn flying(&self, now: Instant, done: Option<u64>) -> usize {
        self.flights.iter().filter(|flight| Some(flight.number) != done && flight.counts(now)).count()
    }

    /// Whether there is anybody to send a group.
    fn can_lead(&self, again: &Again<R, E>) -> bool {
        self.waiting.iter().any(|entry| entry.can_lead()) || again.members.iter().any(|member| member.entry.can_lead())
    }

    /// Those at the front that share the statement of `entry`, as many as fit.
    fn take(&mut self, entry: &Entry<R, E>, options: &GroupCommit) -> Vec<Arc<Entry<R, E>>> {
        let plan = &entry.terms.plan;
        let max_rows = options.max_rows.min(plan.max_rows());
        let max_bytes = options.max_bytes.min(limits::MAX_BYTES);
        let mut taken: Vec<Arc<Entry<R, E>>> = Vec::new();
        let mut bytes = 0;
        self.waiting.retain(|waiting| {
            let fits = taken.is_empty() || bytes + waiting.bytes <= max_bytes;
            let takes = Arc::ptr_eq(&waiting.terms.plan, plan) && taken.len() < max_rows && fits;
            if takes {
                bytes += waiting.bytes;
                taken.push(Arc::clone(waiting));
            }
            !takes
        });
        taken
    }

    /// Wakes who may lead.
    fn wake_first(&self) {
        let again = self.again.iter().flat_map(|again| &again.members).map(|member| &member.entry);
        for entry in again.chain(self.next_leader()) {
            if let Some(waker) = &lock(&entry.cell).waker {
                waker.wake_by_ref();
            }
        }
    }

    /// The first who can be woken to lead. Where nobody can, the first: it may have to be sent alone.
    fn next_leader(&self) -> Option<&Arc<Entry<R, E>>> {
        let first = self.waiting.front()?;
        let mut like_first = self.waiting.iter().filter(|entry| Arc::ptr_eq(&entry.terms.plan, &first.terms.plan));
        like_first.find(|entry| entry.can_be_woken()).or(Some(first))
    }
}
