//! Builders of nested columns: a validity, offsets where lengths vary, and child columns.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, ListArray, MapArray, StructArray},
    buffer::{OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Fields},
};
use siltstone_protocol::RejectReason;

use super::{column::Column, leaf::broken, validity::Validity};
use crate::IngestError;

/// A struct: write one value to every member, then [`Struct::end`].
pub struct Struct {
    members: Vec<Column>,
    len: usize,
    validity: Validity,
}

impl Struct {
    pub(super) fn new(members: Vec<Column>) -> Self {
        Self { members, len: 0, validity: Validity::default() }
    }

    /// The members, in the order of the schema.
    #[inline]
    pub fn members(&mut self) -> &mut [Column] {
        &mut self.members
    }

    /// The struct value is complete.
    #[inline]
    pub fn end(&mut self) {
        self.len += 1;
        self.validity.push_valid();
    }

    /// A null struct: null in every member as well.
    pub fn push_null(&mut self) {
        for member in &mut self.members {
            member.append_null();
        }
        self.validity.push_null(self.len);
        self.len += 1;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn truncate(&mut self, len: usize) {
        // Members may be one value ahead of an unfinished struct.
        self.members.iter_mut().for_each(|member| member.truncate(len));
        self.len = self.len.min(len);
        self.validity.truncate(len);
    }

    pub(super) fn bytes(&self) -> usize {
        self.members.iter().map(Column::bytes).sum::<usize>() + self.validity.bytes()
    }

    pub(super) fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef, IngestError> {
        let DataType::Struct(fields) = data_type else { return Err(broken("a struct type")) };
        let members = finish_all(&mut self.members, fields)?;
        self.len = 0;
        let array = StructArray::try_new(fields.clone(), members, self.validity.take());
        Ok(Arc::new(array.map_err(|_| broken("a null in a required struct member"))?))
    }
}

pub(super) fn finish_all(columns: &mut [Column], fields: &Fields) -> Result<Vec<ArrayRef>, IngestError> {
    columns.iter_mut().zip(fields).map(|(column, field)| column.finish(field.data_type())).collect()
}

/// Where the values of each list or map end.
struct Ends {
    /// One more than there are values; begins with 0.
    offsets: Vec<i32>,
    validity: Validity,
}

impl Default for Ends {
    fn default() -> Self {
        Self { offsets: vec![0], validity: Validity::default() }
    }
}

impl Ends {
    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    fn last(&self) -> usize {
        self.offsets.last().map_or(0, |end| *end as usize)
    }

    #[inline]
    fn end(&mut self, items: usize) -> Result<(), RejectReason> {
        self.offsets.push(i32::try_from(items).map_err(|_| RejectReason::TooLarge)?);
        self.validity.push_valid();
        Ok(())
    }

    fn push_null(&mut self) {
        self.validity.push_null(self.len());
        self.offsets.push(self.offsets.last().copied().unwrap_or(0));
    }

    fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        self.validity.truncate(len);
    }

    fn bytes(&self) -> usize {
        size_of_val(self.offsets.as_slice()) + self.validity.bytes()
    }

    fn take(&mut self) -> OffsetBuffer<i32> {
        let hint = self.offsets.len();
        let offsets = std::mem::replace(&mut self.offsets, Vec::with_capacity(hint));
        self.offsets.push(0);
        OffsetBuffer::new(ScalarBuffer::from(offsets))
    }
}

/// A list: append items to [`List::items`], then [`List::end`].
pub struct List {
    items: Box<Column>,
    ends: Ends,
}

impl List {
    pub(super) fn new(items: Column) -> Self {
        Self { items: Box::new(items), ends: Ends::default() }
    }

    #[inline]
    pub fn items(&mut self) -> &mut Column {
        &mut self.items
    }

    /// The list is complete: every item appended since the last end belongs to it.
    #[inline]
    pub fn end(&mut self) -> Result<(), RejectReason> {
        self.ends.end(self.items.len())
    }

    pub fn push_null(&mut self) {
        self.ends.push_null();
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.items.truncate(self.ends.last());
    }

    pub(super) fn bytes(&self) -> usize {
        self.items.bytes() + self.ends.bytes()
    }

    pub(super) fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef, IngestError> {
        let DataType::List(element) = data_type else { return Err(broken("a list type")) };
        let items = self.items.finish(element.data_type())?;
        let array = ListArray::try_new(element.clone(), self.ends.take(), items, self.ends.validity.take());
        Ok(Arc::new(array.map_err(|_| broken("a null in a list of required elements"))?))
    }
}

/// A map: append as many keys as values, then [`Map::end`]. Repeated keys are kept as they come.
pub struct Map {
    keys: Box<Column>,
    values: Box<Column>,
    ends: Ends,
}

impl Map {
    pub(super) fn new(keys: Column, values: Column) -> Self {
        Self { keys: Box::new(keys), values: Box::new(values), ends: Ends::default() }
    }

    #[inline]
    pub fn keys(&mut self) -> &mut Column {
        &mut self.keys
    }

    #[inline]
    pub fn values(&mut self) -> &mut Column {
        &mut self.values
    }

    /// The map is complete: every key and value appended since the last end belongs to it.
    #[inline]
    pub fn end(&mut self) -> Result<(), RejectReason> {
        debug_assert_eq!(self.keys.len(), self.values.len(), "every key has a value");
        self.ends.end(self.keys.len())
    }

    pub fn push_null(&mut self) {
        self.ends.push_null();
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.keys.truncate(self.ends.last());
        self.values.truncate(self.ends.last());
    }

    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes() + self.ends.bytes()
    }

    pub(super) fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef, IngestError> {
        let DataType::Map(entries, _) = data_type else { return Err(broken("a map type")) };
        let DataType::Struct(members) = entries.data_type() else { return Err(broken("a map type")) };
        let [key, value] = &members[..] else { return Err(broken("a map type")) };
        let columns = vec![self.keys.finish(key.data_type())?, self.values.finish(value.data_type())?];
        let entries_array = StructArray::try_new(members.clone(), columns, None)
            .map_err(|_| broken("a null among required map values"))?;
        let validity = self.ends.validity.take();
        let array = MapArray::try_new(entries.clone(), self.ends.take(), entries_array, validity, false);
        Ok(Arc::new(array.map_err(|_| broken("a map"))?))
    }
}
