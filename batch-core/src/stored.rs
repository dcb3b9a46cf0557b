//! What Postgres makes of a bound value when it stores it: the rules of DESIGN.md §2.3.
//!
//! A [`Rule`] is chosen once per bind type and column; applied to a value it says which bytes a later `RETURNING` would
//! give. Everything is in Postgres' binary format.

use crate::catalog::{Catalog, Column, TypeKind};
use crate::eligible::Reason;
use crate::recognise::{Literal, TypeName};
use crate::statement::oid;

/// How a bound value turns into a stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Bool,
    /// This many bytes, stored as they are.
    Fixed(usize),
    /// Any bytes, stored as they are.
    Bytes,
    /// Sign-extended or narrowed to so many bytes.
    Integer(usize),
    /// At most so many characters.
    Text {
        max: Option<usize>,
    },
    /// `char(n)`: padded with spaces.
    Padded(usize),
    Date,
    /// Microseconds since 2000, in steps of so many.
    Timestamp {
        step: i64,
    },
    /// Microseconds of a day, in steps of so many, and the zone's bytes behind.
    Time {
        step: i64,
        len: usize,
    },
    /// The column's precision and scale.
    Numeric {
        limit: Option<(i32, i32)>,
    },
    Json,
    Jsonb,
    Inet {
        cidr: bool,
    },
    Enum,
    /// An array of elements that are stored as they are, by the element's oid and its length where that is fixed.
    Array {
        element: u32,
        len: Option<usize>,
    },
    /// It can be stored, but what comes back is known to Postgres alone.
    Opaque,
}

/// What a rule says about one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The bound bytes are the stored bytes.
    Same,
    Becomes(Vec<u8>),
    /// Only Postgres can tell.
    Unknown,
}

/// The rule for a bind of type `bind`, cast to `cast`, that goes into `column`.
pub(crate) fn rule(bind: u32, cast: Option<&TypeName>, column: &Column) -> Result<Rule, Reason> {
    if cast.is_some_and(|cast| !names_type(&cast.name, &column.type_name)) {
        return Err(Reason::Cast);
    }
    let same_type = bind == column.type_oid;
    let from = if same_type { column.base_oid } else { bind };
    let is_text = |oid| matches!(oid, oid::TEXT | oid::VARCHAR);
    let base = column.base_oid;
    match column.kind {
        TypeKind::Enum if same_type || (cast.is_some() && is_text(bind)) => return Ok(Rule::Enum),
        TypeKind::Array(element) if same_type => return Ok(array_rule(element, column.modifier)),
        TypeKind::Composite if same_type => return Ok(Rule::Opaque),
        TypeKind::Plain => {}
        _ => return Err(Reason::Cast),
    }
    if let (Some(_), Some(to)) = (integer_len(from), integer_len(base)) {
        return Ok(Rule::Integer(to));
    }
    let text_fits = is_text(from) || (from == oid::BPCHAR && base == oid::BPCHAR);
    let limit = usize::try_from(column.modifier - 4).ok();
    match base {
        oid::TEXT if is_text(from) => return Ok(Rule::Text { max: None }),
        oid::VARCHAR if is_text(from) => return Ok(Rule::Text { max: limit }),
        oid::BPCHAR if text_fits => return Ok(limit.map_or(Rule::Text { max: None }, Rule::Padded)),
        _ => {}
    }
    if from != base {
        return Err(Reason::Cast);
    }
    let step = match column.modifier {
        -1 => 1,
        digits => 10_i64.pow(6_u32.saturating_sub(digits.unsigned_abs())),
    };
    Ok(match base {
        oid::BOOL => Rule::Bool,
        oid::BYTEA => Rule::Bytes,
        oid::UUID => Rule::Fixed(16),
        oid::FLOAT4 | oid::OID => Rule::Fixed(4),
        oid::FLOAT8 | oid::MACADDR8 => Rule::Fixed(8),
        oid::MACADDR => Rule::Fixed(6),
        oid::INTERVAL if column.modifier == -1 => Rule::Fixed(16),
        oid::DATE => Rule::Date,
        oid::TIMESTAMP | oid::TIMESTAMPTZ => Rule::Timestamp { step },
        oid::TIME => Rule::Time { step, len: 8 },
        oid::TIMETZ => Rule::Time { step, len: 12 },
        oid::NUMERIC => Rule::Numeric { limit: numeric_limit(column.modifier)? },
        oid::JSON => Rule::Json,
        oid::JSONB => Rule::Jsonb,
        oid::INET => Rule::Inet { cidr: false },
        oid::CIDR => Rule::Inet { cidr: true },
        _ => Rule::Opaque,
    })
}

