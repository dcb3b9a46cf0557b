//! What a column's default is, read from the text that Postgres gives for it (`pg_get_expr`).

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::catalog::{Clock, Default};
use crate::eligible::Reason;
use crate::harmless;
use crate::recognise::{Literal, is_decimal};
use crate::statement::oid;

/// `nextval('schema.sequence'::regclass)` and nothing around it.
pub(crate) fn is_plain_nextval(expression: &str) -> bool {
    expression
        .strip_prefix("nextval('")
        .and_then(|rest| rest.strip_suffix("'::regclass)"))
        .is_some_and(|name| !name.replace("''", "").contains('\''))
}

/// Sorts a default that is no plain sequence into those that may wait and those that may not.
pub(crate) fn understand(expression: &str, base_oid: u32, modifier: i32) -> Default {
    if expression.contains("nextval(") {
        return Default::Unfit(Reason::SequenceExpression);
    }
    if let Some(clock) = clock(expression, base_oid) {
        // A clock that Postgres would round is known to Postgres alone.
        return match modifier {
            -1 | 6 => Default::Now(clock, expression.to_owned()),
            _ => Default::Constant(expression.to_owned()),
        };
    }
    if base_oid == oid::UUID && expression == "gen_random_uuid()" {
        return Default::RandomUuid(expression.to_owned());
    }
    match calls(expression) {
        // Functions of the transaction's time zone and start are as steady as `now()`.
        Some(calls) if calls.iter().all(|name| harmless::is_steady(name)) => Default::Constant(expression.to_owned()),
        _ => Default::Unfit(Reason::VolatileDefault),
    }
}

/// Whether another session of the same login would make the same of a default: it calls only Postgres' own functions that
/// look at nothing but the clock and chance.
pub(crate) fn is_shared(expression: &str) -> bool {
    calls(expression).is_some_and(|calls| calls.iter().all(|name| is_shared_function(name)))
}

pub(crate) fn is_shared_function(name: &str) -> bool {
    harmless::is_harmless(name) && !matches!(name, "current_setting" | "pg_backend_pid")
}

/// Which clock a default reads, for a column of type `base_oid`.
fn clock(expression: &str, base_oid: u32) -> Option<Clock> {
    let lower = expression.to_lowercase();
    let bare = lower.strip_prefix('(').and_then(|e| e.strip_suffix(')')).unwrap_or(&lower);
    let is_now = |text: &str| matches!(text, "now()" | "current_timestamp" | "transaction_timestamp()");
    let at_utc =
        ["timezone('utc'::text, now())", "now() at time zone 'utc'::text", "timezone('utc'::text, current_timestamp)"];
    match base_oid {
        oid::TIMESTAMPTZ if is_now(bare) => Some(Clock::Instant),
        oid::TIMESTAMP if is_now(bare) || bare == "localtimestamp" => Some(Clock::Local),
        oid::TIMESTAMP if at_utc.contains(&bare) => Some(Clock::Utc),
        oid::DATE if is_now(bare) || bare == "current_date" => Some(Clock::Date),
        _ => None,
    }
}

/// The names of the functions that an expression calls, or `None` where that cannot be told.
pub(crate) fn calls(expression: &str) -> Option<Vec<String>> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, expression).tokenize().ok()?;
    let tokens: Vec<Token> = tokens.into_iter().filter(|t| !matches!(t, Token::Whitespace(_))).collect();
    let mut calls = Vec::new();
    for pair in tokens.windows(2) {
        if let [Token::Word(word), Token::LParen] = pair {
            calls.push(if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() });
        }
    }
    Some(calls)
}

/// The literal that a constant default is, where it is as plain as one in a statement: `5`, `'-1'::integer`,
/// `true`, `'draft'::text`, `NULL::…`.
pub(crate) fn literal(expression: &str) -> Option<Literal> {
    let bare = expression.strip_prefix('(').and_then(|e| e.strip_suffix(')')).unwrap_or(expression);
    match bare {
        "true" => return Some(Literal::Bool(true)),
        "false" => return Some(Literal::Bool(false)),
        _ => {}
    }
    if let Ok(number) = bare.parse() {
        return Some(Literal::Integer(number));
    }
    if is_decimal(bare.strip_prefix('-').unwrap_or(bare)) {
        return Some(Literal::Decimal(bare.to_owned()));
    }
    // An array without elements: `ARRAY[]::text[]`, `'{}'::text[]`.
    if let Some(cast) = bare.strip_prefix("ARRAY[]::").or_else(|| bare.strip_prefix("'{}'::"))
        && cast.strip_suffix("[]").is_some_and(|element| !element.contains(['(', '[', '\'', ':']))
    {
        return Some(Literal::Text("{}".to_owned()));
    }
    if bare == "NULL" || bare.starts_with("NULL::") {
        return Some(Literal::Null);
    }
    let (text, rest) = quoted(bare)?;
    // Only a single cast to the column's own kind of type may follow; the caller checks the column's type.
    let cast = rest.strip_prefix("::")?;
    if cast.contains(['(', '[', '\'']) || cast.contains("::") {
        return None;
    }
    match cast {
        // Where the column is `text`, a cast follows that `pg_get_expr` does not show and that takes the spaces off.
        "bpchar" if text.ends_with(' ') => None,
        "integer" | "bigint" | "smallint" => text.parse().ok().map(Literal::Integer),
        "numeric" => match text.parse() {
            Ok(number) => Some(Literal::Integer(number)),
            Err(_) => is_decimal(text.strip_prefix('-').unwrap_or(&text)).then_some(Literal::Decimal(text)),
        },
        _ => Some(Literal::Text(text)),
    }
}

