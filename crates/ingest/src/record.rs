//! One record as the broker delivered it, borrowed.
//!
//! Nothing here is owned, cloned or printable: a record lives inside the client's buffer for the length of one
//! `visit` call. Absent on purpose: `Debug` of contents, and the topic name (a source reads one topic).

use std::fmt;

use crate::kafka::NativeHeaders;

/// A record, valid during one `visit` call.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970 UTC; create time or append time, as the topic is set up.
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

impl fmt::Debug for Record<'_> {
    /// Coordinates and sizes only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("key_len", &self.key.map(<[u8]>::len))
            .field("value_len", &self.value.map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

impl Record<'_> {
    /// Bytes of key and value, as counted against limits. Headers are left out: counting them would parse them.
    pub fn size(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }
}

/// A header that owns its bytes, for sources in memory.
pub type OwnedHeader = (String, Option<Vec<u8>>);

/// The headers of one record. From Kafka they are parsed at the first `iter`, so a table which does not ask for
/// them pays nothing.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a>(Inner<'a>);

#[derive(Clone, Copy, Default)]
enum Inner<'a> {
    #[default]
    Empty,
    Pairs(&'a [(&'a str, Option<&'a [u8]>)]),
    Owned(&'a [OwnedHeader]),
    Native(NativeHeaders<'a>),
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers(..)")
    }
}

impl<'a> Headers<'a> {
    pub fn empty() -> Self {
        Self(Inner::Empty)
    }

    pub fn pairs(pairs: &'a [(&'a str, Option<&'a [u8]>)]) -> Self {
        Self(Inner::Pairs(pairs))
    }

    pub fn owned(headers: &'a [OwnedHeader]) -> Self {
        Self(Inner::Owned(headers))
    }

    pub(crate) fn native(headers: NativeHeaders<'a>) -> Self {
        Self(Inner::Native(headers))
    }

    /// Names and values in the order of the record. A name that is not UTF-8 (Kafka forbids it) is cut where it
    /// stops being so.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let inner = self.0;
        let mut index = 0;
        std::iter::from_fn(move || {
            let item = match inner {
                Inner::Empty => None,
                Inner::Pairs(pairs) => pairs.get(index).copied(),
                Inner::Owned(owned) => {
                    owned.get(index).map(|(name, value)| (name.as_str(), value.as_deref()))
                }
                Inner::Native(native) => native.get(index),
            };
            index += 1;
            item
        })
    }
}
