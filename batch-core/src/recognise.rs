//! Statement → [`Insert`], or what else it may do: send it as it is.
//!
//! An INSERT is parsed, every other statement only tokenized, both once per distinct SQL text (see [`Texts`]).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use sqlparser::ast::{
    self, CastKind, DataType, Expr, ObjectName, ObjectNamePart, SelectItem, SetExpr, Statement, TableObject,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::eligible::Reason;
use crate::harmless;

/// What a statement's text says, as far as batching cares.
#[derive(Debug)]
pub struct Recognised {
    pub(crate) kind: Kind,
}

impl Recognised {
    /// A statement of which nothing is known but that it changes rows at most, such as `COPY` through an ORM's own call.
    pub fn rows_only() -> Self {
        Self { kind: Kind::Other(Effects { sequences: true, ..Effects::default() }) }
    }

    /// Anything may happen, save that transactions stay as they were: the program talks to the driver itself.
    pub fn anything() -> Self {
        Self { kind: Kind::Other(Effects { tangles_transaction: false, ..Effects::ANY }) }
    }

    /// Whether this is an INSERT whose text allows it to wait.
    pub fn is_insert(&self) -> bool {
        matches!(self.kind, Kind::Insert(_))
    }
}

#[derive(Debug)]
pub(crate) enum Kind {
    Insert(Insert),
    /// An INSERT that cannot wait, and into which table where that is known.
    UnfitInsert {
        reason: Reason,
        table: Option<TableName>,
        effects: Effects,
    },
    Begin {
        read_only: bool,
    },
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    Other(Effects),
}

/// What a statement may change beyond the rows of tables. In doubt, all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Tables, types, triggers, privileges …: what the catalog says.
    pub schema: bool,
    /// `search_path`, role, time zone …: what a name or a default means on this connection.
    pub session: bool,
    /// A sequence may have been advanced or set.
    pub sequences: bool,
    /// Calls `currval` or `lastval`.
    pub reads_sequence_state: bool,
    /// Makes the transaction read-only.
    pub read_only: bool,
    /// May begin or end transactions in a way that is not followed.
    pub tangles_transaction: bool,
}

impl Effects {
    pub(crate) const ANY: Self = Self {
        schema: true,
        session: true,
        sequences: true,
        reads_sequence_state: false,
        read_only: false,
        tangles_transaction: true,
    };

    fn or(self, other: Self) -> Self {
        Self {
            schema: self.schema || other.schema,
            session: self.session || other.session,
            sequences: self.sequences || other.sequences,
            reads_sequence_state: self.reads_sequence_state || other.reads_sequence_state,
            read_only: self.read_only || other.read_only,
            tangles_transaction: self.tangles_transaction || other.tangles_transaction,
        }
    }
}

/// A table as a statement names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableName {
    pub schema: Option<String>,
    pub name: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// `INSERT INTO table (columns) VALUES (…)[, (…)] [RETURNING …]` whose values are binds, literals or `DEFAULT`.
#[derive(Debug)]
pub(crate) struct Insert {
    pub table: TableName,
    /// The table as it was written, so that Postgres resolves it as it would have.
    pub table_sql: String,
    /// Empty where the statement leaves them out: the table's first columns.
    pub columns: Vec<String>,
    /// The rows' values, one after the other, each row as wide as the first.
    pub values: Vec<Value>,
    pub width: usize,
    pub rows: usize,
    pub returning: Vec<Returned>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// `$n`, counted from 0, and the type it is cast to.
    Bind {
        index: usize,
        cast: Option<TypeName>,
    },
    Literal(Literal),
    Default,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Integer(i64),
    Text(String),
}

/// The name of a type as a statement writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeName {
    /// As it was written.
    pub sql: String,
    /// The last part of the name, as the catalog spells it.
    pub name: String,
}

/// One item of `RETURNING`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Returned {
    /// `*`
    All,
    Column {
        name: String,
        alias: Option<String>,
        cast: Option<TypeName>,
    },
}

/// Distinct SQL texts and what they are; shared by all connections to a database.
///
/// Bounded by the texts' bytes: a program that makes ever new texts costs parsing, not memory.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    known: RwLock<(HashMap<String, Arc<Recognised>>, usize)>,
}

