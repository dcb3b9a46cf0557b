use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio::time;

use super::plan::Plan;
use super::queue::Distance;
use super::*;
use crate::batch::Asked;
use crate::catalog::testing::{TableRow, catalog, column, rows, table};
use crate::eligible::Reason;
use crate::options::WhenFull;
use crate::recognise::{Kind, recognise};
use crate::statement::testing::{Bind, binds, int4, int4s, int8, null, text};
use crate::{Batch, Step};

const ADD_USER: &str = "INSERT INTO users (name) VALUES ($1) RETURNING id, name";

fn users() -> TableRow {
    table("users")
        .column(column("id", "int8").serial(7))
        .column(column("name", "text"))
        .with("uniques", serde_json::json!([[1]]))
}

fn plan(row: TableRow, sql: &str, values: impl IntoIterator<Item = Bind>) -> Result<(Plan, Row), Reason> {
    let catalog = catalog([row]);
    let recognised = recognise(sql);
    let Kind::Insert(insert) = &recognised.kind else { panic!("{sql}: {recognised:?}") };
    let binds = binds(values);
    let options = BatchOptions::new();
    let plan = Plan::make(insert, &catalog.tables()[0], &catalog, &binds.types, &options)?;
    let row = plan.row(&binds)?;
    Ok((plan, row))
}

const PLAINLY: Sending<'_> = Sending { lock_timeout: 100, leaves_out: false, refill: None };

fn refused(row: TableRow, sql: &str, values: impl IntoIterator<Item = Bind>) -> Reason {
    plan(row, sql, values)
        .map(|(plan, _)| plan.one(&Row { values: Vec::new(), key: None, bytes: 0 }, None).sql)
        .unwrap_err()
}

#[test]
fn a_group_is_one_insert_whose_lock_timeout_ends_with_it() {
    let (plan, mut row) = plan(users(), ADD_USER, [text("a")]).unwrap();
    assert!(plan.set_id(&mut row, 5));
    assert_eq!(
        plan.many(&[&row, &row], PLAINLY).sql,
        "WITH limits AS MATERIALIZED (SELECT set_config('lock_timeout', '100ms', true)) \
         INSERT INTO users (\"name\", \"id\") SELECT u.c0, u.c1 \
         FROM limits, (SELECT unnest($1) AS c0, unnest($2) AS c1) AS u RETURNING \"id\", \"name\""
    );
    let one = plan.one(&row, None);
    assert_eq!(one.sql, "INSERT INTO users (\"name\", \"id\") VALUES ($1, $2) RETURNING \"id\", \"name\"");
    assert_eq!(one.params[1].value.as_deref(), Some(&5_i64.to_be_bytes()[..]));
    let found = plan.found(&[&row]).unwrap();
    assert_eq!(found.sql, "SELECT \"id\", \"name\" FROM users WHERE \"id\" = ANY ($1)");
    assert!(plan.repeats());
}

#[test]
fn arrays_travel_row_by_row_and_nulls_with_their_type() {
    let lists = table("t").column(column("a", "int4[]"));
    let sql = "INSERT INTO t (a) VALUES ($1)";
    let (plan, row) = plan(lists, sql, [int4s(&[1, 2])]).unwrap();
    let none = Row { values: vec![None], ..row.clone() };
    let query = plan.many(&[&row, &none], PLAINLY);
    assert!(query.sql.ends_with("SELECT u.c0 FROM limits, (VALUES ($1), ($2)) AS u (c0)"), "{}", query.sql);
    assert_eq!((query.params[1].type_oid, &query.params[1].value), (query.params[0].type_oid, &None));
    assert!(!query.cacheable);
}

#[test]
fn a_column_that_is_left_to_its_default_is_left_to_postgres() {
    let row =
        users().column(column("kind", "text").default("'x'::text")).column(column("n", "float8").default("random()"));
    let sql = "INSERT INTO users (name, kind) VALUES ($1, DEFAULT) RETURNING *";
    let (plan, row) = plan(row, sql, [text("a")]).unwrap();
    assert_eq!(plan.one(&row, None).sql, "INSERT INTO users (\"name\", \"id\") VALUES ($1, $2) RETURNING *");
}

#[test]
fn rows_that_could_not_be_told_apart_are_sent_alone() {
    let no_id = "INSERT INTO users (name) VALUES ($1) RETURNING name";
    assert_eq!(refused(users(), no_id, [text("a")]), Reason::NoKey);
    let bare = || table("t").column(column("a", "int4")).column(column("b", "int4"));
    let asked = "INSERT INTO t (a, b) VALUES ($1, $2) RETURNING a";
    assert_eq!(refused(bare(), asked, [int4(1), int4(2)]), Reason::NoKey);
    let pair = || bare().with("uniques", serde_json::json!([[1, 2]]));
    assert_eq!(refused(pair(), asked, [int4(1), int4(2)]), Reason::NoKey);
    let both = "INSERT INTO t (a, b) VALUES ($1, $2) RETURNING b, a";
    let (plan, row) = plan(pair(), both, [int4(1), int4(2)]).unwrap();
    assert_eq!(plan.key_output, [1, 0]);
    assert_eq!(row.key.unwrap().len(), 2 * (8 + 4));
    assert!(!plan.repeats(), "a stranger's row may have the same key");
}

