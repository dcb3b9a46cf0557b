//! A row of each table, as Diesel reads it and as it writes it.

use diesel::pg::Pg;
use diesel::prelude::*;

use crate::genbank;
use crate::schema::{features, qualifiers, sequences};

/// A stored [`genbank::Record`].
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Identifiable)]
#[diesel(table_name = sequences, check_for_backend(Pg))]
#[expect(missing_docs, reason = "the columns are the fields of `genbank::Record`")]
pub struct Sequence {
    pub id: i32,
    pub accession: String,
    pub version: Option<String>,
    pub name: String,
    pub definition: Option<String>,
    pub organism: Option<String>,
    pub molecule_type: Option<String>,
    pub topology: String,
    pub division: String,
    pub length: i32,
}

/// A [`Sequence`] that Postgres has yet to give its id.
#[derive(Insertable)]
#[diesel(table_name = sequences, check_for_backend(Pg))]
pub(crate) struct NewSequence<'a> {
    accession: &'a str,
    version: Option<&'a str>,
    name: &'a str,
    definition: Option<&'a str>,
    organism: Option<&'a str>,
    molecule_type: Option<&'a str>,
    topology: &'a str,
    division: &'a str,
    length: i32,
}

impl<'a> NewSequence<'a> {
    pub(crate) fn new(record: &'a genbank::Record) -> Self {
        Self {
            accession: &record.accession,
            version: record.version.as_deref(),
            name: &record.name,
            definition: record.definition.as_deref(),
            organism: record.organism.as_deref(),
            molecule_type: record.molecule_type.as_deref(),
            topology: &record.topology,
            division: &record.division,
            length: record.length,
        }
    }
}

/// A stored [`genbank::Feature`].
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Identifiable, Associations)]
#[diesel(table_name = features, belongs_to(Sequence), check_for_backend(Pg))]
pub struct Feature {
    /// The primary key.
    pub id: i64,
    /// The sequence that it lies on.
    pub sequence_id: i32,
    /// Its place among the sequence's features, from 1.
    pub ordinal: i32,
    /// See [`genbank::Feature::kind`].
    pub kind: String,
    /// See [`genbank::Feature::location`].
    pub location: String,
    /// See [`genbank::Feature::complement`].
    pub complement: bool,
}

/// A [`Feature`] that Postgres has yet to give its id.
#[derive(Insertable)]
#[diesel(table_name = features, check_for_backend(Pg))]
pub(crate) struct NewFeature<'a> {
    sequence_id: i32,
    ordinal: i32,
    kind: &'a str,
    location: &'a str,
    complement: bool,
}

impl<'a> NewFeature<'a> {
    pub(crate) fn new(sequence: &Sequence, ordinal: i32, feature: &'a genbank::Feature) -> Self {
        Self {
            sequence_id: sequence.id,
            ordinal,
            kind: &feature.kind,
            location: &feature.location,
            complement: feature.complement,
        }
    }
}

/// A stored [`genbank::Qualifier`].
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Selectable, Identifiable, Associations)]
#[diesel(table_name = qualifiers, belongs_to(Feature), check_for_backend(Pg))]
pub struct Qualifier {
    /// The primary key.
    pub id: i64,
    /// The feature that it speaks about.
    pub feature_id: i64,
    /// Its place among the feature's qualifiers, from 1.
    pub ordinal: i32,
    /// See [`genbank::Qualifier::key`].
    pub key: String,
    /// See [`genbank::Qualifier::value`].
    pub value: Option<String>,
}

/// A [`Qualifier`] that Postgres has yet to give its id.
#[derive(Insertable)]
#[diesel(table_name = qualifiers, check_for_backend(Pg))]
pub(crate) struct NewQualifier<'a> {
    feature_id: i64,
    ordinal: i32,
    key: &'a str,
    value: Option<&'a str>,
}

impl<'a> NewQualifier<'a> {
    pub(crate) fn new(feature: &Feature, ordinal: i32, qualifier: &'a genbank::Qualifier) -> Self {
        Self { feature_id: feature.id, ordinal, key: &qualifier.key, value: qualifier.value.as_deref() }
    }
}
