//! Statement → [`Insert`], or what else it may do: send it as it is.
//!
//! An INSERT is parsed, every other statement only tokenized, both once per distinct SQL text (see [`Texts`]).

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use sqlparser::ast::{
    self, CastKind, DataType, Expr, ObjectName, ObjectNamePart, SelectItem, SetExpr, Statement, TableObject,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::eligible::Reason;
use crate::harmless;
use crate::looks::{self, Demands, Sight};
use crate::patience::Setting;
use crate::settings::{self, About};

/// What a statement's text says, as far as batching cares.
#[derive(Debug)]
pub struct Recognised {
    pub(crate) kind: Kind,
    /// Every name in a statement that is no INSERT which may wait: what it may touch, as far as the catalog knows more
    /// about these names.
    pub(crate) names: Box<[String]>,
    pub(crate) sight: Sight,
    /// A SELECT that may look at rows of certain values only.
    demanding: Option<Demanding>,
    /// How what ends transactions in a way that is not followed begins, where that is an end that an aborted one allows.
    opening: Option<Box<Kind>>,
    /// Which timeouts it sets.
    timeouts: Box<[Setting]>,
    /// Where all it does is to give settings values that stand in it.
    pub(crate) assigns: Option<Assigns>,
    /// It is an INSERT that joined a group once.
    pub(crate) joined: AtomicBool,
}

/// What kind of session it makes of another is always the same.
#[derive(Debug)]
pub(crate) struct Assigns {
    pub text: Box<str>,
    /// What names mean, or who asks, is among it.
    pub names: bool,
}

/// Parsed when rows wait for the first time that it is issued.
#[derive(Debug)]
struct Demanding {
    sql: Box<str>,
    demands: OnceLock<Option<Demands>>,
}

impl Recognised {
    /// A statement of which nothing is known but that it changes rows at most, such as `COPY` through an ORM's own call.
    pub fn rows_only() -> Self {
        Self::of(Effects { sequences: true, ..Effects::default() })
    }

    /// Anything may happen, save that transactions stay as they were: the program talks to the driver itself.
    pub fn anything() -> Self {
        Self::of(Effects { tangles_transaction: false, ..Effects::ANY })
    }

    fn of(effects: Effects) -> Self {
        Self::new(Kind::Other(effects), Box::default())
    }

    fn new(kind: Kind, names: Box<[String]>) -> Self {
        Self {
            kind,
            names,
            sight: Sight::Anything,
            demanding: None,
            opening: None,
            timeouts: Box::default(),
            assigns: None,
            joined: AtomicBool::new(false),
        }
    }

    /// What it does first, as far as transactions go: a script may begin with a COMMIT.
    pub(crate) fn first(&self) -> &Kind {
        self.opening.as_deref().unwrap_or(&self.kind)
    }

    /// The timeouts that it sets, to values that stand in its text.
    pub(crate) fn timeouts(&self) -> &[Setting] {
        &self.timeouts
    }

    /// Whether it ends the transaction by a COMMIT, in whatever form.
    pub(crate) fn commits(&self) -> bool {
        matches!(self.first(), Kind::Commit)
    }

    /// Whether the values bound to it may tell that it looks at no row of a table that it names.
    pub(crate) fn may_demand(&self) -> bool {
        self.demanding.is_some()
    }

    /// Which values rows need for it to look at them.
    pub(crate) fn demands(&self) -> Option<&Demands> {
        let Demanding { sql, demands } = self.demanding.as_ref()?;
        demands.get_or_init(|| looks::demands(sql)).as_ref()
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
        fixes_snapshot: bool,
        /// Without options: the transaction is as the session's settings say.
        plain: bool,
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
    /// `search_path`, role …: what a name means on this connection, and who asks.
    pub session: bool,
    /// Time zone, timeouts, `synchronous_commit` …: nothing that is known of this session depends on it, but others' rows would.
    pub values: bool,
    /// What it changes of these two ends with the transaction: `SET LOCAL`.
    pub session_is_local: bool,
    /// A sequence may have been advanced or set.
    pub sequences: bool,
    /// Calls `currval` or `lastval`.
    pub reads_sequence_state: bool,
    /// Calls `lastval`.
    pub reads_last_value: bool,
    /// May change rows, and so fire triggers of the tables that it names.
    pub writes: bool,
    /// Makes the transaction read-only.
    pub read_only: bool,
    /// Makes the transaction see one snapshot from its first query on: REPEATABLE READ and SERIALIZABLE.
    pub fixes_snapshot: bool,
    /// Takes that snapshot.
    pub takes_snapshot: bool,
    /// Prepares a statement that calls `currval` or `lastval`.
    pub prepares_reader: bool,
    /// Runs a statement that was prepared by `PREPARE`.
    pub executes_prepared: bool,
    /// May begin or end transactions in a way that is not followed.
    pub tangles_transaction: bool,
}

impl Effects {
    pub(crate) const ANY: Self = Self {
        schema: true,
        session: true,
        values: true,
        session_is_local: false,
        sequences: true,
        reads_sequence_state: false,
        reads_last_value: false,
        writes: true,
        read_only: false,
        fixes_snapshot: false,
        takes_snapshot: true,
        prepares_reader: false,
        executes_prepared: false,
        tangles_transaction: true,
    };

    pub(crate) fn or(self, other: Self) -> Self {
        let stays = |effects: Self| (effects.session || effects.values) && !effects.session_is_local;
        let session = self.session || other.session;
        let values = self.values || other.values;
        Self {
            schema: self.schema || other.schema,
            session,
            values,
            session_is_local: (session || values) && !stays(self) && !stays(other),
            sequences: self.sequences || other.sequences,
            reads_sequence_state: self.reads_sequence_state || other.reads_sequence_state,
            reads_last_value: self.reads_last_value || other.reads_last_value,
            writes: self.writes || other.writes,
            read_only: self.read_only || other.read_only,
            fixes_snapshot: self.fixes_snapshot || other.fixes_snapshot,
            takes_snapshot: self.takes_snapshot || other.takes_snapshot,
            prepares_reader: self.prepares_reader || other.prepares_reader,
            executes_prepared: self.executes_prepared || other.executes_prepared,
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
    pub conflict: Option<Conflict>,
}

/// `ON CONFLICT [(target)] DO …` of an INSERT without RETURNING.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// The clause.
    pub sql: String,
    /// Empty where it names none.
    pub target: Vec<String>,
    /// The columns that DO UPDATE sets, and whether to what the row would have had there (`excluded`); `None` for
    /// DO NOTHING.
    pub sets: Option<Vec<(String, bool)>>,
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
    /// A number with a point, such as `-1.50`.
    Decimal(String),
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
        return Recognised::of(Effects::ANY);
    };
    let tokens: Vec<Token> = tokens.into_iter().filter(|t| !matches!(t, Token::Whitespace(_))).collect();
    let mut statements = tokens.split(|t| *t == Token::SemiColon).filter(|s| !s.is_empty());
    let (Some(first), rest) = (statements.next(), statements.next()) else {
        return Recognised::of(Effects::default());
    };
    if rest.is_none() {
        let kind = one(first);
        let names = match kind {
            Kind::Other(_) | Kind::UnfitInsert { .. } | Kind::Insert(Insert { conflict: Some(_), .. }) => names(first),
            _ => Box::default(),
        };
        let mut recognised = Recognised::new(kind, names);
        if let Kind::Other(effects) = recognised.kind {
            recognised.opening = opening(first).filter(|_| effects.tangles_transaction);
            recognised.timeouts = timeout(first).into_iter().collect();
            // `(SELECT …)` begins with no word.
            let verb = word(first, 0).unwrap_or_else(|| "select".to_owned());
            recognised.sight = Sight::of(first, &verb, effects);
        }
        if recognised.sight == Sight::Reads && looks::may_demand(first) {
            recognised.demanding = Some(Demanding { sql: sql.into(), demands: OnceLock::new() });
        }
        recognised.assigns = assigns([first].into_iter(), sql);
        return recognised;
    }
    let all = || tokens.split(|t| *t == Token::SemiColon).filter(|s| !s.is_empty());
    let effects = all().map(|s| in_a_script(one_effects(s))).fold(Effects::default(), Effects::or);
    let assigns = assigns(all(), sql);
    // Else the server is asked.
    let timeouts = assigns.iter().flat_map(|_| all().filter_map(timeout)).collect();
    Recognised { opening: opening(first), timeouts, assigns, ..Recognised::new(Kind::Other(effects), names(&tokens)) }
}

/// `SET [SESSION | LOCAL] name {TO | =} value`
fn timeout(tokens: &[Token]) -> Option<Setting> {
    if word(tokens, 0).as_deref() != Some("set") {
        return None;
    }
    let scope = word(tokens, 1);
    let at = if matches!(scope.as_deref(), Some("session" | "local")) { 2 } else { 1 };
    let [name, _, value] = tokens.get(at..)? else { return None };
    let value = match value {
        Token::Number(number, _) => number,
        Token::SingleQuotedString(text) => text,
        _ => return None,
    };
    Setting::new(&identifier(name)?, value, scope.as_deref() == Some("local"))
}

/// See [`Recognised::opening`].
fn opening(tokens: &[Token]) -> Option<Box<Kind>> {
    let second = word(tokens, 1).unwrap_or_default();
    let kind = match word(tokens, 0)?.as_str() {
        "commit" | "end" if second != "prepared" => Kind::Commit,
        "prepare" if second == "transaction" => Kind::Commit,
        "rollback" => rollback_to(tokens),
        _ => return None,
    };
    matches!(kind, Kind::Commit | Kind::RollbackTo(_)).then(|| kind.into())
}

/// See [`Recognised::assigns`].
fn assigns<'a>(statements: impl Iterator<Item = &'a [Token]>, sql: &str) -> Option<Assigns> {
    let mut names = false;
    for tokens in statements {
        let is_other = matches!(word(tokens, 1).as_deref(), Some("transaction" | "constraints"));
        if is_other || !matches!(word(tokens, 0).as_deref(), Some("set" | "reset")) {
            return None;
        }
        let set = settings::of_set(tokens);
        let is_certain = set.is_certain && (set.about != About::Time || timeout(tokens).is_some());
        if !is_certain {
            return None;
        }
        names |= set.about == About::Session;
    }
    Some(Assigns { text: sql.into(), names })
}

/// Every name in a statement, as the catalog spells it, sorted and once.
fn names(tokens: &[Token]) -> Box<[String]> {
    let mut names: Vec<String> = tokens.iter().filter_map(identifier).collect();
    names.sort_unstable();
    names.dedup();
    names.into()
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
        return reads(tokens, "select");
    };
    let second = word(tokens, 1).unwrap_or_default();
    match verb.as_str() {
        "insert" => insert(tokens),
        "begin" => begin(tokens),
        "start" if second == "transaction" => begin(tokens),
        "commit" | "end" if is_plain_verb(tokens) => Kind::Commit,
        "rollback" | "abort" if is_plain_verb(tokens) => Kind::Rollback,
        "rollback" => rollback_to(tokens),
        "savepoint" if tokens.len() == 2 => identifier(&tokens[1]).map_or(TANGLED, Kind::Savepoint),
        "release" => release(tokens),
        "select" | "values" | "table" | "update" | "delete" | "merge" | "declare" | "with" | "explain" => {
            reads(tokens, &verb)
        }
        "prepare" => prepare(tokens, &second),
        "show" | "listen" | "unlisten" | "notify" | "lock" | "close" | "deallocate" | "checkpoint" => {
            Kind::Other(Effects::default())
        }
        "set" if second == "constraints" => Kind::Other(Effects::default()),
        "set" | "reset" => {
            let of_transaction = Effects {
                read_only: says(tokens, "read", "only"),
                fixes_snapshot: fixes_snapshot(tokens),
                ..Effects::default()
            };
            Kind::Other(match second.as_str() {
                // About this transaction alone.
                "transaction" => of_transaction,
                _ => {
                    let set = settings::of_set(tokens);
                    of_transaction.or(set.about.effects(set.is_local))
                }
            })
        }
        "truncate" | "copy" => Kind::Other(Effects { sequences: true, ..Effects::default() }),
        // What a prepared statement or a cursor does was said before, but it does it now; it cannot be DDL.
        "execute" | "fetch" | "move" => Kind::Other(Effects {
            session: true,
            sequences: true,
            takes_snapshot: true,
            executes_prepared: verb == "execute",
            ..Effects::default()
        }),
        "commit" | "end" | "abort" | "start" => TANGLED,
        // They can end transactions of their own only, outside of one that the program began.
        "call" | "do" | "discard" => {
            let reads = tokens.iter().any(reads_sequence_state);
            Kind::Other(Effects {
                tangles_transaction: false,
                reads_sequence_state: reads,
                reads_last_value: reads,
                ..Effects::ANY
            })
        }
        "create" | "drop" | "comment" | "grant" | "revoke" if runs_no_code(tokens, &verb) => {
            Kind::Other(Effects { schema: true, sequences: true, ..Effects::default() })
        }
        // Other DDL, and whatever a later Postgres brings.
        _ => Kind::Other(Effects { schema: true, session: true, sequences: true, ..Effects::default() }),
    }
}

