//! Writes the Avro bytes of a manifest (Iceberg table spec v2, data content).
//!
//! Written by hand over the spec's fixed schema, because the manifest writer of the `iceberg` crate
//! (0.10) leaks the name of each partition field for every entry, writes decimal partition values at
//! a length that its schema does not allow, and does not escape names that Avro refuses. Fields are
//! found by id by every reader, so names of partition fields are escaped as the Java library does.

use std::collections::HashMap;

use bytes::Bytes;
use iceberg::spec::{
    ByteBuf, FieldSummary, Literal, ManifestContentType, ManifestFile, PartitionSpec, PrimitiveLiteral,
    PrimitiveType, Schema, StructType, Type,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::error::LakeError;

use super::{
    data_file::{DataFile, ManifestEntry, Status, promote, promote_bytes, single_value},
    fault,
};

/// Entries of one Avro block: readers hold one block in memory.
const BLOCK_BYTES: usize = 256 * 1024;
const SYNC_MARKER_BYTES: usize = 16;

/// Schema and partition spec under which a manifest is written.
pub(crate) struct ManifestLayout<'a> {
    pub(crate) schema: &'a Schema,
    pub(crate) spec: &'a PartitionSpec,
}

/// A manifest's bytes, and its line in the manifest list.
pub(crate) struct EncodedManifest {
    pub(crate) bytes: Bytes,
    pub(crate) file: ManifestFile,
}

/// Encodes `entries` as a manifest at `url` added by snapshot `snapshot_id` with `sequence_number`.
pub(crate) fn encode_manifest(
    url: String,
    layout: &ManifestLayout<'_>,
    entries: &[ManifestEntry],
    snapshot_id: i64,
    sequence_number: i64,
) -> Result<EncodedManifest, LakeError> {
    let partition_type =
        layout.spec.partition_type(layout.schema).map_err(|_| fault::bad_spec(layout.spec.spec_id()))?;
    let marker = marker(&url);
    let mut out = Vec::with_capacity(4096 + entries.len() * 256);
    write_header(&mut out, layout, &partition_type, &marker)?;
    let mut block = Vec::with_capacity(BLOCK_BYTES + 4096);
    let mut count = 0;
    let mut totals = Totals::new(&partition_type);
    for entry in entries {
        totals.add(entry).ok_or_else(|| fault::bad_partition(&entry.file.path))?;
        write_entry(&mut block, entry, snapshot_id, &partition_type, layout.schema)
            .ok_or_else(|| fault::bad_partition(&entry.file.path))?;
        count += 1;
        if block.len() >= BLOCK_BYTES {
            flush_block(&mut out, &mut block, &mut count, &marker);
        }
    }
    flush_block(&mut out, &mut block, &mut count, &marker);
    let mut file = totals.finish(sequence_number);
    file.manifest_path = url;
    file.manifest_length = i64::try_from(out.len()).unwrap_or(i64::MAX);
    file.partition_spec_id = layout.spec.spec_id();
    file.sequence_number = sequence_number;
    file.added_snapshot_id = snapshot_id;
    Ok(EncodedManifest { bytes: Bytes::from(out), file })
}

/// What stands between blocks: nothing that a value is likely to hold, as names are fresh.
fn marker(url: &str) -> [u8; SYNC_MARKER_BYTES] {
    let mut marker = [0; SYNC_MARKER_BYTES];
    marker.copy_from_slice(&Sha256::digest(url)[..SYNC_MARKER_BYTES]);
    marker
}

fn flush_block(out: &mut Vec<u8>, block: &mut Vec<u8>, count: &mut i64, marker: &[u8; SYNC_MARKER_BYTES]) {
    if *count == 0 {
        return;
    }
    put_long(out, *count);
    put_long(out, block.len() as i64);
    out.append(block);
    out.extend_from_slice(marker);
    *count = 0;
}

