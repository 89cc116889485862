//! The table spec: one YAML grammar, validated into plain data.
//!
//! 1. `yaml` reads text into nodes with positions.
//! 2. `raw` declares the grammar once: as types, as JSON Schema, as reference.
//! 3. `walk` holds the nodes against that schema and collects every fault of form; references to the
//!    environment are replaced on the way.
//! 4. `lower` checks what a schema cannot say and makes the model.
//! 5. `resolve` turns column names into field ids, `plan` says what applying a spec would change,
//!    `evolve` what records of another schema would.
//!
//! Absent on purpose: I/O of any kind but reading the spec file and what it refers to.

mod columns;
mod environment;
mod error;
pub mod evolve;
mod forms;
mod grammar;
pub mod limits;
mod lower;
pub mod model;
mod nearest;
mod parse;
pub mod plan;
pub mod quantity;
mod raw;
mod reference;
pub mod resolve;
pub mod secret;
mod source_files;
pub mod transform;
mod url_text;
mod walk;
mod write_by;
mod yaml;

pub use error::{Fault, Faults, SpecError};
pub use grammar::json_schema;
pub use model::*;
pub use parse::parse;
pub use reference::reference_markdown;
pub use secret::Secret;
pub use source_files::SourceFiles;
pub use url_text::is_private;
