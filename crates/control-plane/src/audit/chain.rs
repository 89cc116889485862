//! The audit chain: each entry's hash covers the entry and the hash before it.
//!
//! An entry that is changed, taken out or moved breaks the chain at that place. Entries that are cut off at the end are
//! found by the head, which is kept apart; entries that leave by age leave a checkpoint, from which the chain goes on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub const HASH_BYTES: usize = 32;

/// Before the first entry.
pub const GENESIS: [u8; HASH_BYTES] = [0; HASH_BYTES];

/// One decision or change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// From 1, without gaps, in each organisation.
    pub sequence: i64,
    /// Milliseconds since 1970 UTC.
    pub at_ms: i64,
    /// `api_key/ID`, `user/ID`, `system`, or `nobody`.
    pub actor: String,
    /// What was asked: the endpoint's method and path, or the name of an inner action.
    pub action: String,
    /// The resource that it was about.
    pub resource: String,
    pub outcome: Outcome,
    /// The address that it came from; empty when from within.
    pub address: String,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The right was granted.
    Allowed,
    /// The right was refused.
    Denied,
    /// The credential was missing, unknown, wrong, expired or revoked.
    Unauthenticated,
    /// A change was carried out.
    Changed,
}

impl Outcome {
    pub const ALL: &'static [Self] = &[Self::Allowed, Self::Denied, Self::Unauthenticated, Self::Changed];

    /// The stable snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Unauthenticated => "unauthenticated",
            Self::Changed => "changed",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|outcome| outcome.as_str() == text)
    }
}

impl AuditEntry {
    /// The entry's hash, after the one before it. Every field goes in with its length, so that none can borrow from
    /// its neighbour.
    pub fn hash(&self, previous: &[u8]) -> [u8; HASH_BYTES] {
        let mut hasher = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        add(previous);
        add(&self.sequence.to_be_bytes());
        add(&self.at_ms.to_be_bytes());
        for text in [&self.actor, &self.action, &self.resource, &self.address] {
            add(text.as_bytes());
        }
        add(self.outcome.as_str().as_bytes());
        hasher.finalize().into()
    }
}

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum ChainFault {
    #[error("entry {sequence} was changed, or what stood before it")]
    Changed { sequence: i64 },
    #[error("entry {expected} is missing: {found} comes in its place")]
    Missing { expected: i64, found: i64 },
    #[error("entries end at {found}, and the head says {expected}: some were cut off")]
    CutOff { expected: i64, found: i64 },
}

/// Checks entries one after the other.
#[derive(Debug, Clone)]
pub struct Verifier {
    sequence: i64,
    hash: Vec<u8>,
}

impl Verifier {
    /// Goes on after the entry of this number and hash; 0 and [`GENESIS`] at the beginning.
    pub fn after(sequence: i64, hash: &[u8]) -> Self {
        Self { sequence, hash: hash.to_vec() }
    }

    /// The next entry, with the hash that is stored beside it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn next(&mut self, entry: &AuditEntry, stored: &[u8]) -> Result<(), ChainFault> {
        if entry.sequence != self.sequence + 1 {
            return Err(ChainFault::Missing { expected: self.sequence + 1, found: entry.sequence });
        }
        let hash = entry.hash(&self.hash);
        if hash != *stored {
            return Err(ChainFault::Changed { sequence: entry.sequence });
        }
        (self.sequence, self.hash) = (entry.sequence, hash.to_vec());
        Ok(())
    }

    /// After the last entry, against the head.
    ///
    /// # Errors
    /// Entries were cut off, or the last one was forged together with its hash.
    pub fn finish(self, head: i64, hash: &[u8]) -> Result<i64, ChainFault> {
        if self.sequence != head {
            return Err(ChainFault::CutOff { expected: head, found: self.sequence });
        }
        if self.hash != hash {
            return Err(ChainFault::Changed { sequence: head });
        }
        Ok(self.sequence)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chain(count: i64) -> Vec<(AuditEntry, Vec<u8>)> {
        let mut previous = GENESIS.to_vec();
        let mut all = Vec::new();
        for sequence in 1..=count {
            let entry = AuditEntry {
                sequence,
                at_ms: 1_000 + sequence,
                actor: "api_key/a".to_owned(),
                action: "GET /api/v1/organisation".to_owned(),
                resource: "organisation".to_owned(),
                outcome: Outcome::Allowed,
                address: "127.0.0.1".to_owned(),
            };
            previous = entry.hash(&previous).to_vec();
            all.push((entry, previous.clone()));
        }
        all
    }

    fn verify(chain: &[(AuditEntry, Vec<u8>)], head: &(AuditEntry, Vec<u8>)) -> Result<i64, ChainFault> {
        let mut verifier = Verifier::after(0, &GENESIS);
        for (entry, hash) in chain {
            verifier.next(entry, hash)?;
        }
        verifier.finish(head.0.sequence, &head.1)
    }

    #[test]
    fn every_kind_of_tampering_is_found() {
        let whole = chain(6);
        let head = whole[5].clone();
        assert_eq!(verify(&whole, &head), Ok(6));
        let mut changed = whole.clone();
        changed[2].0.outcome = Outcome::Denied;
        assert_eq!(verify(&changed, &head), Err(ChainFault::Changed { sequence: 3 }));
        let mut missing = whole.clone();
        missing.remove(2);
        assert_eq!(verify(&missing, &head), Err(ChainFault::Missing { expected: 3, found: 4 }));
        let mut swapped = whole.clone();
        swapped.swap(1, 2);
        assert_eq!(verify(&swapped, &head), Err(ChainFault::Missing { expected: 2, found: 3 }));
        assert_eq!(verify(&whole[..4], &head), Err(ChainFault::CutOff { expected: 6, found: 4 }));
        // An entry changed together with its own hash breaks the next one.
        let mut forged = whole.clone();
        forged[2].0.actor = "nobody".to_owned();
        forged[2].1 = forged[2].0.hash(&whole[1].1).to_vec();
        assert_eq!(verify(&forged, &head), Err(ChainFault::Changed { sequence: 4 }));
        // All of it forged: the head, kept apart, does not agree.
        let mut previous = whole[1].1.clone();
        for (entry, hash) in &mut forged[2..] {
            *hash = entry.hash(&previous).to_vec();
            previous.clone_from(hash);
        }
        assert_eq!(verify(&forged, &head), Err(ChainFault::Changed { sequence: 6 }));
    }
}
