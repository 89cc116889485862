//! Schema registries: the trait, one over HTTP, one with fixed answers for tests.

mod fixed;
mod model;

pub use fixed::FixedRegistry;
pub use model::{RegisteredSchema, RegistryFormat, SchemaReference, SchemaRegistry};
