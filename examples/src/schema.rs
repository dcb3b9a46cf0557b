//! The tables of `sql/schema.sql`.
#![allow(missing_docs, reason = "`table!` documents the tables, but not all that it makes of their columns")]

/// Creates the three tables; run once on an empty database.
pub const SQL: &str = include_str!("../sql/schema.sql");

/// The tables' names, parents first.
pub const TABLES: [&str; 3] = ["sequences", "features", "qualifiers"];

diesel::table! {
    sequences (id) {
        id -> Int4,
        accession -> Text,
        version -> Nullable<Text>,
        name -> Text,
        definition -> Nullable<Text>,
        organism -> Nullable<Text>,
        molecule_type -> Nullable<Text>,
        topology -> Varchar,
        division -> Varchar,
        length -> Int4,
    }
}

diesel::table! {
    features (id) {
        id -> Int8,
        sequence_id -> Int4,
        ordinal -> Int4,
        kind -> Text,
        location -> Text,
        complement -> Bool,
    }
}

diesel::table! {
    qualifiers (id) {
        id -> Int8,
        feature_id -> Int8,
        ordinal -> Int4,
        key -> Text,
        value -> Nullable<Text>,
    }
}

diesel::joinable!(features -> sequences (sequence_id));
diesel::joinable!(qualifiers -> features (feature_id));
diesel::allow_tables_to_appear_in_same_query!(sequences, features, qualifiers);