fn write_header(
    out: &mut Vec<u8>,
    layout: &ManifestLayout<'_>,
    partition_type: &StructType,
    marker: &[u8; SYNC_MARKER_BYTES],
) -> Result<(), LakeError> {
    let text = |value: serde_json::Result<String>| value.map_err(|_| fault::bad_spec(layout.spec.spec_id()));
    let metadata = [
        ("avro.schema", avro_schema(partition_type).to_string()),
        ("avro.codec", "null".to_owned()),
        ("schema", text(serde_json::to_string(layout.schema))?),
        ("schema-id", layout.schema.schema_id().to_string()),
        ("partition-spec", text(serde_json::to_string(layout.spec.fields()))?),
        ("partition-spec-id", layout.spec.spec_id().to_string()),
        ("format-version", "2".to_owned()),
        ("content", "data".to_owned()),
    ];
    out.extend_from_slice(b"Obj\x01");
    put_long(out, metadata.len() as i64);
    for (key, value) in metadata {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
    put_long(out, 0);
    out.extend_from_slice(marker);
    Ok(())
}

fn write_entry(
    out: &mut Vec<u8>,
    entry: &ManifestEntry,
    snapshot_id: i64,
    partition_type: &StructType,
    schema: &Schema,
) -> Option<()> {
    put_long(out, entry.status as i64);
    put_some_long(out, Some(entry.snapshot_id));
    // A file added by this snapshot inherits its sequence number from the manifest list.
    let inherits = entry.status == Status::Added && entry.snapshot_id == snapshot_id;
    put_some_long(out, (!inherits).then_some(entry.sequence_number));
    put_some_long(out, (!inherits).then_some(entry.file_sequence_number));
    write_data_file(out, &entry.file, partition_type, schema)
}

fn write_data_file(
    out: &mut Vec<u8>,
    file: &DataFile,
    partition_type: &StructType,
    schema: &Schema,
) -> Option<()> {
    put_long(out, file.content);
    put_bytes(out, file.path.as_bytes());
    put_bytes(out, file.format.as_bytes());
    if file.partition.len() != partition_type.fields().len() {
        return None;
    }
    for (value, field) in file.partition.iter().zip(partition_type.fields()) {
        put_partition_value(out, value.as_ref(), field.field_type.as_primitive_type()?)?;
    }
    put_long(out, file.rows);
    put_long(out, file.bytes);
    for counts in [&file.column_sizes, &file.value_counts, &file.null_counts, &file.nan_counts] {
        put_map(out, counts, |out, _, value| put_long(out, *value));
    }
    for bounds in [&file.lower_bounds, &file.upper_bounds] {
        put_map(out, bounds, |out, id, value: &Vec<u8>| {
            let wanted = schema.field_by_id(id).and_then(|field| field.field_type.as_primitive_type());
            match wanted.and_then(|wanted| promote_bytes(value, wanted)) {
                Some(wide) => put_bytes(out, &wide),
                None => put_bytes(out, value),
            }
        });
    }
    put_some(out, file.key_metadata.as_ref(), |out, value| put_bytes(out, value));
    put_some(out, file.split_offsets.as_ref(), |out, offsets| {
        put_array(out, offsets, |out, value| put_long(out, *value));
    });
    put_some(out, file.equality_ids.as_ref(), |out, ids| {
        put_array(out, ids, |out, value| put_long(out, i64::from(*value)));
    });
    put_some_long(out, file.sort_order_id.map(i64::from));
    Some(())
}

fn put_partition_value(out: &mut Vec<u8>, value: Option<&Literal>, wanted: &PrimitiveType) -> Option<()> {
    let Some(value) = value else {
        put_long(out, 0);
        return Some(());
    };
    put_long(out, 1);
    match (promote(&value.as_primitive_literal()?, wanted), wanted) {
        (PrimitiveLiteral::Boolean(v), PrimitiveType::Boolean) => out.push(u8::from(v)),
        (PrimitiveLiteral::Int(v), PrimitiveType::Int | PrimitiveType::Date) => put_long(out, i64::from(v)),
        (
            PrimitiveLiteral::Long(v),
            PrimitiveType::Long | PrimitiveType::Time | PrimitiveType::Timestamp | PrimitiveType::Timestamptz,
        ) => put_long(out, v),
        (PrimitiveLiteral::Float(v), PrimitiveType::Float) => out.extend_from_slice(&v.0.to_le_bytes()),
        (PrimitiveLiteral::Double(v), PrimitiveType::Double) => out.extend_from_slice(&v.0.to_le_bytes()),
        (PrimitiveLiteral::String(v), PrimitiveType::String) => put_bytes(out, v.as_bytes()),
        (PrimitiveLiteral::Binary(v), PrimitiveType::Binary) => put_bytes(out, &v),
        (PrimitiveLiteral::Binary(v), PrimitiveType::Fixed(length)) if v.len() as u64 == *length => {
            out.extend_from_slice(&v);
        }
        (PrimitiveLiteral::UInt128(v), PrimitiveType::Uuid) => out.extend_from_slice(&v.to_be_bytes()),
        (PrimitiveLiteral::Int128(v), PrimitiveType::Decimal { precision, .. }) => {
            let length = decimal_bytes(*precision);
            let bytes = v.to_be_bytes();
            let (head, tail) = bytes.split_at(bytes.len() - length);
            let fill = if v < 0 { 0xff } else { 0 };
            let same_sign = tail.first().is_some_and(|byte| (byte & 0x80 != 0) == (v < 0));
            (same_sign && head.iter().all(|byte| *byte == fill)).then(|| out.extend_from_slice(tail))?;
        }
        _ => return None,
    }
    Some(())
}

/// Bytes of the fixed type that holds an unscaled decimal of this precision.
pub(crate) fn decimal_bytes(precision: u32) -> usize {
    Type::decimal_required_bytes(precision).map_or(16, |bytes| bytes as usize)
}

fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

fn put_some<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    put_long(out, i64::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_some_long(out: &mut Vec<u8>, value: Option<i64>) {
    put_some(out, value, put_long);
}

fn put_array<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    if !items.is_empty() {
        put_long(out, items.len() as i64);
        items.iter().for_each(|item| put(out, item));
    }
    put_long(out, 0);
}

/// An optional map from column id: absent when empty.
fn put_map<T>(out: &mut Vec<u8>, items: &Vec<(i32, T)>, put: impl Fn(&mut Vec<u8>, i32, &T)) {
    put_some(out, (!items.is_empty()).then_some(items), |out, items| {
        put_array(out, items, |out, (id, value)| {
            put_long(out, i64::from(*id));
            put(out, *id, value);
        });
    });
}

/// The Avro schema of manifest entries for this partition type.
fn avro_schema(partition_type: &StructType) -> Value {
    let partition: Vec<Value> = partition_type
        .fields()
        .iter()
        .filter_map(|field| {
            let avro = partition_avro_type(field.id, field.field_type.as_primitive_type()?)?;
            Some(optional(field.id, &avro_name(&field.name), avro))
        })
        .collect();
    let map = |id: i32, name: &str, key: i32, value: i32, avro: &str| {
        let record = json!({"type": "record", "name": format!("k{key}_v{value}"), "fields": [
            {"name": "key", "type": "int", "field-id": key},
            {"name": "value", "type": avro, "field-id": value},
        ]});
        optional(id, name, json!({"type": "array", "logicalType": "map", "items": record}))
    };
    let list = |id: i32, name: &str, element: i32, avro: &str| {
        optional(id, name, json!({"type": "array", "items": avro, "element-id": element}))
    };
    let data_file = json!({"type": "record", "name": "r2", "fields": [
        {"name": "content", "type": "int", "field-id": 134},
        {"name": "file_path", "type": "string", "field-id": 100},
        {"name": "file_format", "type": "string", "field-id": 101},
        {"name": "partition", "field-id": 102,
         "type": {"type": "record", "name": "r102", "fields": partition}},
        {"name": "record_count", "type": "long", "field-id": 103},
        {"name": "file_size_in_bytes", "type": "long", "field-id": 104},
        map(108, "column_sizes", 117, 118, "long"),
        map(109, "value_counts", 119, 120, "long"),
        map(110, "null_value_counts", 121, 122, "long"),
        map(137, "nan_value_counts", 138, 139, "long"),
        map(125, "lower_bounds", 126, 127, "bytes"),
        map(128, "upper_bounds", 129, 130, "bytes"),
        optional(131, "key_metadata", json!("bytes")),
        list(132, "split_offsets", 133, "long"),
        list(135, "equality_ids", 136, "int"),
        optional(140, "sort_order_id", json!("int")),
    ]});
    json!({"type": "record", "name": "manifest_entry", "fields": [
        {"name": "status", "type": "int", "field-id": 0},
        optional(1, "snapshot_id", json!("long")),
        optional(3, "sequence_number", json!("long")),
        optional(4, "file_sequence_number", json!("long")),
        {"name": "data_file", "type": data_file, "field-id": 2},
    ]})
}

fn optional(id: i32, name: &str, avro: Value) -> Value {
    json!({"name": name, "type": ["null", avro], "default": null, "field-id": id})
}

fn partition_avro_type(id: i32, primitive: &PrimitiveType) -> Option<Value> {
    // Named types must be unique in a schema, hence the field id in the names.
    Some(match primitive {
        PrimitiveType::Boolean => json!("boolean"),
        PrimitiveType::Int => json!("int"),
        PrimitiveType::Long => json!("long"),
        PrimitiveType::Float => json!("float"),
        PrimitiveType::Double => json!("double"),
        PrimitiveType::Date => json!({"type": "int", "logicalType": "date"}),
        PrimitiveType::Time => json!({"type": "long", "logicalType": "time-micros"}),
        PrimitiveType::Timestamp => {
            json!({"type": "long", "logicalType": "timestamp-micros", "adjust-to-utc": false})
        }
        PrimitiveType::Timestamptz => {
            json!({"type": "long", "logicalType": "timestamp-micros", "adjust-to-utc": true})
        }
        PrimitiveType::String => json!("string"),
        PrimitiveType::Binary => json!("bytes"),
        PrimitiveType::Uuid => {
            json!({"type": "fixed", "name": format!("uuid_fixed_{id}"), "size": 16, "logicalType": "uuid"})
        }
        PrimitiveType::Fixed(length) => {
            json!({"type": "fixed", "name": format!("fixed_{length}_{id}"), "size": length})
        }
        PrimitiveType::Decimal { precision, scale } => json!({
            "type": "fixed", "name": format!("decimal_{precision}_{scale}_{id}"),
            "size": decimal_bytes(*precision), "logicalType": "decimal",
            "precision": precision, "scale": scale,
        }),
        _ => return None,
    })
}

/// A name that Avro takes, escaped as Iceberg's Java library does.
pub(crate) fn avro_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (index, c) in name.chars().enumerate() {
        match c {
            'a'..='z' | 'A'..='Z' | '_' => out.push(c),
            '0'..='9' if index > 0 => out.push(c),
            '0'..='9' => out.extend(['_', c]),
            _ => out.push_str(&format!("_x{:X}", u32::from(c))),
        }
    }
    out
}

