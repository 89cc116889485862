//! Columns of a file as columns of a table that can take them.
//!
//! A value that does not fit marks its row, wherever in lists and structs it is; other rows are not touched by it.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, FixedSizeBinaryBuilder, ListArray, MapArray,
        PrimitiveArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array,
    },
    buffer::OffsetBuffer,
    compute::{CastOptions, cast_with_options, filter_record_batch},
    datatypes::{
        DataType, Field as ArrowField, Fields, Int32Type, Int64Type, Schema, SchemaRef,
        Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
        TimestampNanosecondType, TimestampSecondType,
    },
};
use siltstone_protocol::{
    RejectReason,
    path::{ELEMENT, MAP_VALUE, dotted},
};

use super::ImportFault;
use crate::{
    column::retype,
    error::{DataFileError, Result},
};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Rows that hold a value which does not fit.
pub(super) type Bad = BTreeMap<usize, Misfit>;

/// Why a row is left out, and what that is about: names of columns and types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) reason: RejectReason,
    pub(super) column: String,
    pub(super) detail: String,
}

/// A column, from the top.
#[derive(Clone, Copy)]
struct At<'a> {
    outer: Option<&'a At<'a>>,
    field: &'a ArrowField,
    /// Its part of the path; a key of a map has none.
    step: Option<&'a str>,
}

impl At<'_> {
    fn path(&self) -> Vec<&str> {
        let mut path = self.outer.map_or_else(Vec::new, At::path);
        path.extend(self.step);
        path
    }

    #[cold]
    fn misfit(&self, reason: RejectReason) -> Misfit {
        let wanted = type_name(self.field.data_type());
        let detail = match reason {
            RejectReason::MissingField => format!("null where {wanted} is required"),
            RejectReason::OutOfRange => format!("a value that does not fit {wanted}"),
            _ => format!("a value that is no {wanted}"),
        };
        Misfit { reason, column: dotted(&self.path()), detail }
    }
}

/// As columns of tables are called.
fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Boolean => "boolean",
        DataType::Int32 => "int",
        DataType::Int64 => "long",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Decimal128(..) => "decimal",
        DataType::Date32 => "date",
        DataType::Time64(_) => "time",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Utf8 => "string",
        DataType::FixedSizeBinary(16) => "uuid",
        DataType::FixedSizeBinary(_) => "fixed",
        DataType::Struct(_) => "struct",
        DataType::List(_) => "list",
        DataType::Map(..) => "map",
        _ => "binary",
    }
}

/// Whether every column of a file has a place in the table.
pub(super) fn check(given: &Fields, target: &Fields) -> std::result::Result<(), ImportFault> {
    for field in given.iter().filter(|field| field.data_type() != &DataType::Null) {
        let fault = |why: &str| ImportFault { column: field.name().clone(), why: why.to_owned() };
        let (_, column) =
            target.find(field.name()).ok_or_else(|| fault("the table has no such column yet"))?;
        if !fits(field.data_type(), column.data_type()) {
            return Err(fault("its type does not fit the column's type"));
        }
    }
    let known = |column: &&Arc<ArrowField>| column.is_nullable() || given.find(column.name()).is_some();
    match target.iter().find(|column| !known(column)) {
        None => Ok(()),
        Some(column) => Err(ImportFault {
            column: column.name().clone(),
            why: "the column is required and the file does not have it".to_owned(),
        }),
    }
}

fn fits(given: &DataType, target: &DataType) -> bool {
    use DataType as D;
    match (given, target) {
        (D::Struct(given), D::Struct(target)) => check(given, target).is_ok(),
        (D::List(given), D::List(target)) => fits(given.data_type(), target.data_type()),
        (D::Map(given, _), D::Map(target, _)) => match (given.data_type(), target.data_type()) {
            (D::Struct(given), D::Struct(target)) => {
                let pairs = given.iter().zip(target);
                given.len() == target.len()
                    && pairs.into_iter().all(|(a, b)| fits(a.data_type(), b.data_type()))
            }
            _ => false,
        },
        (
            D::Int8 | D::Int16 | D::UInt8 | D::UInt16 | D::Int32,
            D::Int32 | D::Int64 | D::Float32 | D::Float64,
        )
        | (D::UInt32 | D::Int64, D::Int64 | D::Float32 | D::Float64)
        | (D::Float16 | D::Float32, D::Float32 | D::Float64)
        | (D::UInt64, D::Decimal128(..))
        | (D::Decimal128(..) | D::Decimal256(..), D::Decimal128(..))
        | (D::Time32(_) | D::Time64(_), D::Time64(TimeUnit::Microsecond))
        | (D::Timestamp(..), D::Timestamp(TimeUnit::Microsecond, _))
        | (D::Utf8 | D::Binary, D::Utf8 | D::Binary)
        | (D::FixedSizeBinary(_), D::Binary)
        | (D::Utf8 | D::Binary, D::FixedSizeBinary(16)) => true,
        (given, target) => given == target,
    }
}