impl Texts {
    const MAX_BYTES: usize = 4 << 20;

    pub(crate) fn recognise(&self, sql: &str) -> Arc<Recognised> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.0.get(sql) {
            return Arc::clone(found);
        }
        drop(known);
        let made = Arc::new(recognise(sql));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.1 + sql.len() > Self::MAX_BYTES {
            *known = Default::default();
        }
        known.1 += sql.len();
        known.0.insert(sql.to_owned(), Arc::clone(&made));
        made
    }
}

/// Says what `sql` is.
pub(crate) fn recognise(sql: &str) -> Recognised {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() else {
        return Recognised { kind: Kind::Other(Effects::ANY) };
    };
    let tokens: Vec<Token> = tokens.into_iter().filter(|t| !matches!(t, Token::Whitespace(_))).collect();
    let mut statements = tokens.split(|t| *t == Token::SemiColon).filter(|s| !s.is_empty());
    let (Some(first), rest) = (statements.next(), statements.next()) else {
        return Recognised { kind: Kind::Other(Effects::default()) };
    };
    if rest.is_none() {
        return Recognised { kind: one(first) };
    }
    let all = tokens.split(|t| *t == Token::SemiColon).filter(|s| !s.is_empty());
    let effects = all.map(|s| in_a_script(one_effects(s))).fold(Effects::default(), Effects::or);
    Recognised { kind: Kind::Other(effects) }
}

/// In a string of several statements, transaction control is not followed.
fn in_a_script(kind: Kind) -> Effects {
    match kind {
        Kind::Other(effects) => effects,
        Kind::Insert(_) => Effects { sequences: true, ..Effects::default() },
        Kind::UnfitInsert { effects, .. } => Effects { sequences: true, ..effects },
        _ => Effects { tangles_transaction: true, ..Effects::default() },
    }
}

fn one_effects(tokens: &[Token]) -> Kind {
    match word(tokens, 0).as_deref() {
        Some("insert") => Kind::Other(Effects { sequences: true, ..called(tokens) }),
        _ => one(tokens),
    }
}

fn one(tokens: &[Token]) -> Kind {
    let Some(verb) = word(tokens, 0) else {
        // `(SELECT …)`
        return Kind::Other(called(tokens));
    };
    let second = word(tokens, 1).unwrap_or_default();
    match verb.as_str() {
        "insert" => insert(tokens),
        "begin" => begin(tokens),
        "start" if second == "transaction" => begin(tokens),
        "commit" | "end" if is_plain_end(tokens) => Kind::Commit,
        "rollback" | "abort" if is_plain_end(tokens) => Kind::Rollback,
        "rollback" => rollback_to(tokens),
        "savepoint" if tokens.len() == 2 => identifier(&tokens[1]).map_or(TANGLED, Kind::Savepoint),
        "release" => release(tokens),
        "select" | "values" | "table" | "update" | "delete" | "merge" | "fetch" | "declare" | "with" | "explain"
        | "prepare" => reads(tokens, &verb, &second),
        "show" | "listen" | "unlisten" | "notify" | "lock" | "close" | "move" | "deallocate" | "checkpoint" => {
            Kind::Other(Effects::default())
        }
        "set" if second == "constraints" => Kind::Other(Effects::default()),
        "set" | "reset" => {
            Kind::Other(Effects { session: true, read_only: says(tokens, "read", "only"), ..Effects::default() })
        }
        "truncate" | "copy" => Kind::Other(Effects { sequences: true, ..Effects::default() }),
        // What a prepared statement does was said when it was prepared; it cannot be DDL.
        "execute" => Kind::Other(Effects { session: true, sequences: true, ..Effects::default() }),
        "commit" | "end" | "abort" | "start" => TANGLED,
        "call" | "do" | "discard" => Kind::Other(Effects::ANY),
        // DDL, and whatever a later Postgres brings.
        _ => Kind::Other(Effects { schema: true, session: true, sequences: true, ..Effects::default() }),
    }
}

