//! SeaORM's values as the engine's binds, and the engine's parameters as sqlx's.

use batch_core::{BindType, Binds, Param, Query};
use sea_orm::sea_query::{ArrayType, OptionEnum, Value, Values};
use sea_orm::sqlx::encode::{Encode, IsNull};
use sea_orm::sqlx::error::BoxDynError;
use sea_orm::sqlx::postgres::types::Oid;
use sea_orm::sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo, Postgres};
use sea_orm::sqlx::{Arguments, Type};

/// The binds as sqlx will send them.
pub(crate) fn binds(values: Option<&Values>) -> Binds {
    let values = values.map_or(&[][..], |values| &values.0);
    let (types, values) = values.iter().map(|value| encode(value).unwrap_or_else(unknown)).unzip();
    Binds { types, values }
}

type Encoded = (BindType, Option<Vec<u8>>);

/// A value that the engine is not to understand: no column has this type.
fn unknown() -> Encoded {
    (BindType { oid: 0, array_oid: 0 }, Some(Vec::new()))
}

/// Follows `sea_query_sqlx::SqlxValues`, which says how SeaORM's values become sqlx's.
fn encode(value: &Value) -> Option<Encoded> {
    match value {
        Value::Bool(v) => scalar(v.as_ref()),
        Value::TinyInt(v) => scalar(v.as_ref()),
        Value::SmallInt(v) => scalar(v.as_ref()),
        Value::Int(v) => scalar(v.as_ref()),
        Value::BigInt(v) => scalar(v.as_ref()),
        Value::TinyUnsigned(v) => scalar(v.map(i16::from).as_ref()),
        Value::SmallUnsigned(v) => scalar(v.map(i32::from).as_ref()),
        Value::Unsigned(v) => scalar(v.map(i64::from).as_ref()),
        Value::BigUnsigned(v) => scalar(v.map(i64::try_from).transpose().ok()?.as_ref()),
        Value::Float(v) => scalar(v.as_ref()),
        Value::Double(v) => scalar(v.as_ref()),
        Value::String(v) => scalar(v.as_ref()),
        Value::Char(v) => scalar(v.map(|v| v.to_string()).as_ref()),
        Value::Enum(OptionEnum::Some(v)) => scalar(Some(&&*v.value)),
        Value::Enum(OptionEnum::None(_)) => scalar(None::<&String>),
        Value::Bytes(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-chrono")]
        Value::ChronoDate(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-chrono")]
        Value::ChronoTime(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-chrono")]
        Value::ChronoDateTime(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-chrono")]
        Value::ChronoDateTimeUtc(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-chrono")]
        Value::ChronoDateTimeLocal(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-chrono")]
        Value::ChronoDateTimeWithTimeZone(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-time")]
        Value::TimeDate(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-time")]
        Value::TimeTime(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-time")]
        Value::TimeDateTime(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-time")]
        Value::TimeDateTimeWithTimeZone(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-uuid")]
        Value::Uuid(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-rust_decimal")]
        Value::Decimal(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-bigdecimal")]
        Value::BigDecimal(v) => scalar(v.as_deref()),
        #[cfg(feature = "with-json")]
        Value::Json(v) => scalar(v.as_deref()),
        #[cfg(feature = "with-ipnetwork")]
        Value::IpNetwork(v) => scalar(v.as_ref()),
        #[cfg(feature = "with-mac_address")]
        Value::MacAddress(v) => scalar(v.as_ref()),
        Value::Array(element, values) => array(element, values.as_deref().map(Vec::as_slice)),
        // Types that SeaORM knows and this crate's features leave out.
        #[allow(unreachable_patterns, reason = "which variants there are depends on SeaORM's features")]
        _ => None,
    }
}

fn scalar<T>(value: Option<&T>) -> Option<Encoded>
where
    T: Type<Postgres> + for<'q> Encode<'q, Postgres>,
{
    let produced = value.and_then(|value| value.produces()).unwrap_or_else(T::type_info);
    let bind = BindType::built_in(produced.oid()?.0)?;
    let Some(value) = value else { return Some((bind, None)) };
    let mut buffer = PgArgumentBuffer::default();
    match value.encode_by_ref(&mut buffer).ok()? {
        IsNull::Yes => Some((bind, None)),
        IsNull::No => Some((bind, Some(std::mem::take(&mut *buffer)))),
    }
}

/// An array of one dimension in Postgres' binary format.
fn array(element: &ArrayType, values: Option<&[Value]>) -> Option<Encoded> {
    let element = element_type(element)?;
    let bind = BindType::array_of(element.oid)?;
    let Some(values) = values else { return Some((bind, None)) };
    let mut bytes = Vec::new();
    let mut has_null = false;
    for value in values {
        let (of, value) = encode(value)?;
        if of != element {
            return None;
        }
        has_null |= value.is_none();
        let len = value.as_ref().map_or(Some(-1), |value| i32::try_from(value.len()).ok())?;
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(value.as_deref().unwrap_or_default());
    }
    let dimensions = i32::from(!values.is_empty());
    let mut array: Vec<u8> = [dimensions, i32::from(has_null), element.oid as i32].map(i32::to_be_bytes).concat();
    if dimensions > 0 {
        array.extend_from_slice(&i32::try_from(values.len()).ok()?.to_be_bytes());
        array.extend_from_slice(&1_i32.to_be_bytes());
    }
    array.extend_from_slice(&bytes);
    Some((bind, Some(array)))
}

fn element_type(element: &ArrayType) -> Option<BindType> {
    let oid = match element {
        ArrayType::Bool => 16,
        ArrayType::SmallInt | ArrayType::TinyUnsigned => 21,
        ArrayType::Int | ArrayType::SmallUnsigned => 23,
        ArrayType::BigInt | ArrayType::Unsigned | ArrayType::BigUnsigned => 20,
        ArrayType::Float => 700,
        ArrayType::Double => 701,
        ArrayType::String | ArrayType::Char | ArrayType::Enum(_) => 25,
        ArrayType::Bytes => 17,
        #[cfg(feature = "with-chrono")]
        ArrayType::ChronoDate => 1082,
        #[cfg(feature = "with-chrono")]
        ArrayType::ChronoTime => 1083,
        #[cfg(feature = "with-chrono")]
        ArrayType::ChronoDateTime => 1114,
        #[cfg(feature = "with-chrono")]
        ArrayType::ChronoDateTimeUtc | ArrayType::ChronoDateTimeLocal | ArrayType::ChronoDateTimeWithTimeZone => 1184,
        #[cfg(feature = "with-time")]
        ArrayType::TimeDate => 1082,
        #[cfg(feature = "with-time")]
        ArrayType::TimeTime => 1083,
        #[cfg(feature = "with-time")]
        ArrayType::TimeDateTime => 1114,
        #[cfg(feature = "with-time")]
        ArrayType::TimeDateTimeWithTimeZone => 1184,
        #[cfg(feature = "with-uuid")]
        ArrayType::Uuid => 2950,
        #[cfg(feature = "with-rust_decimal")]
        ArrayType::Decimal => 1700,
        #[cfg(feature = "with-bigdecimal")]
        ArrayType::BigDecimal => 1700,
        #[cfg(feature = "with-json")]
        ArrayType::Json => 3802,
        _ => return None,
    };
    BindType::built_in(oid)
}

/// The engine's parameters.
pub(crate) fn arguments(query: &Query) -> Result<PgArguments, BoxDynError> {
    let mut arguments = PgArguments::default();
    arguments.reserve(query.params.len(), query.params.iter().map(|p| p.value.as_ref().map_or(0, Vec::len)).sum());
    for param in &query.params {
        arguments.add(Raw(param))?;
    }
    Ok(arguments)
}

/// Bytes in Postgres' binary format, whatever their type.
struct Raw<'a>(&'a Param);

impl Type<Postgres> for Raw<'_> {
    fn type_info() -> PgTypeInfo {
        // `unknown`; each value says its own type.
        PgTypeInfo::with_oid(Oid(705))
    }
}

impl<'q> Encode<'q, Postgres> for Raw<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        match &self.0.value {
            None => Ok(IsNull::Yes),
            Some(bytes) => {
                buffer.extend_from_slice(bytes);
                Ok(IsNull::No)
            }
        }
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.0.type_oid)))
    }
}
