#![allow(clippy::panic)]

mod engine;
mod evolution;
mod left_out;
mod of_files;
mod protobuf;
mod staged;

use siltstone_spec::TableSpec;

/// A table of a topic of Avro records, whose spec goes on so.
fn spec_of_avro(more: &str) -> TableSpec {
    let text = format!(
        "source_clusters: [{{name: c, bootstrap_brokers: ['b:1'], schema_registry: {{url: 'http://r'}}}}]\n\
         destination_bucket_url: file:///lake\ntables:\n  - name: t\n    source_cluster_name: c\n    \
         source_topic: t\n    source_format: avro\n{more}"
    );
    let env = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
    match siltstone_spec::parse(&text, "s.yaml", &env) {
        Ok(mut spec) => spec.tables.remove(0),
        Err(faults) => panic!("{faults}"),
    }
}
