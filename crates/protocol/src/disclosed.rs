//! Values that cross only because the user's spec names them: bounds of columns, and partition values.
//!
//! A [`FileStatistics`] has private fields, and its only maker is a [`Disclosure`], which is made from the `disclose`
//! list of a spec that lies with the user. The default discloses nothing, and no message of the control plane makes
//! one.
//!
//! ```compile_fail
//! use siltstone_protocol::disclosed::{FileStatistics, Value};
//! let statistics = FileStatistics { path: "data/a.parquet".into(), bounds: vec![], partition: vec![] };
//! ```

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Characters of a text, or bytes of a binary value, that cross at most. Longer bounds do not cross at all.
pub const VALUE_LENGTH_MAX: usize = 64;

/// What one table's spec discloses beyond the fixed list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disclosure {
    columns: Vec<String>,
    partition_values: bool,
}

impl Disclosure {
    /// From the `disclose` list of a table spec, and from nothing else.
    pub fn of_spec(bounds: &[String], partition_values: bool) -> Self {
        Self { columns: bounds.to_vec(), partition_values }
    }

    /// True when nothing is opted in.
    pub fn is_nothing(&self) -> bool {
        self.columns.is_empty() && !self.partition_values
    }

    /// Columns whose bounds may cross, dotted inside structs.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    pub fn partition_values(&self) -> bool {
        self.partition_values
    }

    /// What may cross of one file. `bounds` are `(column, least, greatest)`, `partition` are `(partition field,
    /// value)`; what the spec does not name is dropped here. `None`: nothing is left.
    pub fn statistics<'a>(
        &self,
        path: &str,
        bounds: impl Iterator<Item = (&'a str, Value, Value)>,
        partition: impl Iterator<Item = (&'a str, Option<Value>)>,
    ) -> Option<FileStatistics> {
        let bounds = bounds.filter(|(column, least, greatest)| {
            self.columns.iter().any(|named| named == column) && least.fits() && greatest.fits()
        });
        let bounds: Vec<_> = bounds
            .map(|(column, least, greatest)| Bounds { column: column.to_owned(), least, greatest })
            .collect();
        let partition: Vec<_> = if self.partition_values {
            let values = partition.filter(|(_, value)| value.as_ref().is_none_or(Value::fits));
            values.map(|(field, value)| PartitionValue { field: field.to_owned(), value }).collect()
        } else {
            Vec::new()
        };
        let is_nothing = bounds.is_empty() && partition.is_empty();
        (!is_nothing).then(|| FileStatistics { path: path.to_owned(), bounds, partition })
    }
}

/// What the spec opted into of one data file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileStatistics {
    /// Path of the data file below the table's location.
    path: String,
    /// Least and greatest values of the columns that `disclose.bounds` names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-siltstone-opt-in" = "disclose.bounds"))]
    bounds: Vec<Bounds>,
    /// Values of the file's partition, when `disclose.partition_values` is true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-siltstone-opt-in" = "disclose.partition_values"))]
    partition: Vec<PartitionValue>,
}

impl FileStatistics {
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn bounds(&self) -> &[Bounds] {
        &self.bounds
    }

    pub fn partition(&self) -> &[PartitionValue] {
        &self.partition
    }
}

/// The least and the greatest value of one column in one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Column name, dotted inside structs.
    column: String,
    /// No value of the column in the file is less. Texts and bytes are cut to 16 characters or bytes.
    least: Value,
    /// No value of the column in the file is greater. Texts and bytes are cut to 16 characters or bytes, and rounded
    /// up.
    greatest: Value,
}

impl Bounds {
    pub fn column(&self) -> &str {
        &self.column
    }

    pub fn least(&self) -> &Value {
        &self.least
    }

    pub fn greatest(&self) -> &Value {
        &self.greatest
    }
}

/// One value of a file's partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitionValue {
    /// Name of the partition field.
    field: String,
    /// `None`: the null partition.
    value: Option<Value>,
}

impl PartitionValue {
    pub fn field(&self) -> &str {
        &self.field
    }

    pub fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }
}

/// A typed value. Times are as Iceberg's single-value form has them: days, or microseconds, since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// True or false.
    Boolean(bool),
    /// 32 bits.
    Int(i32),
    /// 64 bits.
    Long(i64),
    /// 32 bits, finite.
    Float(f32),
    /// 64 bits, finite.
    Double(f64),
    /// Decimal digits with a point, as text.
    Decimal(String),
    /// Days since 1970.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970, without a zone.
    Timestamp(i64),
    /// Microseconds since 1970 UTC.
    Timestamptz(i64),
    /// Text.
    String(String),
    /// In groups of 8, 4, 4, 4 and 12 hexadecimal digits.
    Uuid(String),
    /// Hexadecimal.
    Binary(String),
}

impl Value {
    fn fits(&self) -> bool {
        match self {
            Self::String(text) => text.chars().count() <= VALUE_LENGTH_MAX,
            Self::Binary(hex) => hex.len() <= 2 * VALUE_LENGTH_MAX,
            Self::Decimal(digits) | Self::Uuid(digits) => digits.len() <= VALUE_LENGTH_MAX,
            Self::Float(number) => number.is_finite(),
            Self::Double(number) => number.is_finite(),
            _ => true,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of_a_file(disclosure: &Disclosure) -> Option<FileStatistics> {
        let text = |text: &str| Value::String(text.to_owned());
        let bounds = [("email", text("a"), text("z")), ("at", Value::Date(1), Value::Date(2))];
        let partition = [("at_day", Some(Value::Date(1)))];
        disclosure.statistics("data/a.parquet", bounds.into_iter(), partition.into_iter())
    }

    #[test]
    fn nothing_crosses_that_the_spec_does_not_name() {
        assert_eq!(of_a_file(&Disclosure::default()), None);
        let some = of_a_file(&Disclosure::of_spec(&["at".to_owned()], false)).unwrap();
        assert_eq!(some.bounds().iter().map(Bounds::column).collect::<Vec<_>>(), ["at"]);
        assert!(some.partition().is_empty());
        let some = of_a_file(&Disclosure::of_spec(&[], true)).unwrap();
        assert!(some.bounds().is_empty());
        assert_eq!(some.partition().len(), 1);
    }

    #[test]
    fn long_values_do_not_cross() {
        let long = Value::String("x".repeat(VALUE_LENGTH_MAX + 1));
        let bounds = [("a", Value::String(String::new()), long)];
        let disclosure = Disclosure::of_spec(&["a".to_owned()], false);
        assert_eq!(disclosure.statistics("data/a.parquet", bounds.into_iter(), [].into_iter()), None);
    }
}
