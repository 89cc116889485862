//! An external catalog with the Iceberg REST protocol, for tables that the spec gives one.
//!
//! 1. [`client`] asks `/v1/config` once, sends requests with limits and retries, and maps refusals to codes.
//! 2. [`auth`] puts credentials on requests: nothing, a bearer token, OAuth2 client credentials (renewed before
//!    they expire and when the catalog refuses them), or AWS Signature Version 4.
//! 3. [`table`] loads a table, stages its creation, and commits. An outcome that is unknown is decided by loading
//!    the table again and looking for our snapshot (I-7); nothing is deleted because of it.
//! 4. [`change`] is the pure part: two metadata documents in, requirements and updates out.
//! 5. [`credentials`] are those that the catalog hands out for the table's files, renewed before they expire.
//!
//! The catalog is then the authority of the table's Iceberg metadata. Data files, manifests and manifest lists are
//! written by us below the table's location, as ever; metadata files are the catalog's own, wherever they lie.
//!
//! Absent on purpose: any knowledge of the ledger. No token and no text of a catalog's answer is ever logged.

mod auth;
mod change;
mod client;
mod credentials;
mod table;
mod wire;

pub use credentials::VendedCredentials;
pub use table::RestTable;
pub(crate) use table::{Base, Committed, Loaded, Since};
