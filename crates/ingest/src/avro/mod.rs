//! Avro records: from bytes to columns with no value in between, and Avro schemas to table schemas.
//!
//! 1. `schema` and `parse` read a writer schema and its references into an arena of types.
//! 2. `table` maps it to a table schema; the head of that module has the type map.
//! 3. `compile` matches writer fields to columns by name and makes an [`AvroProgram`], once per schema id.
//! 4. `decode` runs the program over each record with a `cursor`, straight into the column builders; `skip` passes
//!    over fields that have no column, and finds where a record ends.
//! 5. `explain` says what a rejected record is about, by the walk of `decode` with notes of where it is.
//!
//! Own parser, on purpose: the arena holds no documentation and no default, nothing is logged, a logical type
//! stays with its named type when that is referred to again, and a uuid knows whether it is text or fixed.

mod compile;
mod cursor;
mod decode;
mod explain;
mod parse;
mod program;
mod schema;
mod skip;
mod table;

#[cfg(test)]
mod tests;

pub use program::AvroProgram;
pub use schema::AvroSchema;
pub use table::table_schema;
