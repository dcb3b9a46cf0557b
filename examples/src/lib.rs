//! What the example programs share: records to import, an import as a Diesel user writes it, and a report.
//!
//! | module | what it holds |
//! |---|---|
//! | [`genbank`] | the records, parsed, without a word about databases |
//! | [`schema`] | the three tables: sequences → features → qualifiers |
//! | [`models`] | a row of each table, for Diesel |
//! | [`diesel_import`] | records → rows, one `INSERT` each |
//! | [`measure`] | what a piece of work cost, in time and on the wire |
//! | [`report`] | the comparison that the programs print |

pub mod diesel_import;
pub mod genbank;
pub mod measure;
pub mod models;
pub mod report;
pub mod schema;
