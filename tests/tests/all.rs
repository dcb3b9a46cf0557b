//! All scenarios, against every adapter, and each ORM's own tests.

#![allow(clippy::unwrap_used, reason = "this package is tests")]
#![allow(clippy::result_large_err, reason = "a failure carries all that a test compares")]

mod diesel_async_own;
mod diesel_own;
mod differential;
mod ingest;
mod seaorm_own;
mod servers;
mod storage;

macro_rules! with_diesel {
    ($($module:ident :: $name:ident,)*) => {
        mod diesel_scenarios {
            use batch_tests::diesel_adapter::Diesel;
            use batch_tests::scenarios;

            $(#[test]
            fn $name() {
                scenarios::$module::$name::<Diesel>();
            })*
        }
    };
}

macro_rules! with_diesel_async {
    ($($module:ident :: $name:ident,)*) => {
        mod diesel_async_scenarios {
            use batch_tests::diesel_async_adapter::DieselAsync;
            use batch_tests::scenarios;

            $(#[test]
            fn $name() {
                scenarios::$module::$name::<DieselAsync>();
            })*
        }
    };
}

macro_rules! with_seaorm {
    ($($module:ident :: $name:ident,)*) => {
        mod seaorm_scenarios {
            use batch_tests::scenarios;
            use batch_tests::seaorm_adapter::{NOT_PORTABLE, SeaOrm};

            $(#[test]
            fn $name() {
                if NOT_PORTABLE.contains(&stringify!($name)) {
                    eprintln!("SeaORM cannot bind what this scenario binds");
                    return;
                }
                scenarios::$module::$name::<SeaOrm>();
            })*
        }
    };
}

batch_tests::for_each_scenario!(with_diesel);
batch_tests::for_each_scenario!(with_diesel_async);
batch_tests::for_each_scenario!(with_seaorm);

#[test]
fn every_scenario_is_listed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/scenarios");
    let list = std::fs::read_to_string(format!("{folder}/mod.rs")).unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.starts_with("pub fn ") && line.contains("<A: Adapter>")) {
            let name = line.trim_start_matches("pub fn ").split('<').next().unwrap();
            assert!(list.contains(&format!("::{name},")), "{name} is not listed in scenarios/mod.rs");
        }
    }
}