/// Splits `'it''s'::text` into `it's` and `::text`.
fn quoted(expression: &str) -> Option<(String, &str)> {
    let inner = expression.strip_prefix('\'')?;
    let mut text = String::new();
    let mut rest = inner;
    loop {
        let end = rest.find('\'')?;
        text.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(after) => {
                text.push('\'');
                rest = after;
            }
            None => return Some((text, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bare_nextval_is_a_plain_sequence() {
        assert!(is_plain_nextval("nextval('users_id_seq'::regclass)"));
        assert!(is_plain_nextval("nextval('\"Odd ''name\"'::regclass)"));
        assert!(!is_plain_nextval("(nextval('s'::regclass) * 10)"));
        assert!(!is_plain_nextval("nextval(('s'::text)::regclass)"));
        assert!(!is_plain_nextval("nextval('a'::regclass) + nextval('b'::regclass)"));
    }

    #[test]
    fn a_default_around_a_sequence_does_not_wait() {
        let default = understand("(nextval('s'::regclass) * 10)", oid::INT8, -1);
        assert!(matches!(default, Default::Unfit(Reason::SequenceExpression)));
    }

    #[test]
    fn volatile_and_unknown_functions_do_not_wait() {
        for expression in ["clock_timestamp()", "random()", "my_function()", "public.f('x'::text)"] {
            let default = understand(expression, oid::TEXT, -1);
            assert!(matches!(default, Default::Unfit(Reason::VolatileDefault)), "{expression}: {default:?}");
        }
    }

    #[test]
    fn the_transactions_clock_is_known_in_all_its_forms() {
        let clock_of = |expression, oid| match understand(expression, oid, -1) {
            Default::Now(clock, _) => Some(clock),
            _ => None,
        };
        assert_eq!(clock_of("now()", oid::TIMESTAMPTZ), Some(Clock::Instant));
        assert_eq!(clock_of("CURRENT_TIMESTAMP", oid::TIMESTAMPTZ), Some(Clock::Instant));
        assert_eq!(clock_of("CURRENT_TIMESTAMP", oid::TIMESTAMP), Some(Clock::Local));
        assert_eq!(clock_of("timezone('utc'::text, now())", oid::TIMESTAMP), Some(Clock::Utc));
        assert_eq!(clock_of("(now() AT TIME ZONE 'utc'::text)", oid::TIMESTAMP), Some(Clock::Utc));
        assert_eq!(clock_of("CURRENT_DATE", oid::DATE), Some(Clock::Date));
        assert_eq!(clock_of("now()", oid::TEXT), None);
    }

    #[test]
    fn a_clock_that_postgres_rounds_is_not_answered() {
        assert!(matches!(understand("now()", oid::TIMESTAMPTZ, 3), Default::Constant(_)));
    }

    #[test]
    fn plain_constants_are_read_as_literals() {
        assert_eq!(literal("5"), Some(Literal::Integer(5)));
        assert_eq!(literal("'-1'::integer"), Some(Literal::Integer(-1)));
        assert_eq!(literal("true"), Some(Literal::Bool(true)));
        assert_eq!(literal("'it''s'::text"), Some(Literal::Text("it's".into())));
        assert_eq!(literal("'happy'::mood"), Some(Literal::Text("happy".into())));
        assert_eq!(literal("NULL::character varying"), Some(Literal::Null));
        assert_eq!(literal("('now'::text)::date"), None);
        assert_eq!(literal("'1.5'::numeric(4,2)"), None);
        assert_eq!(literal("'a'::bpchar"), Some(Literal::Text("a".into())));
        assert_eq!(literal("'a  '::bpchar"), None);
        assert_eq!(literal("0.00"), Some(Literal::Decimal("0.00".into())));
        assert_eq!(literal("'-1.5'::numeric"), Some(Literal::Decimal("-1.5".into())));
        assert_eq!(literal("'-2'::numeric"), Some(Literal::Integer(-2)));
        assert_eq!(literal("'1e3'::numeric"), None);
        assert_eq!(literal("ARRAY[]::text[]"), Some(Literal::Text("{}".into())));
        assert_eq!(literal("'{}'::integer[]"), Some(Literal::Text("{}".into())));
        assert_eq!(literal("'{}'::character varying(3)[]"), None);
        assert_eq!(literal("'{a}'::text[]"), None);
        assert_eq!(literal("'{}'::jsonb"), Some(Literal::Text("{}".into())));
    }
}