/// Whether a cast to `written` is a cast to the type that the catalog calls `known`.
pub(crate) fn names_type(written: &str, known: &str) -> bool {
    let canonical = match written {
        "integer" | "int" => "int4",
        "bigint" => "int8",
        "smallint" => "int2",
        "boolean" => "bool",
        "character varying" => "varchar",
        "decimal" => "numeric",
        "real" => "float4",
        "double precision" => "float8",
        "timestamp with time zone" => "timestamptz",
        "timestamp without time zone" => "timestamp",
        other => other,
    };
    canonical == known
}

fn integer_len(oid: u32) -> Option<usize> {
    match oid {
        oid::INT2 => Some(2),
        oid::INT4 => Some(4),
        oid::INT8 => Some(8),
        _ => None,
    }
}

fn array_rule(element: u32, modifier: i32) -> Rule {
    let len = match element {
        oid::BOOL => Some(1),
        oid::TEXT | oid::VARCHAR | oid::BYTEA => None,
        oid::UUID => Some(16),
        oid::FLOAT4 | oid::DATE => Some(4),
        oid::FLOAT8 | oid::TIMESTAMP | oid::TIMESTAMPTZ => Some(8),
        other => match integer_len(other) {
            Some(len) => Some(len),
            None => return Rule::Opaque,
        },
    };
    if modifier == -1 { Rule::Array { element, len } } else { Rule::Opaque }
}

/// `numeric(p, s)` from its type modifier (`numeric.h`); a negative scale rounds in ways not followed here.
fn numeric_limit(modifier: i32) -> Result<Option<(i32, i32)>, Reason> {
    if modifier < 4 {
        return Ok(None);
    }
    let (precision, scale) = ((modifier - 4) >> 16, (modifier - 4) & 0x7ff);
    if scale >= 1024 { Err(Reason::ValueDoesNotFit) } else { Ok(Some((precision, scale))) }
}

impl Rule {
    /// What is stored for `value`, or why it must not wait. `asked` says whether the answer matters: canonical JSON is
    /// not made for nobody.
    pub(crate) fn apply(self, value: &[u8], column: &Column, catalog: &Catalog, asked: bool) -> Result<Stored, Reason> {
        match self {
            Rule::Bool if value.len() == 1 => Ok(if value[0] > 1 { Stored::Becomes(vec![1]) } else { Stored::Same }),
            Rule::Fixed(len) if value.len() == len => Ok(Stored::Same),
            Rule::Bytes => Ok(Stored::Same),
            Rule::Integer(to) => integer(value, to),
            Rule::Text { max } => text(value, catalog.utf8, max).map(|_| Stored::Same),
            Rule::Padded(len) => padded(value, catalog.utf8, len),
            Rule::Date => date(value),
            Rule::Timestamp { step } => timestamp(value, step),
            Rule::Time { step, len } if value.len() == len => time(value, step),
            Rule::Numeric { limit } => numeric(value, limit),
            Rule::Json => text(value, catalog.utf8, None).map(|_| Stored::Same),
            Rule::Jsonb => jsonb(value, catalog.utf8, asked),
            Rule::Inet { cidr } => inet(value, cidr),
            Rule::Enum => enum_label(value, column, catalog),
            Rule::Array { element, len } => array(value, element, len, catalog.utf8),
            Rule::Opaque => Ok(Stored::Unknown),
            Rule::Bool | Rule::Fixed(_) | Rule::Time { .. } => Err(Reason::ValueDoesNotFit),
        }
    }
}

const REFUSED: Reason = Reason::ValueDoesNotFit;

fn integer(value: &[u8], to: usize) -> Result<Stored, Reason> {
    let number = read_integer(value).ok_or(REFUSED)?;
    if value.len() == to {
        return Ok(Stored::Same);
    }
    write_integer(number, to).map(|bytes| Stored::Becomes(bytes[..to].to_vec())).ok_or(REFUSED)
}

