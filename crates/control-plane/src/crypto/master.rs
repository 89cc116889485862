//! Master keys: they wrap data keys.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use rand::RngCore;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::CryptoError;

pub(super) const KEY_BYTES: usize = 32;
pub(super) const NONCE_BYTES: usize = 12;

/// 32 secret bytes. No `Display`, no `Debug` of its content.
pub struct MasterKey {
    bytes: Zeroizing<[u8; KEY_BYTES]>,
    id: String,
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
        let id = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { bytes, id })
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

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.bytes.as_ref().into())
    }
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
    /// `Broken`: the cipher failed.
    pub(super) fn wrap(&self, key: &[u8; KEY_BYTES], row: &str) -> Result<Vec<u8>, CryptoError> {
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: key, aad: row.as_bytes() };
        let sealed = self.current.cipher().encrypt(Nonce::from_slice(&nonce), payload);
        Ok([nonce.as_slice(), &sealed.map_err(|_| CryptoError::Broken)?].concat())
    }

    /// Opens a data key.
    ///
    /// # Errors
    /// `UnknownMasterKey`, or `Broken`.
    pub(super) fn unwrap(
        &self,
        master: &str,
        wrapped: &[u8],
        row: &str,
    ) -> Result<Zeroizing<[u8; KEY_BYTES]>, CryptoError> {
        let all = std::iter::once(&self.current).chain(&self.previous);
        let key = all.into_iter().find(|key| key.id == master).ok_or(CryptoError::UnknownMasterKey)?;
        let (nonce, sealed) = wrapped.split_at_checked(NONCE_BYTES).ok_or(CryptoError::Broken)?;
        let payload = Payload { msg: sealed, aad: row.as_bytes() };
        let opened =
            key.cipher().decrypt(Nonce::from_slice(nonce), payload).map_err(|_| CryptoError::Broken)?;
        let opened = Zeroizing::new(opened);
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        if opened.len() != KEY_BYTES {
            return Err(CryptoError::Broken);
        }
        bytes.copy_from_slice(&opened);
        Ok(bytes)
    }
}