/// The rows, with those marked that are to be left out.
pub(super) fn batch(given: &RecordBatch, target: &SchemaRef) -> Result<(RecordBatch, Vec<(usize, Misfit)>)> {
    let mut bad = Bad::new();
    let rows = given.num_rows();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let failed = |_| DataFileError::compute("reading columns of a file as the table's");
    let strict = Convert { relaxed: false };
    let of_file = given.schema();
    let source = Source { fields: of_file.fields(), arrays: given.columns(), rows };
    let columns = strict.members(source, target.fields(), None, &mut bad);
    if let (Ok(columns), true) = (columns, bad.is_empty()) {
        let batch = RecordBatch::try_new_with_options(Arc::clone(target), columns, &options);
        return Ok((batch.map_err(failed)?, Vec::new()));
    }
    // Rows without a value that they must have can only be held where it may be absent, until they are left out.
    bad.clear();
    let relaxed = Convert { relaxed: true };
    let columns = relaxed.members(source, target.fields(), None, &mut bad)?;
    let fields = target.fields().iter().zip(&columns);
    let fields = fields.map(|(field, array)| ArrowField::new(field.name(), array.data_type().clone(), true));
    let loose = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batch = RecordBatch::try_new_with_options(loose, columns, &options).map_err(failed)?;
    let kept: arrow::array::BooleanArray = (0..rows).map(|row| Some(!bad.contains_key(&row))).collect();
    let batch = filter_record_batch(&batch, &kept).map_err(failed)?;
    let columns = batch.columns().iter().zip(target.fields()).map(|(array, field)| retype(array, field));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let batch =
        RecordBatch::try_new_with_options(Arc::clone(target), columns.collect::<Result<_>>()?, &options);
    Ok((batch.map_err(failed)?, bad.into_iter().collect()))
}

/// Columns or members as a file has them.
#[derive(Clone, Copy)]
struct Source<'a> {
    fields: &'a Fields,
    arrays: &'a [ArrayRef],
    rows: usize,
}

struct Convert {
    /// Nested fields may be null, whatever the table says.
    relaxed: bool,
}

impl Convert {
    fn members(
        &self,
        source: Source<'_>,
        target: &Fields,
        outer: Option<&At<'_>>,
        bad: &mut Bad,
    ) -> Result<Vec<ArrayRef>> {
        let member = |field: &Arc<ArrowField>| {
            let at = At { outer, field, step: Some(field.name().as_str()) };
            let found = source.fields.find(field.name()).and_then(|(index, _)| source.arrays.get(index));
            match found.filter(|array| array.data_type() != &DataType::Null) {
                Some(array) => self.field(array, &at, bad),
                None => {
                    let nulls = new_null_array(&self.relax(field.data_type()), source.rows);
                    mark_nulls(&nulls, &at, bad);
                    Ok(nulls)
                }
            }
        };
        target.iter().map(member).collect()
    }

    fn field(&self, array: &ArrayRef, at: &At<'_>, bad: &mut Bad) -> Result<ArrayRef> {
        let converted = self.array(array, at, bad)?;
        // A value that could not be converted is null and marked already.
        mark_nulls(&converted, at, bad);
        Ok(converted)
    }

    fn array(&self, array: &ArrayRef, at: &At<'_>, bad: &mut Bad) -> Result<ArrayRef> {
        let failed = |_| DataFileError::compute("reading a nested column of a file as the table's");
        match (array.data_type(), at.field.data_type()) {
            (DataType::Struct(given), DataType::Struct(fields)) => {
                let array = array.as_struct();
                let mut inner = Bad::new();
                let source = Source { fields: given, arrays: array.columns(), rows: array.len() };
                let columns = self.members(source, fields, Some(at), &mut inner)?;
                bad.extend(inner.into_iter().filter(|(row, _)| array.is_valid(*row)));
                let fields = self.relax_fields(fields);
                let nulls = array.nulls().cloned();
                let array = StructArray::try_new_with_length(fields, columns, nulls, array.len());
                Ok(Arc::new(array.map_err(failed)?))
            }
            (DataType::List(_), DataType::List(element)) => {
                let array = array.as_list::<i32>();
                let mut inner = Bad::new();
                let inside = At { outer: Some(at), field: element, step: Some(ELEMENT) };
                let values = self.field(array.values(), &inside, &mut inner)?;
                outward(inner, array.offsets(), |row| array.is_valid(row), bad);
                let (offsets, nulls) = (array.offsets().clone(), array.nulls().cloned());
                let list = ListArray::try_new(self.relax_field(element), offsets, values, nulls);
                Ok(Arc::new(list.map_err(failed)?))
            }
            (DataType::Map(..), DataType::Map(entries, sorted)) => {
                let map = array.as_map();
                let DataType::Struct(pair) = entries.data_type() else {
                    return Err(DataFileError::compute("reading a map"));
                };
                // Writers name key and value as they like: they are known by their places.
                let mut inner = Bad::new();
                let steps = [None, Some(MAP_VALUE)];
                let columns = [map.keys(), map.values()].into_iter().zip(pair).zip(steps);
                let columns = columns.map(|((array, field), step)| {
                    self.field(array, &At { outer: Some(at), field, step }, &mut inner)
                });
                let columns = columns.collect::<Result<Vec<_>>>()?;
                outward(inner, map.offsets(), |row| map.is_valid(row), bad);
                let entries = self.relax_entries(entries, pair);
                let DataType::Struct(pair) = entries.data_type().clone() else {
                    return Err(DataFileError::compute("reading a map"));
                };
                let pairs = StructArray::try_new(pair, columns, None).map_err(failed)?;
                let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
                let map = MapArray::try_new(entries, offsets, pairs, nulls, *sorted);
                Ok(Arc::new(map.map_err(failed)?))
            }
            _ => leaf(array, at, bad),
        }
    }

