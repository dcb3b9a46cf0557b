//! Statements that cannot see or touch a table with pending rows, and so need no flush (DESIGN.md §2.2).
//!
//! What a statement names is told by its words alone: whatever it reads or changes stands in its text, unless a view, a
//! function, a trigger, a policy or a cascade stands behind a name, which the catalog knows. A word that is no name costs
//! a flush at worst.

use sqlparser::ast::{self, BinaryOperator, Expr, SetExpr, Statement, TableFactor};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use crate::recognise::{Effects, TableName, TypeName, folded, has_word, identifier, table_name, type_name, word};

/// What a statement can see and touch, as far as its text tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Anything.
    #[default]
    Anything,
    /// It reads what it names, without locks.
    Reads,
    /// It changes rows of what it names, and reads no more than that.
    Changes,
}

impl Sight {
    /// Of a statement of these tokens, which begins with `verb`.
    pub(crate) fn of(tokens: &[Token], verb: &str, effects: Effects) -> Self {
        let rows_only = Effects { takes_snapshot: true, writes: effects.writes, ..Effects::default() };
        let is_plain = effects == rows_only && !has_word(tokens, "for") && names_no_observer(tokens);
        let has = |verb: &&str| has_word(tokens, verb);
        match verb {
            "select" | "with" if is_plain && !effects.writes => Self::Reads,
            "update" | "delete" if is_plain => {
                let verbs = ["insert", "update", "delete", "merge", "with", "current"].iter().filter(|verb| has(verb));
                if verbs.count() == 1 { Self::Changes } else { Self::Anything }
            }
            _ => Self::Anything,
        }
    }
}

/// Whether no name is that of something of Postgres' own that tells about tables, such as `pg_class` and
/// `pg_relation_size`, nor written with escapes (`U&"d\0061ta"`).
fn names_no_observer(tokens: &[Token]) -> bool {
    tokens
        .iter()
        .filter_map(identifier)
        .all(|name| !name.starts_with("pg_") && name != "information_schema" && !name.contains('\\'))
}

/// `SELECT … FROM table WHERE column = $1 …`: only rows with that value are looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Demands {
    pub table: TableName,
    /// Each has to hold.
    pub of: Vec<Demand>,
}

/// `column = $n`
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub column: String,
    /// Of the bind, counted from 0.
    pub index: usize,
    pub cast: Option<TypeName>,
}

/// The demands of a SELECT of one table, if its WHERE has any.
pub(crate) fn demands(sql: &str) -> Option<Demands> {
    let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).ok()?;
    let [Statement::Query(query)] = statements.as_slice() else { return None };
    let SetExpr::Select(select) = &*query.body else { return None };
    let [from] = select.from.as_slice() else { return None };
    let TableFactor::Table { name, alias, args: None, .. } = &from.relation else { return None };
    // `FROM t AS x (b, a)` gives its columns other names.
    let renames = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
    if query.with.is_some() || !from.joins.is_empty() || renames {
        return None;
    }
    let mut of = Vec::new();
    collect(select.selection.as_ref()?, &mut of);
    Some(Demands { table: table_name(name)?, of }).filter(|demands| !demands.of.is_empty())
}

/// Whether a SELECT reads one table in one place, so that [`demands`] may have something to say.
pub(crate) fn may_demand(tokens: &[Token]) -> bool {
    let selects = (0..tokens.len()).filter(|&at| word(tokens, at).as_deref() == Some("select")).count();
    let others = ["with", "table", "union", "intersect", "except", "join", "lateral"];
    selects == 1 && others.iter().all(|other| !has_word(tokens, other)) && has_word(tokens, "where")
}

fn collect(expr: &Expr, of: &mut Vec<Demand>) {
    match expr {
        Expr::Nested(inner) => collect(inner, of),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            collect(left, of);
            collect(right, of);
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            of.extend(demand(left, right).or_else(|| demand(right, left)));
        }
        _ => {}
    }
}

fn demand(column: &Expr, value: &Expr) -> Option<Demand> {
    let column = match column {
        Expr::Nested(inner) => return demand(inner, value),
        Expr::Identifier(name) => folded(name),
        Expr::CompoundIdentifier(parts) => folded(parts.last()?),
        _ => return None,
    };
    let (index, cast) = bind(value)?;
    Some(Demand { column, index, cast })
}

