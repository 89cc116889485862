//! Clusters, their registries, and the control plane.

use std::path::PathBuf;

use super::{Lower, Place};
use crate::{
    forms::Text,
    model::{ControlPlane, Registry, RegistryAuth, Sasl, SaslMechanism, SourceCluster, Tls},
    raw::{RawBroker, RawCluster, RawControlPlane, RawMechanism, RawRegistry, RawTls, RawUrls},
    url_text,
};

/// librdkafka properties that Siltstone sets, with the field that stands for them.
const OWN_OPTIONS: [(&str, &str); 27] = [
    ("bootstrap.servers", "write bootstrap_brokers"),
    ("metadata.broker.list", "write bootstrap_brokers"),
    ("group.id", "write the table's group"),
    ("group.instance.id", "Siltstone sets it"),
    ("group.protocol", "Siltstone sets it"),
    ("enable.auto.commit", "the ledger keeps the positions"),
    ("auto.commit.enable", "the ledger keeps the positions"),
    ("auto.commit.interval.ms", "the ledger keeps the positions"),
    ("enable.auto.offset.store", "the ledger keeps the positions"),
    ("offset.store.method", "the ledger keeps the positions"),
    ("offset.store.path", "the ledger keeps the positions"),
    ("auto.offset.reset", "write the table's start and on_lost_range"),
    ("isolation.level", "Siltstone reads committed records only"),
    ("partition.assignment.strategy", "Siltstone sets it"),
    ("enable.partition.eof", "Siltstone sets it"),
    ("fetch.queue.backoff.ms", "Siltstone sets it"),
    ("plugin.library.paths", "plugins are not loaded"),
    ("security.protocol", "write tls and sasl"),
    ("ssl.ca.location", "write tls.ca_file"),
    ("ssl.ca.pem", "write tls.ca_file"),
    ("ssl.certificate.location", "write tls.cert_file"),
    ("ssl.certificate.pem", "write tls.cert_file"),
    ("ssl.key.location", "write tls.key_file"),
    ("ssl.key.pem", "write tls.key_file"),
    ("ssl.key.password", "write tls.key_password"),
    ("ssl.keystore.location", "write tls.cert_file and tls.key_file"),
    ("ssl.keystore.password", "write tls.key_password"),
];

impl Lower<'_> {
    pub(super) fn cluster(&mut self, raw: RawCluster, place: &Place<'_>) -> SourceCluster {
        let at = place.key("client_options");
        for name in raw.client_options.keys() {
            self.client_option(name, &at);
        }
        let brokers = raw.bootstrap_brokers.into_iter().map(|broker| match broker {
            RawBroker::Text(address) => address.0,
            RawBroker::Parts(parts) if parts.hostname.0.contains(':') => {
                format!("[{}]:{}", parts.hostname.0, parts.port)
            }
            RawBroker::Parts(parts) => format!("{}:{}", parts.hostname.0, parts.port),
        });
        SourceCluster {
            name: raw.name.0,
            bootstrap_brokers: brokers.collect(),
            tls: raw.tls.map(|tls| self.tls(tls, &place.key("tls"))),
            sasl: raw.sasl.map(|sasl| Sasl {
                mechanism: match sasl.mechanism {
                    RawMechanism::Plain => SaslMechanism::Plain,
                    RawMechanism::ScramSha256 => SaslMechanism::ScramSha256,
                    RawMechanism::ScramSha512 => SaslMechanism::ScramSha512,
                },
                username: sasl.username.0,
                password: sasl.password.0,
            }),
            schema_registry: raw.schema_registry.map(|raw| self.registry(raw, &place.key("schema_registry"))),
            client_options: raw.client_options.into_iter().map(|(name, value)| (name, value.0)).collect(),
        }
    }

    pub(super) fn control_plane(&mut self, raw: RawControlPlane, place: &Place<'_>) -> ControlPlane {
        // The form of the URL was checked before.
        let url = url_text::http_url(&raw.url.0).unwrap_or_default();
        if !url_text::is_private(&url) {
            let message =
                "must be https; http is for a control plane on this machine (127.0.0.1, ::1, localhost)";
            self.fault(&place.key("url"), message);
        }
        ControlPlane {
            url,
            api_key: raw.api_key.0,
            ca_file: raw.ca_file.map(|file| self.sources.path(&file.0)),
            region: raw.region.map(|region| region.0),
            commands: raw.commands,
        }
    }

    fn client_option(&mut self, name: &str, place: &Place<'_>) {
        let well_formed = !name.is_empty()
            && name.len() <= 128
            && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'.' || c == b'_');
        if !well_formed {
            return self.fault(place, "a librdkafka property is lower-case letters, digits and dots");
        }
        let at = place.key(name);
        if let Some((_, instead)) = OWN_OPTIONS.iter().find(|(known, _)| *known == name) {
            return self.fault(&at, format!("cannot be set here: {instead}"));
        }
        if name.starts_with("sasl.") || name.contains("password") || name.contains("secret") {
            self.fault(&at, "cannot be set here: write sasl and tls, where secrets are kept");
        }
    }

    pub(super) fn tls(&mut self, raw: RawTls, place: &Place<'_>) -> Tls {
        match (&raw.cert_file, &raw.key_file) {
            (Some(_), None) => self.fault(place, "cert_file needs key_file beside it"),
            (None, Some(_)) => self.fault(place, "key_file needs cert_file beside it"),
            _ => {}
        }
        if raw.key_password.is_some() && raw.key_file.is_none() {
            self.fault(&place.key("key_password"), "needs key_file beside it");
        }
        let path = |file: Option<Text>| -> Option<PathBuf> { file.map(|file| self.sources.path(&file.0)) };
        Tls {
            ca_file: path(raw.ca_file),
            cert_file: path(raw.cert_file),
            key_file: path(raw.key_file),
            key_password: raw.key_password.map(|secret| secret.0),
        }
    }

    fn registry(&mut self, raw: RawRegistry, place: &Place<'_>) -> Registry {
        let auth = match (raw.username, raw.password, raw.token) {
            (None, None, None) => None,
            (Some(username), Some(password), None) => {
                Some(RegistryAuth::Basic { username: username.0, password: password.0 })
            }
            (None, None, Some(token)) => Some(RegistryAuth::Bearer(token.0)),
            (Some(_), None, None) => {
                self.fault(place, "username needs password beside it");
                None
            }
            (None, Some(_), None) => {
                self.fault(place, "password needs username beside it");
                None
            }
            (_, _, Some(_)) => {
                self.fault(place, "has both token and username or password; keep one of them");
                None
            }
        };
        let urls = match raw.url {
            RawUrls::One(url) => vec![url],
            RawUrls::Several(urls) => urls,
        };
        let urls = urls.iter().filter_map(|url| url_text::http_url(&url.0).ok()).collect();
        Registry { urls, auth, tls: self.tls(raw.tls, &place.key("tls")) }
    }
}
