//! The token key: what makes partition tokens mean nothing outside the bucket.
//!
//! Made once per table by put-if-absent and never changed; it lies beside the ledger and never leaves.

use std::sync::Arc;

use hmac::{Hmac, Mac};
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};
use rand::RngCore;
use sha2::Sha256;

use super::{Ledger, log::read};
use crate::error::LakeError;

const KEY_BYTES: usize = 32;
/// Bytes of a path's digest that are kept.
const DIGEST_BYTES: usize = 16;

/// What stands for the path of a file of another program: the same for the same path, and no value that the
/// path holds.
pub fn path_digest(key: &[u8; KEY_BYTES], path: &str) -> String {
    // A key of any length is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(b"path:");
    mac.update(path.as_bytes());
    let digest = mac.finalize().into_bytes();
    digest.iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

impl Ledger {
    /// The table's token key; makes one when there is none.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer. `Data`: the stored key is not 32 bytes.
    pub async fn token_key(&self) -> Result<Arc<[u8; KEY_BYTES]>, LakeError> {
        let key = self.inner.token_key.get_or_try_init(|| async {
            let mut fresh = [0; KEY_BYTES];
            rand::rng().fill_bytes(&mut fresh);
            self.token_key_or(fresh).await
        });
        key.await.cloned()
    }

    /// The table's token key; `fresh` becomes it when there is none.
    async fn token_key_or(&self, fresh: [u8; KEY_BYTES]) -> Result<Arc<[u8; KEY_BYTES]>, LakeError> {
        let path = self.own_path().join("token.key");
        if let Some(key) = self.read_token_key(&path).await? {
            return Ok(key);
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.inner.store.put_opts(&path, PutPayload::from(fresh.to_vec()), options).await;
        // Whatever the reply: what is stored now is the key, ours or another worker's.
        match (self.read_token_key(&path).await?, put) {
            (Some(key), _) => Ok(key),
            (None, Err(error)) => Err(LakeError::store("write", &path, &error)),
            (None, Ok(_)) => Err(LakeError::data(&path, "is not there after it was written")),
        }
    }

    async fn read_token_key(
        &self,
        path: &object_store::path::Path,
    ) -> Result<Option<Arc<[u8; KEY_BYTES]>>, LakeError> {
        let Some(bytes) = read(&self.inner.store, path, 1 << 10).await? else { return Ok(None) };
        let key = <[u8; KEY_BYTES]>::try_from(bytes.as_ref());
        key.map(|key| Some(Arc::new(key))).map_err(|_| LakeError::data(path, "a token key has 32 bytes"))
    }
}
