//! One record into one row.

use std::{cell::Cell, sync::atomic::Ordering};

use siltstone_protocol::RejectReason;
use siltstone_spec::model::ExtraFields;

use super::{
    bytes,
    explain::Trail,
    number::Number,
    program::{Item, JsonProgram, Members, Plan},
    scan::{Cursor, Text, deeper},
    time,
};
use crate::columns::{Column, Columns, List, Map, Utf8};

/// Columns that were not made from the program's schema. A bug of the caller; no record can cause it.
const FOREIGN: RejectReason = RejectReason::IncompatibleSchema;
const MILLIS_PER_DAY: i64 = 86_400_000;
const MICROS_PER_MILLI: i64 = 1000;

impl JsonProgram {
    /// Appends the record as one row. On a reject the columns are as they were.
    pub fn decode(&self, columns: &mut Columns, body: &[u8]) -> Result<(), RejectReason> {
        let mark = columns.mark();
        let row = self.row(columns, body, &mut Trail::default());
        match row {
            Ok(()) => columns.end_row(),
            Err(_) => columns.rollback(mark),
        }
        row
    }

    /// `trail`: gets where a fault is.
    pub(super) fn row(
        &self,
        columns: &mut Columns,
        body: &[u8],
        trail: &mut Trail,
    ) -> Result<(), RejectReason> {
        let base = columns.rows();
        let columns = columns.columns();
        if columns.len() != self.members.members.len() {
            return Err(FOREIGN);
        }
        let mut walk = Walk { cursor: Cursor::new(body)?, extra: self.extra, trail };
        let first = walk.cursor.peek()?;
        match self.bare {
            Some(bare) if first != b'{' || self.bare_objects => {
                let (Some(member), Some(column)) = (self.members.members.get(bare), columns.get_mut(bare))
                else {
                    return Err(FOREIGN);
                };
                let place = walk.cursor.place();
                walk.item(&member.item, column, 0).map_err(|reason| walk.fault(bare, place, reason))?;
                walk.fill(&self.members, columns, base)?;
            }
            _ if first == b'{' => walk.object(&self.members, columns, base, 1)?,
            _ => return Err(unfit(first)),
        }
        walk.cursor.end()
    }
}

/// Why a value that begins with this byte does not fit.
#[cold]
fn unfit(first: u8) -> RejectReason {
    match first {
        b'"' | b'{' | b'[' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9' => RejectReason::WrongType,
        _ => RejectReason::Malformed,
    }
}

#[inline]
fn absent(item: &Item, column: &mut Column) -> Result<(), RejectReason> {
    if item.required {
        return Err(RejectReason::MissingField);
    }
    column.append_null();
    Ok(())
}

struct Walk<'a, 't> {
    cursor: Cursor<'a>,
    extra: ExtraFields,
    trail: &'t mut Trail,
}

impl Walk<'_, '_> {
    /// Notes a fault in this member, whose value begins at this place.
    #[cold]
    fn fault(&mut self, member: usize, place: usize, reason: RejectReason) -> RejectReason {
        self.trail.note(member, self.cursor.token_at(place));
        reason
    }

    /// Null in every column that has no value yet.
    fn fill(&mut self, members: &Members, columns: &mut [Column], base: usize) -> Result<(), RejectReason> {
        for (index, (member, column)) in members.members.iter().zip(columns).enumerate() {
            if column.len() == base {
                absent(&member.item, column).inspect_err(|_| self.trail.note(index, None))?;
            }
        }
        Ok(())
    }

