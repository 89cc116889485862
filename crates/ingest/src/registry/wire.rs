//! Answers of a registry with Confluent's API, read into plain data.
//!
//! Absent on purpose: serde_json's error texts, which may quote an answer.

use serde::Deserialize;
use siltstone_protocol::ErrorCode;

use super::RegistryFormat;
use crate::error::IngestError;

/// `GET /schemas/ids/{id}`, and one version of a subject.
#[derive(Deserialize)]
pub(super) struct SchemaAnswer {
    pub(super) schema: String,
    /// Absent for Avro.
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    pub(super) references: Option<Vec<ReferenceAnswer>>,
    /// Only in answers about a subject.
    pub(super) id: Option<u32>,
}

#[derive(Deserialize, Clone)]
pub(super) struct ReferenceAnswer {
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) version: u32,
}

#[derive(Deserialize)]
struct Refusal {
    error_code: Option<u32>,
}

impl SchemaAnswer {
    pub(super) fn read(body: &[u8], what: &str) -> Result<Self, IngestError> {
        serde_json::from_slice(body).map_err(|_| {
            let why = "the answer is not that of a schema registry; check schema_registry.url";
            IngestError::invalid(what, why).coded(ErrorCode::RegistrySettingRefused)
        })
    }

    pub(super) fn format(&self, what: &str) -> Result<RegistryFormat, IngestError> {
        match self.schema_type.as_deref() {
            None | Some("AVRO") => Ok(RegistryFormat::Avro),
            Some("JSON") => Ok(RegistryFormat::Json),
            Some("PROTOBUF") => Ok(RegistryFormat::Protobuf),
            Some(_) => Err(IngestError::schema_refused(what, "its type is none of AVRO, JSON, PROTOBUF")),
        }
    }
}

/// The registry's own code in an error answer, e.g. 40403; 0 when there is none.
pub(super) fn error_code(body: &[u8]) -> u32 {
    serde_json::from_slice::<Refusal>(body).ok().and_then(|refusal| refusal.error_code).unwrap_or(0)
}
