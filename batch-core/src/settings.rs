//! What a setting is about, as far as batching cares.
//!
//! A `SET` of what nobody can tell costs nothing. What is not listed may change anything.

use sqlparser::tokenizer::Token;

use crate::recognise::{Effects, word};

/// What a setting is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Speed, logs, names for whoever looks: neither rows nor answers.
    Nothing,
    /// How long a statement, a lock or an idle session may take.
    Time,
    /// How values are read, made and shown, and how safe a commit is. Whatever waits was sent before it changed, and what is made
    /// later is asked for later; only others' rows must not be made by it.
    Values,
    /// Which table a name means, who asks, what a transaction is; or not known.
    Session,
}

/// What the setting of this name is about, in lower case.
pub(crate) fn about(name: &str) -> About {
    const NOTHING: [&str; 10] = [
        "auto_explain.",
        "debug_",
        "enable_",
        "geqo",
        "jit",
        "log_",
        "pg_stat_statements.",
        "tcp_",
        "track_",
        "vacuum_",
    ];
    match name {
        "statement_timeout"
        | "transaction_timeout"
        | "idle_session_timeout"
        | "idle_in_transaction_session_timeout" => About::Time,
        "application_name"
        | "client_connection_check_interval"
        | "client_min_messages"
        | "constraint_exclusion"
        | "cursor_tuple_fraction"
        | "deadlock_timeout"
        | "default_statistics_target"
        | "default_table_access_method"
        | "default_tablespace"
        | "default_toast_compression"
        | "effective_cache_size"
        | "effective_io_concurrency"
        | "force_parallel_mode"
        | "from_collapse_limit"
        | "gin_fuzzy_search_limit"
        | "gin_pending_list_limit"
        | "hash_mem_multiplier"
        | "join_collapse_limit"
        | "logical_decoding_work_mem"
        | "maintenance_io_concurrency"
        | "maintenance_work_mem"
        | "max_parallel_maintenance_workers"
        | "max_parallel_workers"
        | "max_parallel_workers_per_gather"
        | "max_stack_depth"
        | "min_parallel_index_scan_size"
        | "min_parallel_table_scan_size"
        | "parallel_leader_participation"
        | "parallel_setup_cost"
        | "parallel_tuple_cost"
        | "plan_cache_mode"
        | "random_page_cost"
        | "recursive_worktable_factor"
        | "seq_page_cost"
        | "stats_fetch_consistency"
        | "synchronize_seqscans"
        | "temp_buffers"
        | "temp_file_limit"
        | "temp_tablespaces"
        | "cpu_index_tuple_cost"
        | "cpu_operator_cost"
        | "cpu_tuple_cost"
        | "wal_compression"
        | "wal_skip_threshold"
        | "work_mem" => About::Nothing,
        "array_nulls"
        | "commit_delay"
        | "commit_siblings"
        | "synchronous_commit"
        | "bytea_output"
        | "datestyle"
        | "default_text_search_config"
        | "extra_float_digits"
        | "intervalstyle"
        | "lc_messages"
        | "lc_monetary"
        | "lc_numeric"
        | "lc_time"
        | "lock_timeout"
        | "seed"
        | "timezone"
        | "timezone_abbreviations"
        | "transform_null_equals"
        | "xmlbinary"
        | "xmloption" => About::Values,
        _ if NOTHING.iter().any(|prefix| name.starts_with(prefix)) => About::Nothing,
        // A program's own, which its defaults and policies may read.
        _ if name.contains('.') => About::Values,
        _ => About::Session,
    }
}

impl About {
    /// What changing it does, in this transaction alone or beyond.
    pub(crate) fn effects(self, is_local: bool) -> Effects {
        match self {
            Self::Nothing => Effects::default(),
            Self::Values => Effects { values: true, session_is_local: is_local, ..Effects::default() },
            // How long is asked of the server, unless it is known.
            Self::Time | Self::Session => Effects { session: true, session_is_local: is_local, ..Effects::default() },
        }
    }
}

/// What a SET says.
pub(crate) struct Set {
    pub about: About,
    /// For the transaction alone.
    pub is_local: bool,
    /// Names mean the same after it each time: it does not touch them, or says all there is to say.
    pub is_certain: bool,
}

/// Of a `SET` or `RESET`, but for `SET TRANSACTION` and `SET CONSTRAINTS`.
pub(crate) fn of_set(tokens: &[Token]) -> Set {
    let second = word(tokens, 1).unwrap_or_default();
    let third = word(tokens, 2).unwrap_or_default();
    let is_local = second == "local";
    let is_scope = is_local || second == "session" && !matches!(third.as_str(), "authorization" | "characteristics");
    let rest = tokens.get(if is_scope { 2 } else { 1 }..).unwrap_or_default();
    let first = word(rest, 0).unwrap_or_default();
    let about = match (first.as_str(), word(rest, 1).as_deref()) {
        ("time", Some("zone")) | ("xml", Some("option")) => About::Values,
        _ => name(rest).map_or(About::Session, |name| about(&name)),
    };
    let is_default = |token: &Token| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case("default"));
    let says_all = word(tokens, 0).as_deref() == Some("set")
        && ["search_path", "role", "schema"].contains(&first.as_str())
        && !rest.iter().any(is_default);
    Set { about, is_local, is_certain: !is_local && (says_all || about != About::Session) }
}

/// `name` or `extension.name`, as the server looks it up.
fn name(tokens: &[Token]) -> Option<String> {
    let part = |token: &Token| match token {
        Token::Word(word) => Some(word.value.to_lowercase()),
        _ => None,
    };
    let first = part(tokens.first()?)?;
    match tokens.get(1..3) {
        Some([Token::Period, last]) => Some(format!("{first}.{}", part(last)?)),
        _ => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_tell_is_about_nothing() {
        for name in ["application_name", "work_mem", "enable_seqscan", "jit", "log_min_messages"] {
            assert_eq!(about(name), About::Nothing, "{name}");
        }
        assert_eq!(about("statement_timeout"), About::Time);
    }

    #[test]
    fn what_changes_values_or_names_or_is_not_known_is_told() {
        for name in ["timezone", "datestyle", "app.tenant", "synchronous_commit"] {
            assert_eq!(about(name), About::Values, "{name}");
        }
        for name in [
            "search_path",
            "role",
            "row_security",
            "session_replication_role",
            "default_transaction_isolation",
            "client_encoding",
            "standard_conforming_strings",
            "new_in_19",
        ] {
            assert_eq!(about(name), About::Session, "{name}");
        }
    }
}
