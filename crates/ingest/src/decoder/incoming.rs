//! A schema of records, from wherever it comes, as a table schema and as a program.

use siltstone_protocol::{Field, PrimitiveType, RejectReason, Schema, Type};
use siltstone_spec::model::{ExtraFields, InputSchema, SchemaMode, SourceFormat, TableSpec};

use super::programs::Program;
use crate::{
    IngestError,
    avro::{self, AvroProgram, AvroSchema},
    json::{self, Hints, JsonProgram},
    protobuf::{self, MessagePath, ProtobufFile, ProtobufProgram, ProtobufSchema},
    registry::{RegisteredSchema, RegistryFormat},
};

/// Name of the only column of a table of raw records.
const RAW_COLUMN: &str = "value";

pub(super) struct Incoming {
    /// The table that these records alone would make.
    pub(super) schema: Schema,
    /// Of the records' type.
    pub(super) name: Option<String>,
    kind: Kind,
}

enum Kind {
    Avro(AvroSchema),
    Json(Hints),
    Protobuf(ProtobufSchema),
    Raw,
}

/// What a registered schema is for a table.
pub(super) enum Registered {
    Of(Box<Incoming>),
    /// It is of another format than the source.
    OtherFormat,
    /// Its records are of a message that the schema does not have, or that the table does not take.
    OtherMessage(RejectReason),
    /// Its records are of a type that the table does not take.
    OtherEventType,
}

impl Incoming {
    /// Of raw records. Optional, for tombstones that are rows.
    pub(super) fn raw() -> Self {
        let column = Field::optional(1, RAW_COLUMN, PrimitiveType::Binary.into());
        Self { schema: Schema::new(0, vec![column]), name: None, kind: Kind::Raw }
    }

    /// `path`: the message that a record names; `None`: that of the table, or the first.
    pub(super) fn registered(
        table: &TableSpec,
        schema: &RegisteredSchema,
        path: Option<MessagePath>,
    ) -> Result<Registered, IngestError> {
        let of = |incoming| Registered::Of(Box::new(incoming));
        // Asked before a type is mapped: another table's may be one that no table can take.
        let is_other =
            |name: Option<&str>| table.event_types.as_ref().is_some_and(|types| !types.takes(name));
        match (table.source_format, schema.format) {
            (SourceFormat::Avro, RegistryFormat::Avro) => {
                let references = schema.references.iter().map(|reference| reference.schema.as_str());
                let writer = AvroSchema::parse(&schema.schema, references)?;
                if is_other(writer.name()) {
                    return Ok(Registered::OtherEventType);
                }
                Self::avro(writer).map(of)
            }
            (SourceFormat::Json, RegistryFormat::Json) => {
                let name = json::title(&schema.schema);
                if is_other(name.as_deref()) {
                    return Ok(Registered::OtherEventType);
                }
                let (table, hints) = json::table_schema_with_hints(&schema.schema, &schema.references)?;
                Ok(of(Self { schema: table, name, kind: Kind::Json(hints) }))
            }
            (SourceFormat::Protobuf, RegistryFormat::Protobuf) => {
                let file = ProtobufFile::compile(&schema.schema, &schema.references)?;
                let wanted = table.message_type.as_deref();
                let Some(path) = path else {
                    let message = file.message(wanted)?;
                    let is_other = is_other(Some(message.name()));
                    return if is_other {
                        Ok(Registered::OtherEventType)
                    } else {
                        Self::protobuf(table, message).map(of)
                    };
                };
                let Some(message) = file.at(&path) else {
                    return Ok(Registered::OtherMessage(RejectReason::BadFraming));
                };
                if is_other(Some(message.name())) {
                    return Ok(Registered::OtherEventType);
                }
                if wanted.is_some_and(|wanted| !file.is_named(&message, wanted)) {
                    return Ok(Registered::OtherMessage(RejectReason::IncompatibleSchema));
                }
                Self::protobuf(table, message).map(of)
            }
            _ => Ok(Registered::OtherFormat),
        }
    }

    pub(super) fn inline(table: &TableSpec, input: &InputSchema) -> Result<Self, IngestError> {
        match (table.source_format, input) {
            (SourceFormat::Avro, InputSchema::Avro(text)) => Self::avro(AvroSchema::parse(text, [])?),
            (SourceFormat::Json, InputSchema::JsonSchema(text)) => {
                let (schema, hints) = json::table_schema_with_hints(text, &[])?;
                Ok(Self { schema, name: None, kind: Kind::Json(hints) })
            }
            (SourceFormat::Json, InputSchema::Fields(schema)) => {
                Ok(Self { schema: schema.clone(), name: None, kind: Kind::Json(Hints::default()) })
            }
            (SourceFormat::Protobuf, InputSchema::Protobuf(text)) => {
                let file = ProtobufFile::compile(text, &[])?;
                Self::protobuf(table, file.message(table.message_type.as_deref())?)
            }
            _ => Err(IngestError::invalid("input_schema", "it is of another format than source_format")),
        }
    }

    fn avro(writer: AvroSchema) -> Result<Self, IngestError> {
        let name = writer.name().map(str::to_owned);
        Ok(Self { schema: avro::table_schema(&writer)?, name, kind: Kind::Avro(writer) })
    }

    fn protobuf(table: &TableSpec, message: ProtobufSchema) -> Result<Self, IngestError> {
        let name = Some(message.name().to_owned());
        let mut schema = protobuf::table_schema(&message)?;
        // Of several messages each has its own numbers, and they meet in columns by name. Transforms go by name, too.
        if table.has_transforms()
            || (table.message_type.is_none() && table.schema_mode == SchemaMode::Registry)
        {
            forget_numbers(&mut schema.fields);
        }
        Ok(Self { schema, name, kind: Kind::Protobuf(message) })
    }

    /// Compiles for a table that can take these records.
    pub(super) fn program(&self, table: &Schema, extra: ExtraFields) -> Result<Program, IngestError> {
        Ok(match &self.kind {
            Kind::Avro(writer) => Program::Avro(AvroProgram::compile(writer, table)?),
            Kind::Json(hints) => Program::Json(JsonProgram::compile_with_hints(table, extra, hints)?),
            Kind::Protobuf(message) => Program::Protobuf(ProtobufProgram::compile(message, table)?),
            Kind::Raw => Program::Raw,
        })
    }

    /// As `program`, for a table of some of the columns of these records: the others are passed over. Of JSON `extra`
    /// says so.
    pub(super) fn program_of_some(&self, table: &Schema, extra: ExtraFields) -> Result<Program, IngestError> {
        Ok(match &self.kind {
            Kind::Avro(writer) => Program::Avro(AvroProgram::compile_some(writer, table)?),
            Kind::Protobuf(message) => Program::Protobuf(ProtobufProgram::compile_some(message, table)?),
            Kind::Json(_) | Kind::Raw => self.program(table, extra)?,
        })
    }
}

fn forget_numbers(fields: &mut [Field]) {
    for field in fields {
        field.number = None;
        forget_inside(&mut field.data_type);
    }
}

fn forget_inside(data_type: &mut Type) {
    match data_type {
        Type::Primitive(_) => {}
        Type::Struct(members) => forget_numbers(members),
        Type::List { element, .. } => forget_inside(element),
        Type::Map { value, .. } => forget_inside(value),
    }
}