/// Whether this DDL calls no function, event triggers aside, and makes nothing that only this session sees.
fn runs_no_code(tokens: &[Token], verb: &str) -> bool {
    let replaces = says(&tokens[..tokens.len().min(3)], "or", "replace");
    let what = word(tokens, if replaces { 3 } else { 1 }).unwrap_or_default();
    let is_temporary = tokens.iter().any(|token| token.to_string().trim_matches('"').starts_with("pg_temp"));
    // `CREATE TABLE t AS …`
    let has_query = || {
        let tables = (0..tokens.len()).filter(|&at| word(tokens, at).as_deref() == Some("table")).count();
        tables > 1 || ["select", "values", "execute", "with"].iter().any(|verb| has_word(tokens, verb))
    };
    match (verb, what.as_str()) {
        _ if is_temporary => false,
        ("create", "table") => !has_query(),
        // Functions in an index are immutable.
        ("create", "index" | "unique") => true,
        ("create" | "drop", "domain" | "function" | "policy" | "rule" | "sequence" | "trigger" | "type" | "view")
        | ("drop", "index" | "materialized" | "table")
        | ("comment" | "grant" | "revoke", _) => true,
        _ => false,
    }
}

const TANGLED: Kind = Kind::Other(Effects {
    schema: false,
    session: false,
    values: false,
    session_is_local: false,
    sequences: false,
    reads_sequence_state: false,
    reads_last_value: false,
    writes: false,
    read_only: false,
    fixes_snapshot: false,
    takes_snapshot: false,
    prepares_reader: false,
    executes_prepared: false,
    tangles_transaction: true,
});

