//! `model`: random schemas and values, encoded and read back by apache-avro, the oracle.

mod compiled;
mod conformance;
mod evolution;
mod explained;
mod model;
mod oracle;
mod passed;
mod schemas;
