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
        "KAFKA_USER" | "SR_USER" | "FLEET_KEY" | "CATALOG_ID" => Some("svc".to_owned()),
        "KAFKA_PASSWORD" | "SR_PASSWORD" | "EU_REGISTRY_TOKEN" | "SILTSTONE_CONTROL_PLANE_KEY" => {
            Some(SECRET.to_owned())
        }
        "CATALOG_SECRET" => Some(SECRET.to_owned()),
        "VAULT_TOKEN" | "PII_WRAPPED_KEY" => Some(SECRET.to_owned()),
        "EMPTY" => Some(String::new()),
        "SPACED" => Some("hunter2 with some spaces".to_owned()),
        "REPORTS_TOKEN" => Some("reports-0123456789abcdef".to_owned()),
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
    assert_eq!(table.files.row_group_bytes, 8 << 20);
    assert_eq!(table.retention.rows, Some(Duration::from_secs(365 * 86_400)));
    assert_eq!(table.retention.rows_by.as_deref(), Some("ordered_at"), "by the day that partitions it");
    assert!(!table.retention.rows_rewrite);
    assert_eq!(
        (table.retention.snapshots_min, table.maintenance_every),
        (1, Some(Duration::from_secs(6 * 3600)))
    );
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
    assert!(matches!(&spec.tables[4].schema_mode, SchemaMode::Inline(InputSchema::Avro(text))
            if text.contains("Stock")));
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
            "type": {
                "type": "map", "key-id": 9, "key": "string",
                "value-id": 10, "value-required": false, "value": "string",
            },
        })
    );
    assert_eq!(schema.last_field_id(), 18);
}

