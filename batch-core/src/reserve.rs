//! Asks the server for what answers need, in one statement for everything: ids, the transaction's `now()`, and whether
//! the session's settings are still those that the catalog was read with.

use crate::catalog::SESSION_SQL;
use crate::flush::integer_array;
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
    pub clocks: Option<Clocks>,
    /// By sequence.
    pub ids: Vec<(u32, Vec<i64>)>,
}

/// Reserves `(sequence, count)` ids. The text is always the same, so that it is prepared once.
pub(crate) fn query(requests: &[(u32, u32)]) -> Query {
    let sql = format!(
        "\
SELECT 'session', {SESSION_SQL}
UNION ALL
SELECT 'timeouts', {}
UNION ALL
SELECT 'now', encode(timestamptz_send(now()), 'hex') || ' ' || encode(timestamp_send(localtimestamp), 'hex')
    || ' ' || encode(date_send(current_date), 'hex')
UNION ALL
SELECT {}",
        Timeouts::SQL,
        ids_sql(1, 2)
    );
    let mut query = Query::new(Purpose::Ask, sql);
    let list = |numbers: Vec<String>| format!("'{{{}}}'", numbers.join(","));
    let sequence_list = list(requests.iter().map(|(sequence, _)| sequence.to_string()).collect());
    let count_list = list(requests.iter().map(|(_, count)| count.to_string()).collect());
    query.simple_sql = Some(query.sql.replace("$1", &sequence_list).replace("$2", &count_list));
    query.params = params(requests).into();
    query
}

/// Reserves ids: what follows a SELECT, for the parameters of these numbers.
///
/// Near its end a sequence gives fewer, and to a role that may not use it, or in a read-only transaction, none: asking
/// for more would be an error, and abort the transaction.
pub(crate) fn ids_sql(sequences: usize, counts: usize) -> String {
    format!(
        "'ids ' || taken.seq::int8, string_agg(taken.id::text, ' ') FROM (
    SELECT wanted.seq, nextval(wanted.seq::regclass) AS id
    FROM unnest(${sequences}::oid[], ${counts}::int4[]) AS wanted (seq, count)
    JOIN pg_catalog.pg_sequence s ON s.seqrelid = wanted.seq
      AND has_sequence_privilege(s.seqrelid, 'USAGE') AND NOT current_setting('transaction_read_only')::bool,
    LATERAL (SELECT COALESCE(pg_sequence_last_value(wanted.seq::regclass), s.seqstart - s.seqincrement)::numeric AS at) last,
    LATERAL generate_series(1, LEAST(wanted.count, GREATEST(0, trunc(
        CASE WHEN s.seqincrement > 0 THEN s.seqmax - last.at ELSE last.at - s.seqmin END / abs(s.seqincrement)
    )))::int4)
) taken GROUP BY taken.seq"
    )
}

/// How many parameters [`ids_sql`] has.
pub(crate) const PARAMS: usize = 2;

/// The parameters of [`ids_sql`].
pub(crate) fn params(requests: &[(u32, u32)]) -> [Param; PARAMS] {
    let sequences = integer_array(oid::OID, requests.iter().map(|(sequence, _)| *sequence));
    let counts = integer_array(oid::INT4, requests.iter().map(|(_, count)| *count));
    [
        Param { type_oid: oid::OID_ARRAY, value: Some(sequences) },
        Param { type_oid: oid::INT4_ARRAY, value: Some(counts) },
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
            "now" => reservation.clocks = clocks(value),
            _ => {
                let sequence = what.strip_prefix("ids ").and_then(|oid| oid.parse().ok());
                let ids = value.split(' ').map(str::parse).collect::<Result<Vec<i64>, _>>();
                if let (Some(sequence), Ok(ids)) = (sequence, ids) {
                    reservation.ids.push((sequence, ids));
                }
            }
        }
    }
    reservation
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

    #[test]
    fn the_simple_form_has_the_same_numbers_in_its_text() {
        let query = query(&[(7, 64), (8, 1)]);
        let simple = query.simple_sql.unwrap();
        assert!(simple.contains("unnest('{7,8}'::oid[], '{64,1}'::int4[])") && !simple.contains('$'), "{simple}");
    }

    #[test]
    fn a_reservation_is_read_from_its_rows() {
        let row = |what: &str, value: &str| vec![Some(what.to_owned()), Some(value.to_owned())];
        let read = read(&[row("session", "me"), row("now", "0102 03 ff"), row("ids 77", "5 6 9")]);
        assert_eq!(read.identity.as_deref(), Some("me"));
        assert_eq!(read.clocks, Some(Clocks { instant: vec![1, 2], local: vec![3], date: vec![255] }));
        assert_eq!(read.ids, [(77, vec![5, 6, 9])]);
    }
}
