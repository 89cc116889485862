//! What a field holds, in the terms that the type map and the compiler share.

use protox::prost_reflect::{EnumDescriptor, FieldDescriptor, Kind as Described, MessageDescriptor};

use super::cursor::Wire;

/// One value of a field.
#[derive(Clone)]
pub(super) enum Kind {
    Scalar(Scalar),
    /// A message that becomes a struct.
    Message(MessageDescriptor),
    /// `google.protobuf.*Value`: an optional scalar.
    Wrapper(Scalar),
    Timestamp,
    Duration,
    FieldMask,
    /// `google.protobuf.Struct`, `Value`, `ListValue`: any JSON.
    Dynamic(Dynamic),
}

#[derive(Clone)]
pub(super) enum Scalar {
    Bool,
    /// `int32`, `sfixed32`: the low 32 bits.
    Int32(Wire),
    Sint32,
    /// `uint32`, `fixed32`
    Uint32(Wire),
    /// `int64`, `sfixed64`
    Int64(Wire),
    Sint64,
    /// `uint64`, `fixed64`
    Uint64(Wire),
    Float,
    Double,
    String,
    Bytes,
    Enum(EnumDescriptor),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dynamic {
    Struct,
    Value,
    List,
}

/// How often a field can be there.
pub(super) enum Shape {
    /// One value. `presence`: being absent differs from being the default.
    One {
        kind: Kind,
        presence: bool,
        required: bool,
    },
    Many(Kind),
    Map {
        key: Kind,
        value: Kind,
    },
}

pub(super) fn shape(field: &FieldDescriptor) -> Shape {
    if field.is_map()
        && let Described::Message(entry) = field.kind()
    {
        let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        return Shape::Map { key: kind(&key), value: kind(&value) };
    }
    if field.is_list() {
        return Shape::Many(kind(field));
    }
    Shape::One { kind: kind(field), presence: field.supports_presence(), required: field.is_required() }
}

pub(super) fn kind(field: &FieldDescriptor) -> Kind {
    Kind::Scalar(match field.kind() {
        Described::Bool => Scalar::Bool,
        Described::Int32 => Scalar::Int32(Wire::Varint),
        Described::Sfixed32 => Scalar::Int32(Wire::Fixed32),
        Described::Sint32 => Scalar::Sint32,
        Described::Uint32 => Scalar::Uint32(Wire::Varint),
        Described::Fixed32 => Scalar::Uint32(Wire::Fixed32),
        Described::Int64 => Scalar::Int64(Wire::Varint),
        Described::Sfixed64 => Scalar::Int64(Wire::Fixed64),
        Described::Sint64 => Scalar::Sint64,
        Described::Uint64 => Scalar::Uint64(Wire::Varint),
        Described::Fixed64 => Scalar::Uint64(Wire::Fixed64),
        Described::Float => Scalar::Float,
        Described::Double => Scalar::Double,
        Described::String => Scalar::String,
        Described::Bytes => Scalar::Bytes,
        Described::Enum(of) => Scalar::Enum(of),
        Described::Message(of) => return message(of),
    })
}

fn message(of: MessageDescriptor) -> Kind {
    match of.full_name() {
        "google.protobuf.Timestamp" => Kind::Timestamp,
        "google.protobuf.Duration" => Kind::Duration,
        "google.protobuf.FieldMask" => Kind::FieldMask,
        "google.protobuf.Struct" => Kind::Dynamic(Dynamic::Struct),
        "google.protobuf.Value" => Kind::Dynamic(Dynamic::Value),
        "google.protobuf.ListValue" => Kind::Dynamic(Dynamic::List),
        "google.protobuf.BoolValue" => Kind::Wrapper(Scalar::Bool),
        "google.protobuf.Int32Value" => Kind::Wrapper(Scalar::Int32(Wire::Varint)),
        "google.protobuf.Int64Value" => Kind::Wrapper(Scalar::Int64(Wire::Varint)),
        "google.protobuf.UInt32Value" => Kind::Wrapper(Scalar::Uint32(Wire::Varint)),
        "google.protobuf.UInt64Value" => Kind::Wrapper(Scalar::Uint64(Wire::Varint)),
        "google.protobuf.FloatValue" => Kind::Wrapper(Scalar::Float),
        "google.protobuf.DoubleValue" => Kind::Wrapper(Scalar::Double),
        "google.protobuf.StringValue" => Kind::Wrapper(Scalar::String),
        "google.protobuf.BytesValue" => Kind::Wrapper(Scalar::Bytes),
        _ => Kind::Message(of),
    }
}

impl Scalar {
    pub(super) fn wire(&self) -> Wire {
        match self {
            Self::Bool | Self::Sint32 | Self::Sint64 | Self::Enum(_) => Wire::Varint,
            Self::Int32(wire) | Self::Uint32(wire) | Self::Int64(wire) | Self::Uint64(wire) => *wire,
            Self::Float => Wire::Fixed32,
            Self::Double => Wire::Fixed64,
            Self::String | Self::Bytes => Wire::Bytes,
        }
    }
}
