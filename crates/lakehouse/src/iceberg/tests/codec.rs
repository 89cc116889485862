//! Manifests written and read back: by our reader, and by the `iceberg` crate's.

use std::sync::Arc;

use iceberg::spec::{Literal, Manifest, PrimitiveLiteral};
use serde_json::json;

use crate::iceberg::{
    data_file::{DataFile, ManifestEntry, Status, single_value},
    decode::decode_manifest,
    encode::{EncodedManifest, ManifestLayout, avro_name, encode_manifest},
};

const TYPES: [&str; 16] = [
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "decimal(4, 1)",
    "decimal(9, 2)",
    "decimal(38, 0)",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "string",
    "uuid",
    "fixed[5]",
    "binary",
];

fn layouts(types: &[&str]) -> (iceberg::spec::Schema, iceberg::spec::PartitionSpec) {
    let fields: Vec<_> = types
        .iter()
        .enumerate()
        .map(|(i, t)| json!({"id": i + 1, "name": format!("c {i}"), "required": false, "type": t}))
        .collect();
    let part = |i: usize| {
        let name = format!("c {i}");
        json!({"source-id": i + 1, "field-id": 1000 + i, "name": name, "transform": "identity"})
    };
    let parts: Vec<_> = (0..types.len()).map(part).collect();
    let schema = json!({"type": "struct", "schema-id": 3, "fields": fields});
    let spec = json!({"spec-id": 2, "fields": parts});
    (serde_json::from_value(schema).unwrap(), serde_json::from_value(spec).unwrap())
}

fn values(of_least: bool) -> Vec<PrimitiveLiteral> {
    use PrimitiveLiteral as L;
    let n = |least: i64, most: i64| if of_least { least } else { most };
    let wide = if of_least { 1 - 10_i128.pow(38) } else { 128 };
    vec![
        L::Boolean(!of_least),
        L::Int(n(-5, 70_000) as i32),
        L::Long(n(i64::MIN, 300)),
        L::Float((n(-1, 2) as f32).into()),
        L::Double((n(-1, 2) as f64).into()),
        L::Int128(i128::from(n(-128, 9_999))),
        L::Int128(i128::from(n(-999_999_999, 0))),
        L::Int128(wide),
        L::Int(n(-1, 20_000) as i32),
        L::Long(n(0, 86_399_999_999)),
        L::Long(n(-1, 1)),
        L::Long(n(-1, 1)),
        L::String(if of_least { String::new() } else { "zwölf".to_owned() }),
        L::UInt128(if of_least { 1 } else { u128::MAX }),
        L::Binary(if of_least { vec![0; 5] } else { vec![255; 5] }),
        L::Binary(if of_least { vec![] } else { vec![1, 2, 3] }),
    ]
}

fn entry(n: i64, partition: Vec<Option<Literal>>, status: Status) -> ManifestEntry {
    let file = DataFile {
        content: 0,
        path: format!("s3://lake/t/data/{n}.parquet"),
        format: "PARQUET".to_owned(),
        partition,
        rows: 5 + n,
        bytes: 1_000_000 + n,
        column_sizes: vec![(2, 70)],
        value_counts: vec![(2, 5), (3, 6)],
        null_counts: vec![(2, 1)],
        nan_counts: vec![(4, 2)],
        lower_bounds: vec![(2, (-7_i32).to_le_bytes().to_vec())],
        upper_bounds: vec![(2, 9_i32.to_le_bytes().to_vec())],
        key_metadata: Some(vec![9]),
        split_offsets: Some(vec![4, 1 << 40]),
        equality_ids: None,
        sort_order_id: Some(1),
    };
    ManifestEntry {
        status,
        snapshot_id: 11,
        sequence_number: 7,
        file_sequence_number: 7,
        file: Arc::new(file),
    }
}

fn literals(values: Vec<PrimitiveLiteral>) -> Vec<Option<Literal>> {
    values.into_iter().map(|value| Some(Literal::Primitive(value))).collect()
}

fn encode(types: &[&str], entries: &[ManifestEntry]) -> EncodedManifest {
    let (schema, spec) = layouts(types);
    let layout = ManifestLayout { schema: &schema, spec: &spec };
    encode_manifest("s3://lake/t/metadata/m.avro".to_owned(), &layout, entries, 11, 7).unwrap()
}

#[test]
fn every_partition_type_survives() {
    let entries = [
        entry(1, literals(values(true)), Status::Added),
        entry(2, literals(values(false)), Status::Existing),
        entry(3, vec![None; TYPES.len()], Status::Deleted),
    ];
    let encoded = encode(&TYPES, &entries);
    let read = decode_manifest(&encoded.bytes, &encoded.file).unwrap();
    assert_eq!(read.entries.len(), 3);
    for (read, written) in read.entries.iter().zip(&entries) {
        assert!(read.file == written.file, "{:?}", read.file);
        assert_eq!((read.status, read.snapshot_id, read.sequence_number), (written.status, 11, 7));
    }
    let summaries = encoded.file.partitions.unwrap();
    for ((summary, least), most) in summaries.iter().zip(values(true)).zip(values(false)) {
        assert!(summary.contains_null);
        assert_eq!(summary.lower_bound.as_deref(), single_value(&least).as_ref());
        assert_eq!(summary.upper_bound.as_deref(), single_value(&most).as_ref());
    }
    assert_eq!(encoded.file.min_sequence_number, 7);
    assert_eq!(encoded.file.existing_rows_count, Some(7));
}

