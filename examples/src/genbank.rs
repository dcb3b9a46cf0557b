//! GenBank records as plain structs.

use anyhow::{Context, Result};
use gb_io::reader::SeqReader;
use gb_io::seq::{Feature as GbFeature, Location, Seq};

/// The files come with the program, which therefore runs from anywhere.
pub(crate) const FILES: [(&str, &[u8]); 3] = [
    ("NC_000932.gb", include_bytes!("../data/genbank/NC_000932.gb")),
    ("NC_005816.gb", include_bytes!("../data/genbank/NC_005816.gb")),
    ("cor6_6.gb", include_bytes!("../data/genbank/cor6_6.gb")),
];

/// A sequence and what is known about it; the bases themselves are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The identifier that stays the same across versions, such as `NC_000932`.
    pub accession: String,
    /// The accession with its version, such as `NC_000932.1`.
    pub version: Option<String>,
    /// The name in the LOCUS line.
    pub name: String,
    /// One line of description.
    pub definition: Option<String>,
    /// The organism's scientific name.
    pub organism: Option<String>,
    /// `DNA`, `mRNA` and so on.
    pub molecule_type: Option<String>,
    /// `linear` or `circular`.
    pub topology: String,
    /// GenBank's own three-letter division, such as `PLN` for plants.
    pub division: String,
    /// In bases.
    pub length: i32,
    /// In the file's order.
    pub features: Vec<Feature>,
}

/// A stretch of a sequence: a gene, a repeat, a coding region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// `gene`, `CDS`, `tRNA` and so on.
    pub kind: String,
    /// Where it lies, in GenBank's notation: `complement(join(1..20,40..60))`.
    pub location: String,
    /// Whether all of it is read from the opposite strand.
    pub complement: bool,
    /// In the file's order; a key may occur more than once.
    pub qualifiers: Vec<Qualifier>,
}

/// Something said about a feature, such as `/gene="psbA"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qualifier {
    /// The part before `=`.
    pub key: String,
    /// The part after it; flags such as `/pseudo` have none.
    pub value: Option<String>,
}

/// All records of the embedded files, in a fixed order.
///
/// # Errors
///
/// If a file is not GenBank, or a record lacks its accession, name or length.
pub fn records() -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for (file, bytes) in FILES {
        records.extend(parse(bytes).with_context(|| format!("reading {file}"))?);
    }
    Ok(records)
}

/// The records of one GenBank file.
///
/// # Errors
///
/// As [`records`].
pub fn parse(file: &[u8]) -> Result<Vec<Record>> {
    SeqReader::new(file).map(|seq| record(seq?)).collect()
}

/// How many rows the records make, one for each record, feature and qualifier.
#[must_use]
pub fn row_count(records: &[Record]) -> usize {
    let features = || records.iter().flat_map(|record| &record.features);
    records.len() + features().count() + features().map(|feature| feature.qualifiers.len()).sum::<usize>()
}

fn record(seq: Seq) -> Result<Record> {
    let accession = seq.accession.context("a record without ACCESSION")?;
    let length = seq.len.with_context(|| format!("{accession} does not tell its length"))?;
    Ok(Record {
        name: seq.name.with_context(|| format!("{accession} has no name in its LOCUS line"))?,
        version: seq.version,
        definition: seq.definition,
        // The lines below the name are its lineage.
        organism: seq.source.and_then(|source| source.organism?.lines().next().map(str::to_owned)),
        molecule_type: seq.molecule_type,
        topology: seq.topology.to_string(),
        division: seq.division,
        length: i32::try_from(length).with_context(|| format!("{accession} has {length} bases"))?,
        features: seq.features.into_iter().map(feature).collect(),
        accession,
    })
}

fn feature(feature: GbFeature) -> Feature {
    Feature {
        kind: feature.kind.into_owned(),
        location: feature.location.to_string(),
        complement: matches!(feature.location, Location::Complement(_)),
        qualifiers: feature
            .qualifiers
            .into_iter()
            .map(|(key, value)| Qualifier { key: key.into_owned(), value })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_hold_as_many_features_and_qualifiers_as_their_source_says() {
        let records = records().unwrap();
        let (chloroplast, rest) = records.split_first().unwrap();
        let (plasmid, short) = rest.split_first().unwrap();

        assert_eq!(counts(std::slice::from_ref(chloroplast)), (259, 1406));
        assert_eq!(counts(std::slice::from_ref(plasmid)), (41, 180));
        assert_eq!(short.len(), 6);
        assert_eq!(counts(short), (38, 89));
        assert_eq!(row_count(&records), 8 + 338 + 1675);
    }

    #[test]
    fn a_record_is_read_whole() {
        let records = records().unwrap();
        let chloroplast = &records[0];
        assert_eq!(chloroplast.accession, "NC_000932");
        assert_eq!(chloroplast.organism.as_deref(), Some("Arabidopsis thaliana"));
        assert_eq!(chloroplast.topology, "circular");
        assert_eq!(chloroplast.division, "PLN");
        assert_eq!(chloroplast.length, 154_478);

        let cor6_6 = records.iter().find(|record| record.accession == "X55053").unwrap();
        assert_eq!(cor6_6.definition.as_deref(), Some("A.thaliana cor6.6 mRNA."));
        let gene = &cor6_6.features[1];
        assert_eq!((gene.kind.as_str(), gene.location.as_str(), gene.complement), ("gene", "50..250", false));
        assert_eq!(gene.qualifiers[0].key, "gene");
        assert_eq!(gene.qualifiers[0].value.as_deref(), Some("cor6.6"));
    }

    #[test]
    fn a_file_that_is_not_genbank_is_an_error() {
        assert!(parse(b">X55053 in FASTA\naacaaaacacacatcaaaaa\n").is_err());
    }

    fn counts(records: &[Record]) -> (usize, usize) {
        let features = || records.iter().flat_map(|record| &record.features);
        (features().count(), features().map(|feature| feature.qualifiers.len()).sum())
    }
}