/// A big-endian integer of two, four or eight bytes.
pub(crate) fn read_integer(value: &[u8]) -> Option<i64> {
    match value.len() {
        2 => Some(i16::from_be_bytes(value.try_into().ok()?).into()),
        4 => Some(i32::from_be_bytes(value.try_into().ok()?).into()),
        8 => Some(i64::from_be_bytes(value.try_into().ok()?)),
        _ => None,
    }
}

/// The big-endian bytes of `number` in so many bytes, if it fits; the first of the eight are meant.
fn write_integer(number: i64, len: usize) -> Option<[u8; 8]> {
    let mut bytes = [0; 8];
    match len {
        2 => bytes[..2].copy_from_slice(&i16::try_from(number).ok()?.to_be_bytes()),
        4 => bytes[..4].copy_from_slice(&i32::try_from(number).ok()?.to_be_bytes()),
        _ => bytes = number.to_be_bytes(),
    }
    Some(bytes)
}

/// The bytes of an id in the column it is for, and how many they are.
pub(crate) fn id_bytes(id: i64, column: &Column) -> Option<([u8; 8], usize)> {
    let len = integer_len(column.base_oid)?;
    write_integer(id, len).map(|bytes| (bytes, len))
}

/// Checks a text and counts its characters where there is a limit.
fn text(value: &[u8], utf8: bool, max: Option<usize>) -> Result<usize, Reason> {
    // Postgres takes no NUL; in another encoding than UTF-8 it may lack a character, or count them otherwise.
    if value.contains(&0) || (!utf8 && !value.is_ascii()) {
        return Err(REFUSED);
    }
    let text = std::str::from_utf8(value).map_err(|_| REFUSED)?;
    let Some(max) = max else { return Ok(0) };
    let characters = if text.len() <= max { text.len() } else { text.chars().count() };
    if characters > max { Err(REFUSED) } else { Ok(characters) }
}

fn padded(value: &[u8], utf8: bool, len: usize) -> Result<Stored, Reason> {
    text(value, utf8, Some(len))?;
    let characters = std::str::from_utf8(value).map_err(|_| REFUSED)?.chars().count();
    if characters == len {
        return Ok(Stored::Same);
    }
    let mut padded = value.to_vec();
    padded.resize(value.len() + len - characters, b' ');
    Ok(Stored::Becomes(padded))
}

fn date(value: &[u8]) -> Result<Stored, Reason> {
    // datatype/timestamp.h: from 4714-11-24 BC to 5874897-12-31, and the two infinities.
    const DAYS: std::ops::Range<i32> = -2_451_545..2_145_031_949;
    let days = i32::from_be_bytes(value.try_into().map_err(|_| REFUSED)?);
    if DAYS.contains(&days) || days == i32::MIN || days == i32::MAX { Ok(Stored::Same) } else { Err(REFUSED) }
}

fn timestamp(value: &[u8], step: i64) -> Result<Stored, Reason> {
    // datatype/timestamp.h: MIN_TIMESTAMP and END_TIMESTAMP, and the two infinities.
    const MICROSECONDS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;
    let at = i64::from_be_bytes(value.try_into().map_err(|_| REFUSED)?);
    if at == i64::MIN || at == i64::MAX {
        return Ok(Stored::Same);
    }
    if MICROSECONDS.contains(&at) && at % step == 0 { Ok(Stored::Same) } else { Err(REFUSED) }
}

fn time(value: &[u8], step: i64) -> Result<Stored, Reason> {
    const DAY: i64 = 86_400_000_000;
    let at = read_integer(&value[..8]).ok_or(REFUSED)?;
    if (0..=DAY).contains(&at) && at % step == 0 { Ok(Stored::Same) } else { Err(REFUSED) }
}

