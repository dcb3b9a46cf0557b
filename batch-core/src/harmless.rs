//! Functions that read nothing but their arguments, the rows at hand or the clock, and change nothing.
//!
//! A statement that calls only these leaves the session's settings and the sequences as they were. The list also holds
//! the keywords and type names that may stand before a parenthesis. What is not listed counts as able to do anything.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

pub(crate) fn is_harmless(name: &str) -> bool {
    KEYWORDS.binary_search(&name).is_ok() || FUNCTIONS.binary_search(&name).is_ok()
}

/// Words that may stand before `(` without being a call. Sorted.
const KEYWORDS: &[&str] = &[
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "bit",
    "by",
    "case",
    "cast",
    "char",
    "character",
    "conflict",
    "cube",
    "decimal",
    "distinct",
    "else",
    "except",
    "exists",
    "filter",
    "from",
    "grouping",
    "having",
    "ilike",
    "in",
    "intersect",
    "interval",
    "into",
    "is",
    "join",
    "lateral",
    "like",
    "limit",
    "materialized",
    "not",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "over",
    "rollup",
    "row",
    "rows",
    "select",
    "set",
    "sets",
    "similar",
    "some",
    "table",
    "then",
    "time",
    "timestamp",
    "timestamptz",
    "union",
    "update",
    "using",
    "values",
    "varchar",
    "varying",
    "when",
    "where",
    "with",
];

/// Functions of `pg_catalog`. Sorted.
const FUNCTIONS: &[&str] = &[
    "abs",
    "age",
    "array_agg",
    "array_append",
    "array_cat",
    "array_length",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_replace",
    "array_to_json",
    "array_to_string",
    "array_upper",
    "ascii",
    "avg",
    "bit_and",
    "bit_length",
    "bit_or",
    "bool_and",
    "bool_or",
    "btrim",
    "cardinality",
    "cbrt",
    "ceil",
    "ceiling",
    "char_length",
    "character_length",
    "chr",
    "clock_timestamp",
    "coalesce",
    "concat",
    "concat_ws",
    "corr",
    "count",
    "cume_dist",
    "current_database",
    "current_schema",
    "current_schemas",
    "current_setting",
    "date_bin",
    "date_part",
    "date_trunc",
    "daterange",
    "decode",
    "degrees",
    "dense_rank",
    "div",
    "encode",
    "every",
    "exp",
    "extract",
    "first_value",
    "floor",
    "format",
    "format_type",
    "gen_random_uuid",
    "generate_series",
    "generate_subscripts",
    "greatest",
    "host",
    "initcap",
    "int4range",
    "int8range",
    "isempty",
    "json_agg",
    "json_array_elements",
    "json_array_elements_text",
    "json_array_length",
    "json_build_array",
    "json_build_object",
    "json_each",
    "json_each_text",
    "json_extract_path",
    "json_extract_path_text",
    "json_object",
    "json_object_agg",
    "json_object_keys",
    "json_to_record",
    "json_to_recordset",
    "json_typeof",
    "jsonb_agg",
    "jsonb_array_elements",
    "jsonb_array_elements_text",
    "jsonb_array_length",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_each",
    "jsonb_each_text",
    "jsonb_extract_path",
    "jsonb_extract_path_text",
    "jsonb_insert",
    "jsonb_object",
    "jsonb_object_agg",
    "jsonb_object_keys",
    "jsonb_pretty",
    "jsonb_set",
    "jsonb_strip_nulls",
    "jsonb_to_record",
    "jsonb_to_recordset",
    "jsonb_typeof",
    "justify_days",
    "justify_hours",
    "justify_interval",
    "lag",
    "last_value",
    "lead",
    "least",
    "left",
    "length",
    "ln",
    "log",
    "lower",
    "lower_inc",
    "lower_inf",
    "lpad",
    "ltrim",
    "make_date",
    "make_interval",
    "make_time",
    "make_timestamp",
    "make_timestamptz",
    "masklen",
    "max",
    "md5",
    "min",
    "mod",
    "mode",
    "network",
    "now",
    "nth_value",
    "ntile",
    "nullif",
    "num_nonnulls",
    "num_nulls",
    "numrange",
    "octet_length",
    "overlay",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "pg_backend_pid",
    "pg_column_size",
    "pg_get_serial_sequence",
    "pg_size_pretty",
    "pg_table_is_visible",
    "pg_total_relation_size",
    "pg_typeof",
    "pi",
    "plainto_tsquery",
    "position",
    "power",
    "quote_ident",
    "quote_literal",
    "quote_nullable",
    "radians",
    "random",
    "rank",
    "regexp_match",
    "regexp_matches",
    "regexp_replace",
    "regexp_split_to_array",
    "regexp_split_to_table",
    "repeat",
    "replace",
    "reverse",
    "right",
    "round",
    "row_number",
    "row_to_json",
    "rpad",
    "rtrim",
    "set_masklen",
    "sha256",
    "sign",
    "split_part",
    "sqrt",
    "starts_with",
    "statement_timestamp",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "string_agg",
    "string_to_array",
    "strpos",
    "substr",
    "substring",
    "sum",
    "text",
    "timeofday",
    "timezone",
    "to_char",
    "to_date",
    "to_hex",
    "to_json",
    "to_jsonb",
    "to_number",
    "to_regclass",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "transaction_timestamp",
    "translate",
    "trim",
    "trunc",
    "ts_rank",
    "tsrange",
    "tstzrange",
    "unnest",
    "upper",
    "upper_inc",
    "upper_inf",
    "var_pop",
    "var_samp",
    "variance",
    "version",
    "websearch_to_tsquery",
    "width_bucket",
];

