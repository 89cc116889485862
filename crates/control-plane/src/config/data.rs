//! Where the key that wraps data keys is, and when backups are made.

use std::{fs, path::PathBuf, sync::Arc};

use serde::Deserialize;

use super::{ConfigError, SecretRef};
use crate::crypto::{CryptoError, MasterKey, MasterKeys, Token, VaultKey};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MasterKeyConfig {
    /// 32 bytes in base64, or `vault:https://host/v1/transit/keys/NAME`: a key that stays in a key service which speaks
    /// the protocol of Vault's transit engine.
    pub key: SecretRef,
    /// Keys that were in use before, in the same forms; what they wrapped is still read.
    #[serde(default)]
    pub previous: Vec<SecretRef>,
    /// The key service's token, e.g. `env:VAULT_TOKEN` or `file:/run/secrets/vault-token`. Read at each use.
    pub token: Option<SecretRef>,
    /// Authorities to trust for the key service besides the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

impl MasterKeyConfig {
    /// The keys. Nothing is asked of a key service yet.
    ///
    /// # Errors
    /// A file or variable is missing, or what is in it is no key.
    pub fn keys(&self) -> Result<MasterKeys, MasterKeyError> {
        let current = self.one(&self.key)?;
        let previous = self.previous.iter().map(|reference| self.one(reference));
        Ok(MasterKeys::new(current, previous.collect::<Result<Vec<_>, _>>()?))
    }

    fn one(&self, reference: &SecretRef) -> Result<MasterKey, MasterKeyError> {
        let text = reference.reveal()?;
        let Some(url) = text.strip_prefix("vault:") else { return Ok(MasterKey::from_base64(&text)?) };
        let missing = || ConfigError::Value { what: "master_key.token: a key service needs one".to_owned() };
        let token = self.token.clone().ok_or_else(missing)?;
        // Now, so that a mistake is found at the start.
        token.reveal()?;
        let token: Token = Arc::new(move || token.reveal().ok());
        let authority = match &self.ca_file {
            Some(path) => {
                let failed = |source| ConfigError::File { path: path.clone(), source };
                Some(fs::read(path).map_err(failed)?)
            }
            None => None,
        };
        Ok(MasterKey::vault(VaultKey::new(url, token, authority.as_deref())?))
    }
}

/// The master key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("master_key: {0}")]
    Crypto(#[from] CryptoError),
}

/// Backups that the server makes by itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupConfig {
    /// Where they are put, each in a folder of its own, which bears its time.
    pub directory: PathBuf,
    /// From one to the next.
    #[serde(default = "day")]
    pub every_minutes: u32,
    /// The newest ones that stay; older ones are deleted.
    #[serde(default = "week")]
    pub keep: usize,
}

fn day() -> u32 {
    24 * 60
}

fn week() -> usize {
    7
}
