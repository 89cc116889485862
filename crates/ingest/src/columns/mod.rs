//! Column builders from which a bad record can be taken back exactly.
//!
//! 1. A decoder writes one row: exactly one value (or null) to every top-level column, in any order.
//! 2. It calls [`Columns::end_row`]; or, on a bad record, [`Columns::rollback`] to the mark it took before.
//! 3. After some thousands of rows, [`Columns::finish`] turns the vectors into an Arrow batch, no copy made.
//!
//! Every column's length follows from the row count, so a mark is a number and a rollback is a truncation: no
//! cost per good row. Absent on purpose: any type with a `Debug` that shows a value, and any check of
//! `required` (the compiled decoders know what may be absent; `finish` is the backstop).

mod arrow_type;
mod batch;
mod column;
mod debug;
mod leaf;
mod nested;
mod validity;

#[cfg(test)]
mod tests;

pub use arrow_type::{FIELD_ID_KEY, arrow_field, arrow_schema};
pub use batch::{Columns, Mark};
pub use column::Column;
pub use leaf::{Binary, Bits, DecimalValues, FixedBytes, Utf8, Values};
pub use nested::{List, Map, Struct};
