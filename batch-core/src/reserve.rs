//! Asks the server for what answers need, in one statement for everything: ids, the transaction's `now()`, and whether
//! the session's settings are still those that the catalog was read with.

use crate::catalog::SESSION_SQL;
use crate::flush::integer_array;
use crate::identity::SERVER_SQL;
use crate::ids::Request;
use crate::patience::Timeouts;
use crate::statement::{Param, Purpose, Query, TextRow, oid};

/// The transaction's start time as Postgres sends it, in each form that a default may take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Clocks {
    pub instant: Vec<u8>,
    pub local: Vec<u8>,
    pub date: Vec<u8>,
}

/// What the server answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub identity: Option<String>,
    pub timeouts: Option<Timeouts>,
    /// Who the server is.
    pub server: Option<String>,
    pub clocks: Option<Clocks>,
    pub blocks: Vec<Block>,
}

/// What the server said about a sequence, and the ids that it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub sequence: u32,
    /// The sequence's last value before that, or what comes before its first; `None` where nobody may know.
    pub at: Option<i64>,
    pub step: i64,
    /// How many ids may be reserved ahead of need at a time.
    pub room: u32,
    pub ids: Vec<i64>,
}

/// Asks who the server is and how the session is set up, and nothing else.
pub(crate) fn who() -> Query {
    let mut query = Query::new(
        Purpose::Ask,
        format!(
            "SELECT 'session', {SESSION_SQL}\nUNION ALL\nSELECT 'timeouts', {}\nUNION ALL\nSELECT 'server', {SERVER_SQL}",
            Timeouts::SQL
        ),
    );
    query.simple_sql = Some(query.sql.clone());
    query
}

/// Asks for ids, the time and the session's identity. The text is always the same, so that it is prepared once.
pub(crate) fn query(requests: &[Request]) -> Query {
    let sql = format!(
        "\
SELECT 'session', {SESSION_SQL}
UNION ALL
SELECT 'timeouts', {}
UNION ALL
SELECT 'server', {SERVER_SQL}
UNION ALL
SELECT {CLOCK_SQL}
UNION ALL
SELECT {}",
        Timeouts::SQL,
        ids_sql(1)
    );
    let mut query = Query::new(Purpose::Ask, sql);
    let mut simple = query.sql.clone();
    // The last first, as `$1` begins `$10`.
    for (at, list) in numbers(requests).iter().enumerate().rev() {
        let list: Vec<String> = list.iter().map(|n| n.map_or_else(|| "NULL".to_owned(), |n| n.to_string())).collect();
        simple = simple.replace(&format!("${}", at + 1), &format!("'{{{}}}'", list.join(",")));
    }
    query.simple_sql = Some(simple);
    query.params = params(requests).into();
    query
}

/// The transaction's time: what follows a SELECT.
pub(crate) const CLOCK_SQL: &str = "'now', encode(timestamptz_send(now()), 'hex') || ' ' \
    || encode(timestamp_send(localtimestamp), 'hex') || ' ' || encode(date_send(current_date), 'hex')";

