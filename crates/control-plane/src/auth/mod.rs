//! Who is asking, and what may they do.
//!
//! 1. `key`: API keys, their hashes, and checking one.
//! 2. `principal`: from a request's headers to a [`Principal`] with its grants.
//! 3. `role` and `resource`: the one table of rights, pure, deny by default.
//! 4. `session`: sessions of people, their cookies, and the guard against forged requests.
//! 5. `network`: where a request comes from, and the allow-lists of organisations.
//! 6. `rate`: buckets that bound what one credential, or one address without one, can ask.

pub mod key;
pub mod network;
pub mod principal;
pub mod rate;
pub mod resource;
pub mod role;
pub mod session;

pub use key::{ApiKey, KeyChecker};
pub use principal::{AuthFailure, Authenticator, Principal, Who};
pub use resource::{Pattern, Resource};
pub use role::{Decision, Grant, Permission, Role, decide, decide_within};
pub use session::{Cookies, Session, Sessions};
