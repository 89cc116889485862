//! The one config file, in TOML. Unknown fields are refused; secrets are references: `env:NAME` or `file:/path`.

mod data;
mod sign_on;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::Deserialize;
use zeroize::Zeroizing;

pub use self::data::{BackupConfig, MasterKeyConfig, MasterKeyError};
pub use self::sign_on::{ClaimRule, GroupRole, OidcConfig, RoleRule};
pub(crate) use self::sign_on::{is_protected, public_url};

/// How a control plane runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens, e.g. `0.0.0.0:8443`.
    pub listen: SocketAddr,
    /// Without it, `listen` must be a loopback address.
    pub tls: Option<TlsConfig>,
    pub database: DatabaseConfig,
    /// Wraps the data keys under which columns are encrypted.
    pub master_key: MasterKeyConfig,
    /// The region that this control plane is pinned to, e.g. `eu-west-1`; reports for another are refused.
    pub region: Option<String>,
    /// Where browsers reach it, e.g. `https://siltstone.example.com`. Needed for `[[oidc]]`; cookies go over HTTPS
    /// alone, unless this is a plain loopback address.
    pub public_url: Option<String>,
    /// Networks of proxies before it, e.g. `["10.0.0.0/8"]`: what they say in `X-Forwarded-For` is the client's
    /// address. By default nobody's word counts but the connection's.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// With whom people sign on.
    #[serde(default)]
    pub oidc: Vec<OidcConfig>,
    #[serde(default)]
    pub limits: LimitsConfig,
    #[serde(default)]
    pub audit: AuditConfig,
    /// Without it, no backups are made but by `siltstone-control-plane backup`.
    pub backup: Option<BackupConfig>,
}

/// Certificate and key, PEM files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite:///var/lib/siltstone/control-plane.db` or a reference to a `postgres://` URL.
    pub url: SecretRef,
    #[serde(default = "connections")]
    pub connections: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Requests that one credential may make a second, and as many again at once.
    pub requests_per_second: u32,
    /// Failed authentications of one address a minute, after which it waits.
    pub failures_per_minute: u32,
    /// Requests under way at once; more wait, then are turned away.
    pub concurrency: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { requests_per_second: 200, failures_per_minute: 30, concurrency: 512 }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Entries are kept so long.
    pub retention_days: u32,
    /// Grants of rights to read are written too, not only refusals and changes.
    pub reads: bool,
    /// Every entry is sent to this topic, too.
    pub kafka: Option<AuditTopic>,
}

/// A topic for the audit log.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditTopic {
    /// Bootstrap servers, `host:port`, comma-separated.
    pub brokers: String,
    /// It must exist, or the brokers make it.
    pub topic: String,
    /// Settings of the client (librdkafka's names), e.g. `"sasl.password" = "env:AUDIT_KAFKA_PASSWORD"`.
    #[serde(default)]
    pub properties: BTreeMap<String, SecretRef>,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { retention_days: 365, reads: true, kafka: None }
    }
}

fn connections() -> u32 {
    8
}

/// A network of addresses, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8` or one address. The bits after the prefix are cleared.
    pub fn parse(text: &str) -> Option<Self> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        network.ok().map(|network| Self(network.trunc()))
    }

    /// An IPv4 address in an IPv6 one counts as the former.
    pub fn contains(self, address: std::net::IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a network such as 10.0.0.0/8 or fd00::/8"))
    }
}

/// Where a secret is, or a value that needs no protection.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct SecretRef(String);

impl SecretRef {
    /// The secret: `env:NAME` from the environment, `file:/path` from a file, anything else as it is.
    ///
    /// # Errors
    /// The variable is unset or the file cannot be read.
    pub fn reveal(&self) -> Result<Zeroizing<String>, ConfigError> {
        if let Some(name) = self.0.strip_prefix("env:") {
            let missing = |_| ConfigError::Variable { name: name.to_owned() };
            return std::env::var(name).map(Zeroizing::new).map_err(missing);
        }
        if let Some(path) = self.0.strip_prefix("file:") {
            let failed = |source| ConfigError::File { path: PathBuf::from(path), source };
            let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
            return Ok(Zeroizing::new(text.trim_end().to_owned()));
        }
        Ok(Zeroizing::new(self.0.clone()))
    }

    pub fn new(reference: impl Into<String>) -> Self {
        Self(reference.into())
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretRef")
    }
}

/// The config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("file {} cannot be read: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("file {} is no config: {fault}", path.display())]
    Syntax { path: PathBuf, fault: String },
    #[error("environment variable {name} is not set, and the config refers to it")]
    Variable { name: String },
    #[error("{what}")]
    Value { what: String },
}

impl Config {
    /// Reads and checks a config file.
    ///
    /// # Errors
    /// It cannot be read, has unknown fields, or asks for an unprotected listener.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |source| ConfigError::File { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(failed)?;
        let config: Self = toml::from_str(&text).map_err(|fault| ConfigError::Syntax {
            path: path.to_owned(),
            // `message` names the field and what is allowed; the whole text would repeat the line, maybe a secret.
            fault: fault.message().to_owned(),
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.tls.is_none() && !self.listen.ip().is_loopback() {
            let what = format!("listen: {} is no loopback address, so [tls] is needed", self.listen);
            return Err(ConfigError::Value { what });
        }
        let region = self.region.as_deref().unwrap_or("none");
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if region.is_empty() || region.len() > 64 || !region.chars().all(plain) {
            let what = "region: letters, digits and dashes, at most 64".to_owned();
            return Err(ConfigError::Value { what });
        }
        if self.backup.as_ref().is_some_and(|backup| backup.every_minutes == 0 || backup.keep == 0) {
            let what = "backup: every_minutes and keep are 1 at least".to_owned();
            return Err(ConfigError::Value { what });
        }
        sign_on::check(&self.oidc, self.public_url.as_deref())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PLAIN: &str =
        "listen = \"127.0.0.1:0\"\n[database]\nurl = \"sqlite::memory:\"\n[master_key]\nkey = \"env:K\"\n";

    #[test]
    fn plain_listeners_are_for_loopback_alone() {
        let config: Config = toml::from_str(PLAIN).unwrap();
        config.check().unwrap();
        let config: Config = toml::from_str(&PLAIN.replace("127.0.0.1", "0.0.0.0")).unwrap();
        assert!(config.check().unwrap_err().to_string().contains("[tls] is needed"));
    }

    #[test]
    fn unknown_fields_are_refused_and_secrets_have_no_text() {
        let fault = toml::from_str::<Config>(&format!("insecure = true\n{PLAIN}")).unwrap_err();
        assert!(fault.message().contains("insecure"));
        let config: Config = toml::from_str(PLAIN).unwrap();
        assert!(!format!("{config:?}").contains("env:K"));
    }
}
