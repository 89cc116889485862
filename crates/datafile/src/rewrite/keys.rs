//! The keys that a rewrite sorts by: of a batch as arrays, of a row or of a row group's bounds as bytes.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::DataType;
use siltstone_protocol::{NullOrder, PartitionSpec, Schema, SortDirection, SortOrder, Transform};

use super::curve::Curve;
use crate::{
    column::{SourceColumn, source_array, source_column},
    error::Result,
    sort_key::{null_byte, push},
    transform::{result_type, transform},
};

/// By what rows are ordered.
pub(super) enum Keys {
    /// A sort order's fields.
    Order(Vec<KeyColumn>),
    /// So many partition fields, then a sort order's.
    Partitioned(Vec<KeyColumn>, usize),
    /// Places along a curve.
    Curve(Curve),
}

pub(super) struct KeyColumn {
    pub(super) source: SourceColumn,
    pub(super) transform: Transform,
    pub(super) descending: bool,
    pub(super) nulls_last: bool,
}

impl KeyColumn {
    pub(super) fn of(schema: &Schema, order: &SortOrder) -> Result<Vec<Self>> {
        let column = |field: &siltstone_protocol::SortField| {
            let source = source_column(schema, field.source_id)?;
            result_type(field.transform, source.primitive)?;
            Ok(Self {
                source,
                transform: field.transform,
                descending: field.direction == SortDirection::Desc,
                nulls_last: field.null_order == NullOrder::NullsLast,
            })
        };
        order.fields.iter().map(column).collect()
    }

    /// A spec's fields, in the order of partitions.
    fn of_partitions(schema: &Schema, spec: &PartitionSpec) -> Result<Vec<Self>> {
        let column = |field: &siltstone_protocol::PartitionField| {
            let source = source_column(schema, field.source_id)?;
            result_type(field.transform, source.primitive)?;
            Ok(Self { source, transform: field.transform, descending: false, nulls_last: false })
        };
        spec.fields.iter().map(column).collect()
    }
}

impl Keys {
    /// By partition, then by sort order.
    pub(super) fn partitioned(schema: &Schema, spec: &PartitionSpec, order: &SortOrder) -> Result<Self> {
        let mut columns = KeyColumn::of_partitions(schema, spec)?;
        let fields = columns.len();
        columns.append(&mut KeyColumn::of(schema, order)?);
        Ok(Self::Partitioned(columns, fields))
    }

    /// How many of the keys, from the first, divide the rows into partitions.
    pub(super) fn partition_keys(&self) -> usize {
        match self {
            Self::Partitioned(_, fields) => *fields,
            Self::Order(_) | Self::Curve(_) => 0,
        }
    }

    /// Key columns of a batch.
    pub(super) fn arrays(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        match self {
            Self::Order(columns) | Self::Partitioned(columns, _) => {
                let array =
                    |column: &KeyColumn| transform(column.transform, &source_array(batch, &column.source)?);
                columns.iter().map(array).collect()
            }
            Self::Curve(curve) => Ok(vec![curve.places(batch)?]),
        }
    }

    /// Of each key: descending, nulls last.
    pub(super) fn directions(&self) -> Vec<(bool, bool)> {
        match self {
            Self::Order(columns) | Self::Partitioned(columns, _) => {
                columns.iter().map(|column| (column.descending, column.nulls_last)).collect()
            }
            Self::Curve(_) => vec![(false, false)],
        }
    }

    /// The key of one row as bytes; what was in `out` is replaced.
    pub(super) fn write(&self, out: &mut Vec<u8>, arrays: &[ArrayRef], row: usize) -> Result<()> {
        out.clear();
        for (array, (descending, nulls_last)) in arrays.iter().zip(self.directions()) {
            push(out, array.as_ref(), row, descending, nulls_last)?;
        }
        Ok(())
    }
}

/// Statistics of one key column in one row group: one-element arrays of the key's own type, transformed.
pub(super) struct KeyStats {
    pub(super) min: Option<ArrayRef>,
    pub(super) max: Option<ArrayRef>,
    pub(super) nulls: Option<u64>,
    pub(super) rows: u64,
}

/// A lower and an upper key.
pub(super) type Between = (Vec<u8>, Vec<u8>);

/// Above every key that goes on here.
const ABOVE: u8 = 0xff;

/// Keys between which all rows of a row group lie, from its columns' statistics.
pub(super) fn bounds(columns: &[KeyColumn], stats: &[KeyStats]) -> Result<Between> {
    let mut lower = Vec::new();
    let mut upper = Vec::new();
    let (mut lower_open, mut upper_open) = (true, true);
    for (column, stats) in columns.iter().zip(stats) {
        let all_null = stats.nulls == Some(stats.rows);
        let null_byte = null_byte(column.nulls_last);
        if all_null {
            lower.extend(lower_open.then_some(null_byte));
            upper.extend(upper_open.then_some(null_byte));
            continue;
        }
        let may_be_null = stats.nulls != Some(0);
        let nan_last = matches!(
            stats.min.as_ref().map(|array| array.data_type()),
            Some(DataType::Float32 | DataType::Float64)
        );
        let (least, greatest) =
            if column.descending { (&stats.max, &stats.min) } else { (&stats.min, &stats.max) };
        // NaN is in no statistic and sorts above every number.
        let least = least.as_ref().filter(|_| !(nan_last && column.descending));
        let greatest = greatest.as_ref().filter(|_| !nan_last || column.descending);
        if lower_open {
            match least {
                _ if may_be_null && !column.nulls_last => {
                    lower.push(null_byte);
                    lower_open = false;
                }
                Some(least) => push(&mut lower, least.as_ref(), 0, column.descending, column.nulls_last)?,
                None => lower_open = false,
            }
        }
        if upper_open {
            match greatest {
                _ if may_be_null && column.nulls_last => {
                    upper.extend([null_byte, ABOVE]);
                    upper_open = false;
                }
                Some(greatest) => {
                    push(&mut upper, greatest.as_ref(), 0, column.descending, column.nulls_last)?;
                }
                None => {
                    upper.push(ABOVE);
                    upper_open = false;
                }
            }
        }
    }
    Ok((lower, upper))
}
