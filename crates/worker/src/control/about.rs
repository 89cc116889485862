//! How messages name a table.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use siltstone_protocol::{TableIdentity, disclosed::Disclosure, report::ReportedFormat};
use siltstone_spec::{SourceFormat, TableSpec};

/// A table as messages name it, and what of its values may cross.
#[derive(Debug, Clone)]
pub struct About {
    pub identity: TableIdentity,
    pub disclosure: Disclosure,
}

impl About {
    /// The table of this spec. `location` is its URL for readers.
    pub fn table(spec: &TableSpec, location: &str) -> Self {
        Self { identity: identity(spec, &spec.name, location), disclosure: spec.disclose.clone() }
    }

    /// The dead-letter table of this spec. Nothing of its values ever crosses: they are those of whole records.
    pub fn dead_letters(spec: &TableSpec, location: &str) -> Self {
        let name = spec.dead_letter_name();
        Self { identity: identity(spec, &name, location), disclosure: Disclosure::default() }
    }
}

fn identity(spec: &TableSpec, name: &str, location: &str) -> TableIdentity {
    TableIdentity {
        name: name.to_owned(),
        location: location.to_owned(),
        spec_digest: spec_digest(spec),
        source_format: match spec.source_format {
            SourceFormat::Avro => ReportedFormat::Avro,
            SourceFormat::Json => ReportedFormat::Json,
            SourceFormat::Protobuf => ReportedFormat::Protobuf,
            SourceFormat::Raw => ReportedFormat::Raw,
        },
    }
}

/// SHA-256 (hex) of a table's spec as this version of the program reads it: of every field of the model, which holds
/// no secret. Two versions of the program may differ on one spec.
fn spec_digest(spec: &TableSpec) -> String {
    let digest = Sha256::digest(format!("{spec:?}").as_bytes());
    digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a text cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