/// `numeric_recv` and `apply_typmod`: groups of four decimal digits, without zero groups at either end.
fn numeric(value: &[u8], limit: Option<(i32, i32)>) -> Result<Stored, Reason> {
    const NEGATIVE: u16 = 0x4000;
    let words: Vec<u16> = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    let [count, weight, sign, scale, digits @ ..] = words.as_slice() else { return Err(REFUSED) };
    if !value.len().is_multiple_of(2) || usize::from(*count) != digits.len() || digits.iter().any(|&d| d > 9999) {
        return Err(REFUSED);
    }
    if *sign != 0 && *sign != NEGATIVE {
        // NaN and the infinities.
        return if limit.is_none() { Ok(Stored::Unknown) } else { Err(REFUSED) };
    }
    let first = digits.iter().position(|&d| d != 0).unwrap_or(digits.len());
    let last = digits.iter().rposition(|&d| d != 0).map_or(first, |at| at + 1);
    let kept = &digits[first..last];
    let weight = i32::from(*weight as i16) - first as i32;
    let scale = i32::from(*scale);
    let (fraction, whole) =
        if kept.is_empty() { (0, 0) } else { (fraction_digits(kept, weight), whole_digits(kept, weight)) };
    let new_scale = match limit {
        Some((precision, scale)) if fraction <= scale && whole <= precision - scale => scale,
        None if scale <= 0x3fff => scale,
        _ => return Err(REFUSED),
    };
    // Digits that the value itself declares away are cut off by Postgres.
    if fraction > scale {
        return Err(REFUSED);
    }
    let (weight, sign) = if kept.is_empty() { (0, 0) } else { (weight, *sign) };
    let mut stored = Vec::with_capacity(8 + 2 * kept.len());
    let header = [kept.len() as u16, weight as i16 as u16, sign, new_scale as u16];
    for word in header.iter().chain(kept) {
        stored.extend_from_slice(&word.to_be_bytes());
    }
    Ok(if stored == value { Stored::Same } else { Stored::Becomes(stored) })
}

/// Decimal digits behind the point, without trailing zeros.
fn fraction_digits(groups: &[u16], weight: i32) -> i32 {
    let groups_behind = groups.len() as i32 - 1 - weight;
    let last = groups.last().copied().unwrap_or(0);
    let zeros = (1..4).take_while(|&n| last % 10_u16.pow(n) == 0).count() as i32;
    (groups_behind * 4 - zeros).max(0)
}

/// Decimal digits before the point, without leading zeros.
fn whole_digits(groups: &[u16], weight: i32) -> i32 {
    if weight < 0 {
        return 0;
    }
    let first = groups.first().copied().unwrap_or(0);
    weight * 4 + i32::from(first.checked_ilog10().unwrap_or(0) as u16) + 1
}

fn inet(value: &[u8], cidr: bool) -> Result<Stored, Reason> {
    let [_, bits, flag, len, address @ ..] = value else { return Err(REFUSED) };
    let known = matches!(address.len(), 4 | 16) && usize::from(*len) == address.len();
    if !known || usize::from(*bits) > 8 * address.len() {
        return Err(REFUSED);
    }
    let host_bits = (0..8 * address.len()).skip(usize::from(*bits));
    if cidr && host_bits.into_iter().any(|bit| address[bit / 8] & (0x80 >> (bit % 8)) != 0) {
        return Err(REFUSED);
    }
    if *flag == u8::from(cidr) {
        return Ok(Stored::Same);
    }
    let mut stored = value.to_vec();
    stored[2] = u8::from(cidr);
    Ok(Stored::Becomes(stored))
}

fn enum_label(value: &[u8], column: &Column, catalog: &Catalog) -> Result<Stored, Reason> {
    let labels = catalog.labels(column.type_oid).unwrap_or_default();
    if labels.iter().any(|label| label.as_bytes() == value) { Ok(Stored::Same) } else { Err(REFUSED) }
}

/// `array_recv`: a header of dimensions, a flag for NULLs, the element type; then the elements.
fn array(value: &[u8], element: u32, len: Option<usize>, utf8: bool) -> Result<Stored, Reason> {
    let word = |at: usize| value.get(at..at + 4).and_then(|b| b.try_into().ok()).map(i32::from_be_bytes);
    let dimensions = usize::try_from(word(0).ok_or(REFUSED)?).map_err(|_| REFUSED)?;
    if dimensions > 6 || word(8).ok_or(REFUSED)? as u32 != element {
        return Err(REFUSED);
    }
    let mut count = usize::from(dimensions > 0);
    for dimension in 0..dimensions {
        let size = usize::try_from(word(12 + 8 * dimension).ok_or(REFUSED)?).map_err(|_| REFUSED)?;
        count = count.checked_mul(size).ok_or(REFUSED)?;
    }
    let mut at = 12 + 8 * dimensions;
    let mut nulls = false;
    for _ in 0..count {
        let size = word(at).ok_or(REFUSED)?;
        at += 4;
        if size == -1 {
            nulls = true;
            continue;
        }
        let size = usize::try_from(size).map_err(|_| REFUSED)?;
        let bytes = value.get(at..at + size).ok_or(REFUSED)?;
        if len.is_some_and(|len| len != size) {
            return Err(REFUSED);
        }
        if matches!(element, oid::TEXT | oid::VARCHAR) {
            text(bytes, utf8, None)?;
        }
        at += size;
    }
    if at != value.len() {
        return Err(REFUSED);
    }
    // An empty array of whatever dimensions comes back with none; the flag comes back as it is needed.
    let mut stored = if count == 0 { value[..12].to_vec() } else { value.to_vec() };
    if count == 0 {
        stored[..4].fill(0);
    }
    stored[4..8].copy_from_slice(&i32::from(nulls).to_be_bytes());
    Ok(if stored == value { Stored::Same } else { Stored::Becomes(stored) })
}

