//! Client settings from a cluster of the spec.
//!
//! Three layers, later ones win: our defaults, the spec's `client_options`, and what exactly-once depends on.

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use siltstone_spec::{SourceCluster, TableSpec};

use super::source::KafkaOptions;

/// What the client keeps of a record in its queue beside key and value: its operation, rounded up by the allocator.
/// Of small records this is most of the memory, and `queued.max.messages.kbytes` does not count it.
const CLIENT_RECORD_BYTES: usize = 320;

/// Builds the settings. Values of secrets go into it and nowhere else.
pub(super) fn client_config(
    cluster: &SourceCluster,
    table: &TableSpec,
    options: &KafkaOptions,
) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Warning);
    defaults(&mut config, table, options);
    // The newer group protocol chooses the assignor on the broker and refuses this setting.
    if cluster.client_options.get("group.protocol").map(String::as_str) != Some("consumer") {
        config.set("partition.assignment.strategy", "cooperative-sticky");
    }
    security(&mut config, cluster);
    for (key, value) in &cluster.client_options {
        config.set(key, value);
    }
    config
        .set("bootstrap.servers", cluster.bootstrap_brokers.join(","))
        .set("group.id", &table.group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        // A position that the broker lacks is for the table's policy to decide, never for the client.
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false");
    config
}

fn defaults(config: &mut ClientConfig, table: &TableSpec, options: &KafkaOptions) {
    // Half for the records' bytes, half for what the client keeps of each record besides.
    let queue_kib = (options.queue_bytes / 2 / 1024).clamp(512, 2_097_151);
    let queue_records = (options.queue_bytes / 2 / CLIENT_RECORD_BYTES).clamp(1_000, 1_000_000);
    let fetch_bytes = options.fetch_bytes.clamp(64 << 10, 64 << 20);
    config
        .set("client.id", format!("siltstone-{}", table.name))
        .set("check.crcs", "true")
        // With the default of 1000 ms a full queue pauses the fetcher for a second.
        .set("fetch.queue.backoff.ms", "10")
        .set("queued.min.messages", queue_records.to_string())
        .set("queued.max.messages.kbytes", queue_kib.to_string())
        .set("fetch.message.max.bytes", fetch_bytes.to_string())
        .set("fetch.max.bytes", (fetch_bytes * 8).to_string())
        // Idle connections are closed by brokers as a matter of course.
        .set("log.connection.close", "false")
        .set("socket.keepalive.enable", "true");
}

fn security(config: &mut ClientConfig, cluster: &SourceCluster) {
    match (cluster.tls.is_some(), cluster.sasl.is_some()) {
        (true, true) => config.set("security.protocol", "sasl_ssl"),
        (true, false) => config.set("security.protocol", "ssl"),
        (false, true) => config.set("security.protocol", "sasl_plaintext"),
        // Left to `client_options`, which may choose a mechanism that the spec has no words for.
        (false, false) => config,
    };
    if let Some(tls) = &cluster.tls {
        let files = [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.cert_file),
            ("ssl.key.location", &tls.key_file),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                config.set(key, file.to_string_lossy());
            }
        }
        if let Some(password) = &tls.key_password {
            config.set("ssl.key.password", password.reveal());
        }
    }
    if let Some(sasl) = &cluster.sasl {
        config
            .set("sasl.mechanism", sasl.mechanism.as_str())
            .set("sasl.username", sasl.username.reveal())
            .set("sasl.password", sasl.password.reveal());
    }
}
