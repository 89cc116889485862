//! Columns at rest: envelope encryption.
//!
//! 1. A **master key** (32 bytes from a file or the environment, or a key that stays in a key service) wraps data keys
//!    and nothing else.
//! 2. An organisation has **data keys**: one that seals new values, earlier ones that open old values, and one for
//!    look-up digests, which does not change. They are stored wrapped.
//! 3. A **sealed** value is version, key id, nonce, AES-256-GCM ciphertext and tag, bound to the column and row it is
//!    in.
//!
//! A new master key wraps the data keys anew, and then the old one is needed no more (`key rotate-master`). A new data
//! key seals once every server must know it ([`SEALS_AFTER_MS`]); what older ones sealed is sealed anew by and by, and
//! then they go (`key rotate-data`, `reseal`). Deleting an organisation's data keys makes what they sealed unreadable
//! for ever.

mod master;
mod ring;
mod vault;

pub use master::{MasterKey, MasterKeys};
pub use ring::{DataKeys, Purpose, SEALS_AFTER_MS, StoredKey, key_of};
pub use vault::{Token, VaultKey};

/// A value or key cannot be opened, or randomness failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    #[error("the master key is not 32 bytes in base64")]
    BadMasterKey,
    #[error("no master key of the config opens the data keys; give the one that wrapped them, as `previous`")]
    UnknownMasterKey,
    #[error("a sealed value was changed, moved to another row, or its data key is gone")]
    Broken,
    #[error("the key service's URL cannot be used: {what}")]
    BadVault { what: &'static str },
    #[error("the key service does not answer")]
    KeyServiceAway,
    #[error("the key service cannot be used: {what}")]
    KeyService { what: &'static str },
}