/// Counts, sequence numbers and partition ranges of a manifest, for its line in the list.
struct Totals {
    types: Vec<PrimitiveType>,
    fields: Vec<FieldTotals>,
    files: HashMap<u8, (u32, u64)>,
    min_sequence_number: Option<i64>,
}

#[derive(Default)]
struct FieldTotals {
    null: bool,
    nan: bool,
    lower: Option<PrimitiveLiteral>,
    upper: Option<PrimitiveLiteral>,
}

impl Totals {
    fn new(partition_type: &StructType) -> Self {
        let types: Vec<_> = partition_type
            .fields()
            .iter()
            .filter_map(|f| f.field_type.as_primitive_type().cloned())
            .collect();
        let fields = types.iter().map(|_| FieldTotals::default()).collect();
        Self { types, fields, files: HashMap::new(), min_sequence_number: None }
    }

    fn add(&mut self, entry: &ManifestEntry) -> Option<()> {
        let (files, rows) = self.files.entry(entry.status as u8).or_default();
        *files += 1;
        *rows += u64::try_from(entry.file.rows).unwrap_or(0);
        if entry.is_live() {
            let least =
                self.min_sequence_number.map_or(entry.sequence_number, |n| n.min(entry.sequence_number));
            self.min_sequence_number = Some(least);
        }
        for ((value, wanted), field) in entry.file.partition.iter().zip(&self.types).zip(&mut self.fields) {
            let Some(value) = value else {
                field.null = true;
                continue;
            };
            let value = promote(&value.as_primitive_literal()?, wanted);
            if value.is_nan() {
                field.nan = true;
                continue;
            }
            if field.lower.as_ref().is_none_or(|lower| value < *lower) {
                field.lower = Some(value.clone());
            }
            if field.upper.as_ref().is_none_or(|upper| value > *upper) {
                field.upper = Some(value);
            }
        }
        Some(())
    }

