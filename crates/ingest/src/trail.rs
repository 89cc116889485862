//! Where in a record a fault is: the way to it, noted from the inside out, and its path in names of the schema.
//!
//! The walk that makes a row notes nothing: `()` takes its notes, and the compiler leaves them out. A record that it
//! rejects is walked once more with a [`Trail`]. Paths hold names of fields alone: `[]` stands for any element of a
//! list, `{}` for any value of a map, so neither a place nor a key of a record is in them.

use siltstone_protocol::RejectReason;
pub(crate) use siltstone_protocol::path::{ELEMENT, MAP_KEY, MAP_VALUE, dotted};

/// A step of the way to a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// The field that this column is of.
    Member(usize),
    Element,
    Key,
    Value,
    /// The value of a union that has one type beside null.
    Inner,
    /// What the record has there; the innermost note.
    Found(&'static str),
}

/// Takes notes of a walk that fails.
pub(crate) trait Notes {
    fn note(&mut self, at: At);
}

impl Notes for () {
    #[inline]
    fn note(&mut self, _: At) {}
}

/// The way to a fault.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    steps: Vec<At>,
}

impl Trail {
    /// The steps from the record to the fault.
    pub(crate) fn inwards(&self) -> impl Iterator<Item = At> {
        self.steps.iter().rev().copied()
    }
}

impl Notes for &mut Trail {
    #[cold]
    fn note(&mut self, at: At) {
        self.steps.push(at);
    }
}

/// What is wrong with a value of type `writer` for a column of type `column`; `None` where that says nothing.
pub(crate) fn detail(reason: RejectReason, writer: &str, column: &str) -> Option<String> {
    Some(match reason {
        RejectReason::InvalidUtf8 => format!("{writer} that is not UTF-8 where {column} is wanted"),
        RejectReason::OutOfRange => format!("{writer} that does not fit {column}"),
        RejectReason::BadLength => format!("{writer} that is no {column}"),
        RejectReason::MissingField => format!("nothing where {writer} is required"),
        RejectReason::Malformed => format!("{writer} whose encoding is broken"),
        RejectReason::Truncated => format!("the record ends before its {writer} does"),
        RejectReason::TooLarge => format!("{writer} for which a column of a batch has no room"),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_values_stand_at_their_list_or_map() {
        assert_eq!(dotted(&["a", ELEMENT, "b", MAP_VALUE, ELEMENT, "c"]), "a[].b{}[].c");
        assert_eq!(dotted::<&str>(&[]), "");
    }

    #[test]
    fn a_trail_is_read_from_the_outside() {
        let mut trail = Trail::default();
        let mut notes = &mut trail;
        [At::Element, At::Member(3)].into_iter().for_each(|at| notes.note(at));
        assert_eq!(trail.inwards().collect::<Vec<_>>(), [At::Member(3), At::Element]);
    }
}