#[test]
fn a_key_is_known_as_it_is_stored() {
    let row = table("t").column(column("a", "int2")).with("uniques", serde_json::json!([[1]]));
    let (_, row) = plan(row, "INSERT INTO t (a) VALUES ($1) RETURNING a", [int8(3)]).unwrap();
    assert_eq!(row.key.unwrap(), [0, 0, 0, 0, 0, 0, 0, 2, 0, 3]);
}

#[test]
fn what_postgres_would_refuse_is_sent_alone_and_what_it_rounds_is_not() {
    let row = || users().column(column("n", "numeric(4,1)")).column(column("code", "varchar(2)"));
    let sql = "INSERT INTO users (name, code) VALUES ($1, $2)";
    assert_eq!(refused(row(), sql, [text("a"), text("abc")]), Reason::ValueDoesNotFit);
    let not_null = || table("t").column(column("a", "int4").with("not_null", true));
    assert_eq!(refused(not_null(), "INSERT INTO t (a) VALUES ($1)", [null(int4(1).0)]), Reason::Null);
}

/// A server that keeps rows, and the connections to it.
#[derive(Debug, Default)]
struct Server {
    rows: Vec<(i64, String)>,
    next_id: i64,
    /// What happens to the next statements.
    fate: VecDeque<Fate>,
    statements: Vec<String>,
    /// Whether leaders go on with another group.
    leaders_go_on: bool,
    leaders: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Runs,
    /// It is run, but its answer is lost.
    AnswerLost,
    /// It is run at once; its answer takes much longer than an insert alone.
    AnswerLate,
    /// It is lost before it is run.
    Lost,
    Fails(Failure),
}

type Shared = Arc<Mutex<Server>>;
type User = (Vec<u8>, String);

/// How long an insert takes that is sent alone.
const ALONE: Duration = Duration::from_millis(5);

/// A connection, and whoever uses it.
#[derive(Clone)]
struct Conn<const RECONNECTS: bool> {
    server: Shared,
}

impl<const RECONNECTS: bool> Conn<RECONNECTS> {
    fn run(&self, query: &Query) -> Result<Vec<User>, Failure> {
        let mut server = lock(&self.server);
        server.statements.push(query.sql.clone());
        let fate = server.fate.pop_front().unwrap_or(Fate::Runs);
        match fate {
            Fate::Lost => return Err(Failure::Lost),
            Fate::Fails(failure) => return Err(failure),
            Fate::Runs | Fate::AnswerLate | Fate::AnswerLost => {}
        }
        let result = server.execute(query);
        if fate == Fate::AnswerLost { Err(Failure::Lost) } else { result }
    }
}

/// The values of an array parameter, or the single value.
fn values(param: &crate::Param) -> Vec<Vec<u8>> {
    let bytes = param.value.clone().unwrap();
    if param.type_oid == 25 || param.type_oid == 20 {
        return vec![bytes];
    }
    let mut rest = &bytes[20..];
    let mut values = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (value, after) = after.split_at(i32::from_be_bytes(*len) as usize);
        values.push(value.to_vec());
        rest = after;
    }
    values
}

impl Server {
    /// What it says to a question for ids of one sequence.
    fn reserve(&mut self, params: &[crate::Param]) -> String {
        let number = |at: usize| {
            let array = params[at].value.as_ref().unwrap();
            let bytes = array.get(24..).filter(|bytes| !bytes.is_empty());
            bytes.map_or(-1, |bytes| bytes.iter().fold(0, |number, &byte| number << 8 | i64::from(byte)))
        };
        self.give(if number(3) == self.next_id { 0 } else { number(1) + number(2) })
    }

    fn give(&mut self, count: i64) -> String {
        let at = self.next_id;
        let ids: Vec<String> = (1..=count).map(|n| (at + n).to_string()).collect();
        self.next_id += count;
        format!("{at} 1 1000000 {}", ids.join(" "))
    }

