//! SQL text and binds, in and out.

/// A statement that the engine wants run on the connection.
///
/// Parameters are in Postgres' binary format with their types declared, so that the adapter only hands them over.
/// What comes back are rows of text columns (see [`TextRow`]); a flush returns none, unless it reserves
/// ids on the way.
#[derive(Clone, Debug)]
pub struct Query {
    /// The statement, with `$1`, `$2`, … for the parameters.
    pub sql: String,
    /// The parameters, in the order of their numbers.
    pub params: Vec<Param>,
    /// Whether the same text will come again, so that preparing it once pays.
    pub cacheable: bool,
    /// What it is for.
    pub purpose: Purpose,
    /// The same statement without parameters, where there is one: for drivers that need fewer round trips for a simple
    /// query than for preparing a statement.
    pub simple_sql: Option<String>,
    /// `BEGIN` is sent in front of it, in the same round trip ([`Batch::begin_travels`](crate::Batch::begin_travels)). If
    /// either fails, the query has failed.
    pub begins: bool,
    /// It may run while the program goes on: the adapter calls [`Batch::launched`](crate::Batch::launched) at once, and
    /// keeps the result for [`Step::Land`](crate::Step::Land). Waiting for it, as for any other, is right as well.
    pub ahead: bool,
}

impl Query {
    /// A statement without parameters.
    pub fn new(purpose: Purpose, sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            params: Vec::new(),
            cacheable: true,
            purpose,
            simple_sql: None,
            begins: false,
            ahead: false,
        }
    }
}

/// What a [`Query`] is for, and with it how the adapter should run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A `SELECT` of text columns whose rows the engine needs.
    Ask,
    /// Pending rows. May bring ids, like a question.
    Flush,
    /// Transaction control, without parameters: a simple query.
    Control,
}

/// One row of an answer to [`Purpose::Ask`]: text columns, or NULL.
pub type TextRow = Vec<Option<String>>;

/// A parameter in Postgres' binary format.
#[derive(Clone, Debug)]
pub struct Param {
    /// The type's oid.
    pub type_oid: u32,
    /// The value's bytes, or `None` for NULL.
    pub value: Option<Vec<u8>>,
}

/// The type of a bind parameter: its oid and the oid of its array type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BindType {
    /// `pg_type.oid`.
    pub oid: u32,
    /// `pg_type.typarray`, or 0 where there is none or it is not known.
    pub array_oid: u32,
}

impl BindType {
    /// A type that is the same in every database; `None` for any other. Its array type is 0 where it has none.
    pub fn built_in(oid: u32) -> Option<Self> {
        let array_oid = match oid {
            oid::BOOL => oid::BOOL_ARRAY,
            oid::BYTEA => 1001,
            18 => 1002,
            oid::NAME => 1003,
            oid::INT8 => oid::INT8_ARRAY,
            oid::INT2 => 1005,
            oid::INT4 => oid::INT4_ARRAY,
            oid::TEXT => 1009,
            oid::OID => oid::OID_ARRAY,
            oid::JSON => 199,
            oid::CIDR => 651,
            oid::FLOAT4 => 1021,
            oid::FLOAT8 => 1022,
            oid::MACADDR8 => 775,
            oid::MACADDR => 1040,
            oid::INET => 1041,
            oid::BPCHAR => 1014,
            oid::VARCHAR => 1015,
            oid::DATE => 1182,
            oid::TIME => 1183,
            oid::TIMESTAMP => 1115,
            oid::TIMESTAMPTZ => 1185,
            oid::INTERVAL => 1187,
            oid::TIMETZ => 1270,
            oid::NUMERIC => 1231,
            oid::UUID => oid::UUID_ARRAY,
            oid::JSONB => 3807,
            // Arrays and all others.
            1..FIRST_OWN_OID => 0,
            _ => return None,
        };
        Some(Self { oid, array_oid })
    }

    /// The array type of a built-in type, for a bind that is such an array.
    pub fn array_of(element: u32) -> Option<Self> {
        let array = Self::built_in(element)?.array_oid;
        (array != 0).then_some(Self { oid: array, array_oid: 0 })
    }
}

