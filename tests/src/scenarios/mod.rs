//! The scenarios: a file per part of the contract.

mod both;

pub mod answers;
pub mod waiting;

/// Calls `$each!(path)` for every scenario. A scenario that is not listed here fails
/// `every_scenario_is_listed` in `tests/all.rs`.
#[macro_export]
macro_rules! for_each_scenario {
    ($each:ident) => {
        $each! {
            waiting::a_loop_of_inserts_in_a_transaction_is_one_flush,
            waiting::outside_a_transaction_every_insert_is_sent_at_once,
            waiting::before_batching_is_on_every_statement_is_sent_as_it_is,
            waiting::batching_is_on_for_connections_that_were_there_before,
            waiting::a_transaction_that_the_program_begins_by_raw_sql_batches_too,
            waiting::each_plain_form_of_an_insert_waits,
            waiting::each_other_form_of_an_insert_is_sent_at_once,
            waiting::a_partitioned_table_waits_and_a_view_does_not,
            waiting::a_role_without_the_privilege_gets_postgres_own_error,
            waiting::a_column_that_is_left_out_waits_if_its_default_is_the_same_later,
            waiting::a_volatile_default_does_not_matter_where_a_value_is_given,
            waiting::pending_rows_go_out_before_any_other_statement,
            waiting::copy_sees_pending_rows,
            waiting::a_cursor_sees_the_rows_from_before_it_and_none_from_after,
            waiting::every_statement_sees_the_rows_that_waited,
            waiting::pending_rows_go_out_before_a_savepoint_and_before_its_release,
            waiting::pending_rows_go_out_at_commit_and_at_flush,
            waiting::the_row_budget_sends_what_is_pending,
            waiting::the_byte_budget_sends_what_is_pending,
            waiting::rollback_sends_nothing,
            waiting::rollback_to_discards_the_rows_of_that_savepoint_alone,
            answers::texts_are_answered,
            answers::a_text_with_a_limit_is_answered_when_it_fits,
            answers::a_text_with_a_nul_fails_at_once,
            answers::integers_are_answered_in_the_columns_width,
            answers::plain_types_are_answered,
            answers::a_cidr_is_answered_or_sent,
            answers::a_time_is_answered_where_it_needs_no_rounding,
            answers::a_numeric_is_answered_where_it_needs_no_rounding,
            answers::a_jsonb_is_answered_in_its_canonical_form,
            answers::a_json_is_answered_as_it_was_written,
            answers::an_enum_is_answered_by_its_label,
            answers::a_domain_is_answered_as_its_base_type,
            answers::arrays_are_answered,
            answers::a_composite_waits_where_nobody_asks_for_it,
            answers::types_without_a_rule_wait_where_nobody_asks_for_them,
            answers::a_bind_of_another_type_is_postgres_own_to_convert,
            answers::binds_of_two_types_for_one_column_do_not_mix,
            answers::constant_defaults_are_answered,
            answers::other_defaults_are_postgres_own_to_answer,
            answers::a_generated_column_is_postgres_own_to_answer,
            answers::now_is_the_transactions_own,
            answers::now_of_a_later_transaction_is_later,
            answers::a_rounded_now_is_postgres_own_to_answer,
            answers::a_random_uuid_is_answered_and_stored,
            answers::a_null_for_a_not_null_column_fails_at_once,
            answers::a_literal_that_needs_converting_is_sent,
            answers::a_count_is_the_number_of_rows,
        }
    };
}