    fn execute(&mut self, query: &Query) -> Result<Vec<User>, Failure> {
        let id = |bytes: &[u8]| i64::from_be_bytes(bytes.try_into().unwrap());
        let user = |(id, name): &(i64, String)| (id.to_be_bytes().to_vec(), name.clone());
        if query.sql.starts_with("SELECT") {
            let ids: Vec<i64> = values(&query.params[0]).iter().map(|bytes| id(bytes)).collect();
            return Ok(self.rows.iter().filter(|(id, _)| ids.contains(id)).map(user).collect());
        }
        let names = values(&query.params[0]).into_iter().map(|name| String::from_utf8(name).unwrap());
        let mut new: Vec<_> = values(&query.params[1]).iter().map(|bytes| id(bytes)).zip(names).collect();
        if new.iter().any(|(_, name)| name == "bad") {
            return Err(Failure::Other);
        }
        let is_taken = |(id, name): &(i64, String)| name == "taken" || self.rows.iter().any(|(other, _)| other == id);
        if query.sql.contains("ON CONFLICT DO NOTHING") {
            new.retain(|row| !is_taken(row));
        } else if new.iter().any(is_taken) {
            return Err(Failure::Unique);
        }
        self.rows.extend(new.iter().cloned());
        // In no order that anybody may rely on.
        Ok(new.iter().rev().map(user).collect())
    }
}

impl<const RECONNECTS: bool> Leader for Conn<RECONNECTS> {
    type Row = User;
    type Error = Failure;

    const RECONNECTS: bool = RECONNECTS;

    fn goes_on(&self) -> bool {
        lock(&self.server).leaders_go_on
    }

    async fn ask(&mut self, query: &Query) -> Result<Vec<TextRow>, Failure> {
        let (ids, fate) = {
            let mut server = lock(&self.server);
            server.statements.push("reserve".to_owned());
            let fate = server.fate.pop_front();
            match fate {
                Some(Fate::Lost | Fate::AnswerLost) => return Err(Failure::Lost),
                Some(Fate::Fails(failure)) => return Err(failure),
                Some(Fate::Runs | Fate::AnswerLate) | None => {}
            }
            let said = server.reserve(&query.params);
            (said, fate)
        };
        if fate == Some(Fate::AnswerLate) {
            time::sleep(40 * ALONE).await;
        }
        Ok(vec![vec![Some("ids 7".to_owned()), Some(ids)]])
    }

    async fn rows(&mut self, query: &Query, _: &Arc<[Field]>) -> Result<Vec<User>, Failure> {
        // Others arrive meanwhile.
        tokio::task::yield_now().await;
        self.run(query)
    }

    async fn rows_and_ids(&mut self, query: &Query, _: &Arc<[Field]>) -> Result<RowsAndIds<User>, Failure> {
        tokio::task::yield_now().await;
        let rows = self.run(query)?;
        let last = query.params[2].value.as_ref();
        let ids = rows.iter().any(|(id, _)| Some(id) == last);
        let ahead = query.params[4].value.as_ref().unwrap();
        let ahead = ahead.iter().fold(0, |number, &byte| number << 8 | i64::from(byte));
        Ok((rows, ids.then(|| lock(&self.server).give(ahead))))
    }

    fn value(row: &User, column: usize) -> Option<&[u8]> {
        Some(if column == 0 { &row.0 } else { row.1.as_bytes() })
    }

    fn failure(error: &Failure) -> Failure {
        *error
    }

    fn lost(_: Error) -> Failure {
        Failure::Lost
    }

    async fn sleep(time: Duration) {
        time::sleep(time).await;
    }
}

impl<const RECONNECTS: bool> Member for Conn<RECONNECTS> {
    type Row = User;
    type Error = Failure;

    async fn sleep(time: Duration) {
        time::sleep(time).await;
    }

    async fn lead(&mut self, group: Group<User, Failure>) {
        let mut conn = self.clone();
        let goes_on = {
            let mut server = lock(&self.server);
            server.leaders += 1;
            server.leaders_go_on
        };
        let task = tokio::spawn(async move { group.send(&mut conn).await });
        if !goes_on {
            let _ = task.await;
        }
    }
}

/// A program that inserts on a pool, or on connections that cannot be replaced.
struct World<const RECONNECTS: bool> {
    home: Arc<Mutex<Batch>>,
    conn: Conn<RECONNECTS>,
}

/// What an insert came to.
#[derive(Debug, PartialEq)]
enum Told {
    Row(i64, String),
    /// It was sent on its own.
    Alone,
    Refused(String),
    Failed(Failure),
}

impl<const RECONNECTS: bool> World<RECONNECTS> {
    /// One group at a time.
    fn new(options: GroupCommit) -> Self {
        Self::with(options.groups_per_table(1))
    }

    fn with(options: GroupCommit) -> Self {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let database = DATABASES.fetch_add(1, Ordering::Relaxed);
        let mut home = Batch::of_pool(&format!("postgres://me@groups/{database}"), "pool");
        let Step::Run(_) = home.enable(BatchOptions::new().group_commit(options)) else {
            panic!("the catalog is read")
        };
        assert!(matches!(home.ran(&rows([users()])), Step::Answer(_)));
        Self { home: Arc::new(Mutex::new(home)), conn: Conn { server: Shared::default() } }
    }

    fn stats(&self) -> GroupStats {
        lock(&self.home).stats().group_commit
    }

    fn statements(&self) -> usize {
        lock(&self.conn.server).statements.len()
    }