/// `PREPARE name AS statement`: what it does, it does when it is executed.
fn prepare(tokens: &[Token], second: &str) -> Kind {
    if second == "transaction" {
        return TANGLED;
    }
    Kind::Other(Effects { prepares_reader: called(tokens).reads_sequence_state, ..Effects::default() })
}

/// Whether a piece of a program in another language calls `currval` or `lastval`.
fn reads_sequence_state(token: &Token) -> bool {
    let text = token.to_string().to_lowercase();
    text.contains("currval") || text.contains("lastval")
}

/// `REPEATABLE READ` or `SERIALIZABLE`, as words or as the value of a setting.
fn fixes_snapshot(tokens: &[Token]) -> bool {
    tokens.iter().any(|token| match token {
        Token::Word(word) => matches!(word.value.to_lowercase().as_str(), "repeatable" | "serializable"),
        Token::SingleQuotedString(text) => {
            matches!(text.trim().to_lowercase().as_str(), "repeatable read" | "serializable")
        }
        _ => false,
    })
}

fn reads(tokens: &[Token], verb: &str) -> Kind {
    let mut effects = Effects { takes_snapshot: true, ..called(tokens) };
    // `SET id = DEFAULT` may take an id.
    effects.sequences |= has_word(tokens, "default");
    effects.writes = ["insert", "update", "delete", "merge"].iter().any(|verb| has_word(tokens, verb));
    if verb == "explain" && has_word(tokens, "execute") {
        effects.session = true;
        effects.sequences = true;
        effects.executes_prepared = true;
    }
    // `SELECT … INTO table` makes a table; MERGE and a WITH may insert.
    if has_word(tokens, "into") {
        effects.sequences = true;
        effects.schema |= verb != "merge" && !has_word(tokens, "insert");
        // It may be a temporary one, which only this session sees.
        effects.session |= effects.schema;
    }
    Kind::Other(effects)
}

fn begin(tokens: &[Token]) -> Kind {
    Kind::Begin {
        read_only: says(tokens, "read", "only"),
        fixes_snapshot: fixes_snapshot(tokens),
        plain: match word(tokens, 0).as_deref() {
            Some("begin") => is_plain_verb(tokens),
            // START TRANSACTION
            _ => tokens.len() == 2,
        },
    }
}

/// A verb alone, or with `WORK` or `TRANSACTION`: a BEGIN without options, a COMMIT without `AND CHAIN` or `PREPARED`.
fn is_plain_verb(tokens: &[Token]) -> bool {
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
            effects.reads_last_value |= name == "lastval";
        } else if name == "set_config" {
            let about = match tokens.get(at + 2) {
                Some(Token::SingleQuotedString(name)) => settings::about(&name.to_lowercase()),
                _ => About::Session,
            };
            effects = effects.or(about.effects(is_local_setting(&tokens[at + 1..])));
            effects.fixes_snapshot |= fixes_snapshot(tokens);
        } else if !is_built_in || !(harmless::is_harmless(&name) || harmless::keeps_settings(&name)) {
            effects = effects.or(Effects { session: true, sequences: true, ..Effects::default() });
        }
    }
    effects
}

/// Whether `('name', value, true)` follows: a setting that ends with the transaction. The value is a literal or a bind.
fn is_local_setting(tokens: &[Token]) -> bool {
    let [Token::LParen, _, Token::Comma, _, Token::Comma, last, Token::RParen, ..] = tokens else { return false };
    word(std::slice::from_ref(last), 0).as_deref() == Some("true")
}

pub(crate) fn word(tokens: &[Token], at: usize) -> Option<String> {
    match tokens.get(at) {
        Some(Token::Word(word)) if word.quote_style.is_none() => Some(word.value.to_ascii_lowercase()),
        _ => None,
    }
}

pub(crate) fn has_word(tokens: &[Token], wanted: &str) -> bool {
    (0..tokens.len()).any(|at| word(tokens, at).as_deref() == Some(wanted))
}

fn says(tokens: &[Token], first: &str, second: &str) -> bool {
    (0..tokens.len())
        .any(|at| word(tokens, at).as_deref() == Some(first) && word(tokens, at + 1).as_deref() == Some(second))
}

pub(crate) fn identifier(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) if word.quote_style.is_some() => Some(cut(word.value.clone())),
        Token::Word(word) => Some(cut(word.value.to_ascii_lowercase())),
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
        Err(reason) => Kind::UnfitInsert { reason, table, effects: Effects { writes: true, ..called(tokens) } },
    }
}