/// Reserves ids: what follows a SELECT, for the [`params`] from the number `first` on.
///
/// What a row needs now is taken as the program itself would have taken it, with the same error at the sequence's end. Ahead of
/// need it gives at most a thousandth of what is left, so that nobody meets the end sooner than without us, and nothing where
/// that is not known: `pg_sequence_last_value` is NULL until the first call, and the sequence's own row, which tells where a
/// sequence begins that was set and not called yet, takes the SELECT privilege. (`ts_stat` runs a query whose text is a value.)
/// A role that may not use the sequence and a read-only transaction get none: asking would be an error, and abort the
/// transaction.
pub(crate) fn ids_sql(first: usize) -> String {
    let (sequences, needed, ahead, unless_at) = (first, first + 1, first + 2, first + 3);
    format!(
        "'ids ' || w.seq::int8, concat_ws(' ', COALESCE(w.at::text, '?'), w.step, rest.room, \
    array_to_string(needed.ids, ' '), array_to_string(ahead.ids, ' '))
FROM (
    SELECT wanted.*, s.seqincrement AS step, s.seqmin, s.seqmax, s.seqcycle OR s.seqcache > 1 AS is_special,
        COALESCE(pg_sequence_last_value(s.seqrelid::regclass)::numeric, CASE WHEN has_sequence_privilege(s.seqrelid, 'SELECT')
            THEN (SELECT word::numeric - s.seqincrement FROM ts_stat(
                format('SELECT array_to_tsvector(ARRAY[last_value::text]) FROM %s', s.seqrelid::regclass))) END) AS at
    FROM unnest(${sequences}::oid[], ${needed}::int4[], ${ahead}::int4[], ${unless_at}::int8[])
        AS wanted (seq, needed, ahead, unless_at)
    JOIN pg_catalog.pg_sequence s ON s.seqrelid = wanted.seq
      AND has_sequence_privilege(s.seqrelid, 'USAGE') AND NOT current_setting('transaction_read_only')::bool
    OFFSET 0
) w
CROSS JOIN LATERAL (SELECT ARRAY(SELECT nextval(w.seq::regclass)
    FROM generate_series(1, CASE WHEN w.at = w.unless_at THEN 0 ELSE w.needed END)) AS ids OFFSET 0) needed
CROSS JOIN LATERAL (SELECT COALESCE(needed.ids[cardinality(needed.ids)]::numeric, w.at) AS at) last
CROSS JOIN LATERAL (SELECT CASE WHEN w.is_special OR last.at IS NULL THEN 0 ELSE trunc(LEAST(2147483647, GREATEST(0,
    CASE WHEN w.step > 0 THEN w.seqmax - last.at ELSE last.at - w.seqmin END / abs(w.step) / 1000)))::int4 END AS room
    OFFSET 0) rest
CROSS JOIN LATERAL (SELECT ARRAY(SELECT nextval(w.seq::regclass)
    FROM generate_series(1, CASE WHEN w.at = w.unless_at THEN 0 ELSE LEAST(w.ahead, rest.room) END)) AS ids OFFSET 0) ahead"
    )
}

/// Ids ahead of need alone, of one sequence: an expression for what [`block`] reads, of the parameters `first`, the sequence's oid,
/// and the next, how many. NULL where [`ids_sql`] would give none. Postgres plans it in a third of the time.
pub(crate) fn refill_sql(first: usize) -> String {
    let (sequence, ahead) = (first, first + 1);
    format!(
        "(SELECT concat_ws(' ', s.at, s.step, s.room, array_to_string(ARRAY(SELECT nextval(s.seq::regclass) \
    FROM generate_series(1, LEAST(s.room, ${ahead}::int4))), ' '))
FROM (
    SELECT l.seqrelid AS seq, l.at, l.seqincrement AS step, CASE WHEN l.seqcycle OR l.seqcache > 1 THEN 0 ELSE
        trunc(LEAST(2147483647, GREATEST(0, CASE WHEN l.seqincrement > 0 THEN l.seqmax - l.at::numeric
            ELSE l.at::numeric - l.seqmin END / abs(l.seqincrement) / 1000)))::int4 END AS room
    FROM (SELECT pg_catalog.pg_sequence.*, pg_sequence_last_value(seqrelid::regclass) AS at FROM pg_catalog.pg_sequence
        WHERE seqrelid = ${sequence}::oid AND has_sequence_privilege(seqrelid, 'USAGE') OFFSET 0) l
    WHERE l.at IS NOT NULL OFFSET 0
) s)"
    )
}

/// The parameters of [`refill_sql`].
pub(crate) fn refill_params(request: &Request) -> [Param; 2] {
    let ahead = i32::try_from(request.ahead).unwrap_or(i32::MAX);
    [
        Param { type_oid: oid::OID, value: Some(request.sequence.to_be_bytes().to_vec()) },
        Param { type_oid: oid::INT4, value: Some(ahead.to_be_bytes().to_vec()) },
    ]
}

/// How many parameters [`ids_sql`] has.
pub(crate) const PARAMS: usize = 4;