    fn fate(&self, fate: impl IntoIterator<Item = Fate>) {
        lock(&self.conn.server).fate.extend(fate);
    }

    fn insert(&self, name: &str) -> impl Future<Output = Told> + Send + 'static {
        let (home, mut conn, name) = (Arc::clone(&self.home), self.conn.clone(), name.to_owned());
        async move {
            let recognised = lock(&home).recognise(ADD_USER);
            let Asked::Join(request) = lock(&home).ask_to_join(&recognised, &binds([text(&name)])) else {
                panic!("it may join")
            };
            match join(&mut conn, *request).await {
                Joined::Row { row, id } => {
                    lock(&home).gave(id);
                    let (id, name) = row.unwrap();
                    Told::Row(i64::from_be_bytes(id.try_into().unwrap()), name)
                }
                Joined::Alone(pass) => {
                    time::sleep(ALONE).await;
                    lock(&home).ran_outside(&recognised, Some(&pass));
                    Told::Alone
                }
                Joined::Refused(error) => Told::Refused(error.to_string()),
                Joined::Failed(failure) => Told::Failed(failure),
            }
        }
    }

    /// Inserts at the same time.
    async fn all(&self, names: &[&str]) -> Vec<Told> {
        let tasks: Vec<_> = names.iter().map(|name| tokio::spawn(self.insert(name))).collect();
        let mut told = Vec::new();
        for task in tasks {
            told.push(task.await.unwrap());
        }
        told
    }

    /// Inserts at the same time where there are no ids at hand: the first alone, the others behind it.
    async fn together(&self, names: &[&str]) -> Vec<Told> {
        let mut told = self.all(names).await;
        assert_eq!(told.remove(0), Told::Alone);
        told
    }
}

fn names(told: &[Told]) -> Vec<&str> {
    told.iter().map(|told| if let Told::Row(_, name) = told { name.as_str() } else { panic!("{told:?}") }).collect()
}

#[tokio::test]
async fn a_leader_that_may_goes_on_with_those_who_arrived_meanwhile() {
    for (goes_on, leaders) in [(true, 1), (false, 2)] {
        let world = World::<true>::new(GroupCommit::new().max_rows(2));
        lock(&world.conn.server).leaders_go_on = goes_on;
        let told = world.together(&["alone", "a", "b", "c", "d"]).await;
        assert_eq!(names(&told), ["a", "b", "c", "d"]);
        assert_eq!((world.stats().groups, lock(&world.conn.server).leaders), (2, leaders));
        // The next is alone, so its leader's place was given back.
        assert_eq!(names(&world.all(&["e"]).await), ["e"]);
    }
}

#[tokio::test]
async fn a_leader_that_goes_on_leaves_one_that_is_alone_to_its_caller() {
    let world = World::<true>::new(GroupCommit::new().max_rows(2));
    lock(&world.conn.server).leaders_go_on = true;
    assert_eq!(names(&world.together(&["alone", "a", "b", "c"]).await), ["a", "b", "c"]);
    assert_eq!(lock(&world.conn.server).leaders, 2);
}

#[tokio::test]
async fn a_leader_that_goes_on_begins_anew_after_a_group_that_failed() {
    let world = World::<true>::new(GroupCommit::new().max_rows(2));
    lock(&world.conn.server).leaders_go_on = true;
    let told = world.together(&["alone", "a", "bad", "c", "d"]).await;
    assert_eq!(told[..2], [Told::Alone, Told::Alone]);
    assert_eq!(names(&told[2..]), ["c", "d"]);
    assert_eq!((world.stats().groups, world.stats().rows_fallen_back), (1, 2));
}

