//! The data keys of one organisation: seal, open, and digests for look-ups.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use hmac::{Hmac, Mac};
use rand::RngCore;
use sha2::Sha256;
use ulid::Ulid;
use zeroize::Zeroizing;

use super::{
    CryptoError,
    master::{KEY_BYTES, MasterKeys, NONCE_BYTES},
};
use crate::id;

/// A data key seals from this age on, milliseconds: every server has read it by then ([`crate::tenants::KeyRing`]).
pub const SEALS_AFTER_MS: i64 = 15_000;

const VERSION: u8 = 1;
const ID_BYTES: usize = 16;
/// Of a look-up digest: collisions are out of reach, and the index stays small.
const DIGEST_BYTES: usize = 16;

/// What a data key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Seal,
    LookUp,
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seal => "seal",
            Self::LookUp => "look_up",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Seal, Self::LookUp].into_iter().find(|purpose| purpose.as_str() == text)
    }
}

/// A data key as it is stored.
#[derive(Debug, Clone)]
pub struct StoredKey {
    /// ULID text; the youngest key of a purpose is the one in use.
    pub id: String,
    pub purpose: Purpose,
    /// The master key that wrapped it.
    pub master: String,
    pub wrapped: Vec<u8>,
}

impl StoredKey {
    /// A fresh data key, wrapped.
    ///
    /// # Errors
    /// `Broken`: the cipher failed; `KeyService`.
    pub async fn generate(masters: &MasterKeys, purpose: Purpose, now_ms: i64) -> Result<Self, CryptoError> {
        let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
        rand::rng().fill_bytes(bytes.as_mut());
        let id = id::fresh(now_ms).to_string();
        let wrapped = masters.wrap(&bytes, &id).await?;
        Ok(Self { id, purpose, master: masters.current().id().to_owned(), wrapped })
    }

    /// The same key under the master key in use. `None`: it is already.
    ///
    /// # Errors
    /// As [`DataKeys::open`].
    pub async fn rewrapped(&self, masters: &MasterKeys) -> Result<Option<Self>, CryptoError> {
        if self.master == masters.current().id() {
            return Ok(None);
        }
        let bytes = masters.unwrap(&self.master, &self.wrapped, &self.id).await?;
        let wrapped = masters.wrap(&bytes, &self.id).await?;
        Ok(Some(Self { master: masters.current().id().to_owned(), wrapped, ..self.clone() }))
    }
}

/// The opened data keys of one organisation.
pub struct DataKeys {
    /// Oldest first.
    seals: Vec<(Ulid, Aes256Gcm)>,
    /// The one that seals.
    current: Ulid,
    look_up: (String, Zeroizing<[u8; KEY_BYTES]>),
}

impl DataKeys {
    /// Opens the stored keys of an organisation. Those that are among `opened` are taken from there.
    ///
    /// # Errors
    /// `UnknownMasterKey`; `KeyService`; `Broken` also when a purpose has no key.
    pub async fn unlock(
        masters: &MasterKeys,
        stored: &[StoredKey],
        opened: Option<&Self>,
        now_ms: i64,
    ) -> Result<Self, CryptoError> {
        let mut seals: Vec<(Ulid, Aes256Gcm)> = Vec::new();
        let mut look_up = None;
        for key in stored {
            match key.purpose {
                Purpose::Seal => {
                    let id = Ulid::from_string(&key.id).map_err(|_| CryptoError::Broken)?;
                    let known = opened.and_then(|opened| opened.seals.iter().find(|(known, _)| *known == id));
                    let cipher = match known {
                        Some((_, cipher)) => cipher.clone(),
                        None => {
                            let bytes = masters.unwrap(&key.master, &key.wrapped, &key.id).await?;
                            Aes256Gcm::new(bytes.as_ref().into())
                        }
                    };
                    seals.push((id, cipher));
                }
                Purpose::LookUp => {
                    let known = opened.filter(|opened| opened.look_up.0 == key.id);
                    let bytes = match known {
                        Some(opened) => opened.look_up.1.clone(),
                        None => masters.unwrap(&key.master, &key.wrapped, &key.id).await?,
                    };
                    look_up = Some((key.id.clone(), bytes));
                }
            }
        }
        seals.sort_by_key(|(id, _)| *id);
        let is_old_enough = |id: Ulid| {
            i64::try_from(id.timestamp_ms()).unwrap_or(i64::MAX).saturating_add(SEALS_AFTER_MS) <= now_ms
        };
        // The first key of all seals at once.
        let current = seals.iter().rev().find(|(id, _)| is_old_enough(*id)).or(seals.first());
        match (look_up, current.map(|(id, _)| *id)) {
            (Some(look_up), Some(current)) => Ok(Self { seals, current, look_up }),
            _ => Err(CryptoError::Broken),
        }
    }

    /// The key that seals.
    pub fn current(&self) -> Ulid {
        self.current
    }

    /// The youngest key; it seals now, or soon.
    pub fn youngest(&self) -> Ulid {
        self.seals.last().map_or(self.current, |(id, _)| *id)
    }

    /// How many keys open values.
    pub fn count(&self) -> usize {
        self.seals.len()
    }

    fn cipher(&self, id: Ulid) -> Result<&Aes256Gcm, CryptoError> {
        let found = self.seals.iter().find(|(known, _)| *known == id);
        found.map(|(_, cipher)| cipher).ok_or(CryptoError::Broken)
    }

