//! What a registry answers.

use std::fmt;

use async_trait::async_trait;

use crate::error::IngestError;

/// The language a schema is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryFormat {
    Avro,
    Json,
    Protobuf,
}

impl RegistryFormat {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Avro => "avro",
            Self::Json => "json",
            Self::Protobuf => "protobuf",
        }
    }
}

/// A schema with everything it refers to.
#[derive(Clone, PartialEq, Eq)]
pub struct RegisteredSchema {
    pub id: u32,
    pub format: RegistryFormat,
    pub schema: String,
    /// Flat, each once, dependencies before those who use them: parsing in this order resolves every name.
    pub references: Vec<SchemaReference>,
}

/// A schema that another one names.
#[derive(Clone, PartialEq, Eq)]
pub struct SchemaReference {
    /// The name by which it is referred to: an Avro full name, a JSON Schema `$ref`, a Protobuf import.
    pub name: String,
    pub subject: String,
    pub version: u32,
    pub schema: String,
}

impl fmt::Debug for RegisteredSchema {
    /// Schema texts are long and carry defaults and docs; sizes are enough.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisteredSchema")
            .field("id", &self.id)
            .field("format", &self.format)
            .field("schema_len", &self.schema.len())
            .field("references", &self.references)
            .finish()
    }
}

impl fmt::Debug for SchemaReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchemaReference")
            .field("name", &self.name)
            .field("subject", &self.subject)
            .field("version", &self.version)
            .field("schema_len", &self.schema.len())
            .finish()
    }
}

/// Where writer schemas come from. `IngestError::NotFound` means that the registry said so; every other failure of
/// kind `Unavailable` means that nobody knows yet, and the record must wait.
#[async_trait]
pub trait SchemaRegistry: Send + Sync {
    async fn schema_by_id(&self, id: u32) -> Result<RegisteredSchema, IngestError>;

    async fn latest(&self, subject: &str) -> Result<RegisteredSchema, IngestError>;
}
