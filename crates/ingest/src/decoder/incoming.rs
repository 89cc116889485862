//! A schema of records, from wherever it comes, as a table schema and as a program.

use siltstone_protocol::{Field, PrimitiveType, Schema};
use siltstone_spec::model::{ExtraFields, InputSchema, SourceFormat};

use super::programs::Program;
use crate::{
    IngestError,
    avro::{self, AvroProgram, AvroSchema},
    json::{self, Hints, JsonProgram},
    registry::{RegisteredSchema, RegistryFormat},
};

/// Name of the only column of a table of raw records.
const RAW_COLUMN: &str = "value";

pub(super) struct Incoming {
    /// The table that these records alone would make.
    pub(super) schema: Schema,
    kind: Kind,
}

enum Kind {
    Avro(AvroSchema),
    Json(Hints),
    Raw,
}

impl Incoming {
    /// Of raw records. Optional, for tombstones that are rows.
    pub(super) fn raw() -> Self {
        let column = Field::optional(1, RAW_COLUMN, PrimitiveType::Binary.into());
        Self { schema: Schema::new(0, vec![column]), kind: Kind::Raw }
    }

    /// `None`: the schema is of another format than the source.
    pub(super) fn registered(
        source: SourceFormat,
        schema: &RegisteredSchema,
    ) -> Result<Option<Self>, IngestError> {
        match (source, schema.format) {
            (SourceFormat::Avro, RegistryFormat::Avro) => {
                let references = schema.references.iter().map(|reference| reference.schema.as_str());
                Self::avro(AvroSchema::parse(&schema.schema, references)?).map(Some)
            }
            (SourceFormat::Json, RegistryFormat::Json) => {
                let (table, hints) = json::table_schema_with_hints(&schema.schema, &schema.references)?;
                Ok(Some(Self { schema: table, kind: Kind::Json(hints) }))
            }
            _ => Ok(None),
        }
    }

    pub(super) fn inline(source: SourceFormat, input: &InputSchema) -> Result<Self, IngestError> {
        match (source, input) {
            (SourceFormat::Avro, InputSchema::Avro(text)) => Self::avro(AvroSchema::parse(text, [])?),
            (SourceFormat::Json, InputSchema::JsonSchema(text)) => {
                let (schema, hints) = json::table_schema_with_hints(text, &[])?;
                Ok(Self { schema, kind: Kind::Json(hints) })
            }
            (SourceFormat::Json, InputSchema::Fields(schema)) => {
                Ok(Self { schema: schema.clone(), kind: Kind::Json(Hints::default()) })
            }
            _ => Err(IngestError::invalid("input_schema", "it is of another format than source_format")),
        }
    }

    fn avro(writer: AvroSchema) -> Result<Self, IngestError> {
        Ok(Self { schema: avro::table_schema(&writer)?, kind: Kind::Avro(writer) })
    }

    /// Compiles for a table that can take these records.
    pub(super) fn program(&self, table: &Schema, extra: ExtraFields) -> Result<Program, IngestError> {
        Ok(match &self.kind {
            Kind::Avro(writer) => Program::Avro(AvroProgram::compile(writer, table)?),
            Kind::Json(hints) => Program::Json(JsonProgram::compile_with_hints(table, extra, hints)?),
            Kind::Raw => Program::Raw,
        })
    }
}
