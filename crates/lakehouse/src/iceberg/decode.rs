//! Reads manifests: ours, and those of other writers.
//!
//! 1. The Avro file says its own schema; partition values are matched to the spec by field id.
//! 2. What an entry inherits from its line in the manifest list is filled in.
//!
//! Bounds stay bytes. Errors of the Avro reader can quote values and are reduced to a phrase.

use std::{collections::HashMap, sync::Arc};

use apache_avro::{Reader, Schema as AvroSchema, types::Value};
use iceberg::spec::{Literal, ManifestFile, PrimitiveLiteral};

use crate::error::LakeError;

use super::{
    data_file::{DataFile, ManifestEntry, Status},
    fault,
};

/// More entries than this in one manifest are refused: memory is bounded by it.
const ENTRIES_MAX: usize = 4_000_000;

/// A decoded manifest.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) entries: Vec<ManifestEntry>,
}

/// Decodes the manifest that `line` of a manifest list names.
pub(crate) fn decode_manifest(bytes: &[u8], line: &ManifestFile) -> Result<Manifest, LakeError> {
    let path = line.manifest_path.as_str();
    let reader = Reader::new(bytes).map_err(|_| fault::bad_manifest(path, "is not an Avro file"))?;
    let field_ids = partition_field_ids(reader.writer_schema())
        .ok_or_else(|| fault::bad_manifest(path, "schema has no partition with field ids"))?;
    let spec_ids = spec_field_ids(reader.user_metadata())
        .ok_or_else(|| fault::bad_manifest(path, "has no readable partition spec"))?;
    // Where each value of the spec stands in the record; a reader must not rely on names or order.
    let columns: Vec<Option<usize>> =
        spec_ids.iter().map(|id| field_ids.iter().position(|field_id| field_id == id)).collect();
    let mut entries = Vec::new();
    for value in reader {
        let value = value.map_err(|_| fault::bad_manifest(path, "is cut short or damaged"))?;
        let entry = entry(value, line, &columns)
            .ok_or_else(|| fault::bad_manifest(path, "has an entry of an unexpected form"))?;
        entries.push(entry);
        if entries.len() > ENTRIES_MAX {
            return Err(fault::bad_manifest(path, "has too many entries"));
        }
    }
    Ok(Manifest { entries })
}

fn partition_field_ids(schema: &AvroSchema) -> Option<Vec<i64>> {
    let field = |schema: &AvroSchema, name: &str| -> Option<AvroSchema> {
        let AvroSchema::Record(record) = schema else { return None };
        record.fields.iter().find(|field| field.name == name).map(|field| field.schema.clone())
    };
    let partition = field(&field(schema, "data_file")?, "partition")?;
    let AvroSchema::Record(record) = partition else { return None };
    record.fields.iter().map(|field| field.custom_attributes.get("field-id")?.as_i64()).collect()
}

fn spec_field_ids(metadata: &HashMap<String, Vec<u8>>) -> Option<Vec<i64>> {
    let fields: Vec<serde_json::Value> = serde_json::from_slice(metadata.get("partition-spec")?).ok()?;
    fields.iter().map(|field| field.get("field-id")?.as_i64()).collect()
}

/// The fields of a record by name, each taken at most once.
struct Record(Vec<(String, Value)>);

impl Record {
    fn of(value: Value) -> Option<Self> {
        match value {
            Value::Record(fields) => Some(Self(fields)),
            _ => None,
        }
    }

    /// The value of a field; `None` when it is null or not there.
    fn take(&mut self, name: &str) -> Option<Value> {
        let (_, value) = self.0.iter_mut().find(|(field, _)| field == name)?;
        non_null(std::mem::replace(value, Value::Null))
    }

    fn long(&mut self, name: &str) -> Option<i64> {
        long(&self.take(name)?)
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    fn bytes(&mut self, name: &str) -> Option<Vec<u8>> {
        bytes(self.take(name)?)
    }

    fn longs(&mut self, name: &str) -> Option<Vec<i64>> {
        match self.take(name)? {
            Value::Array(items) => items.iter().map(long).collect(),
            _ => None,
        }
    }

    /// A map from column id, empty when absent. Outer `None`: of another form.
    fn map<T>(&mut self, name: &str, read: impl Fn(Value) -> Option<T>) -> Option<Vec<(i32, T)>> {
        match self.take(name) {
            None => Some(Vec::new()),
            Some(Value::Array(items)) => items
                .into_iter()
                .map(|item| {
                    let mut item = Record::of(item)?;
                    let id = i32::try_from(item.long("key")?).ok()?;
                    Some((id, read(item.take("value")?)?))
                })
                .collect(),
            Some(_) => None,
        }
    }
}

fn non_null(value: Value) -> Option<Value> {
    match value {
        Value::Union(_, value) => non_null(*value),
        Value::Null => None,
        value => Some(value),
    }
}

fn long(value: &Value) -> Option<i64> {
    match value {
        Value::Int(v) => Some(i64::from(*v)),
        Value::Long(v) => Some(*v),
        _ => None,
    }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => Some(bytes),
        _ => None,
    }
}

