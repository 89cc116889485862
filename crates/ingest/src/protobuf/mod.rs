//! Protobuf records: from bytes to columns with no message object in between, and `.proto` texts to table schemas.
//!
//! 1. `schema` compiles a `.proto` text and what it imports (`known` has what every registry knows) and finds
//!    the message that a record is.
//! 2. `table` maps the message to a table schema; the head of that module has the type map. `kind` classifies
//!    fields for it and for the compiler.
//! 3. `compile` matches fields to columns by name and makes a [`ProtobufProgram`], once per schema id and message.
//! 4. `decode` runs the program over each record. Fields come in any order, scalars more than once, sub-messages in
//!    pieces, so it first notes in `scratch` where each field's values lie and then appends them, column by column.
//! 5. `explain` says what a rejected record is about, by the walk of `decode` with notes of where it is.
//!
//! | input | becomes |
//! | --- | --- |
//! | a scalar that comes more than once | the last one |
//! | a sub-message that comes more than once | one message, merged as if its pieces were one |
//! | several members of a oneof | the last one |
//! | a map key that comes more than once | the last value |
//! | repeated scalars, packed or not, whatever the schema says | all, in order |
//! | a field that the schema does not know, or that the table leaves out | passed over |
//! | a known field in another wire type | the record is rejected, `wrong_type` |
//! | an unknown enum number | its digits, as text |
//! | a proto2 required field that is missing | the record is rejected, `missing_field` |
//!
//! Absent on purpose: extensions (they are unknown fields), declared defaults of proto2 (an absent optional field is
//! null), editions (the compiler does not read them yet).

mod compile;
mod cursor;
mod decode;
mod dynamic;
mod explain;
mod kind;
mod known;
mod lookup;
mod program;
mod schema;
mod scratch;
mod table;
mod value;

#[cfg(test)]
mod tests;

pub use program::ProtobufProgram;
pub use schema::{MessagePath, ProtobufFile, ProtobufSchema};
pub use table::table_schema;