fn plain_insert(insert: &ast::Insert, table: TableName) -> Result<Insert, Reason> {
    let conflict = insert.on.as_ref().map(|on| conflict(on, &table)).transpose()?;
    if conflict.is_some() && insert.returning.is_some() {
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
    Ok(Insert { table_sql: name.to_string(), table, columns, values, width, rows, returning, conflict })
}

/// A clause by which a row affects one row whatever is in the table, or none: without a WHERE.
fn conflict(on: &ast::OnInsert, table: &TableName) -> Result<Conflict, Reason> {
    use ast::{Assignment, AssignmentTarget, ConflictTarget, OnConflictAction, OnInsert};

    let OnInsert::OnConflict(clause) = on else { return Err(Reason::OnConflict) };
    let target = match &clause.conflict_target {
        None => Vec::new(),
        Some(ConflictTarget::Columns(columns)) => columns.iter().map(folded).collect(),
        Some(ConflictTarget::OnConstraint(_)) => return Err(Reason::OnConflict),
    };
    let set = |Assignment { target, value }: &Assignment| {
        let AssignmentTarget::ColumnName(name) = target else { return None };
        let column = single_name(name)?;
        is_steady(value, table).then(|| (column.clone(), is_excluded(value, &column)))
    };
    let sets = match &clause.action {
        OnConflictAction::DoNothing => None,
        OnConflictAction::DoUpdate(update) if update.selection.is_some() => return Err(Reason::OnConflict),
        OnConflictAction::DoUpdate(update) => {
            Some(update.assignments.iter().map(set).collect::<Option<_>>().ok_or(Reason::OnConflict)?)
        }
    };
    Ok(Conflict { sql: on.to_string(), target, sets })
}

/// `excluded.column`
fn is_excluded(value: &Expr, column: &str) -> bool {
    matches!(value, Expr::CompoundIdentifier(parts)
        if matches!(parts.as_slice(), [row, name] if folded(row) == "excluded" && folded(name) == column))
}

/// Whether an expression gives the same later as now, for the same row: columns, plain literals, the transaction's time
/// and arithmetic.
fn is_steady(expr: &Expr, table: &TableName) -> bool {
    use ast::BinaryOperator::{Minus, Multiply, Plus, StringConcat};

    match expr {
        Expr::Identifier(name) => !(name.quote_style.is_none() && name.value.eq_ignore_ascii_case("default")),
        Expr::CompoundIdentifier(parts) => {
            matches!(parts.as_slice(), [row, _] if folded(row) == "excluded" || folded(row) == table.name)
        }
        Expr::Value(value) => literal(&value.value).is_some(),
        Expr::Nested(inner) => is_steady(inner, table),
        Expr::BinaryOp { left, op: Plus | Minus | Multiply | StringConcat, right } => {
            is_steady(left, table) && is_steady(right, table)
        }
        Expr::Function(_) => matches!(expr.to_string().to_lowercase().as_str(), "now()" | "current_timestamp"),
        _ => false,
    }
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
    if width == 0 {
        return Err(Reason::Form);
    }
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
            Value::Literal(Literal::Decimal(digits)) if !digits.starts_with('-') => {
                Ok(Value::Literal(Literal::Decimal(format!("-{digits}"))))
            }
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
        ast::Value::Number(digits, false) if digits.parse::<i64>().is_ok() => digits.parse().ok().map(Literal::Integer),
        ast::Value::Number(digits, false) if is_decimal(digits) => Some(Literal::Decimal(digits.clone())),
        // What a backslash means depends on `standard_conforming_strings`.
        ast::Value::SingleQuotedString(text) if !text.contains('\\') => Some(Literal::Text(text.clone())),
        _ => None,
    }
}

/// `1.50`: no exponent, and digits on both sides of the point.
pub(crate) fn is_decimal(text: &str) -> bool {
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    text.split_once('.').is_some_and(|(whole, fraction)| is_digits(whole) && is_digits(fraction))
}

pub(crate) fn type_name(data_type: &DataType) -> Result<TypeName, Reason> {
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
        SelectItem::Wildcard(options) if is_bare(options) => Ok(Returned::All),
        SelectItem::QualifiedWildcard(ast::SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
            let same = is_bare(options) && table_name(name).is_some_and(|t| t.name == table.name);
            if same { Ok(Returned::All) } else { Err(Reason::Returning) }
        }
        SelectItem::UnnamedExpr(expr) => returned_column(expr, table, None),
        SelectItem::ExprWithAlias { expr, alias } => returned_column(expr, table, Some(folded(alias))),
        _ => Err(Reason::Returning),
    }
}

/// `*` alone: other databases let it leave columns out, which Postgres refuses.
fn is_bare(options: &ast::WildcardAdditionalOptions) -> bool {
    ast::WildcardAdditionalOptions { wildcard_token: options.wildcard_token.clone(), ..Default::default() } == *options
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

pub(crate) fn table_name(name: &ObjectName) -> Option<TableName> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(table)] => Some(TableName { schema: None, name: folded(table) }),
        [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(table)] => {
            Some(TableName { schema: Some(folded(schema)), name: folded(table) })
        }
        _ => None,
    }
}

/// Postgres folds the ASCII letters of an unquoted name to lower case and cuts names at 63 bytes.
pub(crate) fn folded(ident: &ast::Ident) -> String {
    let mut name = ident.value.clone();
    if ident.quote_style.is_none() {
        name.make_ascii_lowercase();
    }
    cut(name)
}