    /// An object, of which the brace is next, into columns that had `base` values before.
    fn object(
        &mut self,
        members: &Members,
        columns: &mut [Column],
        base: usize,
        depth: usize,
    ) -> Result<(), RejectReason> {
        self.cursor.advance();
        let (mut last, mut filled, mut reached) = (0, 0, 0);
        let mut more = !self.cursor.is_empty(b'}')?;
        while more {
            if let Some(index) = self.key(members, last)? {
                self.cursor.expect(b':')?;
                let (Some(member), Some(column)) = (members.members.get(index), columns.get_mut(index))
                else {
                    return Err(FOREIGN);
                };
                // Beyond all that was read nothing can have a value; before it only the length tells.
                if index < reached && column.len() != base {
                    return Err(RejectReason::Malformed);
                }
                let place = self.cursor.place();
                self.item(&member.item, column, depth).map_err(|reason| self.fault(index, place, reason))?;
                filled += 1;
                last = index + 1;
                reached = reached.max(last);
            } else {
                if self.extra == ExtraFields::Reject {
                    return Err(RejectReason::UnknownField);
                }
                self.cursor.expect(b':')?;
                self.cursor.skip(depth)?;
            }
            more = self.cursor.another(b'}')?;
        }
        if filled < columns.len() { self.fill(members, columns, base) } else { Ok(()) }
    }

    /// The member whose name is next, `None` for an unknown one.
    #[inline]
    fn key(&mut self, members: &Members, last: usize) -> Result<Option<usize>, RejectReason> {
        self.cursor.peek()?;
        let guess = members.follows.get(last).map_or(0, |follows| follows.load(Ordering::Relaxed) as usize);
        match members.members.get(guess) {
            Some(member) if self.cursor.take(&member.quoted) => Ok(Some(guess)),
            _ => self.look_up(members, last),
        }
    }

    fn look_up(&mut self, members: &Members, last: usize) -> Result<Option<usize>, RejectReason> {
        let name = self.cursor.string()?;
        let found = with_text(name, |name| Ok(members.names.get(name)))?;
        if let (Some(index), Some(follows)) = (found, members.follows.get(last)) {
            follows.store(u32::try_from(index).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
        Ok(found)
    }

    #[inline]
    fn item(&mut self, item: &Item, column: &mut Column, depth: usize) -> Result<(), RejectReason> {
        let first = self.cursor.peek()?;
        if first == b'n' {
            self.cursor.literal(b"null")?;
            return absent(item, column);
        }
        match (&item.plan, column) {
            (Plan::String, Column::Utf8(values)) => {
                let text = self.text(first)?;
                with_text(text, |text| values.push_str(text))
            }
            (Plan::Long, Column::Int64(values)) => {
                values.push(self.whole(first)?);
                Ok(())
            }
            (Plan::Double, Column::Float64(values)) => {
                values.push(self.double(first)?);
                Ok(())
            }
            (Plan::Boolean, Column::Boolean(values)) => {
                values.push(self.boolean(first)?);
                Ok(())
            }
            (Plan::Int, Column::Int32(values)) => {
                values.push(i32::try_from(self.whole(first)?).map_err(|_| RejectReason::OutOfRange)?);
                Ok(())
            }
            (Plan::Timestamptz, Column::Int64(values)) => {
                values.push(self.timestamp(first, time::timestamptz)?);
                Ok(())
            }
            (Plan::Struct(members), Column::Struct(values)) => {
                if first != b'{' {
                    return Err(unfit(first));
                }
                let base = values.len();
                self.object(members, values.members(), base, deeper(depth)?)?;
                values.end();
                Ok(())
            }
            (Plan::List(element), Column::List(list)) => self.list(first, element, list, deeper(depth)?),
            (Plan::Map(value), Column::Map(map)) => self.map(first, value, map, deeper(depth)?),
            (Plan::RawJson, Column::Utf8(values)) => self.raw_json(values, depth),
            (plan, column) => self.rare(first, plan, column),
        }
    }

    /// The columns that are seldom many.
    fn rare(&mut self, first: u8, plan: &Plan, column: &mut Column) -> Result<(), RejectReason> {
        match (plan, column) {
            (Plan::Float, Column::Float32(values)) => values.push(self.float(first)?),
            (Plan::Decimal { base64 }, Column::Decimal(values)) => {
                let unscaled = self.decimal(first, values.scale(), *base64)?;
                return values.push(unscaled);
            }
            (Plan::Date, Column::Int32(values)) => values.push(self.date(first)?),
            (Plan::Time, Column::Int64(values)) => values.push(self.time_of_day(first)?),
            (Plan::Timestamp, Column::Int64(values)) => {
                values.push(self.timestamp(first, time::timestamp_local)?)
            }
            (Plan::Uuid, Column::FixedBytes(values)) => {
                let text = self.text(first)?;
                return values.push(&with_text(text, bytes::uuid)?);
            }
            (Plan::Fixed, Column::FixedBytes(values)) => {
                let text = self.text(first)?;
                return with_base64(text, |bytes| values.push(bytes));
            }
            (Plan::Binary, Column::Binary(values)) => {
                let text = self.text(first)?;
                return with_base64(text, |bytes| values.push(bytes));
            }
            _ => return Err(FOREIGN),
        }
        Ok(())
    }

    fn list(&mut self, first: u8, element: &Item, list: &mut List, depth: usize) -> Result<(), RejectReason> {
        if first != b'[' {
            return Err(unfit(first));
        }
        self.cursor.advance();
        let mut more = !self.cursor.is_empty(b']')?;
        while more {
            let place = self.cursor.place();
            self.item(element, list.items(), depth).map_err(|reason| self.fault(0, place, reason))?;
            more = self.cursor.another(b']')?;
        }
        list.end()
    }

    fn map(&mut self, first: u8, value: &Item, map: &mut Map, depth: usize) -> Result<(), RejectReason> {
        if first != b'{' {
            return Err(unfit(first));
        }
        self.cursor.advance();
        let base = map.keys().len();
        let mut more = !self.cursor.is_empty(b'}')?;
        while more {
            self.cursor.peek()?;
            let name = self.cursor.string()?;
            let Column::Utf8(keys) = map.keys() else { return Err(FOREIGN) };
            with_text(name, |name| keys.push_str(name))?;
            self.cursor.expect(b':')?;
            let place = self.cursor.place();
            self.item(value, map.values(), depth).map_err(|reason| self.fault(0, place, reason))?;
            more = self.cursor.another(b'}')?;
        }
        let Column::Utf8(keys) = map.keys() else { return Err(FOREIGN) };
        if repeats(keys, base) {
            return Err(RejectReason::Malformed);
        }
        map.end()
    }

    fn raw_json(&mut self, values: &mut Utf8, depth: usize) -> Result<(), RejectReason> {
        let text = self.cursor.raw(depth)?;
        values.push_str(text)
    }
}

/// Readings of single values.
impl<'a> Walk<'a, '_> {
    #[inline]
    fn text(&mut self, first: u8) -> Result<Text<'a>, RejectReason> {
        if first != b'"' {
            return Err(unfit(first));
        }
        self.cursor.string()
    }

