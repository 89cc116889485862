//! The decoder of a file's records: that of the table's records, told of another place for the schema.

use siltstone_protocol::Schema;
use siltstone_spec::model::{InputSchema, SchemaMode, SourceFormat, TableSpec, Tombstones, WireFormat};

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Avro object container file.
    Avro,
    /// JSON lines.
    Json,
    Parquet,
}

impl FileFormat {
    /// By the end of a file's name, what compressed it left out.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let bare = [".gz", ".gzip", ".zst", ".zstd"].iter().find_map(|end| name.strip_suffix(end));
        let bare = bare.unwrap_or(&name);
        let ends = |ends: &[&str]| ends.iter().any(|end| bare.ends_with(end));
        if ends(&[".avro"]) {
            Some(Self::Avro)
        } else if ends(&[".json", ".jsonl", ".ndjson"]) {
            Some(Self::Json)
        } else if ends(&[".parquet"]) {
            Some(Self::Parquet)
        } else {
            None
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Avro => "avro",
            Self::Json => "json",
            Self::Parquet => "parquet",
        }
    }
}

/// The table as the decoder of a file's records is to see it: bare payloads without coordinates, so that `_kafka` is
/// null unless the file itself has such a column.
///
/// Avro: the schema is the file's own, `writer`. JSON: that of the spec when its records are JSON, else the
/// columns that the table has, `table`.
pub fn file_table(
    spec: &TableSpec,
    format: FileFormat,
    writer: Option<&str>,
    table: Option<&Schema>,
) -> TableSpec {
    let (source_format, schema_mode) = match format {
        FileFormat::Avro | FileFormat::Parquet => {
            let writer = writer.unwrap_or_default().to_owned();
            (SourceFormat::Avro, SchemaMode::Inline(InputSchema::Avro(writer)))
        }
        FileFormat::Json => (SourceFormat::Json, json_schema(spec, table)),
    };
    TableSpec {
        source_format,
        schema_mode,
        wire_format: WireFormat::Raw,
        kafka_metadata: false,
        event_types: None,
        tombstones: Tombstones::Reject,
        ..spec.clone()
    }
}

fn json_schema(spec: &TableSpec, table: Option<&Schema>) -> SchemaMode {
    match (&spec.schema_mode, table) {
        (SchemaMode::Inline(_) | SchemaMode::RegistryLatest { .. }, _)
            if spec.source_format == SourceFormat::Json =>
        {
            spec.schema_mode.clone()
        }
        (SchemaMode::Registry, _) if spec.source_format == SourceFormat::Json => {
            SchemaMode::RegistryLatest { subject: format!("{}-value", spec.topic) }
        }
        (_, Some(table)) => SchemaMode::Inline(InputSchema::Fields(table.clone())),
        (_, None) => SchemaMode::None,
    }
}
