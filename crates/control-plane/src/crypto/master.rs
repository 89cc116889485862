//! Master keys: they wrap data keys, here or in a key service.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use rand::RngCore;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{CryptoError, VaultKey};

pub(super) const KEY_BYTES: usize = 32;
pub(super) const NONCE_BYTES: usize = 12;

/// A master key. No `Display`, no `Debug` of its content.
pub struct MasterKey {
    id: String,
    place: Place,
}

enum Place {
    /// 32 secret bytes.
    Here(Zeroizing<[u8; KEY_BYTES]>),
    /// It never leaves the key service.
    Vault(VaultKey),
}

impl MasterKey {
    /// From base64.
    ///
    /// # Errors
    /// `BadMasterKey`.
    pub fn from_base64(text: &str) -> Result<Self, CryptoError> {
        let decoded =
            Zeroizing::new(BASE64_STANDARD.decode(text.trim()).map_err(|_| CryptoError::BadMasterKey)?);
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        if decoded.len() != KEY_BYTES {
            return Err(CryptoError::BadMasterKey);
        }
        bytes.copy_from_slice(&decoded);
        // A digest under a name of its own says which key it is, and nothing of it.
        let digest =
            Sha256::new().chain_update(b"siltstone master key id").chain_update(bytes.as_ref()).finalize();
        Ok(Self { id: hex(&digest), place: Place::Here(bytes) })
    }

    /// A key of a key service.
    pub fn vault(key: VaultKey) -> Self {
        let digest = Sha256::digest(format!("siltstone vault key {}", key.url()).as_bytes());
        Self { id: format!("vault-{}", hex(&digest)), place: Place::Vault(key) }
    }

    /// A fresh one, as base64.
    pub fn generate() -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
        rand::rng().fill_bytes(bytes.as_mut());
        Zeroizing::new(BASE64_STANDARD.encode(bytes.as_ref()))
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    async fn wrap(&self, key: &[u8; KEY_BYTES], row: &str) -> Result<Vec<u8>, CryptoError> {
        match &self.place {
            Place::Here(bytes) => {
                let mut nonce = [0; NONCE_BYTES];
                rand::rng().fill_bytes(&mut nonce);
                let payload = Payload { msg: key, aad: row.as_bytes() };
                let sealed =
                    Aes256Gcm::new(bytes.as_ref().into()).encrypt(Nonce::from_slice(&nonce), payload);
                Ok([nonce.as_slice(), &sealed.map_err(|_| CryptoError::Broken)?].concat())
            }
            // The row goes in, so that a key opens in its own row alone.
            Place::Vault(vault) => {
                let plain = Zeroizing::new([key.as_slice(), row.as_bytes()].concat());
                Ok(vault.encrypt(&plain).await?.into_bytes())
            }
        }
    }

    async fn unwrap(&self, wrapped: &[u8], row: &str) -> Result<Zeroizing<[u8; KEY_BYTES]>, CryptoError> {
        let opened = match &self.place {
            Place::Here(bytes) => {
                let (nonce, sealed) = wrapped.split_at_checked(NONCE_BYTES).ok_or(CryptoError::Broken)?;
                let payload = Payload { msg: sealed, aad: row.as_bytes() };
                let cipher = Aes256Gcm::new(bytes.as_ref().into());
                let opened = cipher.decrypt(Nonce::from_slice(nonce), payload);
                Zeroizing::new(opened.map_err(|_| CryptoError::Broken)?)
            }
            Place::Vault(vault) => {
                let sealed = std::str::from_utf8(wrapped).map_err(|_| CryptoError::Broken)?;
                let mut opened = vault.decrypt(sealed).await?;
                let length = opened.len().checked_sub(row.len()).ok_or(CryptoError::Broken)?;
                if opened.get(length..) != Some(row.as_bytes()) {
                    return Err(CryptoError::Broken);
                }
                opened.truncate(length);
                opened
            }
        };
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        if opened.len() != KEY_BYTES {
            return Err(CryptoError::Broken);
        }
        bytes.copy_from_slice(&opened);
        Ok(bytes)
    }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The master key in use, and those that were before.
#[derive(Debug)]
pub struct MasterKeys {
    current: MasterKey,
    previous: Vec<MasterKey>,
}

impl MasterKeys {
    pub fn new(current: MasterKey, previous: Vec<MasterKey>) -> Self {
        Self { current, previous }
    }

    /// The key that wraps what is new.
    pub fn current(&self) -> &MasterKey {
        &self.current
    }

    /// Wraps a data key for the row of this id.
    ///
    /// # Errors
    /// `Broken`: the cipher failed; `KeyService`.
    pub(super) async fn wrap(&self, key: &[u8; KEY_BYTES], row: &str) -> Result<Vec<u8>, CryptoError> {
        self.current.wrap(key, row).await
    }

    /// Opens a data key.
    ///
    /// # Errors
    /// `UnknownMasterKey`, `Broken`, `KeyService`.
    pub(super) async fn unwrap(
        &self,
        master: &str,
        wrapped: &[u8],
        row: &str,
    ) -> Result<Zeroizing<[u8; KEY_BYTES]>, CryptoError> {
        let all = std::iter::once(&self.current).chain(&self.previous);
        let key = all.into_iter().find(|key| key.id == master).ok_or(CryptoError::UnknownMasterKey)?;
        key.unwrap(wrapped, row).await
    }
}