fn entry(value: Value, line: &ManifestFile, columns: &[Option<usize>]) -> Option<ManifestEntry> {
    let mut record = Record::of(value)?;
    let status = match record.long("status")? {
        0 => Status::Existing,
        1 => Status::Added,
        2 => Status::Deleted,
        _ => return None,
    };
    let snapshot_id = record.long("snapshot_id").unwrap_or(line.added_snapshot_id);
    // Inherited by added files; files of a format version 1 manifest have number 0, as their line has.
    let inherited = (status == Status::Added || line.sequence_number == 0).then_some(line.sequence_number);
    let sequence_number = record.long("sequence_number").or(inherited)?;
    let file_sequence_number = record.long("file_sequence_number").or(inherited).unwrap_or(sequence_number);
    let file = Arc::new(data_file(record.take("data_file")?, columns)?);
    Some(ManifestEntry { status, snapshot_id, sequence_number, file_sequence_number, file })
}

fn data_file(value: Value, columns: &[Option<usize>]) -> Option<DataFile> {
    let mut record = Record::of(value)?;
    let values = Record::of(record.take("partition").unwrap_or(Value::Record(Vec::new())))?.0;
    let values: Vec<Value> = values.into_iter().map(|(_, value)| value).collect();
    let partition = columns
        .iter()
        .map(|column| match column.and_then(|column| values.get(column).cloned()).and_then(non_null) {
            None => Some(None),
            Some(value) => partition_value(value).map(|value| Some(Literal::Primitive(value))),
        })
        .collect::<Option<Vec<_>>>()?;
    Some(DataFile {
        path: record.text("file_path")?,
        format: record.text("file_format")?.to_ascii_uppercase(),
        partition,
        rows: record.long("record_count")?,
        bytes: record.long("file_size_in_bytes")?,
        column_sizes: record.map("column_sizes", |v| long(&v))?,
        value_counts: record.map("value_counts", |v| long(&v))?,
        null_counts: record.map("null_value_counts", |v| long(&v))?,
        nan_counts: record.map("nan_value_counts", |v| long(&v))?,
        lower_bounds: record.map("lower_bounds", bytes)?,
        upper_bounds: record.map("upper_bounds", bytes)?,
        key_metadata: record.bytes("key_metadata"),
        split_offsets: record.longs("split_offsets"),
        equality_ids: record
            .longs("equality_ids")
            .map(|ids| ids.into_iter().filter_map(|id| i32::try_from(id).ok()).collect()),
        sort_order_id: record.long("sort_order_id").and_then(|id| i32::try_from(id).ok()),
    })
}

fn partition_value(value: Value) -> Option<PrimitiveLiteral> {
    Some(match value {
        Value::Boolean(v) => PrimitiveLiteral::Boolean(v),
        Value::Int(v) | Value::Date(v) => PrimitiveLiteral::Int(v),
        Value::Long(v)
        | Value::TimeMicros(v)
        | Value::TimestampMicros(v)
        | Value::LocalTimestampMicros(v) => PrimitiveLiteral::Long(v),
        Value::Float(v) => PrimitiveLiteral::Float(v.into()),
        Value::Double(v) => PrimitiveLiteral::Double(v.into()),
        Value::String(v) => PrimitiveLiteral::String(v),
        Value::Bytes(v) | Value::Fixed(_, v) => PrimitiveLiteral::Binary(v),
        Value::Uuid(v) => PrimitiveLiteral::UInt128(v.as_u128()),
        Value::Decimal(v) => {
            let bytes = <Vec<u8>>::try_from(v).ok()?;
            let fill = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
            let mut wide = [fill; 16];
            wide.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(&bytes);
            PrimitiveLiteral::Int128(i128::from_be_bytes(wide))
        }
        _ => return None,
    })
}