const TANGLED: Kind = Kind::Other(Effects {
    schema: false,
    session: false,
    sequences: false,
    reads_sequence_state: false,
    read_only: false,
    tangles_transaction: true,
});

fn reads(tokens: &[Token], verb: &str, second: &str) -> Kind {
    if verb == "prepare" && second == "transaction" {
        return TANGLED;
    }
    let mut effects = called(tokens);
    // `SELECT … INTO table` makes a table; MERGE and a WITH may insert.
    if has_word(tokens, "into") {
        effects.sequences = true;
        effects.schema |= verb != "merge" && !has_word(tokens, "insert");
    }
    Kind::Other(effects)
}

fn begin(tokens: &[Token]) -> Kind {
    Kind::Begin { read_only: says(tokens, "read", "only") }
}

/// `COMMIT`, `COMMIT WORK`, `COMMIT TRANSACTION`; not `AND CHAIN` or `PREPARED`.
fn is_plain_end(tokens: &[Token]) -> bool {
    match tokens {
        [_] => true,
        [_, _] => matches!(word(tokens, 1).as_deref(), Some("work" | "transaction")),
        _ => false,
    }
}

/// `ROLLBACK [WORK | TRANSACTION] TO [SAVEPOINT] name`
fn rollback_to(tokens: &[Token]) -> Kind {
    let Some(to) = (1..tokens.len()).find(|&i| word(tokens, i).as_deref() == Some("to")) else {
        return TANGLED;
    };
    let at =
        if word(tokens, to + 1).as_deref() == Some("savepoint") && tokens.len() > to + 2 { to + 2 } else { to + 1 };
    match tokens.get(at).and_then(identifier) {
        Some(name) if at + 1 == tokens.len() => Kind::RollbackTo(name),
        _ => TANGLED,
    }
}

/// `RELEASE [SAVEPOINT] name`
fn release(tokens: &[Token]) -> Kind {
    match tokens {
        [_, name] | [_, _, name] => identifier(name).map_or(TANGLED, Kind::Release),
        _ => TANGLED,
    }
}

/// What the functions that a statement calls may change: nothing where all are known to be harmless.
fn called(tokens: &[Token]) -> Effects {
    let mut effects = Effects::default();
    for at in 0..tokens.len() {
        let (Token::Word(called), Some(Token::LParen)) = (&tokens[at], tokens.get(at + 1)) else { continue };
        let name = if called.quote_style.is_some() { called.value.clone() } else { called.value.to_lowercase() };
        let (start, schema) = match at.checked_sub(2).map(|before| (before, &tokens[before..at])) {
            Some((before, [Token::Word(schema), Token::Period])) => (before, Some(schema.value.as_str())),
            _ => (at, None),
        };
        // `INTO t (…)` and `AS t (…)` name a table.
        if start.checked_sub(1).and_then(|before| word(tokens, before)).is_some_and(|w| w == "into" || w == "as") {
            continue;
        }
        let is_built_in = schema.is_none_or(|schema| schema == "pg_catalog");
        if matches!(name.as_str(), "currval" | "lastval") {
            effects.reads_sequence_state = true;
        } else if name == "set_config" {
            effects.session = true;
        } else if !is_built_in || !harmless::is_harmless(&name) {
            effects.session = true;
            effects.sequences = true;
        }
    }
    effects
}

fn word(tokens: &[Token], at: usize) -> Option<String> {
    match tokens.get(at) {
        Some(Token::Word(word)) if word.quote_style.is_none() => Some(word.value.to_lowercase()),
        _ => None,
    }
}

fn has_word(tokens: &[Token], wanted: &str) -> bool {
    (0..tokens.len()).any(|at| word(tokens, at).as_deref() == Some(wanted))
}

fn says(tokens: &[Token], first: &str, second: &str) -> bool {
    (0..tokens.len())
        .any(|at| word(tokens, at).as_deref() == Some(first) && word(tokens, at + 1).as_deref() == Some(second))
}

fn identifier(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) if word.quote_style.is_some() => Some(word.value.clone()),
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    }
}

