//! Which sequences an INSERT may advance: by the table's defaults, and by what its triggers do.

use std::collections::{HashMap, HashSet};

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::{ColumnRow, TableRow};
use crate::{defaults, harmless};

/// What an INSERT into a table does by itself: sequences that it may advance, and tables that its triggers name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Direct {
    sequences: Vec<u32>,
    tables: Vec<usize>,
}

/// For each table the sequences that an INSERT may advance; `None` where that may be any. `opaque` are names behind which more
/// than a table stands, `None` where that may be so behind any name.
pub(super) fn touches(raw: &[TableRow], opaque: Option<&HashSet<String>>) -> Vec<Option<Vec<u32>>> {
    let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, row) in raw.iter().enumerate() {
        by_name.entry(&row.name).or_default().push(at);
    }
    let world = World { raw, by_name, opaque };
    let direct: Vec<Option<Direct>> = raw.iter().map(|row| world.direct(row)).collect();
    (0..raw.len()).map(|at| reached(at, &direct)).collect()
}

fn reached(from: usize, direct: &[Option<Direct>]) -> Option<Vec<u32>> {
    let (mut tables, mut next, mut sequences) = (vec![from], 0, Vec::new());
    while let Some(&at) = tables.get(next) {
        next += 1;
        let Direct { sequences: own, tables: others } = direct[at].as_ref()?;
        sequences.extend(own.iter().copied().filter(|sequence| !sequences.contains(sequence)).collect::<Vec<_>>());
        tables.extend(others.iter().copied().filter(|other| !tables.contains(other)).collect::<Vec<_>>());
    }
    Some(sequences)
}

struct World<'a> {
    raw: &'a [TableRow],
    by_name: HashMap<&'a str, Vec<usize>>,
    opaque: Option<&'a HashSet<String>>,
}

impl World<'_> {
    fn direct(&self, row: &TableRow) -> Option<Direct> {
        let is_simple = matches!(row.kind.as_str(), "r" | "p") && !row.foreign && !row.rule && !row.rls;
        if !is_simple || row.checks.iter().flatten().any(|check| check.calls) {
            return None;
        }
        let mut direct = Direct::default();
        for column in row.columns.iter().flatten() {
            direct.sequences.extend(of_default(column)?);
        }
        let sources = row.inserts.iter().flatten().filter(|source| !harmless::is_quiet_trigger(source));
        for source in sources {
            direct.tables.extend(self.named(source)?);
        }
        // Triggers that the catalog does not tell more of.
        (!row.trigger || row.inserts.is_some()).then_some(direct)
    }

    /// The tables that a trigger function in PL/pgSQL names, if it does nothing else with the database.
    fn named(&self, source: &str) -> Option<Vec<usize>> {
        let opaque = self.opaque?;
        let tokens = Tokenizer::new(&PostgreSqlDialect {}, source).tokenize().ok()?;
        let tokens: Vec<Token> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
        let (mut tables, mut changes) = (Vec::new(), false);
        for (at, token) in tokens.iter().enumerate() {
            let Token::Word(word) = token else { continue };
            let name = if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() };
            let known = self.by_name.get(name.as_str());
            let is_call = tokens.get(at + 1) == Some(&Token::LParen);
            let is_control = matches!(name.as_str(), "if" | "elsif" | "return" | "while" | "using" | "returning");
            let is_known = known.is_some() || harmless::is_harmless(&name) || is_control;
            let acts = matches!(name.as_str(), "execute" | "call" | "copy" | "do" | "truncate" | "merge");
            if acts || opaque.contains(&name) || (is_call && !is_known) {
                return None;
            }
            changes |= matches!(name.as_str(), "update" | "delete");
            tables.extend(known.into_iter().flatten());
        }
        let is_still = |&at: &usize| !changes || !self.acts_when_changed(&self.raw[at]);
        tables.iter().all(is_still).then_some(tables)
    }

    fn acts_when_changed(&self, row: &TableRow) -> bool {
        let mut keys = self.raw.iter().flat_map(|other| other.foreign_keys.iter().flatten());
        row.change_rule
            || row.changes.iter().flatten().any(|source| !harmless::is_quiet_trigger(source))
            || keys.any(|key| key.table == row.oid && (key.cascades || key.sets_default))
    }
}

