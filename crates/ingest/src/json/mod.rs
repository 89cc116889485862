//! JSON records: from bytes to columns with nothing in between, and JSON Schema to table schema.
//!
//! 1. `schema` maps a JSON Schema, its references `resolve`d, to a table schema and hints for the decoder.
//! 2. `program` compiles a table schema into a [`JsonProgram`], once.
//! 3. `decode` walks each record with a cursor (`scan`) and writes its values to the column builders; `number`,
//!    `time` and `bytes` read the texts of values. The head of `program` has the table of what each column takes.
//!
//! Absent on purpose: a value tree, serde on the path of a record (its errors quote input, and it hides the
//! text of numbers), defaults of a schema (a missing member is null), and coercion: a string column takes
//! strings.

mod bytes;
mod conjunction;
mod decode;
mod explain;
mod names;
mod number;
mod ordered;
mod program;
mod resolve;
mod scan;
mod schema;
mod time;

#[cfg(test)]
mod tests;

pub use program::JsonProgram;
pub use schema::{Encoding, Hints, table_schema, table_schema_with_hints, title};