    fn relax(&self, data_type: &DataType) -> DataType {
        match data_type {
            DataType::Struct(fields) => DataType::Struct(self.relax_fields(fields)),
            DataType::List(element) => DataType::List(self.relax_field(element)),
            DataType::Map(entries, sorted) => match entries.data_type() {
                DataType::Struct(pair) => DataType::Map(self.relax_entries(entries, pair), *sorted),
                _ => data_type.clone(),
            },
            other => other.clone(),
        }
    }

    fn relax_fields(&self, fields: &Fields) -> Fields {
        if self.relaxed {
            fields.iter().map(|field| self.relax_field(field)).collect()
        } else {
            fields.clone()
        }
    }

    fn relax_field(&self, field: &Arc<ArrowField>) -> Arc<ArrowField> {
        if !self.relaxed {
            return Arc::clone(field);
        }
        let data_type = self.relax(field.data_type());
        Arc::new(ArrowField::clone(field).with_nullable(true).with_data_type(data_type))
    }

    /// Keys are never null, in no file.
    fn relax_entries(&self, entries: &Arc<ArrowField>, pair: &Fields) -> Arc<ArrowField> {
        if !self.relaxed {
            return Arc::clone(entries);
        }
        let field = |(index, field): (usize, &Arc<ArrowField>)| match index {
            0 => Arc::clone(field),
            _ => self.relax_field(field),
        };
        let pair: Fields = pair.iter().enumerate().map(field).collect();
        Arc::new(ArrowField::clone(entries).with_data_type(DataType::Struct(pair)))
    }
}

/// Marks rows without a value that they must have.
fn mark_nulls(array: &ArrayRef, at: &At<'_>, bad: &mut Bad) {
    if at.field.is_nullable() || array.null_count() == 0 {
        return;
    }
    for row in (0..array.len()).filter(|row| array.is_null(*row)) {
        bad.entry(row).or_insert_with(|| at.misfit(RejectReason::MissingField));
    }
}

/// From elements that do not fit to the rows that hold them.
fn outward(inner: Bad, offsets: &OffsetBuffer<i32>, is_valid: impl Fn(usize) -> bool, bad: &mut Bad) {
    for (element, misfit) in inner {
        let after = offsets.partition_point(|offset| usize::try_from(*offset).is_ok_and(|at| at <= element));
        if let Some(row) = after.checked_sub(1).filter(|row| *row + 1 < offsets.len() && is_valid(*row)) {
            bad.entry(row).or_insert(misfit);
        }
    }
}