/// The sequence that a column's default advances, if it does.
fn of_default(column: &ColumnRow) -> Option<Option<u32>> {
    let sequence = column.sequence.as_ref().map(|sequence| sequence.oid);
    if column.generated {
        return Some(None);
    }
    if !column.identity.is_empty() {
        return sequence.map(Some);
    }
    let Some(expression) = column.default.as_deref().or(column.domain_default.as_deref()) else { return Some(None) };
    match expression.matches("nextval").count() {
        // What it calls of the database's own may do anything, as may some of Postgres' functions.
        _ if column.calls => None,
        0 => defaults::calls(expression)?.iter().all(|name| harmless::is_harmless(name)).then_some(None),
        1 => sequence.map(Some),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{self, catalog, column, table};

    /// What an INSERT into `t` may advance, if `t` has such a trigger; `log` has the sequence 2, and a trigger of its own where that
    /// is given.
    fn by_trigger(source: &str, of_log: Option<&str>) -> Option<Vec<u32>> {
        let t =
            table("t").with("trigger", true).with("inserts", json!([source])).column(column("id", "int4").serial(1));
        let mut log = table("log").column(column("id", "int4").serial(2)).column(column("line", "text"));
        if let Some(source) = of_log {
            log = log.with("trigger", true).with("inserts", json!([source]));
        }
        let far = table("far").column(column("id", "int4").serial(3));
        let catalog = catalog([t, log, far]);
        catalog.tables()[0].touches.clone()
    }

    fn by_default(column: testing::ColumnRow) -> Option<Vec<u32>> {
        catalog([table("t").column(column)]).tables()[0].touches.clone()
    }

    #[test]
    fn a_trigger_advances_the_sequences_of_the_tables_that_it_names() {
        assert_eq!(by_trigger("BEGIN NEW.n := lower(NEW.n); RETURN NEW; END", None), Some(vec![1]));
        let logs = "BEGIN INSERT INTO log (line) VALUES (NEW.name); RETURN NEW; END";
        assert_eq!(by_trigger(logs, None), Some(vec![1, 2]));
        assert_eq!(
            by_trigger(logs, Some("BEGIN INSERT INTO far DEFAULT VALUES; RETURN NEW; END")),
            Some(vec![1, 2, 3])
        );
        assert_eq!(by_trigger(logs, Some("BEGIN INSERT INTO t DEFAULT VALUES; RETURN NEW; END")), Some(vec![1, 2]));
    }

    #[test]
    fn what_a_trigger_does_by_other_means_may_be_anything() {
        for source in [
            "execute",
            "BEGIN EXECUTE 'SELECT 1'; RETURN NEW; END",
            "BEGIN NEW.n := nextval('s'); RETURN NEW; END",
            "BEGIN PERFORM my_function(1); RETURN NEW; END",
            "BEGIN CALL anything(); RETURN NEW; END",
        ] {
            assert_eq!(by_trigger(source, None), None, "{source}");
        }
        assert_eq!(by_trigger("BEGIN INSERT INTO log (line) VALUES ('a'); RETURN NEW; END", Some("execute")), None);
    }

    #[test]
    fn a_default_advances_its_sequence_even_in_an_expression() {
        let plain = || column("id", "int4");
        assert_eq!(by_default(plain()), Some(vec![]));
        assert_eq!(by_default(plain().default("5")), Some(vec![]));
        assert_eq!(by_default(plain().serial(7)), Some(vec![7]));
        assert_eq!(by_default(plain().identity("a", 7)), Some(vec![7]));
        let expression = "(nextval('s7'::regclass) * 10)";
        assert_eq!(by_default(plain().default(expression).sequence(7, "usable", true)), Some(vec![7]));
        assert_eq!(by_default(plain().default("nextval(('s7'::text)::regclass)")), None);
        assert_eq!(by_default(plain().default("mine()").with("calls", true)), None);
        assert_eq!(by_default(plain().with("identity", "d")), None);
        assert_eq!(by_default(plain().default("clock_timestamp()")), Some(vec![]));
    }
}