    #[inline]
    fn number(&mut self, first: u8) -> Result<Number<'a>, RejectReason> {
        if !matches!(first, b'-' | b'0'..=b'9') {
            return Err(unfit(first));
        }
        self.cursor.number()
    }

    #[inline]
    fn whole(&mut self, first: u8) -> Result<i64, RejectReason> {
        match self.cursor.small_integer() {
            Some(value) => Ok(value),
            None => self.number(first)?.whole(),
        }
    }

    fn boolean(&mut self, first: u8) -> Result<bool, RejectReason> {
        match first {
            b't' => self.cursor.literal(b"true").map(|()| true),
            b'f' => self.cursor.literal(b"false").map(|()| false),
            _ => Err(unfit(first)),
        }
    }

    #[inline]
    fn double(&mut self, first: u8) -> Result<f64, RejectReason> {
        if first == b'"' {
            return with_text(self.cursor.string()?, not_finite);
        }
        self.number(first)?.double()
    }

    fn float(&mut self, first: u8) -> Result<f32, RejectReason> {
        if first == b'"' {
            // Exact: these three are the same in both widths.
            return with_text(self.cursor.string()?, |text| Ok(not_finite(text)? as f32));
        }
        self.number(first)?.float()
    }

    fn decimal(&mut self, first: u8, scale: u8, base64: bool) -> Result<i128, RejectReason> {
        if first != b'"' {
            return self.number(first)?.unscaled(scale);
        }
        let text = self.cursor.string()?;
        if base64 {
            return with_base64(text, bytes::big_endian);
        }
        with_text(text, |text| Number::parse(text).ok_or(RejectReason::WrongType)?.unscaled(scale))
    }

    /// A whole number for a date or time: half a millisecond is no time that was meant.
    fn clock(&mut self, first: u8) -> Result<i64, RejectReason> {
        match self.cursor.small_integer() {
            Some(value) => Ok(value),
            None => self.number(first)?.whole().map_err(|_| RejectReason::BadTimestamp),
        }
    }

    #[inline]
    fn timestamp(&mut self, first: u8, read: fn(&str) -> Option<i64>) -> Result<i64, RejectReason> {
        if first == b'"' {
            let text = self.cursor.string()?;
            return with_text(text, |text| read(text).ok_or(RejectReason::BadTimestamp));
        }
        self.clock(first)?.checked_mul(MICROS_PER_MILLI).ok_or(RejectReason::OutOfRange)
    }

    fn date(&mut self, first: u8) -> Result<i32, RejectReason> {
        if first == b'"' {
            let text = self.cursor.string()?;
            return with_text(text, |text| time::date(text).ok_or(RejectReason::BadTimestamp));
        }
        i32::try_from(self.clock(first)?).map_err(|_| RejectReason::OutOfRange)
    }

    fn time_of_day(&mut self, first: u8) -> Result<i64, RejectReason> {
        if first == b'"' {
            let text = self.cursor.string()?;
            return with_text(text, |text| time::time_of_day(text).ok_or(RejectReason::BadTimestamp));
        }
        let millis = self.clock(first)?;
        if !(0..MILLIS_PER_DAY).contains(&millis) {
            return Err(RejectReason::OutOfRange);
        }
        Ok(millis * MICROS_PER_MILLI)
    }
}

