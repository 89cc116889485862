//! How a table's records are framed, and where their schema comes from.

use siltstone_protocol::Schema;

use super::{Lower, Place};
use crate::{
    columns::{self, Step},
    forms, limits,
    model::{EventTypes, InputSchema, SchemaMode, SourceCluster, SourceFormat, WireFormat},
    raw::{
        RawEventTypes, RawEventTypesParts, RawField, RawInputSchema, RawSchemaMode, RawSourceFormat,
        RawTable, RawTake, RawTakeWord, RawWireFormat,
    },
};

/// How records are framed and where their schema is.
pub(super) struct Source {
    pub(super) format: SourceFormat,
    pub(super) wire: WireFormat,
    pub(super) mode: SchemaMode,
}

impl Lower<'_> {
    pub(super) fn source(
        &mut self,
        raw: &RawTable,
        cluster: Option<&SourceCluster>,
        place: &Place<'_>,
    ) -> Source {
        let mode = raw.schema_mode.unwrap_or(match (raw.source_format, &raw.input_schema) {
            (RawSourceFormat::Raw, _) => RawSchemaMode::None,
            (_, Some(_)) => RawSchemaMode::Inline,
            (_, None) => RawSchemaMode::Registry,
        });
        let wire = raw.wire_format.unwrap_or(match mode {
            RawSchemaMode::Registry => RawWireFormat::Confluent,
            _ => RawWireFormat::Raw,
        });
        let format = match raw.source_format {
            RawSourceFormat::Avro => SourceFormat::Avro,
            RawSourceFormat::Json => SourceFormat::Json,
            RawSourceFormat::Protobuf => SourceFormat::Protobuf,
            RawSourceFormat::Raw => SourceFormat::Raw,
        };
        self.source_fits(raw, mode, wire, cluster, place);
        let wire = match wire {
            RawWireFormat::Confluent => WireFormat::Confluent,
            RawWireFormat::Raw => WireFormat::Raw,
        };
        let subject = raw.subject.as_ref().map(|subject| subject.0.clone());
        let mode = match mode {
            RawSchemaMode::Registry => SchemaMode::Registry,
            RawSchemaMode::RegistryLatest => SchemaMode::RegistryLatest {
                subject: subject.unwrap_or_else(|| format!("{}-value", raw.source_topic.0)),
            },
            RawSchemaMode::Inline => {
                let at = place.key("input_schema");
                let schema = raw.input_schema.as_ref();
                schema
                    .and_then(|schema| self.input_schema(schema, format, &at))
                    .map_or(SchemaMode::None, SchemaMode::Inline)
            }
            RawSchemaMode::None => SchemaMode::None,
        };
        Source { format, wire, mode }
    }

    fn source_fits(
        &mut self,
        raw: &RawTable,
        mode: RawSchemaMode,
        wire: RawWireFormat,
        cluster: Option<&SourceCluster>,
        place: &Place<'_>,
    ) {
        let at = place.key("schema_mode");
        let is_raw = raw.source_format == RawSourceFormat::Raw;
        if is_raw != (mode == RawSchemaMode::None) {
            let message = if is_raw {
                "source_format: raw has no schema: leave schema_mode out, or write none"
            } else {
                "none is for source_format: raw; use registry, registry_latest or inline"
            };
            return self.fault(&at, message);
        }
        if is_raw && wire == RawWireFormat::Confluent {
            self.fault(&place.key("wire_format"), "source_format: raw keeps the value as it is: write raw");
        }
        if mode == RawSchemaMode::Registry && wire == RawWireFormat::Raw {
            let message = "schema_mode: registry reads the schema's id from each record, which only \
             wire_format: \
                           confluent has; for bare values use schema_mode registry_latest or inline";
            self.fault(&place.key("wire_format"), message);
        }
        let needs_registry = matches!(mode, RawSchemaMode::Registry | RawSchemaMode::RegistryLatest);
        if needs_registry && cluster.is_some_and(|cluster| cluster.schema_registry.is_none()) {
            let message = "needs schema_registry at the table's source cluster, or input_schema here";
            self.fault(&at, message);
        }
        if mode == RawSchemaMode::Inline && raw.input_schema.is_none() {
            self.fault(&at, "inline needs input_schema beside it");
        }
        if mode != RawSchemaMode::Inline && raw.input_schema.is_some() {
            self.fault(&place.key("input_schema"), "is for schema_mode: inline; remove one of both");
        }
        if mode != RawSchemaMode::RegistryLatest && raw.subject.is_some() {
            self.fault(&place.key("subject"), "is for schema_mode: registry_latest");
        }
    }

    /// Which records are the table's.
    pub(super) fn event_types(
        &mut self,
        raw: Option<RawEventTypes>,
        mode: &SchemaMode,
        place: &Place<'_>,
    ) -> Option<EventTypes> {
        let (names, column, at) = match raw? {
            RawEventTypes::Names(names) => (Some(names), None, place.key("event_types")),
            RawEventTypes::Parts(RawEventTypesParts { take, column }) => {
                let names = match take {
                    RawTake::Word(RawTakeWord::All) => None,
                    RawTake::Names(names) => Some(names),
                };
                (names, column.map(|column| column.0), place.key("event_types").key("take"))
            }
        };
        let mut take: Vec<String> = Vec::new();
        for (index, name) in names.iter().flatten().enumerate() {
            if take.contains(&name.0) {
                self.fault(&at.item(index), "names a type that stands before");
            }
            take.push(name.0.clone());
        }
        let at = place.key("event_types");
        if *mode != SchemaMode::Registry {
            let message = "needs schema_mode: registry: the id in each record says of which type it is";
            self.fault(&at, message);
        }
        if column.as_deref() == Some("_kafka") {
            self.fault(&at.key("column"), "is the name of kafka_metadata's column; choose another name");
        }
        Some(EventTypes { take: names.is_some().then_some(take), column })
    }

    fn input_schema(
        &mut self,
        raw: &RawInputSchema,
        format: SourceFormat,
        place: &Place<'_>,
    ) -> Option<InputSchema> {
        let parts = match raw {
            RawInputSchema::Text(text) if format == SourceFormat::Avro => {
                return Some(InputSchema::Avro(text.0.clone()));
            }
            RawInputSchema::Text(_) if format == SourceFormat::Protobuf => {
                self.fault(place, "source_format: protobuf needs {protobuf: ..} or {protobuf_file: ..} here");
                return None;
            }
            RawInputSchema::Text(text) => return Some(InputSchema::JsonSchema(text.0.clone())),
            RawInputSchema::Parts(parts) => parts,
        };
        let given = [
            (parts.avro.is_some(), SourceFormat::Avro),
            (parts.avro_file.is_some(), SourceFormat::Avro),
            (parts.json_schema.is_some(), SourceFormat::Json),
            (parts.json_schema_file.is_some(), SourceFormat::Json),
            (parts.protobuf.is_some(), SourceFormat::Protobuf),
            (parts.protobuf_file.is_some(), SourceFormat::Protobuf),
            (parts.fields.is_some(), SourceFormat::Json),
        ];
        let mut given = given.iter().filter(|(is_given, _)| *is_given);
        let (Some((_, of)), None) = (given.next(), given.next()) else {
            self.fault(
                place,
                "must have exactly one of avro, avro_file, json_schema, json_schema_file, protobuf, \
                 protobuf_file, fields",
            );
            return None;
        };
        if *of != format {
            let message = match format {
                SourceFormat::Avro => {
                    "source_format: avro needs avro or avro_file: the schema that wrote the records"
                }
                SourceFormat::Protobuf => "source_format: protobuf needs protobuf or protobuf_file",
                _ => "source_format: json needs json_schema, json_schema_file or fields",
            };
            self.fault(place, message);
            return None;
        }
        if let Some(fields) = &parts.fields {
            return self.fields(fields, &place.key("fields")).map(InputSchema::Fields);
        }
        let made: fn(String) -> InputSchema = match format {
            SourceFormat::Avro => InputSchema::Avro,
            SourceFormat::Protobuf => InputSchema::Protobuf,
            _ => InputSchema::JsonSchema,
        };
        let text = parts.avro.as_ref().or(parts.json_schema.as_ref()).map(|text| &text.0);
        if let Some(text) = text.or(parts.protobuf.as_ref().map(|text| &text.0)) {
            return Some(made(text.clone()));
        }
        let files = [
            ("avro_file", &parts.avro_file),
            ("json_schema_file", &parts.json_schema_file),
            ("protobuf_file", &parts.protobuf_file),
        ];
        let (key, file) = files.iter().find_map(|(key, file)| Some((key, file.as_ref()?)))?;
        self.schema_file(&file.0, format, &place.key(key)).map(made)
    }

    fn schema_file(&mut self, file: &str, format: SourceFormat, place: &Place<'_>) -> Option<String> {
        let read = (self.sources.read)(&self.sources.path(file), limits::SCHEMA_FILE_BYTES_MAX);
        let checked =
            read.map_err(|error| format!("the file cannot be read: {}", error.kind())).and_then(|text| {
                match format {
                    SourceFormat::Protobuf => Ok(text),
                    _ => forms::json_text(&text).map(|()| text),
                }
            });
        checked.map_err(|message| self.fault(place, message)).ok()
    }

    fn fields(&mut self, fields: &[RawField], place: &Place<'_>) -> Option<Schema> {
        let faults = match columns::schema(fields) {
            Ok(schema) => return Some(schema),
            Err(faults) => faults,
        };
        for fault in faults {
            let mut at = Place { node: place.node, position: place.position, path: place.path.clone() };
            for step in fault.path {
                at = match step {
                    Step::Item(index) => at.item(index),
                    Step::Key(key) => at.key(key),
                };
            }
            self.fault(&at, fault.message);
        }
        None
    }
}