/// Postgres' canonical text of a jsonb value: keys by length, then bytes, the last of equal keys; its own spacing.
fn jsonb(value: &[u8], utf8: bool, asked: bool) -> Result<Stored, Reason> {
    let [1, json @ ..] = value else { return Err(REFUSED) };
    text(json, utf8, None)?;
    if memchr_null_escape(json) {
        return Err(REFUSED);
    }
    if !asked {
        return Ok(Stored::Unknown);
    }
    let parsed: serde_json::Value = serde_json::from_slice(json).map_err(|_| REFUSED)?;
    let mut stored = vec![1];
    Ok(if write_jsonb(&parsed, &mut stored) { Stored::Becomes(stored) } else { Stored::Unknown })
}

/// jsonb cannot hold the character NUL, json can.
fn memchr_null_escape(json: &[u8]) -> bool {
    json.windows(6).any(|window| window == b"\\u0000")
}

/// Writes `value`, or says that a number in it is no plain integer.
fn write_jsonb(value: &serde_json::Value, out: &mut Vec<u8>) -> bool {
    use serde_json::Value;
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(n), _) => out.extend_from_slice(n.to_string().as_bytes()),
            (None, Some(n)) => out.extend_from_slice(n.to_string().as_bytes()),
            (None, None) => return false,
        },
        Value::String(text) => write_json_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                if !write_jsonb(item, out) {
                    return false;
                }
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| (a.len(), a.as_bytes()).cmp(&(b.len(), b.as_bytes())));
            out.push(b'{');
            for (at, (key, item)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                write_json_string(key, out);
                out.extend_from_slice(b": ");
                if !write_jsonb(item, out) {
                    return false;
                }
            }
            out.push(b'}');
        }
    }
    true
}

/// `escape_json` of Postgres.
fn write_json_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// A literal in the binary format of the column it goes into, where that is plain; `Ok(None)` is NULL.
pub(crate) fn literal(literal: &Literal, column: &Column, catalog: &Catalog) -> Result<Option<Vec<u8>>, Reason> {
    let bytes = match literal {
        Literal::Null => return Ok(None),
        Literal::Bool(value) if column.base_oid == oid::BOOL => vec![u8::from(*value)],
        Literal::Integer(number) => {
            let (bytes, len) = id_bytes(*number, column).ok_or(Reason::Literal)?;
            bytes[..len].to_vec()
        }
        Literal::Text(text) if matches!(column.base_oid, oid::TEXT | oid::VARCHAR | oid::BPCHAR) => {
            text.as_bytes().to_vec()
        }
        Literal::Text(text) if column.kind == TypeKind::Enum => text.as_bytes().to_vec(),
        _ => return Err(Reason::Literal),
    };
    let rule = rule(column.type_oid, None, column)?;
    rule.apply(&bytes, column, catalog, true)?;
    Ok(Some(bytes))
}

/// A number by which equal values of the column can be told, whatever the width of the integer; `None` where equality
/// is not equality of bytes.
pub(crate) fn key_hash(value: &[u8], column: &Column, state: &impl std::hash::BuildHasher) -> Option<u64> {
    match column.base_oid {
        oid::INT2 | oid::INT4 | oid::INT8 => read_integer(value).map(|number| state.hash_one(number)),
        oid::TEXT | oid::VARCHAR if column.deterministic => Some(state.hash_one(value)),
        oid::UUID | oid::BYTEA | oid::DATE | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::BOOL | oid::OID | oid::NAME => {
            Some(state.hash_one(value))
        }
        _ if column.kind == TypeKind::Enum => Some(state.hash_one(value)),
        _ => None,
    }
}
