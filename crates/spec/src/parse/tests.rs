//! The specs in `table-specs/`, and spec after spec of mistakes with the exact text they get.

use std::{io, path::PathBuf, time::Duration};

use proptest::prelude::*;
use siltstone_protocol::{Format, Transform};

use super::*;
use crate::model::*;

const SECRET: &str = "hunter2-cleartext";

fn env(name: &str) -> Option<String> {
    match name {
        "PWD" => Some("/work".to_owned()),
        "KAFKA_USER" | "SR_USER" | "FLEET_KEY" => Some("svc".to_owned()),
        "KAFKA_PASSWORD" | "SR_PASSWORD" | "EU_REGISTRY_TOKEN" => Some(SECRET.to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn read(text: &str, file: &str) -> Result<Spec, Faults> {
    let read = |path: &Path, max: u64| match path.to_str() {
        Some("/run/secrets/fleet") => Ok(format!("{SECRET}\n")),
        _ if path.starts_with("/secrets") => Err(io::Error::from(io::ErrorKind::NotFound)),
        _ => environment::read_file(path, max),
    };
    let directory = Path::new(file).parent().map(PathBuf::from).unwrap_or_default();
    parse_from(text, file, &Sources { env: &env, read: &read, directory })
}

fn specs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../table-specs")
}

fn stored(name: &str) -> Spec {
    let path = specs().join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    match read(&text, path.to_str().unwrap()) {
        Ok(spec) => spec,
        Err(faults) => panic!("{faults}"),
    }
}

#[test]
fn every_stored_spec_is_valid() {
    let mut seen = 0;
    for entry in std::fs::read_dir(specs()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".yaml") {
            stored(&name);
            seen += 1;
        }
    }
    assert!(seen >= 7, "{seen} specs");
}

#[test]
fn the_orders_spec_is_read_as_written() {
    let spec = stored("orders-avro-s3.yaml");
    assert_eq!(spec.destination.url, "s3://acme-lake/tables");
    assert_eq!(spec.destination.options["region"], "eu-west-1");
    let cluster = &spec.source_clusters[0];
    assert_eq!(cluster.bootstrap_brokers[2], "broker-3.internal:9093");
    assert_eq!(cluster.client_options["client.rack"], "eu-west-1a");
    let sasl = cluster.sasl.as_ref().unwrap();
    assert_eq!((sasl.mechanism, sasl.password.reveal()), (SaslMechanism::ScramSha512, SECRET));
    let registry = cluster.schema_registry.as_ref().unwrap();
    assert_eq!(registry.urls, ["https://registry-1.internal", "https://registry-2.internal"]);
    assert!(cluster.tls.as_ref().unwrap().ca_file.as_ref().unwrap().ends_with("table-specs/ca.pem"));
    let table = &spec.tables[0];
    assert_eq!((table.group.as_str(), table.location().as_str()), ("siltstone-shop.orders", "shop/orders"));
    assert_eq!(table.formats, [Format::Iceberg, Format::Delta]);
    assert_eq!(table.partition_by[1].transform, Transform::Bucket(16));
    assert_eq!(table.freshness.max_rows, 10_000_000);
    assert_eq!(table.files.compression, Compression::Zstd { level: 3 });
    assert_eq!(table.files.row_group_bytes, 64 << 20);
    assert_eq!(table.retention.rows, Some(Duration::from_secs(365 * 86_400)));
    assert_eq!(table.compaction.target_size, 512 << 20);
}

#[test]
fn defaults_depend_on_the_source() {
    let spec = stored("iot-raw.yaml");
    let table = &spec.tables[0];
    assert_eq!(table.name, "edge__readings");
    assert_eq!((&table.schema_mode, table.wire_format), (&SchemaMode::None, WireFormat::Raw));
    assert_eq!(table.start, Start::Timestamp(1_769_817_600_000));
    assert_eq!(table.partition_by[0].name, "_kafka_timestamp_hour");
    let spec = stored("many-tables.yaml");
    assert_eq!(
        (&spec.tables[0].schema_mode, spec.tables[0].wire_format),
        (&SchemaMode::Registry, WireFormat::Confluent)
    );
    assert_eq!(
        spec.tables[3].schema_mode,
        SchemaMode::RegistryLatest { subject: "logistics.Shipment".to_owned() }
    );
    assert_eq!(spec.tables[3].start, Start::Offsets([(0, 1000), (1, 2500)].into()));
    assert!(
        matches!(&spec.tables[4].schema_mode, SchemaMode::Inline(InputSchema::Avro(text)) if text.contains("Stock"))
    );
    assert!(matches!(&spec.tables[5].schema_mode, SchemaMode::Inline(InputSchema::JsonSchema(text))
        if text.contains(r#""required":["id"]"#)));
    let SchemaMode::Inline(InputSchema::Fields(schema)) =
        &stored("clickstream-json.yaml").tables[0].schema_mode
    else {
        panic!("not inline")
    };
    assert_eq!(
        serde_json::to_value(&schema.fields[6]).unwrap(),
        serde_json::json!({
            "id": 8, "name": "labels", "required": false,
            "type": {"type": "map", "key-id": 9, "key": "string", "value-id": 10, "value-required": false, "value": "string"},
        })
    );
    assert_eq!(schema.last_field_id(), 18);
}