fn cut(mut name: String) -> String {
    if name.len() > 63 {
        let end = (0..=63).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
        name.truncate(end);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(sql: &str) -> Insert {
        match recognise(sql).kind {
            Kind::Insert(insert) => insert,
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn refusal(sql: &str) -> Reason {
        match recognise(sql).kind {
            Kind::UnfitInsert { reason, .. } => reason,
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// A statement's effects, but for those that say which kind of work it does.
    fn effects(sql: &str) -> Effects {
        let effects = work(sql);
        if effects == Effects::ANY {
            effects
        } else {
            Effects { writes: false, takes_snapshot: false, executes_prepared: false, ..effects }
        }
    }

    fn work(sql: &str) -> Effects {
        match recognise(sql).kind {
            Kind::Other(effects) | Kind::UnfitInsert { effects, .. } => effects,
            other => panic!("{sql}: {other:?}"),
        }
    }

    fn bind(index: usize) -> Value {
        Value::Bind { index, cast: None }
    }

    fn cast(index: usize, sql: &str, name: &str) -> Value {
        Value::Bind { index, cast: Some(type_named(sql, name)) }
    }

    fn type_named(sql: &str, name: &str) -> TypeName {
        TypeName { sql: sql.to_owned(), name: name.to_owned() }
    }

    fn column(name: &str) -> Returned {
        Returned::Column { name: name.to_owned(), alias: None, cast: None }
    }

    const NOTHING: Effects = Effects {
        schema: false,
        session: false,
        values: false,
        session_is_local: false,
        sequences: false,
        reads_sequence_state: false,
        reads_last_value: false,
        writes: false,
        read_only: false,
        fixes_snapshot: false,
        takes_snapshot: false,
        prepares_reader: false,
        executes_prepared: false,
        tangles_transaction: false,
    };
    /// A function was called of which nothing is known.
    const CALLED: Effects = Effects { session: true, sequences: true, ..NOTHING };

    #[test]
    fn an_insert_as_diesel_writes_it_may_wait() {
        let insert =
            waits(r#"INSERT INTO "users" ("id", "name") VALUES (DEFAULT, $1) RETURNING "users"."id", "users"."name""#);
        assert_eq!((insert.table.to_string(), insert.table_sql.as_str()), ("users".to_owned(), r#""users""#));
        assert_eq!(insert.columns, ["id", "name"]);
        assert_eq!(insert.values, [Value::Default, bind(0)]);
        assert_eq!((insert.width, insert.rows), (2, 1));
        assert_eq!(insert.returning, [column("id"), column("name")]);
    }

    #[test]
    fn an_insert_as_seaorm_writes_it_may_wait() {
        let insert = waits(
            r#"INSERT INTO "public"."cake" ("mood") VALUES (CAST($1 AS "mood")) RETURNING "id", CAST("mood" AS "text")"#,
        );
        assert_eq!(insert.table, TableName { schema: Some("public".into()), name: "cake".into() });
        assert_eq!(insert.values, [cast(0, r#""mood""#, "mood")]);
        let text = type_named(r#""text""#, "text");
        let mood = Returned::Column { name: "mood".into(), alias: None, cast: Some(text) };
        assert_eq!(insert.returning, [column("id"), mood]);
    }

    #[test]
    fn several_rows_may_wait_if_they_are_equally_wide() {
        let insert = waits("INSERT INTO t (a, b) VALUES ($1, $2), ($3, DEFAULT), (NULL, 5)");
        assert_eq!((insert.width, insert.rows), (2, 3));
        let null = Value::Literal(Literal::Null);
        assert_eq!(
            insert.values,
            [bind(0), bind(1), bind(2), Value::Default, null, Value::Literal(Literal::Integer(5))]
        );
        assert_eq!(refusal("INSERT INTO t (a, b) VALUES ($1, $2), ($3)"), Reason::Form);
        assert_eq!(refusal("INSERT INTO t (a, b) VALUES ($1)"), Reason::Form);
    }

    #[test]
    fn an_insert_may_leave_out_columns_values_and_semicolons() {
        assert!(waits("INSERT INTO t VALUES ($1, $2);").columns.is_empty());
        let defaults = waits("INSERT INTO t DEFAULT VALUES RETURNING id");
        assert_eq!((defaults.width, defaults.rows), (0, 1));
        assert_eq!(refusal("INSERT INTO t (a) DEFAULT VALUES"), Reason::Form);
    }

    #[test]
    fn comments_and_case_change_nothing() {
        let insert = waits("/* a */ insert INTO Users -- b\n (Name) /* $9 ; */ values ($1) returning ID");
        assert_eq!((insert.table.name.as_str(), &insert.columns[..]), ("users", &["name".to_owned()][..]));
        assert_eq!(insert.returning, [column("id")]);
    }

    #[test]
    fn names_are_what_postgres_makes_of_them() {
        let insert = waits(r#"INSERT INTO "Odd""name"."T" ("Col""umn", plain) VALUES ($1, $2)"#);
        assert_eq!(insert.table, TableName { schema: Some("Odd\"name".into()), name: "T".into() });
        assert_eq!(insert.table_sql, r#""Odd""name"."T""#);
        assert_eq!(insert.columns, ["Col\"umn", "plain"]);
        let long = "x".repeat(70);
        assert_eq!(waits(&format!("INSERT INTO {long} (a) VALUES ($1)")).table.name, "x".repeat(63));
    }

    #[test]
    fn values_may_be_binds_literals_casts_and_defaults() {
        let value = |sql: &str| waits(&format!("INSERT INTO t (a) VALUES ({sql})")).values.remove(0);
        let literal = |literal| Value::Literal(literal);
        assert_eq!(value("$12"), bind(11));
        assert_eq!(value("($1)"), bind(0));
        assert_eq!(value("$1::int4"), cast(0, "INT4", "int4"));
        assert_eq!(value("CAST($1 AS public.mood)"), cast(0, "public.mood", "mood"));
        assert_eq!(value("-7"), literal(Literal::Integer(-7)));
        assert_eq!(value("1.50"), literal(Literal::Decimal("1.50".into())));
        assert_eq!(value("-0.5"), literal(Literal::Decimal("-0.5".into())));
        assert_eq!(value("true"), literal(Literal::Bool(true)));
        assert_eq!(value("'it''s'"), literal(Literal::Text("it's".into())));
        assert_eq!(value("null"), literal(Literal::Null));
        assert_eq!(value("default"), Value::Default);
    }

    #[test]
    fn any_other_value_is_an_expression() {
        for sql in [
            "now()",
            "$1 + 1",
            "(SELECT 1)",
            "1e3",
            ".5",
            "99999999999999999999",
            "'a' || 'b'",
            "upper($1)",
            "a",
            "-$1",
            r"E'\n'",
            r"'a\b'",
            "$$x$$",
            "'5'::int4",
            "NULL::int4",
            "$1::text::int4",
            "current_date",
            "ARRAY[1]",
            "(DEFAULT)",
        ] {
            let refused = refusal(&format!("INSERT INTO t (a) VALUES ({sql})"));
            assert_eq!(refused, Reason::Expression, "{sql}");
        }
    }

    #[test]
    fn casts_with_modifiers_are_left_to_postgres() {
        for sql in ["$1::varchar(3)", "$1::int4[]", "CAST($1 AS numeric(4, 2))", "$1::timestamp(3)"] {
            assert_eq!(refusal(&format!("INSERT INTO t (a) VALUES ({sql})")), Reason::Cast, "{sql}");
        }
    }

    #[test]
    fn returning_may_ask_for_columns_and_stars() {
        let returning = |sql: &str| waits(&format!("INSERT INTO public.t (a) VALUES ($1) RETURNING {sql}")).returning;
        assert_eq!(returning("*"), [Returned::All]);
        assert_eq!(returning("t.*, a"), [Returned::All, column("a")]);
        assert_eq!(returning("public.t.a"), [column("a")]);
        let renamed = Returned::Column { name: "a".into(), alias: Some("b".into()), cast: None };
        assert_eq!(returning("a AS B"), [renamed]);
        let text = Some(type_named("TEXT", "text"));
        assert_eq!(returning("a::text"), [Returned::Column { name: "a".into(), alias: None, cast: text }]);
    }

    #[test]
    fn returning_anything_else_is_left_to_postgres() {
        for sql in
            ["a + 1", "upper(a)", "other.a", "other.*", "current_user", "user", "1", "(SELECT 1)", "a::text::int4"]
        {
            assert_eq!(refusal(&format!("INSERT INTO t (a) VALUES ($1) RETURNING {sql}")), Reason::Returning, "{sql}");
        }
    }

    #[test]
    fn other_forms_of_insert_do_not_wait() {
        for sql in [
            "INSERT INTO t SELECT 1",
            "INSERT INTO t (a) SELECT $1",
            "INSERT INTO t (a) OVERRIDING SYSTEM VALUE VALUES ($1)",
            "INSERT INTO t (a) OVERRIDING USER VALUE VALUES ($1)",
            "INSERT INTO t AS x (a) VALUES ($1)",
            "INSERT INTO t (a) WITH x AS (SELECT 1) VALUES ($1)",
            "INSERT INTO t (a) VALUES ($1) ORDER BY 1",
            "INSERT INTO t (a) VALUES ($1) LIMIT 1",
            "INSERT INTO t (a[1]) VALUES ($1)",
            "INSERT INTO t (a.b) VALUES ($1)",
            "INSERT INTO a.b.c (a) VALUES ($1)",
            "INSERT INTO t () VALUES ()",
            "INSERT INTO t VALUES (), ()",
            "INSERT INTO `t` (a) VALUES ($1)",
            "INSERT t (a) VALUES ($1)",
            "INSERT IGNORE INTO t (a) VALUES ($1)",
            "INSERT OR REPLACE INTO t (a) VALUES ($1)",
            "INSERT INTO t SET a = 1",
            "INSERT INTO t (a) VALUE ($1)",
            "INSERT INTO t (a) VALUES ($1) nonsense",
        ] {
            assert_eq!(refusal(sql), Reason::Form, "{sql}");
        }
    }

    #[test]
    fn an_upsert_waits_whose_clause_is_the_same_for_every_row() {
        let conflict =
            |clause: &str| waits(&format!("INSERT INTO t (a) VALUES ($1) ON CONFLICT {clause}")).conflict.unwrap();
        let nothing = conflict("DO NOTHING");
        assert_eq!((nothing.target.len(), nothing.sets), (0, None));
        let upsert = conflict("(A, \"B\") DO UPDATE SET a = EXCLUDED.a, b = t.b + 1, c = now()");
        assert_eq!(upsert.target, ["a", "B"]);
        assert_eq!(upsert.sets.unwrap(), [("a", true), ("b", false), ("c", false)].map(|(n, own)| (n.to_owned(), own)));
        for clause in [
            "(a) DO UPDATE SET b = $1",
            "(a) DO UPDATE SET b = f(b)",
            "(a) DO UPDATE SET b = (SELECT 1)",
            "(a) DO UPDATE SET b = DEFAULT",
            "(a) DO UPDATE SET (b, c) = (1, 2)",
            "(a) DO UPDATE SET b = 1 WHERE t.b > 1",
            "ON CONSTRAINT k DO NOTHING",
            "(a) DO NOTHING RETURNING a",
        ] {
            assert_eq!(refusal(&format!("INSERT INTO t (a) VALUES ($1) ON CONFLICT {clause}")), Reason::OnConflict);
        }
    }

    #[test]
    fn an_insert_that_calls_functions_may_do_what_they_do() {
        let state = Effects { reads_sequence_state: true, ..NOTHING };
        assert_eq!(effects("INSERT INTO t VALUES (lastval())"), Effects { reads_last_value: true, ..state });
        assert_eq!(effects("INSERT INTO t (a) VALUES (currval('s'))"), state);
        assert_eq!(effects("INSERT INTO t SELECT currval('s')"), state);
        assert_eq!(effects("INSERT INTO t SELECT nextval('s')"), CALLED);
        assert_eq!(effects("INSERT INTO t (a) VALUES (my_function($1))"), CALLED);
        assert_eq!(effects("INSERT INTO t (a) VALUES (lower($1))"), NOTHING);
        assert_eq!(effects("INSERT INTO my_schema.t (a) VALUES (now())"), NOTHING);
    }

    #[test]
    fn statements_that_only_read_and_write_rows_have_no_other_effects() {
        for sql in [
            "SELECT * FROM users WHERE lower(name) = $1 AND id IN (1, 2)",
            "SELECT count(*), max(pg_catalog.length(name)) FROM users",
            "SELECT pg_advisory_xact_lock(1), pg_notify('a', 'b')",
            "(SELECT 1)",
            "UPDATE users SET name = $1 WHERE id = $2",
            "DELETE FROM users WHERE id = ANY($1)",
            "VALUES (1)",
            "TABLE users",
            "WITH x AS (SELECT 1) SELECT * FROM x",
            "EXPLAIN SELECT 1",
            "SET CONSTRAINTS ALL IMMEDIATE",
            "SHOW search_path",
            "LISTEN a",
            "NOTIFY a, 'b'",
            "LOCK TABLE users",
            "DECLARE c CURSOR FOR SELECT 1",
            "CLOSE c",
            "",
            " ; -- nothing",
        ] {
            assert_eq!(effects(sql), NOTHING, "{sql}");
        }
    }

    #[test]
    fn a_function_that_is_not_known_may_do_anything_to_the_session_and_its_sequences() {
        for sql in [
            "SELECT my_function()",
            "SELECT app.lower('x')",
            "SELECT nextval('s')",
            "SELECT setval('s', 1)",
            "SELECT * FROM my_function() AS t (a)",
            "UPDATE t SET a = my_function()",
            "SELECT \"Lower\"('x')",
        ] {
            assert_eq!(effects(sql), CALLED, "{sql}");
        }
        let set = Effects { session: true, ..NOTHING };
        assert_eq!(effects("SELECT set_config('search_path', 'a', false)"), set);
        assert_eq!(effects("SELECT set_config($1, 'a', false)"), set);
        assert_eq!(effects("SELECT set_config('Application_Name', $1, false)"), NOTHING);
        let set = Effects { values: true, ..NOTHING };
        assert_eq!(effects("SELECT set_config('a.b', $1, $2)"), set);
        let local = Effects { session_is_local: true, ..set };
        assert_eq!(effects("SELECT set_config('app.tenant', $1, true)"), local);
        assert_eq!(effects("SELECT set_config('a.b', $1, true), set_config('a.b', $1, false)"), set);
        assert_eq!(effects("SELECT set_config('a.b', $1, true), my_function()"), Effects { values: true, ..CALLED });
        let last = Effects { reads_sequence_state: true, reads_last_value: true, ..NOTHING };
        assert_eq!(effects("SELECT pg_catalog.lastval()"), last);
        assert_eq!(effects("SELECT currval ('s')"), Effects { reads_sequence_state: true, ..NOTHING });
    }

    #[test]
    fn what_runs_later_has_its_effects_when_it_runs() {
        for sql in ["EXECUTE p", "EXPLAIN ANALYZE EXECUTE p", "FETCH 1 FROM c", "MOVE c"] {
            assert_eq!(effects(sql), CALLED, "{sql}");
        }
    }

    #[test]
    fn statements_that_insert_beside_other_things_may_advance_sequences() {
        let sequences = Effects { sequences: true, ..NOTHING };
        assert_eq!(effects("WITH x AS (INSERT INTO t (a) VALUES (1) RETURNING id) SELECT * FROM x"), sequences);
        assert_eq!(effects("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DO NOTHING"), sequences);
        assert_eq!(effects("TRUNCATE t RESTART IDENTITY"), sequences);
        assert_eq!(effects("COPY t FROM STDIN"), sequences);
        assert_eq!(effects("SELECT * INTO TEMP u FROM t"), Effects { schema: true, session: true, ..sequences });
    }

    #[test]
    fn ddl_and_unknown_verbs_may_change_the_schema() {
        let ddl = Effects { schema: true, ..CALLED };
        for sql in [
            "ALTER TABLE t ADD COLUMN b int4",
            "CREATE TABLE t AS SELECT my_function()",
            "CREATE TABLE t AS VALUES (my_function())",
            "CREATE TABLE t AS TABLE u",
            "CREATE TABLE t AS EXECUTE p",
            "CREATE TEMP TABLE t (a int4)",
            "CREATE TABLE pg_temp.t (a int4)",
            "CREATE TABLE \"pg_temp\".t (a int4)",
            "CREATE SCHEMA s",
            "CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION f()",
            "CREATE MATERIALIZED VIEW v AS SELECT 1",
            "DROP SCHEMA s",
            "REFRESH MATERIALIZED VIEW v",
            "SOMETHING NEW",
        ] {
            assert_eq!(effects(sql), ddl, "{sql}");
        }
        // They call no function, and change nothing about the session.
        for sql in [
            "CREATE TABLE t (a int4 GENERATED BY DEFAULT AS IDENTITY, b varchar(3) DEFAULT my_function())",
            "CREATE TABLE IF NOT EXISTS \"t\" (\"a\" integer, CHECK (a > 0))",
            "CREATE UNIQUE INDEX i ON t (lower(a))",
            "CREATE TYPE mood AS ENUM ('sad')",
            "CREATE OR REPLACE VIEW v AS SELECT 1",
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP TABLE IF EXISTS t CASCADE",
            "GRANT INSERT ON t TO me",
            "COMMENT ON TABLE t IS 'x'",
        ] {
            assert_eq!(effects(sql), Effects { session: false, ..ddl }, "{sql}");
        }
    }

    #[test]
    fn settings_make_the_session_another() {
        let session = Effects { session: true, ..NOTHING };
        for sql in ["SET search_path = a", "SET ROLE me", "RESET ALL", "SET SESSION AUTHORIZATION me"] {
            assert_eq!(effects(sql), session, "{sql}");
        }
        let local = Effects { session_is_local: true, ..session };
        assert_eq!(effects("SET LOCAL ROLE me"), local);
        let values = Effects { values: true, ..NOTHING };
        for sql in
            ["SET TIME ZONE 'UTC'", "SET SESSION time zone LOCAL", "set datestyle = iso", "RESET a.b", "SET SEED TO 1"]
        {
            assert_eq!(effects(sql), values, "{sql}");
        }
        let local = Effects { session_is_local: true, ..values };
        assert_eq!(effects("SET LOCAL a.b = 1; SELECT 1; SET LOCAL c.d = 2"), local);
        assert_eq!(effects("SET LOCAL a.b = 1; SET a.b = 1"), values);
        assert_eq!(effects("SET a.b = 1; SET LOCAL a.b = 1"), values);
        for sql in ["SET LOCAL work_mem TO 1; RESET jit", "SET SESSION application_name = 'x'"] {
            assert_eq!(effects(sql), NOTHING, "{sql}");
        }
        for sql in
            ["SET search_path = a", "SET statement_timeout = 1; SET ROLE x; SET TIME ZONE 'UTC'", "SET SCHEMA 'x'"]
        {
            assert!(recognise(sql).assigns.is_some(), "{sql}");
        }
        for sql in
            ["SET search_path TO DEFAULT", "RESET ROLE", "SET LOCAL ROLE me", "RESET ALL", "SET ROLE me; SELECT 1"]
        {
            assert!(recognise(sql).assigns.is_none(), "{sql}");
        }
        assert_eq!(effects("SET TRANSACTION READ ONLY"), Effects { read_only: true, ..NOTHING });
    }

    #[test]
    fn the_isolation_level_may_be_set_in_several_ways() {
        let of_transaction = Effects { fixes_snapshot: true, ..NOTHING };
        assert_eq!(effects("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"), of_transaction);
        let fixed = Effects { session: true, ..of_transaction };
        for sql in [
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET transaction_isolation = 'serializable'",
            "SELECT set_config('transaction_isolation', 'repeatable read', false)",
        ] {
            assert_eq!(effects(sql), fixed, "{sql}");
        }
        assert!(!effects("SET TRANSACTION ISOLATION LEVEL READ COMMITTED").fixes_snapshot);
        assert!(!effects("SELECT 'serializable'").fixes_snapshot);
    }

    #[test]
    fn queries_take_the_snapshot_and_settings_do_not() {
        for sql in ["SELECT 1", "UPDATE t SET a = 1", "WITH x AS (SELECT 1) SELECT 1", "VALUES (1)", "FETCH c"] {
            assert!(work(sql).takes_snapshot, "{sql}");
        }
        for sql in ["SET a = 1", "SHOW a", "LOCK TABLE t", "LISTEN a", "SAVEPOINT a; RELEASE a"] {
            assert!(!work(sql).takes_snapshot, "{sql}");
        }
    }

    #[test]
    fn statements_that_may_fire_triggers_write() {
        for sql in [
            "UPDATE t SET a = 1",
            "DELETE FROM t",
            "WITH x AS (DELETE FROM t RETURNING a) SELECT 1",
            "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
            "INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 1 WHERE t.a < 1",
            "SELECT 1; UPDATE t SET a = 1",
        ] {
            assert!(work(sql).writes, "{sql}");
        }
        assert!(!work("SELECT * FROM t").writes);
        assert!(work("UPDATE t SET id = DEFAULT").sequences);
    }

    #[test]
    fn what_a_statement_names_is_known_as_the_catalog_spells_it() {
        let names = recognise("UPDATE App.\"Odd\" SET a = (SELECT B FROM v) WHERE a = 'text'").names;
        assert_eq!(*names, ["Odd", "a", "app", "b", "from", "select", "set", "update", "v", "where"].map(String::from));
        assert!(recognise("INSERT INTO t (a) VALUES ($1)").names.is_empty());
    }

    #[test]
    fn a_prepared_statement_reads_sequences_when_it_is_executed() {
        let prepare = effects("PREPARE p AS SELECT lastval()");
        assert_eq!(prepare, Effects { prepares_reader: true, ..NOTHING });
        assert_eq!(effects("PREPARE p AS SELECT my_function()"), NOTHING);
        for sql in ["EXECUTE p", "EXPLAIN ANALYZE EXECUTE p", "SELECT 1; EXECUTE p"] {
            assert!(work(sql).executes_prepared, "{sql}");
        }
        let block = effects("DO $$ BEGIN PERFORM lastval(); END $$");
        assert!(block.reads_sequence_state && block.reads_last_value);
    }

    #[test]
    fn code_that_may_end_the_transaction_tangles_it() {
        assert_eq!(effects("SELECT 'unclosed"), Effects::ANY);
        // A block that the program began they cannot end.
        for sql in ["CALL p()", "DO $$ BEGIN COMMIT; END $$", "DISCARD ALL"] {
            assert_eq!(work(sql), Effects { tangles_transaction: false, ..Effects::ANY }, "{sql}");
        }
        let tangled = Effects { tangles_transaction: true, ..NOTHING };
        for sql in [
            "COMMIT AND CHAIN",
            "COMMIT PREPARED 'x'",
            "ROLLBACK AND CHAIN",
            "ROLLBACK PREPARED 'x'",
            "PREPARE TRANSACTION 'x'",
            "ROLLBACK TO SAVEPOINT a b",
            "RELEASE",
        ] {
            assert_eq!(effects(sql), tangled, "{sql}");
        }
    }

    #[test]
    fn transactions_begin_in_several_ways() {
        for (sql, reads, fixes) in [
            ("BEGIN", false, false),
            ("begin work;", false, false),
            ("START TRANSACTION", false, false),
            ("BEGIN ISOLATION LEVEL READ COMMITTED", false, false),
            ("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE", false, true),
            ("BEGIN READ ONLY", true, false),
            ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY, DEFERRABLE", true, true),
        ] {
            match recognise(sql).kind {
                Kind::Begin { read_only, fixes_snapshot, .. } => {
                    assert_eq!((read_only, fixes_snapshot), (reads, fixes), "{sql}");
                }
                other => panic!("{sql}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_transaction_without_options_is_told_from_others() {
        for sql in ["BEGIN", "begin work;", "BEGIN TRANSACTION", "START TRANSACTION"] {
            assert!(matches!(recognise(sql).kind, Kind::Begin { plain: true, .. }), "{sql}");
        }
        for sql in [
            "BEGIN READ WRITE",
            "BEGIN ISOLATION LEVEL READ COMMITTED",
            "START TRANSACTION NOT DEFERRABLE",
            "BEGIN WORK DEFERRABLE",
        ] {
            assert!(matches!(recognise(sql).kind, Kind::Begin { plain: false, .. }), "{sql}");
        }
    }

    #[test]
    fn transactions_end_in_several_ways() {
        for sql in ["COMMIT", "commit work", "COMMIT TRANSACTION;", "END", "END TRANSACTION"] {
            assert!(matches!(recognise(sql).kind, Kind::Commit), "{sql}");
        }
        for sql in ["ROLLBACK", "rollback work", "ROLLBACK TRANSACTION", "ABORT"] {
            assert!(matches!(recognise(sql).kind, Kind::Rollback), "{sql}");
        }
    }

    #[test]
    fn a_commit_in_any_form_and_in_front_of_a_script_is_one() {
        let commits =
            ["COMMIT", "END", "COMMIT AND CHAIN", "end and no chain", "PREPARE TRANSACTION 'x'", "COMMIT; SELECT 1"];
        assert!(commits.iter().all(|sql| recognise(sql).commits()));
        let others = [
            "ROLLBACK AND CHAIN",
            "SELECT 1; COMMIT",
            "COMMIT PREPARED 'x'",
            "PREPARE x AS SELECT 1",
            "ROLLBACK; COMMIT",
        ];
        assert!(!others.iter().any(|sql| recognise(sql).commits()));
        assert!(matches!(recognise("ROLLBACK TO a; SELECT 1").first(), Kind::RollbackTo(name) if name == "a"));
    }

    #[test]
    fn a_timeout_that_is_set_is_known_where_its_value_is_written_down() {
        let set = |sql: &str| recognise(sql).timeouts().first().copied();
        let expected = |is_local| Setting::new("statement_timeout", "5s", is_local);
        assert_eq!(set("SET statement_timeout = '5s'"), expected(false));
        assert_eq!(set("set session Statement_Timeout to 5000"), expected(false));
        assert_eq!(set("SET LOCAL statement_timeout TO '5 s'"), expected(true));
        for sql in ["SET statement_timeout TO DEFAULT", "RESET statement_timeout", "SET work_mem = '5MB'", "SELECT 1"] {
            assert_eq!(set(sql), None, "{sql}");
        }
    }

    #[test]
    fn savepoints_are_known_by_the_name_that_postgres_gives_them() {
        let name = |sql: &str| match recognise(sql).kind {
            Kind::Savepoint(name) | Kind::RollbackTo(name) | Kind::Release(name) => name,
            other => panic!("{sql}: {other:?}"),
        };
        assert_eq!(name("SAVEPOINT Diesel_1"), "diesel_1");
        assert_eq!(name(r#"SAVEPOINT "Odd""name""#), "Odd\"name");
        // Postgres folds ASCII letters only.
        assert_eq!(name("SAVEPOINT ÄB"), "Äb");
        assert_eq!(name("ROLLBACK TO a"), "a");
        assert_eq!(name("ROLLBACK WORK TO SAVEPOINT a"), "a");
        assert_eq!(name("ROLLBACK TO savepoint"), "savepoint");
        assert_eq!(name("RELEASE a"), "a");
        assert_eq!(name("RELEASE SAVEPOINT a"), "a");
    }

    #[test]
    fn a_script_has_the_effects_of_all_its_statements() {
        assert_eq!(effects("SELECT 1; SELECT 2"), NOTHING);
        assert_eq!(effects("SELECT ';'; UPDATE t SET a = 1"), NOTHING);
        assert_eq!(effects("INSERT INTO t (a) VALUES (1); SELECT 1"), Effects { sequences: true, ..NOTHING });
        assert_eq!(effects("SELECT f(); CREATE TABLE t (a int4)"), Effects { schema: true, ..CALLED });
        let tangled = Effects { tangles_transaction: true, ..NOTHING };
        assert_eq!(effects("SELECT 1; COMMIT"), tangled);
        assert_eq!(effects("SAVEPOINT a; SELECT 1"), tangled);
    }

    #[test]
    fn texts_are_parsed_once() {
        let texts = Texts::default();
        let first = texts.recognise("SELECT 1");
        assert!(Arc::ptr_eq(&first, &texts.recognise("SELECT 1")));
        assert!(!Arc::ptr_eq(&first, &texts.recognise("SELECT 2")));
    }
}