fn insert(tokens: &[Token]) -> Kind {
    let parsed = Parser::new(&PostgreSqlDialect {}).with_tokens(tokens.to_vec()).parse_statements();
    let Ok([Statement::Insert(insert)]) = parsed.as_deref() else {
        let unknown = Effects { session: true, sequences: true, ..called(tokens) };
        return Kind::UnfitInsert { reason: Reason::Form, table: None, effects: unknown };
    };
    let table = match &insert.table {
        TableObject::TableName(name) => table_name(name),
        _ => None,
    };
    let waits = table.clone().ok_or(Reason::Form).and_then(|table| plain_insert(insert, table));
    match waits {
        Ok(insert) => Kind::Insert(insert),
        // Its expressions may call anything.
        Err(reason) => Kind::UnfitInsert { reason, table, effects: called(tokens) },
    }
}

fn plain_insert(insert: &ast::Insert, table: TableName) -> Result<Insert, Reason> {
    if insert.on.is_some() {
        return Err(Reason::OnConflict);
    }
    let foreign = insert.or.is_some()
        || insert.ignore
        || !insert.into
        || insert.table_alias.is_some()
        || insert.overwrite
        || !insert.assignments.is_empty()
        || insert.partitioned.is_some()
        || !insert.after_columns.is_empty()
        || insert.has_table_keyword
        || insert.output.is_some()
        || insert.replace_into
        || insert.priority.is_some()
        || insert.insert_alias.is_some()
        || insert.settings.is_some()
        || insert.format_clause.is_some()
        || insert.multi_table_insert_type.is_some()
        || !insert.multi_table_into_clauses.is_empty()
        || !insert.multi_table_when_clauses.is_empty()
        || insert.multi_table_else_clause.is_some();
    if foreign {
        return Err(Reason::Form);
    }
    let columns = insert.columns.iter().map(single_name).collect::<Option<Vec<_>>>().ok_or(Reason::Form)?;
    let (values, width, rows) = match &insert.source {
        // `DEFAULT VALUES`
        None => (Vec::new(), 0, 1),
        Some(query) => values(query)?,
    };
    if !columns.is_empty() && columns.len() != width {
        return Err(Reason::Form);
    }
    let returning = match &insert.returning {
        None => Vec::new(),
        Some(items) => items.iter().map(|item| returned(item, &table)).collect::<Result<_, _>>()?,
    };
    let TableObject::TableName(name) = &insert.table else { return Err(Reason::Form) };
    Ok(Insert { table_sql: name.to_string(), table, columns, values, width, rows, returning })
}

fn values(query: &ast::Query) -> Result<(Vec<Value>, usize, usize), Reason> {
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty()
        && query.for_clause.is_none()
        && query.settings.is_none()
        && query.format_clause.is_none()
        && query.pipe_operators.is_empty();
    let SetExpr::Values(values) = &*query.body else { return Err(Reason::Form) };
    if !plain || values.explicit_row || values.value_keyword {
        return Err(Reason::Form);
    }
    let width = values.rows.first().map_or(0, |row| row.len());
    let mut flat = Vec::with_capacity(width * values.rows.len());
    for row in &values.rows {
        if row.len() != width {
            return Err(Reason::Form);
        }
        for expr in row.iter() {
            flat.push(value(expr)?);
        }
    }
    Ok((flat, width, values.rows.len()))
}

fn value(expr: &Expr) -> Result<Value, Reason> {
    match expr {
        Expr::Value(value) => match &value.value {
            ast::Value::Placeholder(name) => {
                let number = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
                let index = number.and_then(|n| n.checked_sub(1)).ok_or(Reason::Expression)?;
                Ok(Value::Bind { index, cast: None })
            }
            other => literal(other).map(Value::Literal).ok_or(Reason::Expression),
        },
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => match value(expr)? {
            Value::Literal(Literal::Integer(n)) => Ok(Value::Literal(Literal::Integer(-n))),
            _ => Err(Reason::Expression),
        },
        Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default") => {
            Ok(Value::Default)
        }
        Expr::Nested(inner) => match value(inner)? {
            Value::Default => Err(Reason::Expression),
            value => Ok(value),
        },
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, format: None } => {
            match value(expr)? {
                Value::Bind { index, cast: None } => Ok(Value::Bind { index, cast: Some(type_name(data_type)?) }),
                Value::Literal(Literal::Null) => Ok(Value::Literal(Literal::Null)),
                _ => Err(Reason::Expression),
            }
        }
        _ => Err(Reason::Expression),
    }
}