/// The parameters of [`ids_sql`].
pub(crate) fn params(requests: &[Request]) -> [Param; PARAMS] {
    let [sequences, needed, ahead, unless_at] = numbers(requests);
    let array =
        |type_oid, element, numbers: &[Option<i64>]| Param { type_oid, value: Some(integer_array(element, numbers)) };
    [
        array(oid::OID_ARRAY, oid::OID, &sequences),
        array(oid::INT4_ARRAY, oid::INT4, &needed),
        array(oid::INT4_ARRAY, oid::INT4, &ahead),
        array(oid::INT8_ARRAY, oid::INT8, &unless_at),
    ]
}

fn numbers(requests: &[Request]) -> [Vec<Option<i64>>; 4] {
    let list = |number: fn(&Request) -> Option<i64>| requests.iter().map(number).collect();
    [
        list(|request| Some(i64::from(request.sequence))),
        list(|request| Some(i64::from(request.needed.min(i32::MAX as u32)))),
        list(|request| Some(i64::from(request.ahead.min(i32::MAX as u32)))),
        list(|request| request.unless_at),
    ]
}

/// Reads the rows that [`query`] brought; what cannot be understood is left out.
pub(crate) fn read(rows: &[TextRow]) -> Reservation {
    let mut reservation = Reservation::default();
    for row in rows {
        let [Some(what), Some(value)] = row.as_slice() else { continue };
        match what.as_str() {
            "session" => reservation.identity = Some(value.clone()),
            "timeouts" => reservation.timeouts = Timeouts::read(value),
            "server" => reservation.server = Some(value.clone()),
            "now" => reservation.clocks = clocks(value),
            _ => {
                let sequence = what.strip_prefix("ids ").and_then(|oid| oid.parse().ok());
                reservation.blocks.extend(sequence.and_then(|sequence| block(sequence, value)));
            }
        }
    }
    reservation
}

/// What [`ids_sql`] says of a sequence: `last value, step, room, ids …`
pub(crate) fn block(sequence: u32, value: &str) -> Option<Block> {
    let mut words = value.split_ascii_whitespace();
    Some(Block {
        sequence,
        at: words.next()?.parse().ok(),
        step: words.next()?.parse().ok()?,
        room: words.next()?.parse().ok()?,
        ids: words.map(str::parse).collect::<Result<_, _>>().ok()?,
    })
}

fn clocks(value: &str) -> Option<Clocks> {
    let mut parts = value.split(' ').map(unhex);
    let (instant, local, date) = (parts.next()??, parts.next()??, parts.next()??);
    Some(Clocks { instant, local, date })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::ids::{Bounds, Need, Positions, Stock};

    #[test]
    fn the_simple_form_has_the_same_numbers_in_its_text() {
        let (mut stock, positions) = (Stock::default(), Positions::default());
        let bounds = Bounds { first: 64, max: 64 };
        let mut request = |sequence, count| stock.request(&Need::likely(sequence, false, count), 0, &positions, bounds);
        let query = query(&[request(7, 1), request(8, 70)]);
        let simple = query.simple_sql.unwrap();
        let arrays = "unnest('{7,8}'::oid[], '{1,70}'::int4[], '{63,0}'::int4[], '{NULL,NULL}'::int8[])";
        assert!(simple.contains(arrays) && !simple.contains('$'), "{simple}");
    }

    #[test]
    fn a_reservation_is_read_from_its_rows() {
        let row = |what: &str, value: &str| vec![Some(what.to_owned()), Some(value.to_owned())];
        let read = read(&[
            row("session", "me"),
            row("now", "0102 03 ff"),
            row("ids 77", "4 1 1000  5 6 9"),
            row("ids 78", "? -1 0  "),
            row("ids 79", "4"),
        ]);
        assert_eq!(read.identity.as_deref(), Some("me"));
        assert_eq!(read.clocks, Some(Clocks { instant: vec![1, 2], local: vec![3], date: vec![255] }));
        let block = |sequence, at, step, room, ids| Block { sequence, at, step, room, ids };
        assert_eq!(read.blocks, [block(77, Some(4), 1, 1_000, vec![5, 6, 9]), block(78, None, -1, 0, vec![])]);
    }
}
