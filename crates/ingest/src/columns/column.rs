//! One column of any type: a closed set of builders, so that a decoder matches once and writes.

use std::fmt;

use arrow::{
    array::ArrayRef,
    datatypes::{
        DataType, Date32Type, Float32Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType,
        TimeUnit, TimestampMicrosecondType,
    },
};
use siltstone_protocol::{PrimitiveType, Type};

use super::{
    leaf::{Binary, Bits, DecimalValues, FixedBytes, Utf8, Values, broken},
    nested::{List, Map, Struct},
};
use crate::IngestError;

/// A column builder by its physical form. What the values mean is the schema's matter.
#[non_exhaustive]
pub enum Column {
    Boolean(Bits),
    /// int, date (days)
    Int32(Values<i32>),
    /// long, time, timestamp, timestamptz (microseconds)
    Int64(Values<i64>),
    Float32(Values<f32>),
    Float64(Values<f64>),
    Decimal(DecimalValues),
    Utf8(Utf8),
    Binary(Binary),
    /// fixed, uuid
    FixedBytes(FixedBytes),
    Struct(Struct),
    List(List),
    Map(Map),
}

/// The same expression on whichever builder it is.
macro_rules! each {
    ($column:expr, $builder:ident => $body:expr) => {
        match $column {
            Column::Boolean($builder) => $body,
            Column::Int32($builder) => $body,
            Column::Int64($builder) => $body,
            Column::Float32($builder) => $body,
            Column::Float64($builder) => $body,
            Column::Decimal(decimal) => {
                let $builder = decimal.values();
                $body
            }
            Column::Utf8(utf8) => {
                let $builder = utf8.inner();
                $body
            }
            Column::Binary($builder) => $body,
            Column::FixedBytes($builder) => $body,
            Column::Struct($builder) => $body,
            Column::List($builder) => $body,
            Column::Map($builder) => $body,
        }
    };
}

macro_rules! each_mut {
    ($column:expr, $builder:ident => $body:expr) => {
        match $column {
            Column::Boolean($builder) => $body,
            Column::Int32($builder) => $body,
            Column::Int64($builder) => $body,
            Column::Float32($builder) => $body,
            Column::Float64($builder) => $body,
            Column::Decimal(decimal) => {
                let $builder = decimal.values_mut();
                $body
            }
            Column::Utf8(utf8) => {
                let $builder = utf8.inner_mut();
                $body
            }
            Column::Binary($builder) => $body,
            Column::FixedBytes($builder) => $body,
            Column::Struct($builder) => $body,
            Column::List($builder) => $body,
            Column::Map($builder) => $body,
        }
    };
}

impl Column {
    /// An empty builder for values of this type.
    pub fn new(data_type: &Type) -> Self {
        match data_type {
            Type::Primitive(primitive) => Self::leaf(*primitive),
            Type::Struct(fields) => {
                Self::Struct(Struct::new(fields.iter().map(|field| Self::new(&field.data_type)).collect()))
            }
            Type::List { element, .. } => Self::List(List::new(Self::new(element))),
            Type::Map { key, value, .. } => Self::Map(Map::new(Self::new(key), Self::new(value))),
        }
    }

    fn leaf(primitive: PrimitiveType) -> Self {
        match primitive {
            PrimitiveType::Boolean => Self::Boolean(Bits::default()),
            PrimitiveType::Int | PrimitiveType::Date => Self::Int32(Values::default()),
            PrimitiveType::Long
            | PrimitiveType::Time
            | PrimitiveType::Timestamp
            | PrimitiveType::Timestamptz => Self::Int64(Values::default()),
            PrimitiveType::Float => Self::Float32(Values::default()),
            PrimitiveType::Double => Self::Float64(Values::default()),
            PrimitiveType::Decimal { precision, scale } => {
                Self::Decimal(DecimalValues::new(precision, scale))
            }
            PrimitiveType::String => Self::Utf8(Utf8::default()),
            PrimitiveType::Binary => Self::Binary(Binary::default()),
            PrimitiveType::Uuid => Self::FixedBytes(FixedBytes::new(16)),
            PrimitiveType::Fixed(length) => Self::FixedBytes(FixedBytes::new(length as usize)),
        }
    }

    /// Appends a null, in nested columns all the way down.
    #[inline]
    pub fn append_null(&mut self) {
        each_mut!(self, builder => builder.push_null());
    }

    /// Values appended, nulls included.
    pub fn len(&self) -> usize {
        each!(self, builder => builder.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops every value from `len` on, unfinished nested values included.
    pub fn truncate(&mut self, len: usize) {
        each_mut!(self, builder => builder.truncate(len));
    }

    /// Bytes written to the column's vectors.
    pub fn bytes(&self) -> usize {
        each!(self, builder => builder.bytes())
    }

    /// Hands the values over and begins anew, with room for as many.
    pub(super) fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef, IngestError> {
        match self {
            Self::Boolean(bits) => Ok(bits.finish()),
            Self::Int32(values) => match data_type {
                DataType::Date32 => values.finish::<Date32Type>(data_type),
                _ => values.finish::<Int32Type>(data_type),
            },
            Self::Int64(values) => match data_type {
                DataType::Time64(TimeUnit::Microsecond) => values.finish::<Time64MicrosecondType>(data_type),
                DataType::Timestamp(TimeUnit::Microsecond, _) => {
                    values.finish::<TimestampMicrosecondType>(data_type)
                }
                DataType::Int64 => values.finish::<Int64Type>(data_type),
                _ => Err(broken("a type")),
            },
            Self::Float32(values) => values.finish::<Float32Type>(data_type),
            Self::Float64(values) => values.finish::<Float64Type>(data_type),
            Self::Decimal(values) => values.finish(data_type),
            Self::Utf8(values) => values.finish(),
            Self::Binary(values) => values.finish(),
            Self::FixedBytes(values) => values.finish(),
            Self::Struct(values) => values.finish(data_type),
            Self::List(values) => values.finish(data_type),
            Self::Map(values) => values.finish(data_type),
        }
    }

    /// The builder's name, for messages and `Debug`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "boolean",
            Self::Int32(_) => "int32",
            Self::Int64(_) => "int64",
            Self::Float32(_) => "float32",
            Self::Float64(_) => "float64",
            Self::Decimal(_) => "decimal",
            Self::Utf8(_) => "utf8",
            Self::Binary(_) => "binary",
            Self::FixedBytes(_) => "fixed_bytes",
            Self::Struct(_) => "struct",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }
}

impl fmt::Debug for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Column").field("kind", &self.kind()).field("len", &self.len()).finish_non_exhaustive()
    }
}
