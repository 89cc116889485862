//! Specs for tests, made from a spec text so that new settings take their defaults.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "tests; each user takes what it needs")]

use siltstone_spec::{SourceCluster, Spec, TableSpec};

fn spec(topic: &str) -> Spec {
    let text = format!(
        "version: 1
source_clusters: [{{name: main, bootstrap_brokers: ['127.0.0.1:9092']}}]
destination_bucket_url: file:///tmp/siltstone-test
tables: [{{name: test.records, source_cluster_name: main, source_topic: {topic}, source_format: raw}}]
"
    );
    siltstone_spec::parse(&text, "test.yaml", &|_| None).unwrap()
}

/// A cluster without security.
pub fn cluster(brokers: &str) -> SourceCluster {
    let mut cluster = spec("any").source_clusters.remove(0);
    cluster.bootstrap_brokers = brokers.split(',').map(str::to_owned).collect();
    cluster
}

/// A table of raw records.
pub fn table(topic: &str, group: &str) -> TableSpec {
    let mut table = spec(topic).tables.remove(0);
    group.clone_into(&mut table.group);
    table
}
