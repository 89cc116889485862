//! Reads manifests: ours, and those of other writers.
//!
//! 1. The Avro file says its own schema; partition values are matched to the spec by field id.
//! 2. What an entry inherits from its line in the manifest list is filled in.
//!
//! Bounds stay bytes. Errors of the Avro reader can quote values and are reduced to a phrase.
//!
//! The Avro reader (0.21) takes a uuid of a fixed type for one with a length before it. So the logical
//! type is taken out of the schema in the file's header first ([`without_uuid_type`]).

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use apache_avro::{Reader, Schema as AvroSchema, types::Value};
use iceberg::spec::{Literal, ManifestFile, PrimitiveLiteral};

use crate::error::LakeError;

use super::{
    data_file::{DataFile, ManifestEntry, Status},
    encode::put_bytes,
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
    let bytes = without_uuid_type(bytes).unwrap_or(Cow::Borrowed(bytes));
    let reader = Reader::new(&*bytes).map_err(|_| fault::bad_manifest(path, "is not an Avro file"))?;
    let fields = partition_fields(reader.writer_schema())
        .ok_or_else(|| fault::bad_manifest(path, "schema has no partition with field ids"))?;
    let spec_ids = spec_field_ids(reader.user_metadata())
        .ok_or_else(|| fault::bad_manifest(path, "has no readable partition spec"))?;
    // Where each value of the spec stands in the record; a reader must not rely on names or order.
    let columns: Vec<Option<Column>> = spec_ids
        .iter()
        .map(|id| {
            let index = fields.iter().position(|(field_id, _)| field_id == id)?;
            Some(Column { index, is_uuid: fields[index].1 })
        })
        .collect();
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

/// Marks a fixed type whose logical type was taken out.
const UUID_MARK: &str = "siltstone-uuid";

/// Where a partition value stands in the record of its entry.
#[derive(Clone, Copy)]
struct Column {
    index: usize,
    is_uuid: bool,
}

/// Field ids of the partition record, and which of them are uuids.
fn partition_fields(schema: &AvroSchema) -> Option<Vec<(i64, bool)>> {
    let field = |schema: &AvroSchema, name: &str| -> Option<AvroSchema> {
        let AvroSchema::Record(record) = schema else { return None };
        record.fields.iter().find(|field| field.name == name).map(|field| field.schema.clone())
    };
    let partition = field(&field(schema, "data_file")?, "partition")?;
    let AvroSchema::Record(record) = partition else { return None };
    let is_uuid = |schema: &AvroSchema| match schema {
        AvroSchema::Fixed(fixed) => fixed.attributes.contains_key(UUID_MARK),
        _ => false,
    };
    let fields = record.fields.iter().map(|field| {
        let uuid = match &field.schema {
            AvroSchema::Union(union) => union.variants().iter().any(is_uuid),
            other => is_uuid(other),
        };
        Some((field.custom_attributes.get("field-id")?.as_i64()?, uuid))
    });
    fields.collect()
}

/// The file with its header's fixed uuid types marked instead of typed. `None`: nothing to change.
fn without_uuid_type(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut rest = bytes.strip_prefix(b"Obj\x01")?;
    // The header is a map in blocks: an item count (when negative, a byte count follows), then items.
    loop {
        let mut count = take_long(&mut rest)?;
        if count == 0 {
            return None;
        }
        if count < 0 {
            take_long(&mut rest)?;
            count = -count;
        }
        for _ in 0..count {
            let key = take_bytes(&mut rest)?;
            let before = bytes.len() - rest.len();
            let value = take_bytes(&mut rest)?;
            if key != b"avro.schema" {
                continue;
            }
            let mut schema: serde_json::Value = serde_json::from_slice(value).ok()?;
            if !mark_uuids(&mut schema) {
                return None;
            }
            let schema = schema.to_string();
            let mut changed = Vec::with_capacity(bytes.len() + 64);
            changed.extend_from_slice(&bytes[..before]);
            put_bytes(&mut changed, schema.as_bytes());
            changed.extend_from_slice(rest);
            return Some(Cow::Owned(changed));
        }
    }
}

/// Turns `logicalType: uuid` of fixed types into the mark. True when there was one.
fn mark_uuids(schema: &mut serde_json::Value) -> bool {
    match schema {
        serde_json::Value::Array(items) => {
            items.iter_mut().fold(false, |found, item| mark_uuids(item) | found)
        }
        serde_json::Value::Object(object) => {
            let is = |key: &str, value: &str| object.get(key).and_then(|v| v.as_str()) == Some(value);
            let mut found = is("type", "fixed") && is("logicalType", "uuid");
            if found {
                object.remove("logicalType");
                object.insert(UUID_MARK.to_owned(), true.into());
            }
            for value in object.values_mut() {
                found |= mark_uuids(value);
            }
            found
        }
        _ => false,
    }
}

fn take_long(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_long(rest)?).ok()?;
    let (bytes, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(bytes)
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

fn entry(value: Value, line: &ManifestFile, columns: &[Option<Column>]) -> Option<ManifestEntry> {
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

fn data_file(value: Value, columns: &[Option<Column>]) -> Option<DataFile> {
    let mut record = Record::of(value)?;
    let values = Record::of(record.take("partition").unwrap_or(Value::Record(Vec::new())))?.0;
    let values: Vec<Value> = values.into_iter().map(|(_, value)| value).collect();
    let partition = columns
        .iter()
        .map(|column| {
            let Some(Column { index, is_uuid }) = *column else { return Some(None) };
            match values.get(index).cloned().and_then(non_null) {
                None => Some(None),
                Some(value) => partition_value(value, is_uuid).map(|value| Some(Literal::Primitive(value))),
            }
        })
        .collect::<Option<Vec<_>>>()?;
    Some(DataFile {
        content: record.long("content").unwrap_or(0),
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

fn partition_value(value: Value, is_uuid: bool) -> Option<PrimitiveLiteral> {
    Some(match value {
        Value::Fixed(16, v) if is_uuid => PrimitiveLiteral::UInt128(u128::from_be_bytes(v.try_into().ok()?)),
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
