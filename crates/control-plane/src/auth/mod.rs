//! Who is asking, and what may they do.
//!
//! 1. `key`: API keys, their hashes, and checking one.
//! 2. `principal`: from a request's headers to a [`Principal`] with its grants.
//! 3. `role` and `resource`: the one table of rights, pure, deny by default.
//! 4. `rate`: buckets that bound what one credential, or one address without one, can ask.

pub mod key;
pub mod principal;
pub mod rate;
pub mod resource;
pub mod role;

pub use key::{ApiKey, KeyChecker};
pub use principal::{AuthFailure, Authenticator, Principal};
pub use resource::{Pattern, Resource};
pub use role::{Decision, Grant, Permission, Role, decide, decide_within};
