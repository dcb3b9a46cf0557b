//! What the example programs share: records to import, and an import as a Diesel user writes it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`genbank`] | the records, parsed, without a word about databases |
//! | [`schema`] | the three tables: sequences → features → qualifiers |
//! | [`models`] | a row of each table, for Diesel |
//! | [`diesel_import`] | records → rows, one `INSERT` each |

pub mod diesel_import;
pub mod genbank;
pub mod models;
pub mod schema;
