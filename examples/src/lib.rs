//! What the example programs share: records to import, the import as users of Diesel, diesel-async and SeaORM write it, and a report.
//!
//! | module | what it holds |
//! |---|---|
//! | [`genbank`] | the records, parsed, without a word about databases |
//! | [`schema`] | the three tables: sequences → features → qualifiers |
//! | [`models`] | a row of each table, for Diesel |
//! | [`diesel_import`] | records → rows, one `INSERT` each |
//! | [`diesel_async_import`] | the same with diesel-async |
//! | [`entities`] | the same for SeaORM |
//! | [`seaorm_import`] | records → rows, one `insert` each |
//! | [`ingestion`] | files through a pipeline whose commits overlap with parsing, killed and restarted |
//! | [`cli`] | the programs' options and progress bar |
//! | [`measure`] | what a piece of work cost, in time and on the wire |
//! | [`report`] | the comparison that the programs print |
//! | [`compare`] | every way of writing rows, measured side by side |
//! | [`web`] | a web service with axum and SeaORM |

pub mod cli;
pub mod compare;
pub mod diesel_async_import;
pub mod diesel_import;
pub mod entities;
pub mod genbank;
pub mod ingestion;
pub mod measure;
pub mod models;
pub mod report;
pub mod schema;
pub mod seaorm_import;
pub mod web;