/// A valid spec with one of its lines replaced or added to.
const VALID: &str = "\
source_clusters:
  - name: prod
    bootstrap_brokers: [b:9092]
    sasl: {mechanism: PLAIN, username: '${KAFKA_USER}', password: '${KAFKA_PASSWORD}'}
    schema_registry: {url: https://r}
destination_bucket_url: s3://lake/t
tables:
  - name: shop.orders
    source_cluster_name: prod
    source_topic: orders
    source_format: avro
";

fn faults(text: &str) -> String {
    match read(text, "s.yaml") {
        Ok(_) => "valid".to_owned(),
        Err(faults) => faults.to_string(),
    }
}

/// Faults of the valid spec with `from` replaced by `to`.
fn changed(from: &str, to: &str) -> String {
    assert!(VALID.contains(from), "{from}");
    faults(&VALID.replacen(from, to, 1))
}

/// Faults of the valid spec with a further field of the table.
fn with(field: &str) -> String {
    faults(&format!("{VALID}    {field}\n"))
}

#[test]
fn the_base_of_the_next_tests_is_valid() {
    assert_eq!(faults(VALID), "valid");
}

/// Each replaces the first by the second in the valid spec.
const CHANGES: &[(&str, &str)] = &[
    ("source_topic: orders", "sorce_topic: orders"),
    ("PLAIN", "SCRAM-SHA-1"),
    ("'${KAFKA_PASSWORD}'", "hunter2"),
    ("'${KAFKA_PASSWORD}'", "'${NOPE}'"),
    ("'${KAFKA_PASSWORD}'", "'${EMPTY}'"),
    ("'${KAFKA_PASSWORD}'", "'${file:/secrets/a}'"),
    ("'${KAFKA_PASSWORD}'", "'${KAFKA_PASSWORD:-x}'"),
    ("password:", "hunter2:"),
    ("s3://lake/t", "http://lake/t"),
    ("s3://lake/t", "s3://me:pw@lake/t"),
    ("s3://lake/t", "s3://lake/t?regoin=x"),
    ("s3://lake/t", "s3://lake/t?secret_access_key=x"),
    ("s3://lake/t", "file://lake/t"),
    ("[b:9092]", "[b]"),
    ("[b:9092]", "[{hostname: b, port: 99999}]"),
    ("[b:9092]", "[]"),
    ("[b:9092]", "b:9092"),
    ("name: prod", "name: prod/x"),
    ("source_cluster_name: prod", "source_cluster_name: prd"),
    ("source_format: avro", "source_format: protobuf\n    input_schema: '{}'"),
    ("source_format: avro", "source_format: protobuf\n    input_schema: {avro_file: x.avsc}"),
    ("source_format: avro", "source_format: avro\n    message_type: shop.Order"),
    ("source_format: avro", "source_format: arvo"),
    ("    schema_registry: {url: https://r}\n", ""),
    ("{url: https://r}", "{url: 'https://u:p@r'}"),
    ("{url: https://r}", "{url: https://r, username: '${SR_USER}'}"),
    ("tables:", "tabels:"),
    ("source_clusters:", "version: 2\nsource_clusters:"),
    ("name: shop.orders", "name: shop..orders"),
    (
        "    schema_registry",
        "    client_options: {group.id: x, sasl.username: y, fetch.max.bytes: 1}\n    schema_registry",
    ),
    ("    schema_registry", "    tls: {cert_file: a}\n    schema_registry"),
    ("source_topic: orders", "source_topic: orders\n    source_topic: orders"),
    ("source_topic: orders", "source_topic: [orders"),
    ("source_topic: orders", "source_topic: ${TOPIC}"),
    ("source_topic: orders", "source_topic:"),
    ("source_topic: orders", "source_topic: !x orders"),
    ("source_topic: orders", "{a: b}: orders"),
    ("[b:9092]", "[b:9092, b:0, 'x/y:1', '::1:9092', '[::1]:9092']"),
    ("s3://lake/t", "file:///"),
    ("s3://lake/t", "s3://lake/a/../b"),
    ("s3://lake/t", "s3://lake/t?path_style=yes"),
    ("s3://lake/t", "az://Lake/t?account=a"),
    ("'${KAFKA_PASSWORD}'", "'a${KAFKA_PASSWORD}'"),
    ("source_topic: orders", "source_topic: '${KAFKA_USER'"),
    ("source_topic: orders", "source_topic: ${file:/etc/passwd}"),
    ("{url: https://r}", "{url: ftp://r}"),
    ("{url: https://r}", "{url: https://r, token: '${SR_USER}', username: '${SR_USER}'}"),
    ("{url: https://r}", "{url: https://r, tls: {key_password: '${SR_PASSWORD}'}}"),
    (
        "  - name: shop.orders",
        "  - {name: shop, source_cluster_name: prod, source_topic: a, source_format: avro}\n  - name: \
         shop.orders",
    ),
    (
        "  - name: shop.orders",
        "  - {name: Shop.Orders, source_cluster_name: prod, source_topic: a, source_format: avro}\n  - \
         name: shop.orders",
    ),
    (
        "  - name: shop.orders",
        "  - {name: shop.orders__dead_letters, source_cluster_name: prod, source_topic: a, \
         source_format: avro}\n  - name: shop.orders",
    ),
    (
        "  - name: shop.orders",
        "  - {name: a, group: siltstone-shop.orders, source_cluster_name: prod, source_topic: a, \
         source_format: avro}\n  - name: shop.orders",
    ),
    ("name: shop.orders", "name: shop._siltstone"),
    ("tables:\n", "tables: *none\n"),
    ("tables:\n", "---\ntables:\n"),
    ("sasl: {", "sasl: {hunter2-key: 1, "),
    ("source_format: avro", "source_format: raw\n    schema_mode: registry"),
    ("source_format: avro", "source_format: raw\n    wire_format: confluent"),
    (
        "source_format: avro",
        "source_format: json\n    retention: {rows: 1d, rows_by: a}\n    \
         input_schema: {fields: [{name: a, type: int}]}",
    ),
    (
        "source_format: avro",
        "source_format: json\n    retention: {rows: 1d, rows_by: b}\n    \
         input_schema: {fields: [{name: a, type: int}]}",
    ),
    ("  - name: prod\n", "  - name: prod\n    bootstrap_server: hunter2\n"),
    ("PLAIN", "hunter2"),
    ("https://r", "hunter2"),
    ("b:9092", "hunter2"),
    ("tables:", "control_plane: {url: 'http://control.internal', api_key: '${FLEET_KEY}'}\ntables:"),
    (
        "tables:",
        "control_plane: {url: 'https://u:hunter2@control.internal', api_key: '${FLEET_KEY}'}\ntables:",
    ),
    ("tables:", "control_plane: {url: 'https://control.internal', api_key: hunter2}\ntables:"),
    (
        "tables:",
        "control_plane: {url: 'https://control.internal', apikey: hunter2, commands: maybe}\ntables:",
    ),
    (
        "tables:",
        "control_plane: {url: 'https://control.internal', api_key: '${FLEET_KEY}', region: 'a b'}\ntables:",
    ),
    ("tables:", "readers_catalog: {tokens: [{name: a, token: hunter2-in-the-clear}]}\ntables:"),
    (
        "tables:",
        "readers_catalog: {tokens: [{name: a, token: '${FLEET_KEY}', allow: ['a b', '*.a', shop.order]}]}\ntables:",
    ),
    ("tables:", "readers_catalog: {tokens: [{name: a, token: '${KAFKA_PASSWORD}', allow: []}]}\ntables:"),
    (
        "tables:",
        "readers_catalog: {tokens: [{name: a, token: '${KAFKA_PASSWORD}', allow: [shop.order, nope.*, '*']}, \
         {name: a, token: '${SR_PASSWORD}'}, {name: b, token: '${SPACED}'}, {name: c, token: '${FLEET_KEY}'}]}\n\
         tables:",
    ),
    (
        "tables:",
        "readers_catalog: {hunter2: 1}\ntables:\n  - {name: a, source_cluster_name: prod, source_topic: a, \
         source_format: avro}\n  - {name: default.a, source_cluster_name: prod, source_topic: b, \
         source_format: avro}",
    ),
    (
        "tables:",
        "readers_catalog: {}\ntables:\n  - {name: a, source_cluster_name: prod, source_topic: a, \
         source_format: avro}\n  - {name: default.a, source_cluster_name: prod, source_topic: b, \
         source_format: avro}",
    ),
];

/// Each is one more field of the valid spec's table.
const FIELDS: &[&str] = &[
    "freshness: {max_age: 99ms, max_bytes: 1KB, max_rows: 0}",
    "freshness: {max_age: 30}",
    "files: {target_size: 5GiB}",
    "files: {target_size: 1MiB}",
    "files: {compression: zstd(23)}",
    "files: {compression: {codec: lz4, level: 3}}",
    "partition_by: [bucket(0, a), dya(ts), 'bucket(65537, a)']",
    "partition_by: [day(ts), hour(ts)]",
    "partition_by: [a, identity(a)]",
    "sort_by: [a up]",
    "sort_by: [a, a desc]",
    "partitioning_scheme: hour",
    "schema_mode: inferred",
    "schema_mode: inline",
    "schema_mode: none",
    "wire_format: raw",
    "input_schema: '{'",
    "input_schema: {avro: '{}', fields: [{name: a, type: int}]}",
    "input_schema: {fields: [{name: a, type: int}]}",
    "input_schema: {avro_file: nope.avsc}",
    "catalogs: [{type: rest}]",
    "catalogs: [{type: glue, uri: 'https://c', password: hunter2}]",
    "catalogs: [{type: rest, uri: 'https://c'}, {type: rest, uri: 'https://d'}]",
    "catalogs: [{type: rest, uri: 'https://u:hunter2@c', token: hunter2}]",
    "catalogs: [{type: rest, uri: 'https://c', table: a.b, oauth2: {client_id: '${KAFKA_USER}', client_secret: \
     '${KAFKA_PASSWORD}'}, sigv4: {}}]",
    "catalogs: [{type: rest, uri: 'https://c'}]\n    formats: [delta]",
    "dlq_mode: drop",
    "tombstones: row",
    "extra_fields: reject",
    "formats: [iceberg, iceberg]",
    "formats: [hudi]",
    "start: {timestamp: yesterday}",
    "start: {}",
    "start: newest",
    "start: {offsets: {a: 1}}",
    "start: {offsets: {0: -1}}",
    "retention: {orphans: 1m}",
    "retention: {rows: 1d, snapshots_min: 9, snapshots_max: 3}",
    "retention: {rows_by: a}",
    "retention: {rows_rewrite: true}",
    "maintenance: {every: 1s}",
    "compaction: {min_inputs: 9, max_inputs: 8, cluster: hilbert}",
    "kafka_metadata: yes",
    "group: ' x'",
    "subject: x",
    "disclose: {bounds: [a, a]}",
    "source_format2: 1\n    input_schema: {fields: [{name: a, type: integer}, {name: b.c, type: int}]}",
    "compression: zstd",
    "iceberg: true",
    "files: {bloom_filters: [a b]}",
    "partition_by: [a as x, b as x]",
    "partition_by: 'day(ts)'",
    "freshness: 30s",
    "start: {timestamp: -5}",
    "disclose: {partition_values: 1}",
    "group: hunter2\n    hunter2: hunter2",
    "tombstones: hunter2",
    "start: hunter2",
    "freshness: {max_age: hunter2}",
];

/// Each is the columns of a JSON table, and what more it has.
const COLUMNS: &[(&str, &str)] = &[
    ("{name: a, type: integer}, {name: a, type: int}", ""),
    ("{name: a.b, type: int}", ""),
    ("{name: a, type: decimal(39, 2)}", ""),
    ("{name: a, type: map<list<int>, int>}", ""),
    ("{name: a, type: {struct: [{name: b, type: {list: strin}}]}}", ""),
    ("{name: a, type: {list: int, map: {value: int}}}", ""),
    ("{name: a, type: {struct: [{name: b, type: int}], required: true}}", ""),
    ("{name: a, type: int}", "partition_by: [day(a), b]"),
    ("{name: a, type: list<int>}", "sort_by: [a, a.element]"),
    ("{name: abc, type: int}", "sort_by: [abd]"),
    ("{name: abc, type: int}", "files: {bloom_filters: [nope]}"),
    ("{name: _kafka, type: int}", "kafka_metadata: true"),
    ("{name: a, type: int, required: true}", "kafka_metadata: true\n    tombstones: row"),
];

/// `UPDATE_SPEC_DOCS=1` writes the file anew; read the difference.
#[test]
fn every_mistake_gets_its_text() {
    let mut out = String::new();
    for (from, to) in CHANGES {
        out.push_str(&format!("{from:?} -> {to:?}\n{}\n\n", changed(from, to)));
    }
    for field in FIELDS {
        out.push_str(&format!("+ {field:?}\n{}\n\n", with(field)));
    }
    for (columns, more) in COLUMNS {
        let text =
            VALID.replace("avro", &format!("json\n    input_schema: {{fields: [{columns}]}}\n    {more}"));
        out.push_str(&format!("= {columns} {more:?}\n{}\n\n", faults(&text)));
    }
    assert!(!out.contains("\nvalid\n"), "{out}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/parse/faults.txt");
    if std::env::var_os("UPDATE_SPEC_DOCS").is_some() {
        std::fs::write(&path, &out).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    for (ours, stored) in out.split("\n\n").zip(stored.split("\n\n")) {
        assert_eq!(ours, stored);
    }
    assert_eq!(out.len(), stored.len());
}

#[test]
fn the_control_plane_is_optional_and_private() {
    let valid = |more: &str| read(&VALID.replace("tables:", &format!("{more}\ntables:")), "s.yaml").unwrap();
    assert_eq!(valid("version: 1").control_plane, None);
    for url in ["https://control.internal", "http://127.0.0.1:8080", "http://[::1]:1", "http://localhost"] {
        let spec = valid(&format!("control_plane: {{url: '{url}/', api_key: '${{KAFKA_PASSWORD}}'}}"));
        let plane = spec.control_plane.as_ref().unwrap();
        assert_eq!((plane.url.as_str(), plane.api_key.reveal(), plane.commands), (url, SECRET, true));
        assert!(!format!("{spec:?}").contains(SECRET));
    }
    let more = "api_key: '${file:/run/secrets/fleet}', region: eu-west-1, commands: false, ca_file: ca.pem";
    let plane = valid(&format!("control_plane: {{url: 'https://c', {more}}}")).control_plane.unwrap();
    assert_eq!((plane.region.as_deref(), plane.commands), (Some("eu-west-1"), false));
    assert_eq!((plane.api_key.reveal(), plane.ca_file), (SECRET, Some(PathBuf::from("ca.pem"))));
}

#[test]
fn readers_have_tokens_that_open_tables() {
    let valid = |more: &str| read(&VALID.replace("tables:", &format!("{more}\ntables:")), "s.yaml").unwrap();
    assert_eq!(valid("version: 1").readers_catalog, None);
    assert_eq!(valid("readers_catalog: {}").readers_catalog, Some(ReadersCatalog::default()));
    let spec = valid(
        "readers_catalog: {tokens: [{name: all, token: '${KAFKA_PASSWORD}'}, {name: shop, \
         token: '${REPORTS_TOKEN}', allow: [shop.*, shop.orders, shop.orders__dead_letters]}]}",
    );
    assert!(!format!("{spec:?}").contains(SECRET));
    let tokens = spec.readers_catalog.unwrap().tokens;
    assert_eq!((tokens[0].token.reveal(), &tokens[0].allow), (SECRET, &vec![TablePattern::All]));
    let opens = |name: &str| tokens[1].allow.iter().map(|pattern| pattern.matches(name)).collect::<Vec<_>>();
    assert_eq!(opens("shop.orders"), [true, true, false]);
    assert_eq!(opens("shop.orders__dead_letters"), [true, false, true]);
    assert_eq!(opens("shop.eu.orders"), [true, false, false]);
    assert_eq!(opens("shop"), [false; 3]);
    assert_eq!(opens("shopping.orders"), [false; 3]);
    assert!(tokens[0].allow[0].matches("anything"));
}

/// What a person may have typed in the wrong place never comes back.
#[test]
fn no_fault_repeats_a_value() {
    let in_place = |text: &str| text.contains("hunter2") && !text.contains("\n    hunter2:");
    let rendered = CHANGES.iter().filter(|(_, to)| in_place(to)).map(|(from, to)| changed(from, to));
    let rendered = rendered.chain(FIELDS.iter().filter(|field| in_place(field)).map(|field| with(field)));
    let mut seen = 0;
    for faults in rendered {
        assert!(!faults.contains("hunter2"), "{faults}");
        seen += 1;
    }
    assert!(seen >= 8);
    let spec = stored("orders-avro-s3.yaml");
    assert!(!format!("{spec:?}").contains(SECRET));
    let spec = stored("telemetry-gcs.yaml");
    assert!(!format!("{spec:?}").contains(SECRET));
    assert_eq!(spec.source_clusters[0].sasl.as_ref().unwrap().password.reveal(), SECRET);
}

#[test]
fn brackets_hold_commas_together() {
    let text = VALID.replace(
        "avro",
        "json\n    partition_by: [bucket(16, id), truncate(4, s), id]\n    input_schema: {fields: \
         [{name: id, type: \
         decimal(9, 2)}, {name: s, type: string}, {name: m, type: map<string, decimal(9, 2)>, required: \
         true}]}",
    );
    let table = &read(&text, "s.yaml").unwrap().tables[0];
    let names: Vec<&str> = table.partition_by.iter().map(|by| by.name.as_str()).collect();
    assert_eq!(names, ["id_bucket", "s_trunc", "id"]);
    assert!(matches!(&table.schema_mode, SchemaMode::Inline(InputSchema::Fields(schema))
            if schema.fields[2].required));
}

#[test]
fn an_open_bracket_does_not_swallow_the_next_line() {
    let text = VALID.replace("source_format", "group: a(b\n    subject:\n    source_format");
    assert_eq!(read(&text, "s.yaml").unwrap().tables[0].group, "a(b");
}

#[test]
fn as_many_tables_as_allowed_are_read() {
    let table = |n: usize| {
        format!("  - {{name: t{n}, source_cluster_name: prod, source_topic: t, source_format: avro}}\n")
    };
    let head = VALID.split("tables:").next().unwrap();
    let spec = |tables: usize| format!("{head}tables:\n{}", (0..tables).map(table).collect::<String>());
    assert_eq!(read(&spec(limits::TABLES_MAX), "s.yaml").unwrap().tables.len(), limits::TABLES_MAX);
    assert!(faults(&spec(limits::TABLES_MAX + 1)).contains("tables: must have at most 10000 items"));
}

#[test]
fn aliases_are_followed_but_not_without_end() {
    let text = VALID.replace("source_format: avro", "source_format: avro\n    sort_by: &keys [a, b]")
        + "  - {name: other, source_cluster_name: prod, source_topic: t, source_format: avro, sort_by: \
         *keys}\n";
    assert_eq!(read(&text, "s.yaml").unwrap().tables[1].sort_by.len(), 2);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", ")));
    }
    assert!(faults(&bomb).contains("more than 1000000 values, with aliases followed"), "{}", faults(&bomb));
    assert!(faults("a: &a [*a]").contains("s.yaml:1:"));
}

