//! Schema registries: the trait, one over HTTP (`http` asks, `client` carries requests, `wire` reads answers), one
//! with fixed answers.

mod client;
mod fixed;
mod http;
mod model;
mod wire;

pub use fixed::FixedRegistry;
pub use http::{HttpRegistry, RegistryLimits};
pub use model::{RegisteredSchema, RegistryFormat, SchemaReference, SchemaRegistry};
