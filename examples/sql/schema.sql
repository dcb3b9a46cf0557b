-- Annotated DNA sequences: a record, the features along it, and what is said about each.

CREATE TABLE sequences (
    id            SERIAL PRIMARY KEY,
    accession     TEXT NOT NULL UNIQUE,
    version       TEXT,
    name          TEXT NOT NULL,
    definition    TEXT,
    organism      TEXT,
    molecule_type TEXT,
    topology      VARCHAR(8) NOT NULL,
    division      VARCHAR(3) NOT NULL,
    length        INTEGER NOT NULL
);

CREATE TABLE features (
    id          BIGSERIAL PRIMARY KEY,
    sequence_id INTEGER NOT NULL REFERENCES sequences,
    ordinal     INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    location    TEXT NOT NULL,
    complement  BOOLEAN NOT NULL,
    UNIQUE (sequence_id, ordinal)
);

CREATE TABLE qualifiers (
    id         BIGSERIAL PRIMARY KEY,
    feature_id BIGINT NOT NULL REFERENCES features,
    ordinal    INTEGER NOT NULL,
    key        TEXT NOT NULL,
    value      TEXT,
    UNIQUE (feature_id, ordinal)
);
