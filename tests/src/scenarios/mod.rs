//! The scenarios: a file per part of the contract.

pub mod waiting;

/// Calls `$each!(path)` for every scenario. A scenario that is not listed here fails
/// `every_scenario_is_listed` in `tests/all.rs`.
#[macro_export]
macro_rules! for_each_scenario {
    ($each:ident) => {
        $each! {
            waiting::a_loop_of_inserts_in_a_transaction_is_one_flush,
        }
    };
}
