//! What a worker drives, one per table: records in, a batch of the table's columns out.
//!
//! 1. `wire` takes the framing off and finds the schema id; Protobuf adds which message of the schema it is.
//! 2. `programs` finds the compiled program of that id; if there is none, [`Decoder::push`] asks for it.
//! 3. `learn` answers: it gets the schema, and says with `siltstone_spec::evolve` whether the table must grow first.
//! 4. `staged` does the same for a table with transforms, whose records have columns of their own; `looked` says what
//!    the transforms make of those.
//! 5. `of_files` has records of files take the same way, and columns of files the same transforms.
//! 6. The program writes a row; `kafka` adds the record's coordinates, and `event_type` the name of its type, when the
//!    spec asks for them.
//!
//! Absent on purpose: waiting, retrying, clocks, and any decision on where a rejected record goes.

mod batch;
mod engine;
mod event_type;
mod incoming;
mod kafka;
mod learn;
mod looked;
mod of_files;
mod programs;
mod staged;
pub mod wire;

#[cfg(test)]
mod tests;

pub use engine::{Decoder, Finished, Pushed, SchemaNeed};
pub use kafka::KAFKA_COLUMN;
pub(crate) use kafka::{headers_type, push_headers};
pub use learn::{Learned, Wanted, check_transforms, initial_schema, wanted_schema, with_own_columns};
pub use of_files::{ColumnStage, ColumnsLearned, FileTable};
