//! `vectors`: bytes and schemas written by hand or taken from specifications. `oracle`: random messages, encoded and
//! read back by prost-reflect. `shown` writes rows as text, so that both compare every value.

mod explained;
mod oracle;
mod passed;
mod schemas;
mod shown;
mod vectors;
