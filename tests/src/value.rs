//! Binds and results in Postgres' binary format.

use std::fmt;

/// A bind: its type, the type's array type, and its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    /// `pg_type.oid`
    pub oid: u32,
    /// `pg_type.typarray`
    pub array_oid: u32,
    /// `None` is NULL.
    pub bytes: Option<Vec<u8>>,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.bytes, self.oid) {
            (None, oid) => write!(f, "null:{oid}"),
            (Some(bytes), 20 | 21 | 23) => write!(f, "{}:{}", integer(bytes), self.oid),
            (Some(bytes), 25 | 1042 | 1043) => write!(f, "{:?}:{}", String::from_utf8_lossy(bytes), self.oid),
            (Some(bytes), oid) => write!(f, "{bytes:02x?}:{oid}"),
        }
    }
}

impl Value {
    /// A value of any type.
    pub fn new(oid: u32, array_oid: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { oid, array_oid, bytes: Some(bytes.into()) }
    }

    /// `smallint`
    pub fn int2(value: i16) -> Self {
        Self::new(21, 1005, value.to_be_bytes())
    }

    /// `integer`
    pub fn int4(value: i32) -> Self {
        Self::new(23, 1007, value.to_be_bytes())
    }

    /// `bigint`
    pub fn int8(value: i64) -> Self {
        Self::new(20, 1016, value.to_be_bytes())
    }

    /// `boolean`
    pub fn bool(value: bool) -> Self {
        Self::new(16, 1000, [u8::from(value)])
    }

    /// `double precision`
    pub fn float8(value: f64) -> Self {
        Self::new(701, 1022, value.to_be_bytes())
    }

    /// `text`
    pub fn text(value: &str) -> Self {
        Self::new(25, 1009, value)
    }

    /// `bytea`
    pub fn bytea(value: &[u8]) -> Self {
        Self::new(17, 1001, value)
    }

    /// `uuid`
    pub fn uuid(value: [u8; 16]) -> Self {
        Self::new(2950, 2951, value)
    }

    /// `jsonb`, as Diesel binds it: a version and the text.
    pub fn jsonb(text: &str) -> Self {
        Self::new(3802, 3807, [b"\x01", text.as_bytes()].concat())
    }

    /// `json`
    pub fn json(text: &str) -> Self {
        Self::new(114, 199, text)
    }

    /// `timestamptz`, in microseconds since 2000.
    pub fn timestamptz(microseconds: i64) -> Self {
        Self::new(1184, 1185, microseconds.to_be_bytes())
    }

    /// `timestamp`, in microseconds since 2000.
    pub fn timestamp(microseconds: i64) -> Self {
        Self::new(1114, 1115, microseconds.to_be_bytes())
    }

    /// `date`, in days since 2000.
    pub fn date(days: i32) -> Self {
        Self::new(1082, 1182, days.to_be_bytes())
    }

    /// `numeric` from decimal text such as `-12.50`.
    pub fn numeric(text: &str) -> Self {
        let (sign, digits) = text.strip_prefix('-').map_or((0_u16, text), |rest| (0x4000, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let padded_whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
        let padded_fraction = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
        let all = format!("{padded_whole}{padded_fraction}");
        let groups: Vec<u16> =
            all.as_bytes().chunks(4).map(|c| std::str::from_utf8(c).unwrap().parse().unwrap()).collect();
        let weight = (padded_whole.len() / 4) as i16 - 1;
        let header = [groups.len() as u16, weight as u16, sign, fraction.len() as u16];
        let bytes: Vec<u8> = header.iter().chain(&groups).flat_map(|word| word.to_be_bytes()).collect();
        Self::new(1700, 1231, bytes)
    }

    /// `inet` of an IPv4 address.
    pub fn inet(address: [u8; 4], bits: u8) -> Self {
        Self::new(869, 1041, [&[2, bits, 0, 4][..], &address].concat())
    }

    /// `int4range`, `[lower, upper)`.
    pub fn int4range(lower: i32, upper: i32) -> Self {
        let bytes =
            [&[2_u8][..], &4_i32.to_be_bytes(), &lower.to_be_bytes(), &4_i32.to_be_bytes(), &upper.to_be_bytes()];
        Self::new(3904, 3905, bytes.concat())
    }

    /// `integer[]`
    pub fn int4_array(values: &[i32]) -> Self {
        let elements: Vec<Option<Vec<u8>>> = values.iter().map(|v| Some(v.to_be_bytes().to_vec())).collect();
        Self::new(1007, 0, array(23, &elements))
    }

    /// `text[]`, with NULLs.
    pub fn text_array(values: &[Option<&str>]) -> Self {
        let elements: Vec<Option<Vec<u8>>> = values.iter().map(|v| v.map(|v| v.as_bytes().to_vec())).collect();
        Self::new(1009, 0, array(25, &elements))
    }

    /// NULL of the same type.
    #[must_use]
    pub fn null(mut self) -> Self {
        self.bytes = None;
        self
    }
}

/// A one-dimensional array as Diesel binds it.
pub fn array(element: u32, values: &[Option<Vec<u8>>]) -> Vec<u8> {
    let has_null = values.iter().any(Option::is_none);
    let mut bytes = Vec::new();
    let dimensions = i32::from(!values.is_empty());
    for word in [dimensions, i32::from(has_null), element as i32] {
        bytes.extend(word.to_be_bytes());
    }
    if !values.is_empty() {
        bytes.extend((values.len() as i32).to_be_bytes());
        bytes.extend(1_i32.to_be_bytes());
    }
    for value in values {
        match value {
            None => bytes.extend((-1_i32).to_be_bytes()),
            Some(value) => {
                bytes.extend((value.len() as i32).to_be_bytes());
                bytes.extend(value);
            }
        }
    }
    bytes
}

/// A value of a result row as the ORM got it.
#[derive(Clone, PartialEq, Eq)]
pub struct Cell {
    /// The column's name.
    pub name: String,
    /// The type's oid; 0 for NULL, of which no ORM learns the type.
    pub oid: u32,
    /// `None` is NULL.
    pub bytes: Option<Vec<u8>>,
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = Value { oid: self.oid, array_oid: 0, bytes: self.bytes.clone() };
        write!(f, "{}={value:?}", self.name)
    }
}

impl Cell {
    /// The value as an integer of whatever width.
    ///
    /// # Panics
    ///
    /// Panics if it is none.
    pub fn int(&self) -> i64 {
        integer(self.bytes.as_ref().expect("the value is NULL"))
    }

    /// The value as text.
    ///
    /// # Panics
    ///
    /// Panics if it is none.
    pub fn text(&self) -> String {
        String::from_utf8(self.bytes.clone().expect("the value is NULL")).unwrap()
    }
}

fn integer(bytes: &[u8]) -> i64 {
    match bytes.len() {
        2 => i16::from_be_bytes(bytes.try_into().unwrap()).into(),
        4 => i32::from_be_bytes(bytes.try_into().unwrap()).into(),
        8 => i64::from_be_bytes(bytes.try_into().unwrap()),
        len => panic!("an integer of {len} bytes"),
    }
}
