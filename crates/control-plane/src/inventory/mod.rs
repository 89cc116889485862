//! What workers reported of tables, applied to the database: idempotent, in order, gaps refused.
//!
//! 1. An entry at or below the version that is held changes nothing; the next one is applied; one beyond that is a gap,
//!    which the answer says, so that the worker sends what lies between, or an image of the whole table.
//! 2. The table's sums (rows, files, bytes) move by what an entry adds and removes: its cost does not grow with the
//!    table.
//! 3. `writer` applies many messages in one transaction, and answers when it is durable.

mod apply;
mod delta;
mod image;
mod limits;
mod sample;
mod writer;

pub use apply::Disclosed;
pub(crate) use apply::{FileDetail, TableDetail};
pub use limits::check;
pub use sample::sample;
pub use writer::{Incoming, ReportWriter, Source};
