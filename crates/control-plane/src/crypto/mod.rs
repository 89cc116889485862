//! Columns at rest: envelope encryption.
//!
//! 1. A **master key** (32 bytes, from a file or the environment) wraps data keys and nothing else.
//! 2. An organisation has **data keys**: one that seals new values, earlier ones that open old values, and one for
//!    look-up digests, which does not change. They are stored wrapped.
//! 3. A **sealed** value is version, key id, nonce, AES-256-GCM ciphertext and tag, bound to the column and row it is
//!    in.
//!
//! A new master key wraps the data keys anew, and then the old one is needed no more (`key rotate-master`). Deleting an
//! organisation's data keys makes what they sealed unreadable for ever.

mod master;
mod ring;

pub use master::{MasterKey, MasterKeys};
pub use ring::{DataKeys, Purpose, StoredKey};

/// A value or key cannot be opened, or randomness failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CryptoError {
    #[error("the master key is not 32 bytes in base64")]
    BadMasterKey,
    #[error("no master key of the config opens the data keys; give the one that wrapped them, as `previous`")]
    UnknownMasterKey,
    #[error("a sealed value was changed, moved to another row, or its data key is gone")]
    Broken,
}