/// From here on oids are a database's own (`FirstNormalObjectId`).
pub(crate) const FIRST_OWN_OID: u32 = 16_384;

/// The bind parameters of one statement, in Postgres' binary format.
#[derive(Clone, Debug, Default)]
pub struct Binds {
    /// A type for each parameter.
    pub types: Vec<BindType>,
    /// A value for each parameter; `None` is NULL.
    pub values: Vec<Option<Vec<u8>>>,
}

/// Oids of built-in types, which are the same in every database (`pg_type.dat`).
pub(crate) mod oid {
    pub(crate) const BOOL: u32 = 16;
    pub(crate) const BYTEA: u32 = 17;
    pub(crate) const NAME: u32 = 19;
    pub(crate) const INT8: u32 = 20;
    pub(crate) const INT2: u32 = 21;
    pub(crate) const INT4: u32 = 23;
    pub(crate) const TEXT: u32 = 25;
    pub(crate) const OID: u32 = 26;
    pub(crate) const JSON: u32 = 114;
    pub(crate) const CIDR: u32 = 650;
    pub(crate) const FLOAT4: u32 = 700;
    pub(crate) const FLOAT8: u32 = 701;
    pub(crate) const MACADDR8: u32 = 774;
    pub(crate) const MACADDR: u32 = 829;
    pub(crate) const INET: u32 = 869;
    pub(crate) const INT4_ARRAY: u32 = 1007;
    pub(crate) const INT8_ARRAY: u32 = 1016;
    pub(crate) const BOOL_ARRAY: u32 = 1000;
    pub(crate) const OID_ARRAY: u32 = 1028;
    pub(crate) const BPCHAR: u32 = 1042;
    pub(crate) const VARCHAR: u32 = 1043;
    pub(crate) const DATE: u32 = 1082;
    pub(crate) const TIME: u32 = 1083;
    pub(crate) const TIMESTAMP: u32 = 1114;
    pub(crate) const TIMESTAMPTZ: u32 = 1184;
    pub(crate) const INTERVAL: u32 = 1186;
    pub(crate) const TIMETZ: u32 = 1266;
    pub(crate) const BIT: u32 = 1560;
    pub(crate) const VARBIT: u32 = 1562;
    pub(crate) const NUMERIC: u32 = 1700;
    pub(crate) const UUID: u32 = 2950;
    pub(crate) const UUID_ARRAY: u32 = 2951;
    pub(crate) const JSONB: u32 = 3802;
}

/// Binds for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A bind's type and value.
    pub(crate) type Bind = (BindType, Option<Vec<u8>>);

    pub(crate) const INT4: BindType = BindType { oid: oid::INT4, array_oid: oid::INT4_ARRAY };
    pub(crate) const INT8: BindType = BindType { oid: oid::INT8, array_oid: oid::INT8_ARRAY };
    pub(crate) const TEXT: BindType = BindType { oid: oid::TEXT, array_oid: 1009 };

    pub(crate) fn text(value: &str) -> Bind {
        (TEXT, Some(value.as_bytes().to_vec()))
    }

    pub(crate) fn int4(value: i32) -> Bind {
        (INT4, Some(value.to_be_bytes().to_vec()))
    }

    pub(crate) fn int8(value: i64) -> Bind {
        (INT8, Some(value.to_be_bytes().to_vec()))
    }

    pub(crate) fn null(bind: BindType) -> Bind {
        (bind, None)
    }

    /// An array of one dimension of `int4`.
    pub(crate) fn int4s(values: &[i32]) -> Bind {
        let numbers: Vec<_> = values.iter().map(|&value| Some(i64::from(value))).collect();
        let bytes = crate::flush::integer_array(oid::INT4, &numbers);
        (BindType { oid: oid::INT4_ARRAY, array_oid: 0 }, Some(bytes))
    }

    pub(crate) fn binds(binds: impl IntoIterator<Item = Bind>) -> Binds {
        let (types, values) = binds.into_iter().unzip();
        Binds { types, values }
    }
}