    fn finish(self, sequence_number: i64) -> ManifestFile {
        let count = |status: Status| self.files.get(&(status as u8)).copied().unwrap_or_default();
        let bytes =
            |bound: Option<PrimitiveLiteral>| bound.and_then(|bound| single_value(&bound)).map(ByteBuf::from);
        let (added, existing, deleted) =
            (count(Status::Added), count(Status::Existing), count(Status::Deleted));
        let partitions = self
            .fields
            .into_iter()
            .map(|field| FieldSummary {
                contains_null: field.null,
                contains_nan: Some(field.nan),
                lower_bound: bytes(field.lower),
                upper_bound: bytes(field.upper),
            })
            .collect();
        ManifestFile {
            manifest_path: String::new(),
            manifest_length: 0,
            partition_spec_id: 0,
            content: ManifestContentType::Data,
            sequence_number,
            min_sequence_number: self.min_sequence_number.unwrap_or(sequence_number),
            added_snapshot_id: 0,
            added_files_count: Some(added.0),
            existing_files_count: Some(existing.0),
            deleted_files_count: Some(deleted.0),
            added_rows_count: Some(added.1),
            existing_rows_count: Some(existing.1),
            deleted_rows_count: Some(deleted.1),
            partitions: Some(partitions),
            key_metadata: None,
            first_row_id: None,
        }
    }
}
