//! What Postgres makes of a bound value when it stores it: the rules of DESIGN.md §2.3.
//!
//! A [`Rule`] is chosen once per bind type and column; applied to a value it says which bytes a later `RETURNING` would
//! give. Everything is in Postgres' binary format.

use crate::catalog::{Catalog, Column, TypeKind};
use crate::eligible::Reason;
use crate::recognise::{Literal, TypeName, is_decimal};
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
    /// So many bits, or at most so many where they vary.
    Bits {
        len: i32,
        varying: bool,
    },
    /// An array of elements that are stored as they are, by the element's oid and its length where that is fixed.
    Array {
        element: u32,
        len: Option<usize>,
    },
    /// An array of texts of at most so many characters; what comes back is not looked into.
    Texts {
        max: usize,
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

/// Whether values of the column's own type can be answered at all.
pub(crate) fn is_answerable(column: &Column) -> bool {
    !column.generated
        && rule(column.type_oid, None, column)
            .is_ok_and(|rule| !matches!(rule, Rule::Opaque | Rule::Bits { .. } | Rule::Texts { .. }))
}

/// Whether values of the column's own type are always stored as they are, and can be answered.
pub(crate) fn is_plain(column: &Column) -> bool {
    use Rule::{Bool, Bytes, Date, Enum, Fixed, Integer, Padded, Text, Time, Timestamp};

    let is_plain = |rule| match rule {
        Bool | Fixed(_) | Bytes | Integer(_) | Text { .. } | Padded(_) | Date | Enum => true,
        Timestamp { step } | Time { step, .. } => step == 1,
        _ => false,
    };
    !column.generated && rule(column.type_oid, None, column).is_ok_and(is_plain)
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
        TypeKind::Array(element) if same_type => return array_rule(element, column.modifier),
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
        oid::BIT | oid::VARBIT if column.modifier != -1 => {
            Rule::Bits { len: column.modifier, varying: base == oid::VARBIT }
        }
        oid::INTERVAL => Rule::Opaque,
        // Postgres may refuse what a type's modifier does not allow.
        _ if column.modifier != -1 => return Err(Reason::ValueDoesNotFit),
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
        // `char` is `bpchar` of one character, which cuts; `"char"` is another type.
        "char" => return false,
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

fn array_rule(element: u32, modifier: i32) -> Result<Rule, Reason> {
    let len = match element {
        oid::BOOL => Some(1),
        oid::TEXT | oid::VARCHAR | oid::BYTEA => None,
        oid::UUID => Some(16),
        oid::FLOAT4 | oid::DATE => Some(4),
        oid::FLOAT8 | oid::TIMESTAMP | oid::TIMESTAMPTZ => Some(8),
        other => match integer_len(other) {
            Some(len) => Some(len),
            None if modifier == -1 => return Ok(Rule::Opaque),
            None => None,
        },
    };
    match element {
        _ if modifier == -1 => Ok(Rule::Array { element, len }),
        oid::VARCHAR => Ok(Rule::Texts { max: usize::try_from(modifier - 4).unwrap_or(0) }),
        // They are rounded, never refused.
        oid::TIME | oid::TIMETZ | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::INTERVAL => Ok(Rule::Opaque),
        _ => Err(Reason::ValueDoesNotFit),
    }
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
    /// Whether a value that does not fit may be one that Postgres rounds.
    pub(crate) fn rounds(self) -> bool {
        matches!(self, Self::Numeric { .. } | Self::Timestamp { .. } | Self::Time { .. })
    }

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
            Rule::Json => json(value, catalog.utf8),
            Rule::Jsonb => jsonb(value, catalog.utf8, asked),
            Rule::Inet { cidr } => inet(value, cidr),
            Rule::Enum => enum_label(value, column, catalog),
            Rule::Bits { len, varying } => bits(value, len, varying),
            Rule::Array { element, len } => array(value, element, len, None, catalog.utf8),
            Rule::Texts { max } => array(value, oid::VARCHAR, None, Some(max), catalog.utf8).map(|_| Stored::Unknown),
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

/// `bit_recv` and `bit()`: how many there are stands before them.
fn bits(value: &[u8], len: i32, varying: bool) -> Result<Stored, Reason> {
    let count = value.first_chunk::<4>().map(|count| i32::from_be_bytes(*count)).ok_or(REFUSED)?;
    if count == len || varying && count <= len { Ok(Stored::Unknown) } else { Err(REFUSED) }
}

/// `array_recv`: a header of dimensions, a flag for NULLs, the element type; then the elements.
fn array(value: &[u8], element: u32, len: Option<usize>, max: Option<usize>, utf8: bool) -> Result<Stored, Reason> {
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
            text(bytes, utf8, max)?;
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

/// Stored as it is, but Postgres refuses what is no JSON.
fn json(value: &[u8], utf8: bool) -> Result<Stored, Reason> {
    text(value, utf8, None)?;
    serde_json::from_slice::<serde::de::IgnoredAny>(value).map(|_| Stored::Same).map_err(|_| REFUSED)
}

/// Postgres' canonical text of a jsonb value: keys by length, then bytes, the last of equal keys; its own spacing.
fn jsonb(value: &[u8], utf8: bool, asked: bool) -> Result<Stored, Reason> {
    let [1, json @ ..] = value else { return Err(REFUSED) };
    text(json, utf8, None)?;
    if memchr_null_escape(json) {
        return Err(REFUSED);
    }
    if !asked {
        return self::json(json, utf8).map(|_| Stored::Unknown);
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
        Literal::Integer(number) if !is_integer(column.base_oid) => number_bytes(&number.to_string(), column)?,
        Literal::Decimal(number) => number_bytes(number, column)?,
        Literal::Integer(number) => {
            let (bytes, len) = id_bytes(*number, column).ok_or(Reason::Literal)?;
            bytes[..len].to_vec()
        }
        Literal::Text(text) if matches!(column.base_oid, oid::TEXT | oid::VARCHAR | oid::BPCHAR) => {
            text.as_bytes().to_vec()
        }
        Literal::Text(text) if column.kind == TypeKind::Enum => text.as_bytes().to_vec(),
        Literal::Text(text) => match (column.kind, column.base_oid) {
            (TypeKind::Array(element), _) if text == "{}" => empty_array(element),
            (TypeKind::Plain, oid::JSON) => text.as_bytes().to_vec(),
            (TypeKind::Plain, oid::JSONB) => [&[1], text.as_bytes()].concat(),
            (TypeKind::Plain, oid::UUID) => uuid(text).ok_or(Reason::Literal)?,
            (TypeKind::Plain, oid::NUMERIC) => number_bytes(text, column)?,
            _ => return Err(Reason::Literal),
        },
        _ => return Err(Reason::Literal),
    };
    let rule = rule(column.type_oid, None, column)?;
    rule.apply(&bytes, column, catalog, true)?;
    Ok(Some(bytes))
}

/// Whether equal values of two types have keys that [`key_hash`] makes equal.
pub(crate) fn same_bytes(one: u32, other: u32) -> bool {
    let is_text = |oid| matches!(oid, oid::TEXT | oid::VARCHAR);
    one == other || (is_integer(one) && is_integer(other)) || (is_text(one) && is_text(other))
}

fn is_integer(base_oid: u32) -> bool {
    integer_len(base_oid).is_some()
}

/// A number as it is written, in the binary format of the column.
fn number_bytes(number: &str, column: &Column) -> Result<Vec<u8>, Reason> {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let is_plain = is_decimal(digits) || (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    let bytes = match (column.kind, column.base_oid) {
        _ if !is_plain => None,
        (TypeKind::Plain, oid::NUMERIC) => numeric_bytes(number),
        // Longer ones may be out of range.
        _ if number.len() > 30 => None,
        (TypeKind::Plain, oid::FLOAT8) => number.parse::<f64>().ok().map(|n| n.to_be_bytes().to_vec()),
        (TypeKind::Plain, oid::FLOAT4) => number.parse::<f32>().ok().map(|n| n.to_be_bytes().to_vec()),
        _ => None,
    };
    bytes.ok_or(Reason::Literal)
}

/// Postgres' binary form of a decimal number: groups of four digits around the point.
fn numeric_bytes(number: &str) -> Option<Vec<u8>> {
    let (sign, digits) = number.strip_prefix('-').map_or((0_u16, number), |digits| (0x4000, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let padding = (4 - whole.len() % 4) % 4;
    let mut text = format!("{}{whole}{fraction}", "0".repeat(padding));
    text.push_str(&"0".repeat((4 - text.len() % 4) % 4));
    let mut groups: Vec<u16> =
        (0..text.len()).step_by(4).map(|at| text[at..at + 4].parse().ok()).collect::<Option<_>>()?;
    let mut weight = i16::try_from(whole.len().div_ceil(4)).ok()? - 1;
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let leading = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..leading);
    weight = if groups.is_empty() { 0 } else { weight - i16::try_from(leading).ok()? };
    let sign = if groups.is_empty() { 0 } else { sign };
    let words = [u16::try_from(groups.len()).ok()?, weight as u16, sign, u16::try_from(fraction.len()).ok()?];
    Some(words.iter().chain(&groups).flat_map(|word| word.to_be_bytes()).collect())
}

fn empty_array(element: u32) -> Vec<u8> {
    [0, 0, element].iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The bytes of a UUID as Postgres prints it.
fn uuid(text: &str) -> Option<Vec<u8>> {
    let is_canonical = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    let digits = text.replace('-', "");
    let pairs = (0..digits.len()).step_by(2);
    is_canonical.then(|| pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect())?
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

/// Whether a bound value is equal to a value of the column exactly if [`key_hash`] of both is, before it is stored.
pub(crate) fn is_compared_as_bound(bind: u32, cast: Option<&TypeName>, column: &Column) -> bool {
    let is_rounded = matches!(column.base_oid, oid::TIMESTAMP | oid::TIMESTAMPTZ) && column.modifier != -1;
    let is_label = column.kind == TypeKind::Enum && matches!(bind, oid::TEXT | oid::VARCHAR) && cast.is_some();
    let is_same = bind == column.type_oid || same_bytes(bind, column.base_oid) || is_label;
    is_same && !is_rounded && cast.is_none_or(|cast| names_type(&cast.name, &column.type_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::testing::{self, MOOD, column, one_column};

    /// What becomes of a value bound as `bind` in a column of type `sql_type`.
    fn stored(bind: u32, sql_type: &str, value: &[u8]) -> Result<Stored, Reason> {
        in_column(bind, None, column("c", sql_type), value)
    }

    fn in_column(bind: u32, cast: Option<&str>, row: testing::ColumnRow, value: &[u8]) -> Result<Stored, Reason> {
        let (catalog, table) = one_column(row);
        let cast = cast.map(|name| TypeName { sql: name.to_owned(), name: name.to_owned() });
        let column = &table.columns[0];
        rule(bind, cast.as_ref(), column)?.apply(value, column, &catalog, true)
    }

    /// Checks what values of the column's own type become.
    fn check<V: AsRef<[u8]>>(sql_type: &str, checks: impl IntoIterator<Item = (V, Result<Stored, Reason>)>) {
        for (value, expected) in checks {
            let bind = one_column(column("c", sql_type)).1.columns[0].type_oid;
            assert_eq!(stored(bind, sql_type, value.as_ref()), expected, "{sql_type}: {:?}", value.as_ref());
        }
    }

    const SAME: Result<Stored, Reason> = Ok(Stored::Same);
    const UNKNOWN: Result<Stored, Reason> = Ok(Stored::Unknown);
    const NO: Result<Stored, Reason> = Err(Reason::ValueDoesNotFit);

    fn becomes(value: impl AsRef<[u8]>) -> Result<Stored, Reason> {
        Ok(Stored::Becomes(value.as_ref().to_vec()))
    }

    fn words(words: &[i32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn values_of_a_fixed_length_are_stored_as_they_are() {
        check("uuid", [(vec![7; 16], SAME), (vec![7; 15], NO)]);
        check("float8", [(f64::NAN.to_be_bytes().to_vec(), SAME), (vec![0; 4], NO)]);
        check("bytea", [(&b""[..], SAME), (b"\0\xff", SAME)]);
        check("bool", [(&[0][..], SAME), (&[1], SAME), (&[2], becomes([1])), (&[], NO), (&[0, 1], NO)]);
    }

    #[test]
    fn integers_are_narrowed_and_widened_where_they_fit() {
        assert_eq!(stored(oid::INT4, "int4", &5_i32.to_be_bytes()), SAME);
        assert_eq!(stored(oid::INT8, "int2", &(-5_i64).to_be_bytes()), becomes((-5_i16).to_be_bytes()));
        assert_eq!(stored(oid::INT2, "int8", &(-5_i16).to_be_bytes()), becomes((-5_i64).to_be_bytes()));
        assert_eq!(stored(oid::INT8, "int4", &(1_i64 << 31).to_be_bytes()), NO);
        assert_eq!(stored(oid::INT4, "int2", &(-32_769_i32).to_be_bytes()), NO);
        assert_eq!(stored(oid::INT4, "int4", &[1, 2, 3]), NO);
        assert_eq!(stored(oid::TEXT, "int4", b"5"), Err(Reason::Cast));
    }

    #[test]
    fn texts_must_be_what_the_server_takes() {
        check("text", [(&b""[..], SAME), ("grün".as_bytes(), SAME), (b"a\0b", NO), (b"\xff", NO)]);
        assert_eq!(stored(oid::VARCHAR, "text", b"a"), SAME);
        // Its trailing spaces would go.
        assert_eq!(stored(oid::BPCHAR, "text", b"a"), Err(Reason::Cast));
    }

    #[test]
    fn varchar_counts_characters_and_never_cuts() {
        for bind in [oid::TEXT, oid::VARCHAR] {
            assert_eq!(stored(bind, "varchar(3)", "äöü".as_bytes()), SAME);
            assert_eq!(stored(bind, "varchar(3)", b"abcd"), NO);
            // Postgres would cut the space.
            assert_eq!(stored(bind, "varchar(3)", b"abc "), NO);
            assert_eq!(stored(bind, "varchar", b"abcd"), SAME);
        }
    }

    #[test]
    fn char_is_padded_to_its_length_in_characters() {
        for bind in [oid::TEXT, oid::BPCHAR] {
            assert_eq!(stored(bind, "bpchar(3)", b"a"), becomes("a  "));
            assert_eq!(stored(bind, "bpchar(3)", "ü€".as_bytes()), becomes("ü€ "));
            assert_eq!(stored(bind, "bpchar(3)", b"abc"), SAME);
            assert_eq!(stored(bind, "bpchar(3)", b"abcd"), NO);
            assert_eq!(stored(bind, "bpchar", b"ab "), SAME);
        }
    }

    #[test]
    fn a_server_with_another_encoding_may_refuse_all_but_ascii() {
        let mut rows = testing::rows([testing::table("t").column(column("c", "text"))]);
        rows[0] = testing::session("LATIN1");
        let catalog = Catalog::read(&rows, 0).unwrap();
        let column = &catalog.tables()[0].columns[0];
        let apply = |value: &str| Rule::Text { max: None }.apply(value.as_bytes(), column, &catalog, true);
        assert_eq!(apply("plain"), SAME);
        assert_eq!(apply("grün"), NO);
    }

    #[test]
    fn dates_must_be_in_the_range_of_postgres() {
        let day = |days: i32| days.to_be_bytes();
        check("date", [(day(0), SAME), (day(i32::MAX), SAME), (day(i32::MIN), SAME)]);
        check("date", [(day(-2_451_545), SAME), (day(-2_451_546), NO)]);
        check("date", [(day(2_145_031_948), SAME), (day(2_145_031_949), NO)]);
    }

    #[test]
    fn timestamps_must_need_no_rounding() {
        let at = |microseconds: i64| microseconds.to_be_bytes();
        for name in ["timestamp", "timestamptz"] {
            check(name, [(at(1), SAME), (at(i64::MAX), SAME), (at(i64::MIN), SAME)]);
            check(name, [(at(9_223_371_331_200_000_000), NO), (at(-211_813_488_000_000_001), NO)]);
            check(
                &format!("{name}(3)"),
                [(at(5_000), SAME), (at(-5_000), SAME), (at(5_001), NO), (at(i64::MAX), SAME)],
            );
            check(&format!("{name}(0)"), [(at(1_000_000), SAME), (at(500_000), NO)]);
        }
        check("time", [(at(0), SAME), (at(86_400_000_000), SAME), (at(86_400_000_001), NO), (at(-1), NO)]);
        check("time(2)", [(at(10_000), SAME), (at(1), NO)]);
        assert_eq!(stored(oid::TIMESTAMP, "timestamptz", &at(1)), Err(Reason::Cast));
    }

    /// A numeric as it travels: groups of four digits, the first of weight `weight`, and so many decimals shown.
    fn number(groups: &[u16], weight: i16, sign: u16, scale: u16) -> Vec<u8> {
        let header = [groups.len() as u16, weight as u16, sign, scale];
        header.iter().chain(groups).flat_map(|word| word.to_be_bytes()).collect()
    }

    const MINUS: u16 = 0x4000;
    const NAN: u16 = 0xC000;

    #[test]
    fn numbers_keep_their_scale_where_the_column_has_none() {
        check(
            "numeric",
            [
                (number(&[12, 3400], 0, 0, 2), SAME),
                // 12.30 with groups of zeros around it
                (number(&[0, 12, 3000, 0], 1, 0, 2), becomes(number(&[12, 3000], 0, 0, 2))),
                // Zero has neither weight nor sign.
                (number(&[0], 3, MINUS, 1), becomes(number(&[], 0, 0, 1))),
                (number(&[], 0, 0, 0), SAME),
                (number(&[], 0, NAN, 0), UNKNOWN),
                // More decimals than it shows: Postgres cuts them.
                (number(&[1234], -1, 0, 2), NO),
                (number(&[10_000], 0, 0, 0), NO),
            ],
        );
        check("numeric", [(&[0, 1][..], NO), (&[0, 1, 0, 0, 0, 0, 0, 0], NO), (&[0; 9], NO)]);
    }

    #[test]
    fn numbers_take_the_scale_of_their_column_where_they_fit() {
        check(
            "numeric(6,2)",
            [
                (number(&[12, 3400], 0, 0, 2), SAME),
                (number(&[12], 0, 0, 0), becomes(number(&[12], 0, 0, 2))),
                (number(&[12, 3400], 0, MINUS, 4), becomes(number(&[12, 3400], 0, MINUS, 2))),
                (number(&[9999, 9900], 0, 0, 2), SAME),
                (number(&[], 0, 0, 5), becomes(number(&[], 0, 0, 2))),
                (number(&[100], -1, 0, 2), SAME),
                // 0.001, 12.345, 10000 and NaN
                (number(&[10], -1, 0, 3), NO),
                (number(&[12, 3450], 0, 0, 3), NO),
                (number(&[1], 1, 0, 0), NO),
                (number(&[], 0, NAN, 0), NO),
            ],
        );
        // numeric(2,-3) rounds to thousands.
        check("numeric(2,-3)", [(number(&[1000], 0, 0, 0), NO)]);
    }

    #[test]
    fn json_is_kept_as_it_was_written_and_must_be_json() {
        check("json", [(r#"{ "b":1, "a" : 2.50 }"#, SAME), ("", NO), ("{'a':1}", NO), ("[1,]", NO), ("1 2", NO)]);
    }

    #[test]
    fn jsonb_becomes_what_postgres_prints() {
        let jsonb = |text: &str| [b"\x01", text.as_bytes()].concat();
        for (written, printed) in [
            (r#"{"bb":1,"a":[true,null,-3],"c":{}}"#, r#"{"a": [true, null, -3], "c": {}, "bb": 1}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a": 2}"#),
            (" [ ] ", "[]"),
            ("18446744073709551615", "18446744073709551615"),
            (r#""\u00fc\n\u0001\/\"""#, r#""ü\n\u0001/\"""#),
            // By bytes, not by characters: z is one byte, ü is two.
            (r#"{"ü":1,"z":2}"#, r#"{"z": 2, "ü": 1}"#),
        ] {
            check("jsonb", [(jsonb(written), becomes(jsonb(printed)))]);
        }
        for unknown in ["1.0", "[1e2]", "-0", "18446744073709551616"] {
            check("jsonb", [(jsonb(unknown), UNKNOWN)]);
        }
        for refused in [r#""\u0000""#, "{", ""] {
            check("jsonb", [(jsonb(refused), NO)]);
        }
        check("jsonb", [(b"\x02{}", NO)]);
    }

    #[test]
    fn jsonb_that_nobody_asks_for_is_only_checked() {
        let (catalog, table) = one_column(column("c", "jsonb"));
        let unasked = |value: &[u8]| Rule::Jsonb.apply(value, &table.columns[0], &catalog, false);
        assert_eq!(unasked(b"\x01{\"b\":1}"), UNKNOWN);
        assert_eq!(unasked(b"\x01{"), NO);
    }

    #[test]
    fn networks_come_back_with_the_flag_of_their_type() {
        let address = |bits: u8, flag: u8, last: u8| vec![2, bits, flag, 4, 10, 0, 0, last];
        check("inet", [(address(24, 0, 1), SAME), (address(24, 1, 1), becomes(address(24, 0, 1)))]);
        check("cidr", [(address(24, 1, 0), SAME), (address(24, 0, 0), becomes(address(24, 1, 0)))]);
        check("cidr", [(address(24, 1, 1), NO)]);
        check("inet", [(address(33, 0, 1), NO), (vec![2, 24, 0, 4, 10], NO), (vec![2], NO)]);
        check("inet", [([&[3, 128, 0, 16][..], &[0; 16]].concat(), SAME)]);
    }

    #[test]
    fn enums_must_be_one_of_their_labels() {
        check("mood", [("happy", SAME), ("furious", NO), ("HAPPY", NO)]);
        let bound_as = |bind, cast| in_column(bind, cast, column("c", "mood"), b"sad");
        assert_eq!(bound_as(oid::TEXT, Some("mood")), SAME);
        assert_eq!(bound_as(oid::TEXT, None), Err(Reason::Cast));
        assert_eq!(bound_as(MOOD, Some("text")), Err(Reason::Cast));
    }

    #[test]
    fn arrays_lose_what_they_do_not_need() {
        let int4 = oid::INT4 as i32;
        check(
            "int4[]",
            [
                (words(&[1, 0, int4, 2, 1, 4, 7, 4, 8]), SAME),
                (words(&[1, 1, int4, 1, 1, 4, 7]), becomes(words(&[1, 0, int4, 1, 1, 4, 7]))),
                (words(&[1, 0, int4, 1, 1, -1]), becomes(words(&[1, 1, int4, 1, 1, -1]))),
                (words(&[0, 0, int4]), SAME),
                (words(&[1, 0, int4, 0, 1]), becomes(words(&[0, 0, int4]))),
                (words(&[2, 0, int4, 1, 1, 2, 1, 4, 7, 4, 8]), SAME),
                // Another element type, a wrong element, too few, too many, too deep, senseless
                (words(&[1, 0, 20, 1, 1, 4, 7]), NO),
                (words(&[1, 0, int4, 1, 1, 3, 7]), NO),
                (words(&[1, 0, int4, 2, 1, 4, 7]), NO),
                (words(&[1, 0, int4, 1, 1, 4, 7, 4, 8]), NO),
                (words(&[7, 0, int4]), NO),
                (words(&[-1, 0, int4]), NO),
                (words(&[1, 0, int4, i32::MAX, 1]), NO),
            ],
        );
        let texts = |text: &[u8]| [words(&[1, 0, oid::TEXT as i32, 1, 1, text.len() as i32]), text.to_vec()].concat();
        check("text[]", [(texts(b"abc"), SAME), (texts(b"a\0"), NO), (texts(b"\xff"), NO)]);
        let limited = |text: &[u8]| [&words(&[1, 0, oid::VARCHAR as i32, 1, 1, text.len() as i32]), text].concat();
        check("varchar(3)[]", [(limited(b"abc"), UNKNOWN), (limited(b"abcd"), NO)]);
        check("numeric[]", [([], UNKNOWN)]);
    }

    #[test]
    fn types_that_the_engine_does_not_know_are_stored_but_not_answered() {
        check("int4range", [([1], UNKNOWN)]);
        check("pair", [([1], UNKNOWN)]);
        assert_eq!(stored(oid::TEXT, "int4range", b"[1,2)"), Err(Reason::Cast));
    }

    #[test]
    fn a_domain_stores_what_its_base_type_stores() {
        let code = || column("c", "varchar(3)").domain(60_000, "code");
        assert_eq!(in_column(60_000, None, code(), b"abc"), SAME);
        assert_eq!(in_column(oid::TEXT, None, code(), b"abcd"), NO);
        assert_eq!(in_column(oid::TEXT, Some("code"), code(), b"abc"), SAME);
        assert_eq!(in_column(60_002, None, code(), b"abc"), Err(Reason::Cast));
    }

    #[test]
    fn a_cast_must_name_the_columns_own_type() {
        let cast = |to: &str, sql_type: &str| in_column(oid::INT4, Some(to), column("c", sql_type), &[0, 0, 0, 5]);
        assert_eq!(cast("integer", "int4"), SAME);
        assert_eq!(cast("bigint", "int8"), becomes(5_i64.to_be_bytes()));
        assert_eq!(cast("bigint", "int4"), Err(Reason::Cast));
        assert!(names_type("timestamp with time zone", "timestamptz"));
        assert!(names_type("character varying", "varchar"));
        assert!(!names_type("char", "bpchar"));
        assert!(!names_type("char", "char"));
    }

    #[test]
    fn literals_are_known_where_they_are_plain() {
        let bytes = |value, sql_type: &str| {
            let (catalog, table) = one_column(column("c", sql_type));
            literal(&value, &table.columns[0], &catalog)
        };
        let text = |text: &str| Literal::Text(text.to_owned());
        assert_eq!(bytes(Literal::Null, "int4range"), Ok(None));
        assert_eq!(bytes(Literal::Bool(true), "bool"), Ok(Some(vec![1])));
        assert_eq!(bytes(Literal::Integer(-1), "int2"), Ok(Some(vec![255, 255])));
        assert_eq!(bytes(text("a"), "varchar(3)"), Ok(Some(b"a".to_vec())));
        assert_eq!(bytes(text("sad"), "mood"), Ok(Some(b"sad".to_vec())));
        assert_eq!(bytes(Literal::Integer(70_000), "int2"), Err(Reason::Literal));
        let decimal = |text: &str| Literal::Decimal(text.to_owned());
        assert_eq!(bytes(Literal::Integer(1), "numeric"), Ok(Some(number(&[1], 0, 0, 0))));
        assert_eq!(bytes(decimal("-1.50"), "numeric"), Ok(Some(number(&[1, 5000], 0, MINUS, 2))));
        assert_eq!(bytes(decimal("120000.0"), "numeric"), Ok(Some(number(&[12], 1, 0, 1))));
        assert_eq!(bytes(decimal("0.00001"), "numeric"), Ok(Some(number(&[1000], -2, 0, 5))));
        assert_eq!(bytes(decimal("-0.00"), "numeric"), Ok(Some(number(&[], 0, 0, 2))));
        assert_eq!(bytes(text("1e3"), "numeric"), Err(Reason::Literal));
        assert_eq!(bytes(decimal("0.1"), "float8"), Ok(Some(0.1_f64.to_be_bytes().to_vec())));
        assert_eq!(bytes(decimal("1.5"), "int4"), Err(Reason::Literal));
        assert_eq!(bytes(text("{}"), "text[]"), Ok(Some([[0; 4], [0; 4], [0, 0, 0, 25]].concat())));
        assert_eq!(bytes(text("{a}"), "text[]"), Err(Reason::Literal));
        assert_eq!(bytes(text("{}"), "jsonb"), Ok(Some(b"\x01{}".to_vec())));
        assert_eq!(bytes(text("0-0"), "uuid"), Err(Reason::Literal));
        assert_eq!(bytes(text("5"), "int4"), Err(Reason::Literal));
        assert_eq!(bytes(text("2020-01-01"), "date"), Err(Reason::Literal));
        assert_eq!(bytes(text("abcd"), "varchar(3)"), Err(Reason::ValueDoesNotFit));
        assert_eq!(bytes(text("furious"), "mood"), Err(Reason::ValueDoesNotFit));
    }

    #[test]
    fn keys_are_compared_only_where_equality_is_equality_of_bytes() {
        let state = std::hash::RandomState::new();
        let hash = |row, value: &[u8]| key_hash(value, &one_column(row).1.columns[0], &state);
        let five = hash(column("c", "int8"), &5_i64.to_be_bytes());
        assert!(five.is_some());
        assert_eq!(hash(column("c", "int2"), &5_i16.to_be_bytes()), five);
        assert_ne!(hash(column("c", "int2"), &6_i16.to_be_bytes()), five);
        assert_eq!(hash(column("c", "text"), b"a"), hash(column("c", "varchar(3)"), b"a"));
        assert_eq!(hash(column("c", "text").with("deterministic", false), b"a"), None);
        for sql_type in ["numeric", "bpchar(3)", "float8", "jsonb", "inet", "text[]"] {
            assert_eq!(hash(column("c", sql_type), b"a"), None, "{sql_type}");
        }
    }
}