fn not_finite(text: &str) -> Result<f64, RejectReason> {
    match text {
        "NaN" => Ok(f64::NAN),
        "Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        _ => Err(RejectReason::WrongType),
    }
}

/// Whether a key comes twice among those from `base` on.
fn repeats(keys: &Utf8, base: usize) -> bool {
    let count = keys.len() - base;
    if count <= 16 {
        return (base + 1..keys.len())
            .any(|at| (base..at).any(|before| keys.value(before) == keys.value(at)));
    }
    let mut sorted: Vec<&[u8]> = (base..keys.len()).map(|at| keys.value(at)).collect();
    sorted.sort_unstable();
    sorted.array_windows().any(|[left, right]| left == right)
}

/// Memory that is kept between records for what must be copied.
const SCRATCH_MAX: usize = 1 << 20;

thread_local! {
    static TEXT: Cell<String> = const { Cell::new(String::new()) };
    static BYTES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Reads a string: in place, or unescaped.
#[inline]
fn with_text<R>(
    text: Text<'_>,
    read: impl FnOnce(&str) -> Result<R, RejectReason>,
) -> Result<R, RejectReason> {
    match text {
        Text::Plain(text) => read(text),
        Text::Escaped(_) => with_unescaped(text, read),
    }
}

#[cold]
fn with_unescaped<R>(
    text: Text<'_>,
    read: impl FnOnce(&str) -> Result<R, RejectReason>,
) -> Result<R, RejectReason> {
    let mut scratch = TEXT.take();
    scratch.clear();
    let result = text.unescape_into(&mut scratch).and_then(|()| read(&scratch));
    if scratch.capacity() <= SCRATCH_MAX {
        TEXT.set(scratch);
    }
    result
}

/// Reads the bytes of a base64 string.
fn with_base64<R>(
    text: Text<'_>,
    read: impl FnOnce(&[u8]) -> Result<R, RejectReason>,
) -> Result<R, RejectReason> {
    let mut scratch = BYTES.take();
    scratch.clear();
    let result = with_text(text, |text| bytes::base64(text, &mut scratch)).and_then(|()| read(&scratch));
    if scratch.capacity() <= SCRATCH_MAX {
        BYTES.set(scratch);
    }
    result
}