fn leaf(array: &ArrayRef, at: &At<'_>, bad: &mut Bad) -> Result<ArrayRef> {
    use DataType as D;
    let target = at.field.data_type();
    let reason = match (array.data_type(), target) {
        (given @ D::Time64(TimeUnit::Microsecond), target) if given == target => {
            return Ok(times(Arc::clone(array), at, bad));
        }
        (given, target) if given == target => return Ok(Arc::clone(array)),
        (D::Timestamp(unit, _), D::Timestamp(_, zone)) => {
            let micros = micros(array, *unit, at, bad)?;
            return Ok(Arc::new(micros.with_timezone_opt(zone.clone())));
        }
        (D::Utf8, D::FixedSizeBinary(16)) => return uuids(array, at, bad),
        (D::Int32, D::Float32) => {
            inexact::<Int32Type>(array, |value| f64::from(value as f32) == f64::from(value), at, bad);
            RejectReason::OutOfRange
        }
        (D::UInt32 | D::Int64, D::Float32) => {
            let long = checked_cast(array, &D::Int64, RejectReason::OutOfRange, at, bad)?;
            inexact::<Int64Type>(&long, |value| (value as f32) as i128 == i128::from(value), at, bad);
            RejectReason::OutOfRange
        }
        (D::Int64, D::Float64) => {
            inexact::<Int64Type>(array, |value| (value as f64) as i128 == i128::from(value), at, bad);
            RejectReason::OutOfRange
        }
        (D::Binary, D::Utf8) => RejectReason::InvalidUtf8,
        (D::Binary, D::FixedSizeBinary(_)) => RejectReason::BadLength,
        (D::Time32(_) | D::Time64(_), D::Time64(_)) => {
            let cast = checked_cast(array, target, RejectReason::OutOfRange, at, bad)?;
            return Ok(times(cast, at, bad));
        }
        _ => RejectReason::OutOfRange,
    };
    checked_cast(array, target, reason, at, bad)
}

/// Arrow's cast; what has no form in the target is marked.
fn checked_cast(
    array: &ArrayRef,
    target: &DataType,
    reason: RejectReason,
    at: &At<'_>,
    bad: &mut Bad,
) -> Result<ArrayRef> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let cast = cast_with_options(array, target, &options);
    let cast = cast.map_err(|_| DataFileError::compute("widening a column of a file"))?;
    if cast.null_count() > array.null_count() {
        for row in (0..array.len()).filter(|row| array.is_valid(*row) && cast.is_null(*row)) {
            bad.insert(row, at.misfit(reason));
        }
    }
    Ok(cast)
}

/// Marks numbers that are not the same as floats.
fn inexact<T: ArrowPrimitiveType>(
    array: &ArrayRef,
    exact: impl Fn(T::Native) -> bool,
    at: &At<'_>,
    bad: &mut Bad,
) {
    let numbers = array.as_primitive::<T>();
    for (row, value) in numbers.iter().enumerate() {
        if value.is_some_and(|value| !exact(value)) {
            bad.insert(row, at.misfit(RejectReason::OutOfRange));
        }
    }
}

/// Marks what is no time of day.
fn times(array: ArrayRef, at: &At<'_>, bad: &mut Bad) -> ArrayRef {
    for (row, value) in array.as_primitive::<Time64MicrosecondType>().iter().enumerate() {
        if value.is_some_and(|value| !(0..MICROS_PER_DAY).contains(&value)) {
            bad.insert(row, at.misfit(RejectReason::OutOfRange));
        }
    }
    array
}

fn micros(
    array: &ArrayRef,
    unit: TimeUnit,
    at: &At<'_>,
    bad: &mut Bad,
) -> Result<PrimitiveArray<TimestampMicrosecondType>> {
    Ok(match unit {
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().clone(),
        TimeUnit::Nanosecond => {
            array.as_primitive::<TimestampNanosecondType>().unary(|value| value.div_euclid(1000))
        }
        TimeUnit::Millisecond => scaled::<TimestampMillisecondType>(array, 1000, at, bad),
        TimeUnit::Second => scaled::<TimestampSecondType>(array, 1_000_000, at, bad),
    })
}

fn scaled<T: ArrowPrimitiveType<Native = i64>>(
    array: &ArrayRef,
    factor: i64,
    at: &At<'_>,
    bad: &mut Bad,
) -> PrimitiveArray<TimestampMicrosecondType> {
    let given = array.as_primitive::<T>();
    let scaled = given.unary_opt(|value| value.checked_mul(factor));
    if scaled.null_count() > given.null_count() {
        for row in (0..given.len()).filter(|row| given.is_valid(*row) && scaled.is_null(*row)) {
            bad.insert(row, at.misfit(RejectReason::OutOfRange));
        }
    }
    scaled
}

/// `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, or the 32 digits alone, in either case.
fn uuids(array: &ArrayRef, at: &At<'_>, bad: &mut Bad) -> Result<ArrayRef> {
    let failed = |_| DataFileError::compute("reading uuids");
    let texts = array.as_string::<i32>();
    let mut bytes = FixedSizeBinaryBuilder::with_capacity(texts.len(), 16);
    for (row, text) in texts.iter().enumerate() {
        let plain = |text: &&str| matches!(text.len(), 32 | 36);
        match text.map(|text| Some(text).filter(plain).and_then(|text| uuid::Uuid::try_parse(text).ok())) {
            None => bytes.append_null(),
            Some(Some(uuid)) => bytes.append_value(uuid.as_bytes()).map_err(failed)?,
            Some(None) => {
                bad.insert(row, at.misfit(RejectReason::BadLength));
                bytes.append_null();
            }
        }
    }
    Ok(Arc::new(bytes.finish()))
}