/// Functions of `pg_catalog` that do act, but on neither settings nor sequences nor the schema.
pub(crate) fn keeps_settings(name: &str) -> bool {
    name.starts_with("pg_advisory_")
        || name.starts_with("pg_try_advisory_")
        || matches!(
            name,
            "pg_cancel_backend"
                | "pg_current_xact_id"
                | "pg_notify"
                | "pg_sleep"
                | "pg_sleep_for"
                | "pg_sleep_until"
                | "pg_terminate_backend"
                | "txid_current"
        )
}

/// Functions of `pg_catalog` that are not volatile, so that a CHECK constraint may call them later than it would have.
pub(crate) fn is_steady(name: &str) -> bool {
    is_harmless(name)
        && !matches!(
            name,
            "clock_timestamp"
                | "gen_random_uuid"
                | "pg_total_relation_size"
                | "random"
                | "statement_timestamp"
                | "timeofday"
        )
}

/// Whether a trigger function in PL/pgSQL of this source only looks at its row and sets its columns, such as one that
/// keeps `updated_at`.
pub(crate) fn is_quiet_trigger(source: &str) -> bool {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, source).tokenize() else { return false };
    let tokens: Vec<Token> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    tokens.iter().enumerate().all(|(at, token)| {
        let Token::Word(word) = token else { return true };
        let name = word.value.to_lowercase();
        let is_call = tokens.get(at + 1) == Some(&Token::LParen);
        let acts = ["call", "copy", "delete", "execute", "insert", "merge", "perform", "select", "update"];
        !acts.contains(&name.as_str())
            && (!is_call || is_harmless(&name) || matches!(name.as_str(), "elsif" | "if" | "return" | "while"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_so_that_they_can_be_searched() {
        assert!(KEYWORDS.is_sorted());
        assert!(FUNCTIONS.is_sorted(), "{:?}", FUNCTIONS.windows(2).find(|w| w[0] > w[1]));
    }

    #[test]
    fn a_trigger_that_only_sets_columns_of_its_row_is_quiet() {
        let diesel = "BEGIN
            IF (NEW IS DISTINCT FROM OLD AND NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at) THEN
                NEW.updated_at := current_timestamp;
            END IF;
            RETURN NEW;
        END;";
        assert!(is_quiet_trigger(diesel));
        assert!(is_quiet_trigger("BEGIN NEW.updated_at = now(); RETURN NEW; END"));
        for source in [
            "BEGIN INSERT INTO log VALUES (1); RETURN NEW; END",
            "BEGIN NEW.n := nextval('s'); RETURN NEW; END",
            "BEGIN PERFORM f(); RETURN NEW; END",
            "BEGIN NEW.n := my_function(NEW.n); RETURN NEW; END",
            "execute",
        ] {
            assert!(!is_quiet_trigger(source), "{source}");
        }
    }

    #[test]
    fn functions_that_change_sessions_or_sequences_are_not_harmless() {
        for name in ["set_config", "setval", "nextval", "dblink", "my_function", "pg_advisory_lock"] {
            assert!(!is_harmless(name), "{name}");
        }
    }
}