    /// Seals a value for a place: `table.column`, and the row's key.
    ///
    /// # Errors
    /// `Broken`: the cipher failed.
    pub fn seal(&self, column: &str, row: &str, value: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (id, cipher) = (self.current, self.cipher(self.current)?);
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let place = place(column, row);
        let payload = Payload { msg: value, aad: &place };
        let sealed = cipher.encrypt(Nonce::from_slice(&nonce), payload).map_err(|_| CryptoError::Broken)?;
        let mut all = Vec::with_capacity(1 + ID_BYTES + NONCE_BYTES + sealed.len());
        all.push(VERSION);
        all.extend(id.to_bytes());
        all.extend(nonce);
        all.extend(sealed);
        Ok(all)
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// `Broken`: it was changed, or sealed for another place.
    pub fn open(&self, column: &str, row: &str, sealed: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let rest = sealed.strip_prefix(&[VERSION]).ok_or(CryptoError::Broken)?;
        let (id, rest) = rest.split_first_chunk::<ID_BYTES>().ok_or(CryptoError::Broken)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or(CryptoError::Broken)?;
        let id = Ulid::from_bytes(*id);
        let cipher = self.cipher(id)?;
        let place = place(column, row);
        let payload = Payload { msg: sealed, aad: &place };
        cipher.decrypt(Nonce::from_slice(nonce), payload).map_err(|_| CryptoError::Broken)
    }

    /// The digest by which a value is looked up.
    pub fn digest(&self, column: &str, value: &str) -> Vec<u8> {
        let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(self.look_up.1.as_ref()) else {
            return Vec::new();
        };
        mac.update(&place(column, value));
        let whole = mac.finalize().into_bytes();
        whole.iter().take(DIGEST_BYTES).copied().collect()
    }
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeys").field("seals", &self.seals.len()).finish_non_exhaustive()
    }
}

/// The key that sealed a value.
pub fn key_of(sealed: &[u8]) -> Option<Ulid> {
    let (id, _) = sealed.strip_prefix(&[VERSION])?.split_first_chunk::<ID_BYTES>()?;
    Some(Ulid::from_bytes(*id))
}

fn place(column: &str, row: &str) -> Vec<u8> {
    // The length keeps two places from having one form.
    let mut place = Vec::with_capacity(8 + column.len() + row.len());
    place.extend((column.len() as u64).to_be_bytes());
    place.extend(column.as_bytes());
    place.extend(row.as_bytes());
    place
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;

    fn master() -> MasterKey {
        MasterKey::from_base64(&MasterKey::generate()).unwrap()
    }

    async fn generated(masters: &MasterKeys, now_ms: i64) -> Vec<StoredKey> {
        let mut all = Vec::new();
        for purpose in [Purpose::Seal, Purpose::LookUp] {
            all.push(StoredKey::generate(masters, purpose, now_ms).await.unwrap());
        }
        all
    }

    #[tokio::test]
    async fn a_value_opens_in_its_place_alone() {
        let masters = MasterKeys::new(master(), Vec::new());
        let keys = DataKeys::unlock(&masters, &generated(&masters, 1).await, None, 1).await.unwrap();
        let sealed = keys.seal("files.sealed", "row 1", b"data/a.parquet").unwrap();
        assert!(!sealed.windows(4).any(|window| window == b"data"));
        assert_eq!(keys.open("files.sealed", "row 1", &sealed).unwrap(), b"data/a.parquet");
        assert_eq!(keys.open("files.sealed", "row 2", &sealed), Err(CryptoError::Broken));
        assert_eq!(keys.open("tables.sealed", "row 1", &sealed), Err(CryptoError::Broken));
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(keys.open("files.sealed", "row 1", &changed), Err(CryptoError::Broken), "{index}");
        }
    }

    #[tokio::test]
    async fn keys_rotate_and_old_values_stay_readable() {
        let (old, new) = (MasterKey::generate(), MasterKey::generate());
        let key = |text: &str| MasterKey::from_base64(text).unwrap();
        let masters = MasterKeys::new(key(&old), Vec::new());
        let mut stored = generated(&masters, 1).await;
        let before = DataKeys::unlock(&masters, &stored, None, 1).await.unwrap();
        let (sealed, digest) = (before.seal("c", "r", b"v").unwrap(), before.digest("c", "v"));

        let masters = MasterKeys::new(key(&new), vec![key(&old)]);
        stored.push(StoredKey::generate(&masters, Purpose::Seal, 2).await.unwrap());
        let mut rewrapped = Vec::new();
        for key in &stored {
            rewrapped.push(key.rewrapped(&masters).await.unwrap().unwrap_or(key.clone()));
        }

        // The old master key is not needed any more. The new data key waits until every server knows it.
        let masters = MasterKeys::new(key(&new), Vec::new());
        let after = DataKeys::unlock(&masters, &rewrapped, Some(&before), 3).await.unwrap();
        assert_eq!(after.seal("c", "r", b"v").unwrap()[1..17], sealed[1..17]);
        let after = DataKeys::unlock(&masters, &rewrapped, None, 2 + SEALS_AFTER_MS).await.unwrap();
        assert_eq!(after.open("c", "r", &sealed).unwrap(), b"v");
        assert_eq!(after.digest("c", "v"), digest);
        let newer = after.seal("c", "r", b"v").unwrap();
        assert_eq!(key_of(&newer), Some(after.youngest()));
        assert_ne!(newer[1..17], sealed[1..17]);
        assert_eq!(before.open("c", "r", &newer), Err(CryptoError::Broken));
        let masters = MasterKeys::new(master(), Vec::new());
        let foreign = DataKeys::unlock(&masters, &rewrapped, None, 3).await;
        assert_eq!(foreign.unwrap_err(), CryptoError::UnknownMasterKey);
    }
}