#[test]
fn depth_and_length_are_bounded() {
    assert_eq!(faults(&"[".repeat(100_000)), "s.yaml:1:256: not YAML: recursion limit exceeded");
    assert!(faults(&"[".repeat(200)).contains("nested deeper than 64 levels"));
    assert!(faults(&"{a: ".repeat(100_000)).contains("recursion limit exceeded"));
    assert!(faults(&"{a: ".repeat(200)).contains("nested deeper than 64 levels"));
    assert!(faults(&"- ".repeat(100_000)).contains("nested deeper than 64 levels"));
    let long = " ".repeat(limits::SPEC_BYTES_MAX as usize + 1);
    assert_eq!(faults(&long), "s.yaml: is longer than 4194304 bytes");
    let many = format!("source_clusters: [{}]", "{}, ".repeat(1_000));
    assert!(faults(&many).contains("must have at most 100 items"));
    let tables: String = (0..300).map(|n| format!("  - {{name: t{n}}}\n")).collect();
    let text = VALID.split("tables:").next().unwrap().to_owned() + "tables:\n" + &tables;
    assert!(faults(&text).ends_with("s.yaml: and 700 more faults"), "{}", faults(&text));
    for text in ["", "   ", "# nothing", "null", "~"] {
        assert!(faults(text).contains("the file is empty"), "{text:?}");
    }
}

