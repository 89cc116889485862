//! API keys: their text, their hash, and checking one.
//!
//! A key is `sst_<id>_<secret>`: a ULID that finds the row, and 32 random bytes in base64 for URLs. Only a bcrypt hash
//! of the secret is stored. The text is shown once, when the key is made.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::RngCore;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use ulid::Ulid;
use zeroize::Zeroizing;

use crate::id;

const PREFIX: &str = "sst_";
const SECRET_BYTES: usize = 32;
/// Of the secret in base64: well below the 72 bytes that bcrypt looks at.
const SECRET_TEXT: usize = 43;
/// Checked keys that are remembered; a deployment has some hundreds.
const REMEMBERED_MAX: usize = 100_000;

/// The text of a key, for the one who made it. No `Display`; `Debug` hides it.
#[derive(Clone)]
pub struct ApiKey {
    id: String,
    secret: Zeroizing<String>,
}

impl ApiKey {
    /// A fresh key, from a cryptographic generator that the operating system seeds.
    pub fn generate(now_ms: i64) -> Self {
        let mut bytes = Zeroizing::new([0u8; SECRET_BYTES]);
        rand::rng().fill_bytes(bytes.as_mut());
        let secret = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.encode(bytes.as_ref()));
        Self { id: id::fresh(now_ms).to_string(), secret }
    }

    /// Reads the text of a key. `None`: it has not the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let fits = id.len() == ulid::ULID_LEN && secret.len() == SECRET_TEXT && secret.chars().all(plain);
        let id = Ulid::from_string(id).ok().filter(|_| fits)?.to_string();
        Some(Self { id, secret: Zeroizing::new(secret.to_owned()) })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is shown once.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}_{}", self.id, self.secret.as_str()))
    }

    /// The hash to store. Takes some 50 ms: call it off the event loop.
    pub fn hash(&self, cost: u32) -> Option<String> {
        bcrypt::hash(self.secret.as_bytes(), cost).ok()
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_bytes()).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Checks secrets against their hashes, each bcrypt once per process and hash.
///
/// What is remembered is a digest of a secret that was right, beside the hash that it was checked against: another
/// hash, a revoked or an expired row is asked for anew on every request, so they count at once.
#[derive(Default)]
pub struct KeyChecker {
    right: Mutex<HashMap<String, (String, [u8; 32])>>,
    hashed: AtomicU64,
}

/// Against this, below `$2b$` and the cost, the secret of an unknown id is checked, so that it takes as long as a known
/// one. It is well-formed, and what it is a hash of gives no right.
const DECOY: &str = "N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

impl KeyChecker {
    /// True when the secret is that of the hash. `None`: there is no such key; takes as long, and is false. Blocks for
    /// some 50 ms when it was not checked before.
    pub fn check(&self, key: &ApiKey, hash: Option<&str>, cost: u32) -> bool {
        if let Some(hash) = hash {
            let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((of, digest)) = right.get(&key.id)
                && of == hash
                && bool::from(digest.ct_eq(&key.digest()))
            {
                return true;
            }
        }
        let against = match hash {
            Some(hash) => hash.to_owned(),
            None => format!("$2b${cost:02}${DECOY}"),
        };
        self.hashed.fetch_add(1, Ordering::Relaxed);
        let same = bcrypt::verify(key.secret.as_bytes(), &against).unwrap_or(false);
        if !same || hash.is_none() {
            return false;
        }
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= REMEMBERED_MAX {
            right.clear();
        }
        right.insert(key.id.clone(), (against, key.digest()));
        true
    }

    /// How many hashes were computed.
    pub fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for KeyChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyChecker")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const COST: u32 = 4;

    #[test]
    fn a_key_is_read_back_and_nothing_else_is() {
        let key = ApiKey::generate(1_700_000_000_000);
        let text = key.reveal();
        assert_eq!(ApiKey::parse(&text).unwrap().id(), key.id());
        assert!(!format!("{key:?}").contains(key.secret.as_str()));
        let mut short = text.to_string();
        short.pop();
        for wrong in
            ["", "sst_", "sst_x_y", &short, &format!("{}x", text.as_str()), &text.replace("sst", "key")]
        {
            assert!(ApiKey::parse(wrong).is_none(), "{wrong}");
        }
    }

    /// An attacker who counts time learns nothing: an unknown id and a wrong secret take one hash of the same cost.
    #[test]
    fn an_unknown_key_takes_the_work_of_a_wrong_one() {
        let key = ApiKey::generate(1);
        let hash = ApiKey::generate(2).hash(COST).unwrap();
        let checker = KeyChecker::default();
        for (against, expected) in [(Some(hash.as_str()), 1), (None, 2), (None, 3), (Some(hash.as_str()), 4)]
        {
            assert!(!checker.check(&key, against, COST));
            assert_eq!(checker.hashed(), expected);
        }
        let decoy = format!("$2b${COST:02}${DECOY}");
        assert_eq!(decoy.len(), hash.len());
        assert!(!bcrypt::verify(b"x", &decoy).unwrap(), "it is well-formed");
    }

    #[test]
    fn only_the_right_secret_is_right_also_when_remembered() {
        let (key, other) = (ApiKey::generate(1), ApiKey::generate(2));
        let hash = key.hash(COST).unwrap();
        let forged = ApiKey { id: key.id.clone(), secret: other.secret.clone() };
        let checker = KeyChecker::default();
        for _ in 0..2 {
            assert!(checker.check(&key, Some(&hash), COST));
            assert!(!checker.check(&forged, Some(&hash), COST));
            assert!(!checker.check(&key, None, COST));
        }
        // The row has another hash by now: what was remembered does not count.
        assert!(!checker.check(&key, Some(&other.hash(COST).unwrap()), COST));
    }
}
