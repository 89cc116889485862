//! People and protection: sign-on, sessions, allow-lists, requests that are asked twice, and what attackers try.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod allow_lists;
mod attacks;
mod keys;
mod once;
mod provider;
mod sign_on;
mod support;
mod tls;