#[test]
fn a_missing_file_is_one_fault() {
    let faults = Spec::load(Path::new("/nowhere/spec.yaml")).unwrap_err();
    assert_eq!(faults.to_string(), "/nowhere/spec.yaml: cannot be read: entity not found");
    assert_eq!(faults.kind(), siltstone_protocol::ErrorKind::Invalid);
}

fn any_stored() -> impl Strategy<Value = String> {
    let read = |name: &str| std::fs::read_to_string(specs().join(name)).unwrap();
    proptest::sample::select(vec![
        read("orders-avro-s3.yaml"),
        read("many-tables.yaml"),
        read("clickstream-json.yaml"),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_survived(text in r#"[a-z0-9 \n:,.\[\]{}"'$&*!|>%@#()<>-]{0,200}"#) {
        let _ = faults(&text);
    }

    #[test]
    fn any_unicode_is_survived(text in ".{0,100}") {
        let _ = faults(&format!("{VALID}    group: {text}\n"));
        let _ = faults(&text);
    }

    #[test]
    fn any_mutation_is_survived(
        text in any_stored(), at in any::<proptest::sample::Index>(), cut in 0usize..40,
        put in r"[a-z0-9 \n:,\[\]{}$-]{0,6}"
    ) {
        let mut chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        let end = (at + cut).min(chars.len());
        chars.splice(at..end, put.chars());
        if let Err(faults) = read(&chars.into_iter().collect::<String>(), "s.yaml") {
            prop_assert!(!faults.to_string().contains(SECRET));
            prop_assert!(!faults.faults.is_empty());
        }
    }
}