#[tokio::test]
async fn whoever_sends_the_next_group_is_woken_before_those_who_have_their_rows() {
    let world = World::<true>::new(GroupCommit::new().max_rows(2));
    let woken = Woken::default();
    let alone = tokio::spawn(world.insert("alone"));
    tokio::task::yield_now().await;
    let mut leader = woken.waits(&world, "a");
    let _others = ["b", "c", "d"].map(|name| woken.waits(&world, name));
    assert_eq!(alone.await.unwrap(), Told::Alone);
    assert_eq!(woken.take(), ["a"]);
    assert!(leader.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    while world.stats().groups == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(woken.take(), ["c", "a", "b"]);
}

#[test]
fn the_farther_the_server_the_more_groups_are_on_their_way() {
    let mut distance = Distance::default();
    assert_eq!(distance.groups(), 1);
    for (micros, groups) in [(3_300, 7), (300, 1), (30_000, 2), (1_600, 2), (499, 1)] {
        distance.note(Duration::from_micros(micros));
        assert_eq!(distance.groups(), groups, "{micros}: {distance:?}");
    }
    for _ in 0..200 {
        distance.note(Duration::from_micros(3_300));
    }
    assert_eq!(distance.groups(), 7, "the way has become longer");
}

#[tokio::test]
async fn where_the_server_is_far_inserts_go_side_by_side() {
    // What is sent alone is 5 ms on its way.
    for (options, at_once) in [(GroupCommit::new(), 4), (GroupCommit::new().groups(3), 3), (one_at_a_time(), 1)] {
        let world = World::<true>::with(options);
        assert_eq!(world.all(&["first"]).await, [Told::Alone]);
        let tasks: Vec<_> = ["a", "b", "c", "d"].map(|name| tokio::spawn(world.insert(name))).into();
        tokio::task::yield_now().await;
        assert_eq!((world.stats().alone, world.stats().depth), (1 + at_once, 4 - at_once));
        for task in tasks {
            task.await.unwrap();
        }
    }
}

fn one_at_a_time() -> GroupCommit {
    GroupCommit::new().groups_per_table(1)
}

#[tokio::test]
async fn who_cannot_lead_is_not_woken_in_place_of_one_who_can() {
    let world = World::<false>::new(GroupCommit::new().max_rows(2));
    world.fate([Fate::Runs, Fate::Lost]);
    let woken = Woken::default();
    let alone = tokio::spawn(world.insert("alone"));
    tokio::task::yield_now().await;
    let [mut a, _b, mut stranded] = ["a", "b", "stranded"].map(|name| woken.waits(&world, name));
    alone.await.unwrap();
    // It leads the group of the other two, loses its connection, and is the first of those who wait.
    let poll = |insert: &mut Waiting| insert.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
    assert!(poll(&mut stranded));
    while world.stats().retries == 0 {
        tokio::task::yield_now().await;
    }
    assert!(poll(&mut a));
    let _last = woken.waits(&world, "last");
    assert!(poll(&mut stranded));
    woken.take();
    while world.stats().groups == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(woken.take()[0], "last");
}

/// Who was woken, in that order.
#[derive(Default)]
struct Woken(Arc<Mutex<Vec<&'static str>>>);

type Waiting = Pin<Box<dyn Future<Output = Told> + Send>>;

struct Named(&'static str, Arc<Mutex<Vec<&'static str>>>);

impl Wake for Named {
    fn wake(self: Arc<Self>) {
        lock(&self.1).push(self.0);
    }
}

impl Woken {
    /// An insert that has been looked at once, and waits.
    fn waits<const RECONNECTS: bool>(&self, world: &World<RECONNECTS>, name: &'static str) -> Waiting {
        let mut insert: Waiting = Box::pin(world.insert(name));
        let waker = Waker::from(Arc::new(Named(name, Arc::clone(&self.0))));
        assert!(insert.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        insert
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *lock(&self.0))
    }
}

#[tokio::test]
async fn each_member_of_a_group_gets_the_row_with_its_key() {
    let world = World::<true>::new(GroupCommit::new());
    let told = world.together(&["alone", "a", "b", "c"]).await;
    assert_eq!(names(&told), ["a", "b", "c"]);
    let stats = world.stats();
    assert_eq!((stats.inserts, stats.alone, stats.rows, stats.groups, stats.statements), (4, 1, 3, 1, 1));
    assert!(stats.time_queued > Duration::ZERO);
    assert_eq!(world.statements(), 2);
}

#[tokio::test]
async fn a_group_is_no_larger_than_the_options_say() {
    let world = World::<true>::new(GroupCommit::new().max_rows(2));
    let told = world.together(&["alone", "a", "b", "c", "d", "e"]).await;
    assert_eq!(names(&told), ["a", "b", "c", "d", "e"]);
    assert_eq!((world.stats().groups, world.stats().largest_group), (3, 2));
    let world = World::<true>::new(GroupCommit::new().max_bytes(1));
    assert_eq!(world.all(&["a", "b", "c"]).await, [Told::Alone, Told::Alone, Told::Alone]);
    assert_eq!((world.stats().groups, world.stats().alone), (0, 3));
}

#[tokio::test]
async fn a_group_that_fails_is_sent_one_by_one() {
    let world = World::<true>::new(GroupCommit::new());
    assert_eq!(world.together(&["alone", "a", "bad"]).await, [Told::Alone, Told::Alone]);
    let stats = world.stats();
    assert_eq!((stats.fallbacks[&Fallback::Error], stats.rows_fallen_back, stats.depth), (1, 2, 0));
    let sent = lock(&world.home).stats().inserts_sent.clone();
    assert_eq!((sent[&Reason::Alone], sent[&Reason::GroupFailed]), (1, 2));
}

/// Only the rows beside the bad one are sent on their own, however many others there are.
#[tokio::test]
async fn a_larger_group_that_fails_is_halved() {
    let world = World::<true>::new(GroupCommit::new());
    let told = world.together(&["alone", "a", "b", "c", "d", "e", "bad", "g", "h"]).await;
    assert_eq!(names(&told[..4]), ["a", "b", "c", "d"]);
    assert_eq!(told[4..6], [Told::Alone, Told::Alone]);
    assert_eq!(names(&told[6..]), ["g", "h"]);
    let stats = world.stats();
    assert_eq!((stats.halved, stats.groups, stats.rows, stats.rows_fallen_back, stats.depth), (2, 2, 6, 2, 0));
}

/// A group that waited for a lock would wait as long for it with each part.
#[tokio::test]
async fn a_group_that_waited_for_a_lock_is_not_halved() {
    let world = World::<true>::new(GroupCommit::new());
    world.fate([Fate::Runs, Fate::Fails(Failure::LockTimeout)]);
    let told = world.together(&["alone", "a", "b", "c", "d"]).await;
    assert_eq!(told, [const { Told::Alone }; 4]);
    assert_eq!((world.stats().halved, world.stats().rows_fallen_back), (0, 4));
}

/// Those that wait for a connection of their own are not told as late as the last part.
#[tokio::test]
async fn the_parts_of_a_group_are_sent_again_if_the_connection_is_lost_between_them() {
    let world = World::<true>::new(GroupCommit::new());
    world.fate([Fate::Runs, Fate::Fails(Failure::Other), Fate::Lost, Fate::Runs, Fate::AnswerLost]);
    let told = world.together(&["alone", "a", "b", "c", "d"]).await;
    assert_eq!(names(&told), ["a", "b", "c", "d"]);
    assert_eq!((world.stats().halved, lock(&world.conn.server).rows.len()), (1, 4));
}

#[tokio::test]
async fn rows_whose_key_is_taken_are_left_out_of_their_group() {
    let world = World::<true>::new(GroupCommit::new());
    let told = world.together(&["alone", "a", "taken", "b", "c"]).await;
    assert_eq!((names(&told[..1]), &told[1], names(&told[2..])), (vec!["a"], &Told::Alone, vec!["b", "c"]));
    let statements = |world: &World<true>| std::mem::take(&mut lock(&world.conn.server).statements);
    // Ids, the group, and the group without it.
    assert_eq!(statements(&world).len(), 3);
    assert_eq!((world.stats().groups, world.stats().rows, world.stats().rows_fallen_back), (1, 3, 1));
    // The next groups expect it.
    let told = world.together(&["alone", "d", "taken"]).await;
    assert_eq!((names(&told[..1]), &told[1]), (vec!["d"], &Told::Alone));
    let sent = statements(&world);
    assert!(sent.len() == 2 && sent[1].contains("ON CONFLICT DO NOTHING"), "{sent:?}");
    for _ in 0..70 {
        world.all(&["e", "f", "g"]).await;
    }
    let sent = statements(&world);
    assert!(!sent.last().unwrap().contains("ON CONFLICT"), "{sent:?}");
}

/// Once there are some at hand, no group asks for ids on a way of its own.
#[tokio::test]
async fn ids_for_later_groups_come_with_the_rows_of_a_group() {
    let world = World::<true>::new(GroupCommit::new());
    let mut rows = names(&world.together(&["alone", "a", "b", "c"]).await).len();
    for _ in 0..100 {
        rows += names(&world.all(&["d", "e", "f"]).await).len();
    }
    let stats = world.stats();
    assert_eq!((stats.reservations, stats.rows), (1, rows as u64));
    assert!(stats.ids_reserved * 100 <= stats.ids_used * 105 + 400, "{stats}");
    let mut ids: Vec<i64> = lock(&world.conn.server).rows.iter().map(|(id, _)| *id).collect();
    ids.dedup();
    assert!(ids.len() == rows && ids.is_sorted(), "{ids:?}");
}

#[test]
fn ids_come_with_the_last_row_of_a_group_and_with_that_of_one() {
    let (plan, mut row) = plan(users(), ADD_USER, [text("a")]).unwrap();
    plan.set_id(&mut row, 5);
    let need = need(7, false, 1);
    let bounds = BatchOptions::new().id_bounds();
    let request = crate::ids::Stock::default().request_ahead(&need, &Positions::default(), bounds);
    let many = plan.many(&[&row, &row], Sending { refill: Some(&request), ..PLAINLY });
    let returning = "RETURNING \"id\", \"name\", CASE WHEN \"id\" = $3 THEN (SELECT concat_ws(";
    assert!(many.sql.contains(returning) && many.sql.contains("seqrelid = $4::oid"), "{}", many.sql);
    assert_eq!(many.params[2].value.as_deref(), Some(&5_i64.to_be_bytes()[..]));
    let one = plan.one(&row, Some(&request));
    assert!(one.sql.contains("VALUES ($1, $2) RETURNING \"id\", \"name\", CASE WHEN"), "{}", one.sql);
}

#[test]
fn rows_that_are_left_out_are_known_by_their_keys() {
    let (plan, mut row) = plan(users(), "INSERT INTO users (name) VALUES ($1)", [text("a")]).unwrap();
    plan.set_id(&mut row, 5);
    let sent = |leaves_out| plan.many(&[&row, &row], Sending { leaves_out, ..PLAINLY }).sql;
    assert!(sent(true).ends_with(" ON CONFLICT DO NOTHING RETURNING \"id\"") && sent(false).ends_with(" AS u"));
    assert!(plan.can_leave_out());
    let late = users().with("late_keys", true);
    assert!(!super::tests::plan(late, ADD_USER, [text("a")]).unwrap().0.can_leave_out());
}

#[tokio::test]
async fn serialization_failures_are_retried_as_often_as_the_options_say() {
    let world = World::<true>::new(GroupCommit::new().retries(2));
    world.fate([Fate::Runs, Fate::Fails(Failure::Serialization), Fate::Fails(Failure::Deadlock)]);
    assert_eq!(names(&world.together(&["alone", "a", "b"]).await), ["a", "b"]);
    assert_eq!(world.stats().retries, 2);
    world.fate([Fate::Fails(Failure::Serialization); 3]);
    let last = tokio::join!(world.insert("c"), world.insert("d"));
    assert_eq!(last, (Told::Alone, Told::Row(4, "d".to_owned())));
}

/// DESIGN.md §2.4. Nobody knows which id the server gave to the one that was alone; it may be later than those in stock.
#[tokio::test]
async fn an_id_from_before_an_insert_of_another_caller_does_not_tell_where_a_pool_is() {
    let world = World::<true>::with(GroupCommit::new().groups_per_table(2));
    assert_eq!(world.all(&["first"]).await, [Told::Alone]);
    // While the ids of the group are on their way back.
    world.fate([Fate::AnswerLate]);
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| tokio::spawn(world.insert(name)));
    assert_eq!((a.await.unwrap(), b.await.unwrap()), (Told::Alone, Told::Alone));
    assert_eq!(world.all(&["meanwhile"]).await, [Told::Alone]);
    assert_eq!(names(&[c.await.unwrap(), d.await.unwrap()]), ["c", "d"]);
    let given = {
        let mut server = lock(&world.conn.server);
        server.next_id += 1;
        server.next_id
    };
    assert_eq!(world.all(&["next"]).await, [Told::Row(given + 1, "next".to_owned())]);
}

#[tokio::test]
async fn a_group_whose_answer_was_lost_is_found_by_its_ids() {
    let world = World::<true>::new(GroupCommit::new());
    world.fate([Fate::Runs, Fate::AnswerLost]);
    let told = world.together(&["alone", "a", "b"]).await;
    assert_eq!(names(&told), ["a", "b"]);
    let rows = lock(&world.conn.server).rows.clone();
    assert_eq!(rows, [(1, "a".to_owned()), (2, "b".to_owned())]);
    // The whole, then each with its key, which is taken, and then looked for.
    assert_eq!(lock(&world.conn.server).statements.len(), 1 + 2 + 2 * 2);
}

#[tokio::test]
async fn a_group_that_did_not_arrive_is_sent_again() {
    let world = World::<true>::new(GroupCommit::new());
    world.fate([Fate::Lost, Fate::Runs, Fate::Lost]);
    assert_eq!(names(&world.together(&["alone", "a", "b"]).await), ["a", "b"]);
    assert_eq!((world.stats().retries, lock(&world.conn.server).rows.len()), (2, 2));
}

#[tokio::test]
async fn a_row_of_an_uncertain_group_that_postgres_refuses_has_its_own_error() {
    let world = World::<true>::new(GroupCommit::new());
    world.fate([Fate::Runs, Fate::Lost]);
    let told = world.together(&["alone", "a", "bad"]).await;
    assert_eq!((names(&told[..1]), &told[1]), (vec!["a"], &Told::Failed(Failure::Other)));
}

#[tokio::test]
async fn tries_count_that_bring_no_row_in() {
    let world = World::<true>::new(GroupCommit::new().retries(1));
    // The group's answer is lost; its keys are taken; the first row is found; then the connection is lost again.
    world.fate([Fate::Runs, Fate::AnswerLost, Fate::Runs, Fate::Runs, Fate::Runs, Fate::Lost]);
    assert_eq!(names(&world.together(&["alone", "a", "b", "c"]).await), ["a", "b", "c"]);
    assert_eq!((world.stats().retries, lock(&world.conn.server).rows.len()), (2, 3));
}

#[tokio::test]
async fn when_the_connection_stays_lost_all_have_an_error() {
    let world = World::<true>::new(GroupCommit::new().retries(1));
    world.fate([Fate::Runs, Fate::AnswerLost, Fate::Lost]);
    let told = world.together(&["alone", "a", "b"]).await;
    assert_eq!(told, [Told::Failed(Failure::Lost), Told::Failed(Failure::Lost)]);
    assert_eq!(world.stats().depth, 0);
}

#[tokio::test]
async fn a_leader_that_loses_its_connection_hands_the_group_over() {
    let world = World::<false>::new(GroupCommit::new());
    world.fate([Fate::Runs, Fate::AnswerLost]);
    assert_eq!(names(&world.together(&["alone", "a", "b"]).await), ["a", "b"]);
    assert_eq!(lock(&world.conn.server).rows.len(), 2);
}

#[tokio::test]
async fn when_all_members_have_lost_their_connections_all_have_an_error() {
    let world = World::<false>::new(GroupCommit::new().retries(9));
    world.fate([Fate::Runs, Fate::AnswerLost, Fate::Lost]);
    let told = world.together(&["alone", "a", "b"]).await;
    assert_eq!(told, [Told::Failed(Failure::Lost), Told::Failed(Failure::Lost)]);
    let state = world.stats();
    assert_eq!((state.depth, state.retries), (0, 2));
}

#[tokio::test]
async fn who_waits_without_a_connection_and_without_anybody_else_is_sent_alone() {
    let world = World::<false>::new(GroupCommit::new().retries(9).max_rows(2));
    world.fate([Fate::Runs, Fate::Lost, Fate::Lost, Fate::Lost]);
    let told = world.together(&["alone", "a", "b", "helps"]);
    let told = time::timeout(Duration::from_secs(10), told).await.expect("nobody waits for ever");
    // Its connection was the last on which the group was tried.
    assert_eq!(told, [Told::Failed(Failure::Lost), Told::Failed(Failure::Lost), Told::Alone]);
    assert_eq!(world.stats().depth, 0);
}

#[tokio::test]
async fn a_member_that_goes_away_before_its_group_leaves_is_not_sent() {
    let world = World::<true>::new(GroupCommit::new());
    let first = tokio::spawn(world.insert("alone"));
    tokio::task::yield_now().await;
    let (a, b) = (tokio::spawn(world.insert("a")), tokio::spawn(world.insert("b")));
    tokio::task::yield_now().await;
    a.abort();
    let c = tokio::spawn(world.insert("c"));
    assert_eq!(first.await.unwrap(), Told::Alone);
    assert_eq!(names(&[b.await.unwrap(), c.await.unwrap()]), ["b", "c"]);
    assert_eq!((lock(&world.conn.server).rows.len(), world.stats().depth), (2, 0));
}

#[tokio::test]
async fn a_leader_that_goes_away_does_not_take_its_group_along() {
    let world = World::<true>::new(GroupCommit::new());
    let first = tokio::spawn(world.insert("alone"));
    tokio::task::yield_now().await;
    let (a, b) = (tokio::spawn(world.insert("a")), tokio::spawn(world.insert("b")));
    assert_eq!(first.await.unwrap(), Told::Alone);
    // It has the group sent by now.
    while world.statements() == 0 {
        tokio::task::yield_now().await;
    }
    a.abort();
    assert_eq!(names(&[b.await.unwrap()]), ["b"]);
    assert_eq!((lock(&world.conn.server).rows.len(), world.stats().depth), (2, 0));
}

#[tokio::test]
async fn from_half_of_the_queue_on_callers_are_slowed_by_a_part_of_a_groups_time() {
    let world = World::<true>::new(GroupCommit::new().max_queued_rows(8));
    world.together(&["alone", "a", "b"]).await;
    assert_eq!(world.stats().slowed, 0);
    world.all(&["a", "b", "c", "d", "e", "f", "g"]).await;
    assert!(world.stats().slowed > 0);
}

#[tokio::test]
async fn a_row_larger_than_the_queue_is_taken_when_nothing_else_is_held() {
    let world = World::<true>::new(GroupCommit::new().max_queued_bytes(1).when_full(WhenFull::Refuse));
    let told = world.all(&["a", "b", "c"]).await;
    assert_eq!(told[..2], [Told::Alone, Told::Alone], "one is on its way and one waits");
    assert!(matches!(&told[2], Told::Refused(message) if message.contains("over capacity")), "{:?}", told[2]);
}

#[cfg(feature = "metrics")]
#[test]
fn the_metrics_facade_is_told_what_the_counters_are() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::<true>::new(GroupCommit::new());
            world.together(&["alone", "a", "b"]).await;
            world.fate([Fate::Fails(Failure::LockTimeout)]);
            world.all(&["c", "d"]).await;
        });
    });
    let told = snapshotter.snapshot().into_vec();
    let value = |name: &str| told.iter().find(|(key, ..)| key.key().name() == name).map(|(.., value)| value);
    assert_eq!(value("batch_group_inserts_total"), Some(&DebugValue::Counter(5)));
    assert_eq!(value("batch_group_rows_total"), Some(&DebugValue::Counter(3)));
    assert_eq!(value("batch_group_fallbacks_total"), Some(&DebugValue::Counter(1)));
    assert_eq!(value("batch_group_depth"), Some(&DebugValue::Gauge(0.0.into())));
    assert!(matches!(value("batch_group_held_seconds"), Some(DebugValue::Histogram(times)) if times.len() == 4));
}