#[test]
fn single_values_are_those_of_the_crate() {
    use iceberg::spec::{Datum, PrimitiveType};
    for value in [0_i128, -1, 127, 128, -128, -129, 32_768, i128::from(i64::MIN), 10_i128.pow(37)] {
        let bytes = single_value(&PrimitiveLiteral::Int128(value)).unwrap();
        let wanted = PrimitiveType::Decimal { precision: 38, scale: 0 };
        let datum = Datum::try_from_bytes(&bytes, wanted).unwrap();
        assert_eq!(datum.to_bytes().unwrap().as_slice(), bytes);
        assert_eq!(*datum.literal(), PrimitiveLiteral::Int128(value));
    }
}

/// The crate reads names that Avro takes.
#[test]
fn the_crate_reads_our_manifests() {
    let schema = json!({"type": "struct", "schema-id": 3, "fields": [
        {"id": 1, "name": "a", "required": true, "type": "long"},
        {"id": 2, "name": "b", "required": false, "type": "int"},
    ]});
    let spec = json!({"spec-id": 2, "fields": [
        {"source-id": 1, "field-id": 1000, "name": "a_bucket", "transform": "bucket[8]"},
    ]});
    let (schema, spec) = (serde_json::from_value(schema).unwrap(), serde_json::from_value(spec).unwrap());
    let layout = ManifestLayout { schema: &schema, spec: &spec };
    let written = entry(1, vec![Some(Literal::int(3))], Status::Added);
    let encoded = encode_manifest(String::new(), &layout, std::slice::from_ref(&written), 11, 7).unwrap();
    let read = Manifest::parse_avro(&encoded.bytes).unwrap();
    let file = read.entries()[0].data_file();
    assert_eq!(read.entries()[0].sequence_number(), None, "inherited");
    assert_eq!(file.file_path(), written.file.path);
    assert_eq!(file.partition()[0], Some(Literal::int(3)));
    assert_eq!(*file.lower_bounds()[&2].literal(), PrimitiveLiteral::Int(-7));
    assert_eq!(file.sort_order_id(), Some(1));
    assert_eq!(file.split_offsets(), Some(&[4, 1 << 40][..]));
    assert_eq!(file.null_value_counts()[&2], 1);
}

#[test]
fn columns_that_widened_are_written_wide() {
    let narrow = entry(
        1,
        literals(vec![PrimitiveLiteral::Float(1.5.into()), PrimitiveLiteral::Int(-4)]),
        Status::Existing,
    );
    let encoded = encode(&["double", "long"], &[narrow]);
    let read = decode_manifest(&encoded.bytes, &encoded.file).unwrap();
    let wide = literals(vec![PrimitiveLiteral::Double(1.5.into()), PrimitiveLiteral::Long(-4)]);
    assert_eq!(read.entries[0].file.partition, wide);
    assert_eq!(read.entries[0].file.lower_bounds, [(2, (-7_i64).to_le_bytes().to_vec())]);
}

#[test]
fn values_of_a_wrong_type_are_refused_without_being_quoted() {
    let (schema, spec) = layouts(&["int"]);
    let layout = ManifestLayout { schema: &schema, spec: &spec };
    for wrong in [PrimitiveLiteral::String("secret".into()), PrimitiveLiteral::Long(42_424_242)] {
        let entries = [entry(1, literals(vec![wrong]), Status::Added)];
        let error = encode_manifest(String::new(), &layout, &entries, 11, 7).err().unwrap();
        assert!(!format!("{error} {error:?}").contains("secret") && !error.to_string().contains("4242"));
    }
    let too_large = [entry(1, literals(vec![PrimitiveLiteral::Int128(1 << 20)]), Status::Added)];
    let (schema, spec) = layouts(&["decimal(4, 1)"]);
    let layout = ManifestLayout { schema: &schema, spec: &spec };
    assert!(encode_manifest(String::new(), &layout, &too_large, 11, 7).is_err());
    assert!(!format!("{:?}", too_large[0]).contains("1048576"));
}

#[test]
fn names_are_escaped_as_the_java_library_does() {
    assert_eq!(avro_name("ordered_at_day"), "ordered_at_day");
    assert_eq!(avro_name("9 lives"), "_9_x20lives");
    assert_eq!(avro_name("größe"), "gr_xF6_xDFe");
}

#[test]
fn damaged_manifests_are_refused() {
    let encoded = encode(&["int"], &[entry(1, literals(vec![PrimitiveLiteral::Int(1)]), Status::Added)]);
    for length in [0, 3, 100, encoded.bytes.len() - 1] {
        assert!(decode_manifest(&encoded.bytes[..length], &encoded.file).is_err(), "{length} bytes");
    }
}
