//! The key of a table's protected columns, and what is derived from it.
//!
//! | for | key |
//! | --- | --- |
//! | `hash` | HMAC-SHA256(key, `siltstone hash 1`) |
//! | `tokenize` | HMAC-SHA256(key, `siltstone tokenize 1`) |
//! | `encrypt` | HMAC-SHA256(key, `siltstone encrypt 1`) |
//!
//! One key for each use, so that what is known of one says nothing of another.

use std::{fmt, sync::Arc};

use aes_gcm::{Aes256Gcm, KeyInit as _};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use siltstone_protocol::ErrorCode;
use siltstone_spec::{ProtectionKey, TableSpec, limits};
use zeroize::Zeroizing;

use super::vault;
use crate::IngestError;

/// Fills a buffer with random bytes.
pub(crate) type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// What columns are protected with. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Keys(Option<Arc<Derived>>);

pub(super) struct Derived {
    pub(super) hash: Hmac<Sha256>,
    pub(super) tokenize: Hmac<Sha256>,
    pub(super) cipher: Aes256Gcm,
    pub(super) random: Random,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.0.is_some()).finish()
    }
}

impl Keys {
    /// Keys derived from this one.
    pub(crate) fn derive(key: &[u8], random: Random) -> Result<Self, IngestError> {
        let hash = mac(&use_of(key, "siltstone hash 1")?)?;
        let tokenize = mac(&use_of(key, "siltstone tokenize 1")?)?;
        let cipher = Aes256Gcm::new_from_slice(use_of(key, "siltstone encrypt 1")?.as_slice())
            .map_err(|_| IngestError::internal("a derived key has the wrong length"))?;
        Ok(Self(Some(Arc::new(Derived { hash, tokenize, cipher, random }))))
    }

    /// # Errors
    /// `Internal` when the spec has no key where one is needed, which validation refuses.
    pub(super) fn derived(&self) -> Result<Arc<Derived>, IngestError> {
        self.0.clone().ok_or_else(|| IngestError::internal("a column is to be protected without a key"))
    }
}

fn mac(key: &[u8]) -> Result<Hmac<Sha256>, IngestError> {
    <Hmac<Sha256> as hmac::Mac>::new_from_slice(key)
        .map_err(|_| IngestError::internal("a key has the wrong length"))
}

fn use_of(key: &[u8], label: &str) -> Result<Zeroizing<Vec<u8>>, IngestError> {
    let mut mac = mac(key)?;
    mac.update(label.as_bytes());
    Ok(Zeroizing::new(mac.finalize().into_bytes().to_vec()))
}

/// Where the keys are, or will be.
#[derive(Debug)]
pub(crate) enum KeySource {
    Here(Keys),
    /// A key service must be asked first.
    Away(Box<siltstone_spec::KeyService>),
}

impl KeySource {
    pub(crate) fn of(table: &TableSpec) -> Result<Self, IngestError> {
        Ok(match &table.protection {
            None => Self::Here(Keys::default()),
            Some(ProtectionKey::Secret(secret)) => {
                Self::Here(Keys::derive(secret.reveal().as_bytes(), of_machine())?)
            }
            Some(ProtectionKey::Service(service)) => Self::Away(Box::new(service.clone())),
        })
    }

    /// The keys; the key service is asked once.
    ///
    /// # Errors
    /// `Unavailable` when it does not answer; `Refused` or `Invalid` when it will not open the key.
    pub(crate) async fn open(&mut self) -> Result<Keys, IngestError> {
        let service = match self {
            Self::Here(keys) => return Ok(keys.clone()),
            Self::Away(service) => service,
        };
        let key = vault::open(service).await?;
        if key.len() < limits::PROTECTION_KEY_BYTES_MIN {
            let why = format!("it has fewer than {} bytes", limits::PROTECTION_KEY_BYTES_MIN);
            return Err(IngestError::invalid("the key that protection.kms opened", why)
                .coded(ErrorCode::KeyServiceRefused));
        }
        let keys = Keys::derive(&key, of_machine())?;
        *self = Self::Here(keys.clone());
        Ok(keys)
    }
}

fn of_machine() -> Random {
    Arc::new(|bytes| rand::Rng::fill(&mut rand::rng(), bytes))
}
