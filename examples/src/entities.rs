//! The three tables, for SeaORM.

/// A stored [`crate::genbank::Record`].
#[allow(missing_docs, reason = "the columns are the fields of the record")]
pub mod sequence {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "sequences")]
    pub struct Model {
        #[sea_orm(primary_key)]
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

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// A stored [`crate::genbank::Feature`].
#[allow(missing_docs, reason = "the columns are the fields of the record")]
pub mod feature {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "features")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub sequence_id: i32,
        pub ordinal: i32,
        pub kind: String,
        pub location: String,
        pub complement: bool,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// A stored [`crate::genbank::Qualifier`].
#[allow(missing_docs, reason = "the columns are the fields of the record")]
pub mod qualifier {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "qualifiers")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub feature_id: i64,
        pub ordinal: i32,
        pub key: String,
        pub value: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
