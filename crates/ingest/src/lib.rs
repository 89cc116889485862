//! From Kafka records to Arrow batches.
//!
//! `source` hands over borrowed records, `kafka` and `replay` implement it; `registry` finds writer schemas;
//! the decoders turn each record into a row of Arrow columns or into a closed reject reason.
//! Absent on purpose: files, the ledger, and any wish to keep a record after its row is built.

pub mod avro;
pub mod columns;
pub mod dead_letter;
pub mod decoder;
pub mod error;
pub mod files;
pub mod json;
pub mod kafka;
pub mod protobuf;
pub mod record;
pub mod registry;
pub mod replay;
pub mod source;
mod trail;
mod transform;

pub use error::{IngestError, SchemaPart};
pub use kafka::{KafkaOptions, KafkaSource};
pub use record::{Headers, Record};
pub use registry::{HttpRegistry, RegisteredSchema, RegistryFormat, SchemaReference, SchemaRegistry};
pub use source::{RecordSource, SourceEvent, Visit, Watermarks};