fn literal(value: &ast::Value) -> Option<Literal> {
    match value {
        ast::Value::Null => Some(Literal::Null),
        ast::Value::Boolean(b) => Some(Literal::Bool(*b)),
        ast::Value::Number(digits, false) => digits.parse().ok().map(Literal::Integer),
        // What a backslash means depends on `standard_conforming_strings`.
        ast::Value::SingleQuotedString(text) if !text.contains('\\') => Some(Literal::Text(text.clone())),
        _ => None,
    }
}

fn type_name(data_type: &DataType) -> Result<TypeName, Reason> {
    let sql = data_type.to_string();
    if sql.contains(['[', '(']) {
        return Err(Reason::Cast);
    }
    let name = match data_type {
        DataType::Custom(name, modifiers) if modifiers.is_empty() => match name.0.last() {
            Some(ObjectNamePart::Identifier(ident)) => folded(ident),
            _ => return Err(Reason::Cast),
        },
        DataType::Custom(..) => return Err(Reason::Cast),
        _ => sql.to_lowercase(),
    };
    Ok(TypeName { sql, name })
}

fn returned(item: &SelectItem, table: &TableName) -> Result<Returned, Reason> {
    match item {
        SelectItem::Wildcard(_) => Ok(Returned::All),
        SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
            let same = table_name(name).is_some_and(|t| t.name == table.name);
            if same { Ok(Returned::All) } else { Err(Reason::Returning) }
        }
        SelectItem::UnnamedExpr(expr) => returned_column(expr, table, None),
        SelectItem::ExprWithAlias { expr, alias } => returned_column(expr, table, Some(folded(alias))),
        _ => Err(Reason::Returning),
    }
}

fn returned_column(expr: &Expr, table: &TableName, alias: Option<String>) -> Result<Returned, Reason> {
    match expr {
        // These words are functions without parentheses, not columns.
        Expr::Identifier(ident) if ident.quote_style.is_none() && is_keyword_function(&ident.value) => {
            Err(Reason::Returning)
        }
        Expr::Identifier(ident) => Ok(Returned::Column { name: folded(ident), alias, cast: None }),
        Expr::CompoundIdentifier(parts) => {
            let [qualifier @ .., column] = parts.as_slice() else { return Err(Reason::Returning) };
            let last = qualifier.last().map(folded);
            if last.as_deref() != Some(table.name.as_str()) {
                return Err(Reason::Returning);
            }
            Ok(Returned::Column { name: folded(column), alias, cast: None })
        }
        Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, format: None } => {
            match returned_column(expr, table, alias)? {
                Returned::Column { name, alias, cast: None } => {
                    Ok(Returned::Column { name, alias, cast: Some(type_name(data_type)?) })
                }
                _ => Err(Reason::Returning),
            }
        }
        _ => Err(Reason::Returning),
    }
}

fn is_keyword_function(word: &str) -> bool {
    let word = word.to_lowercase();
    word.starts_with("current_") || matches!(word.as_str(), "user" | "session_user" | "localtime" | "localtimestamp")
}

fn single_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Some(folded(ident)),
        _ => None,
    }
}

fn table_name(name: &ObjectName) -> Option<TableName> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(table)] => Some(TableName { schema: None, name: folded(table) }),
        [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(table)] => {
            Some(TableName { schema: Some(folded(schema)), name: folded(table) })
        }
        _ => None,
    }
}

/// Postgres folds the ASCII letters of an unquoted name to lower case and cuts names at 63 bytes.
fn folded(ident: &ast::Ident) -> String {
    let mut name = ident.value.clone();
    if ident.quote_style.is_none() {
        name.make_ascii_lowercase();
    }
    if name.len() > 63 {
        let end = (0..=63).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
        name.truncate(end);
    }
    name
}