fn bind(value: &Expr) -> Option<(usize, Option<TypeName>)> {
    match value {
        Expr::Nested(inner) => bind(inner),
        Expr::Value(value) => match &value.value {
            ast::Value::Placeholder(name) => {
                Some((name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)?, None))
            }
            _ => None,
        },
        Expr::Cast { expr, data_type, format: None, .. } => match bind(expr)? {
            (index, None) => Some((index, Some(type_name(data_type).ok()?))),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recognise::recognise;

    fn sight(sql: &str) -> Sight {
        recognise(sql).sight
    }

    #[test]
    fn a_select_without_locks_and_unknown_functions_reads_what_it_names() {
        for sql in [
            r#"SELECT "t"."id", lower("t"."name") FROM "t" WHERE "t"."id" = $1 LIMIT $2"#,
            "(SELECT count(*) FROM t) UNION ALL (SELECT max(n) FROM u)",
            "WITH x AS (SELECT 1) SELECT * FROM x JOIN t USING (id)",
        ] {
            assert_eq!(sight(sql), Sight::Reads, "{sql}");
        }
    }

    #[test]
    fn an_update_or_delete_without_unknown_functions_changes_what_it_names() {
        for sql in [
            "UPDATE t SET a = $1 WHERE id = $2 RETURNING *",
            "DELETE FROM t WHERE id IN (SELECT id FROM u)",
            "DELETE FROM t USING u WHERE t.id = u.id",
        ] {
            assert_eq!(sight(sql), Sight::Changes, "{sql}");
        }
    }

    #[test]
    fn everything_else_may_see_anything() {
        for sql in [
            "SELECT * FROM t FOR UPDATE",
            "SELECT my_function()",
            "SELECT public.lower('x')",
            "SELECT nextval('s')",
            "SELECT * FROM pg_class",
            "SELECT pg_table_size('t')",
            "SELECT * FROM information_schema.tables",
            r#"SELECT * FROM U&"d\0061ta""#,
            "SELECT * INTO u FROM t",
            "SELECT 1; SELECT 2",
            "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
            "WITH x AS (SELECT 1) UPDATE t SET a = 1",
            "UPDATE t SET a = DEFAULT",
            "UPDATE t SET a = my_function(a)",
            "DELETE FROM t WHERE CURRENT OF c",
            "EXPLAIN ANALYZE SELECT 1",
            "EXECUTE p",
            "FETCH c",
            "TRUNCATE t",
            "COPY t TO STDOUT",
            "LOCK TABLE t",
            "TABLE t",
        ] {
            assert_eq!(sight(sql), Sight::Anything, "{sql}");
        }
    }

    /// `table column=index…` of each demand.
    fn shown(sql: &str) -> Option<String> {
        let recognised = recognise(sql);
        let demands = recognised.demands()?;
        let of = demands.of.iter().map(|demand| {
            let cast = demand.cast.as_ref().map_or_else(String::new, |cast| format!("::{}", cast.name));
            format!(" {}={}{cast}", demand.column, demand.index)
        });
        Some(format!("{}{}", demands.table, of.collect::<String>()))
    }

    #[test]
    fn what_a_where_demands_of_a_row_is_told_from_what_it_allows() {
        let shown = |sql| shown(sql).unwrap_or_default();
        assert_eq!(shown(r#"SELECT "t"."id" FROM "t" WHERE ("t"."name" = $1) LIMIT $2"#), "t name=0");
        assert_eq!(shown("SELECT 1 FROM s.t AS x WHERE x.a = $2 AND ($1 = B AND c > $3)"), "s.t a=1 b=0");
        assert_eq!(shown(r#"SELECT count(*) FROM t WHERE mood = CAST($1 AS "mood")"#), "t mood=0::mood");
        for sql in [
            "SELECT 1 FROM t WHERE a = $1 OR b = $2",
            "SELECT 1 FROM t WHERE NOT (a = $1)",
            "SELECT 1 FROM t WHERE a = ANY($1)",
            "SELECT 1 FROM t WHERE lower(a) = $1",
            r#"SELECT 1 FROM t WHERE a = $1 COLLATE "x""#,
            "SELECT 1 FROM t WHERE a = $1 || 'x'",
            "SELECT 1 FROM t, u WHERE t.a = $1",
            "SELECT 1 FROM t JOIN u ON true WHERE t.a = $1",
            "SELECT (SELECT 1 FROM t) FROM t WHERE a = $1",
            "SELECT 1 FROM t WHERE a = $1 UNION SELECT 1 FROM t WHERE b = $2",
            "SELECT a = $1 FROM t",
            "SELECT 1 FROM t AS x (b, a) WHERE a = $1",
            "SELECT 1 FROM generate_series(1, 2) AS t(a) WHERE a = $1",
        ] {
            assert_eq!(shown(sql), "", "{sql}");
        }
    }
}
