//! `Debug` of the builders: how many values, never which.

use std::fmt;

use super::{Binary, Bits, DecimalValues, FixedBytes, List, Map, Struct, Utf8, Values};

macro_rules! debug_counts {
    ($($name:ident $(<$param:ident>)?),+) => {
        $(impl$(<$param: Copy + Default>)? fmt::Debug for $name$(<$param>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("len", &self.len()).finish_non_exhaustive()
            }
        })+
    };
}

debug_counts!(Values<T>, DecimalValues, Bits, Binary, Utf8, FixedBytes, Struct, List, Map);
