//! Protected columns, exactly:
//!
//! | protection | text of a value |
//! | --- | --- |
//! | `hash` | HMAC-SHA256 as 64 lower-case hexadecimal digits |
//! | `tokenize` | the first 16 bytes of HMAC-SHA256 in lower-case base32 (RFC 4648) without padding: 26 characters |
//! | `mask` | `*` for each letter and digit, but the last four where there are eight or more; other characters stay |
//! | `encrypt` | `aes1:` and base64 of nonce (12 random bytes), AES-256-GCM ciphertext and tag (16 bytes); no associated data |
//!
//! The value is what the column held, after its cast: a string's UTF-8, the bytes of binary and fixed, and of any other
//! type the text that a cast to string gives. Null stays null.

use std::sync::Arc;

use aes_gcm::{AeadInPlace as _, Nonce};
use arrow::{
    array::{Array, ArrayRef, AsArray, StringBuilder},
    datatypes::DataType,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use siltstone_protocol::PrimitiveType;
use siltstone_spec::Protection;

use super::key::{Derived, Keys};
use crate::IngestError;

const TOKEN_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
/// Of a masked value, so many letters and digits at the end stay,
const MASK_SHOWN: usize = 4;
/// when it has so many in all.
const MASK_LENGTH_MIN: usize = 8;
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const HEX: &[u8; 16] = b"0123456789abcdef";

/// One column's protection.
pub(super) struct Protector {
    how: Protection,
    keys: Option<Arc<Derived>>,
}

impl std::fmt::Debug for Protector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Protector").field("how", &self.how).finish_non_exhaustive()
    }
}

impl Protector {
    pub(super) fn new(how: Protection, keys: &Keys) -> Result<Self, IngestError> {
        let keys = if how.is_keyed() { Some(keys.derived()?) } else { None };
        Ok(Self { how, keys })
    }

    /// Whether values of this type are protected as they are; others are cast to strings first.
    pub(super) fn takes(data_type: PrimitiveType) -> bool {
        matches!(data_type, PrimitiveType::String | PrimitiveType::Binary | PrimitiveType::Fixed(_))
    }

    /// Strings in the place of the values.
    pub(super) fn apply(&self, array: &ArrayRef) -> Result<ArrayRef, IngestError> {
        match array.data_type() {
            DataType::Utf8 => {
                let texts = array.as_string::<i32>();
                self.each(texts.iter().map(|value| value.map(str::as_bytes)), texts.len())
            }
            DataType::Binary => {
                let values = array.as_binary::<i32>();
                self.each(values.iter(), values.len())
            }
            DataType::FixedSizeBinary(_) => {
                let values = array.as_fixed_size_binary();
                self.each(values.iter(), values.len())
            }
            _ => Err(IngestError::internal("values of this type are protected as strings")),
        }
    }

    fn each<'v>(
        &self,
        values: impl Iterator<Item = Option<&'v [u8]>>,
        rows: usize,
    ) -> Result<ArrayRef, IngestError> {
        let mut out = StringBuilder::with_capacity(rows, rows * 32);
        let mut scratch = Scratch::default();
        let mut nonces = Vec::new();
        if let (Protection::Encrypt, Some(keys)) = (self.how, &self.keys) {
            nonces.resize(rows * NONCE_BYTES, 0);
            (keys.random)(&mut nonces);
        }
        for (row, value) in values.enumerate() {
            let Some(value) = value else {
                out.append_null();
                continue;
            };
            let text = match (self.how, &self.keys) {
                (Protection::Mask, _) => scratch.mask(value),
                (Protection::Hash, Some(keys)) => scratch.hex(&digest(&keys.hash, value)),
                (Protection::Tokenize, Some(keys)) => {
                    scratch.base32(&digest(&keys.tokenize, value)[..TOKEN_BYTES])
                }
                (Protection::Encrypt, Some(keys)) => {
                    let nonce = &nonces[row * NONCE_BYTES..][..NONCE_BYTES];
                    scratch.seal(keys, nonce, value)?
                }
                _ => return Err(IngestError::internal("a column is protected in a way that is none")),
            };
            out.append_value(text);
        }
        Ok(Arc::new(out.finish()))
    }
}

fn digest(mac: &Hmac<Sha256>, value: &[u8]) -> [u8; 32] {
    let mut mac = mac.clone();
    mac.update(value);
    mac.finalize().into_bytes().into()
}

/// What is used again from value to value.
#[derive(Default)]
struct Scratch {
    text: String,
    bytes: Vec<u8>,
}

impl Scratch {
    fn hex(&mut self, bytes: &[u8]) -> &str {
        self.text.clear();
        for byte in bytes {
            self.text.push(char::from(HEX[usize::from(byte >> 4)]));
            self.text.push(char::from(HEX[usize::from(byte & 15)]));
        }
        &self.text
    }

    fn base32(&mut self, bytes: &[u8]) -> &str {
        self.text.clear();
        let (mut bits, mut held) = (0u32, 0u32);
        for byte in bytes {
            bits = (bits << 8 | u32::from(*byte)) & 0xFFFF;
            held += 8;
            while held >= 5 {
                held -= 5;
                self.text.push(char::from(BASE32[(bits >> held & 31) as usize]));
            }
        }
        if held > 0 {
            self.text.push(char::from(BASE32[(bits << (5 - held) & 31) as usize]));
        }
        &self.text
    }

    /// Bytes that are no text are masked one by one.
    fn mask(&mut self, value: &[u8]) -> &str {
        self.text.clear();
        let Ok(text) = std::str::from_utf8(value) else {
            self.text.extend(std::iter::repeat_n('*', value.len()));
            return &self.text;
        };
        let count = text.chars().filter(|c| c.is_alphanumeric()).count();
        let hidden = if count >= MASK_LENGTH_MIN { count - MASK_SHOWN } else { count };
        let mut seen = 0;
        for c in text.chars() {
            let is_hidden = c.is_alphanumeric() && seen < hidden;
            seen += usize::from(c.is_alphanumeric());
            self.text.push(if is_hidden { '*' } else { c });
        }
        &self.text
    }

    fn seal(&mut self, keys: &Derived, nonce: &[u8], value: &[u8]) -> Result<&str, IngestError> {
        self.bytes.clear();
        self.bytes.extend_from_slice(nonce);
        self.bytes.extend_from_slice(value);
        let tag = keys
            .cipher
            .encrypt_in_place_detached(Nonce::from_slice(nonce), &[], &mut self.bytes[NONCE_BYTES..])
            .map_err(|_| IngestError::internal("a value could not be encrypted"))?;
        self.bytes.extend_from_slice(&tag);
        self.text.clear();
        self.text.push_str("aes1:");
        BASE64_STANDARD.encode_string(&self.bytes, &mut self.text);
        Ok(&self.text)
    }
}
