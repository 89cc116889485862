//! What a record that does not fit is about: the column, what the record has there, and what the column is.
//!
//! Asked for after the fact, of rejected records alone: they are read once more, and the columns are as they were.
//! Names of columns and kinds of values only, never a value.

use siltstone_protocol::RejectReason;

use super::{
    program::{Item, JsonProgram, Members, Plan},
    schema::DEPTH_MAX,
};
use crate::{
    columns::Columns,
    dead_letter::About,
    trail::{ELEMENT, MAP_VALUE, dotted},
};

/// Where a fault is, from the inside out.
#[derive(Debug, Default)]
pub(super) struct Trail {
    members: Vec<usize>,
    /// First byte of the value that does not fit; `None`: there is none.
    found: Option<u8>,
}

impl Trail {
    /// The fault is in this member; `found`: the first byte of its value.
    #[cold]
    pub(super) fn note(&mut self, member: usize, found: Option<u8>) {
        if self.members.is_empty() {
            self.found = found;
        }
        self.members.push(member);
    }
}

impl JsonProgram {
    /// What a rejected record is about; `None` when that cannot be told.
    pub fn explain(&self, columns: &mut Columns, body: &[u8]) -> Option<About> {
        let mut trail = Trail::default();
        let mark = columns.mark();
        let row = self.row(columns, body, &mut trail);
        columns.rollback(mark);
        let (mut path, mut item) = (Vec::new(), None);
        for member in trail.members.iter().rev() {
            item = Some(step(&self.members, item, *member, &mut path)?);
        }
        let found = found(trail.found);
        let wanted = item.map(|item| wanted(&item.plan));
        let detail = match (row.err()?, wanted) {
            (RejectReason::UnknownField, _) => {
                format!("a member that the {} does not have", wanted.unwrap_or("table"))
            }
            (RejectReason::TooDeep, _) => format!("values nest deeper than {DEPTH_MAX}"),
            (RejectReason::TrailingBytes, _) => "more after the end of the JSON text".to_owned(),
            (RejectReason::WrongType, None) => format!("{} where object is wanted", bare(body)?),
            (RejectReason::WrongType, Some(wanted)) => format!("{found} where {wanted} is wanted"),
            (RejectReason::MissingField, Some(wanted)) => format!("{found} where {wanted} is required"),
            (RejectReason::OutOfRange, Some(wanted)) => format!("{found} that does not fit {wanted}"),
            (RejectReason::InvalidUtf8, Some(_)) => format!("{found} that is not UTF-8"),
            (RejectReason::BadTimestamp | RejectReason::BadLength, Some(wanted)) => {
                format!("{found} that is no {wanted}")
            }
            // The record breaks off or is no JSON: that the column was being read says nothing.
            _ => return None,
        };
        Some(About { field: (!path.is_empty()).then(|| dotted(&path)), detail })
    }
}

/// What a record that is no object is; `None`: no JSON either.
fn bare(body: &[u8]) -> Option<&'static str> {
    let text = body.trim_ascii();
    match text.first() {
        Some(b'n' | b't' | b'f') if !matches!(text, b"null" | b"true" | b"false") => None,
        first => Some(found(first.copied())),
    }
}

/// The place for a value one step further in.
fn step<'a>(
    root: &'a Members,
    outer: Option<&'a Item>,
    member: usize,
    path: &mut Vec<String>,
) -> Option<&'a Item> {
    let members = match outer.map(|item| &item.plan) {
        None => root,
        Some(Plan::Struct(members)) => members,
        Some(Plan::List(element)) => {
            path.push(ELEMENT.to_owned());
            return Some(element);
        }
        Some(Plan::Map(value)) => {
            path.push(MAP_VALUE.to_owned());
            return Some(value);
        }
        Some(_) => return None,
    };
    let member = members.members.get(member)?;
    path.push(serde_json::from_slice(&member.quoted).ok()?);
    Some(&member.item)
}

fn found(first: Option<u8>) -> &'static str {
    match first {
        Some(b'"') => "string",
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b't' | b'f') => "boolean",
        Some(b'-' | b'0'..=b'9') => "number",
        Some(b'n') => "null",
        _ => "nothing",
    }
}

fn wanted(plan: &Plan) -> &'static str {
    match plan {
        Plan::Boolean => "boolean",
        Plan::Int => "int",
        Plan::Long => "long",
        Plan::Float => "float",
        Plan::Double => "double",
        Plan::Decimal { .. } => "decimal",
        Plan::Date => "date",
        Plan::Time => "time",
        Plan::Timestamp => "timestamp",
        Plan::Timestamptz => "timestamptz",
        Plan::String | Plan::RawJson => "string",
        Plan::Uuid => "uuid",
        Plan::Fixed => "fixed",
        Plan::Binary => "binary",
        Plan::Struct(_) => "struct",
        Plan::List(_) => "list",
        Plan::Map(_) => "map",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use siltstone_protocol::{Field, PrimitiveType, Schema, Type};
    use siltstone_spec::model::ExtraFields;

    use super::*;

    #[test]
    fn a_member_that_is_not_known_is_not_named() {
        let inner = Type::Struct(vec![Field::optional(2, "b", PrimitiveType::Int.into())]);
        let maps = Type::Map {
            key_id: 4,
            key: Box::new(PrimitiveType::String.into()),
            value_id: 5,
            value_required: false,
            value: Box::new(inner.clone()),
        };
        let table = Schema::new(0, vec![Field::optional(1, "a", inner), Field::optional(3, "m", maps)]);
        let program = JsonProgram::compile(&table, ExtraFields::Reject).unwrap();
        let mut columns = Columns::new(&table).unwrap();
        let mut about = |body: &str| {
            let about = program.explain(&mut columns, body.as_bytes()).unwrap();
            (about.field.unwrap_or_default(), about.detail)
        };
        let told =
            |field: &str, of: &str| (field.to_owned(), format!("a member that the {of} does not have"));
        assert_eq!(about(r#"{"secret": 1}"#), told("", "table"));
        assert_eq!(about(r#"{"a": {"secret": 1}}"#), told("a", "struct"));
        assert_eq!(about(r#"{"m": {"secret key": {"secret": 1}}}"#), told("m{}", "struct"));
        let text = ("m{}.b".to_owned(), "string where int is wanted".to_owned());
        assert_eq!(about(r#"{"m": {"secret key": {"b": "secret"}}}"#), text);
    }

    #[test]
    fn the_column_and_both_types_are_named() {
        let long = || Type::Primitive(PrimitiveType::Long);
        let inner =
            vec![Field::required(3, "b", long()), Field::optional(4, "at", PrimitiveType::Date.into())];
        let items = Type::List {
            element_id: 6,
            element_required: false,
            element: Box::new(PrimitiveType::Int.into()),
        };
        let table = Schema::new(
            0,
            vec![
                Field::optional(1, "a", Type::Struct(inner)),
                Field::optional(5, "list", items),
                Field::optional(7, "id", PrimitiveType::Uuid.into()),
            ],
        );
        let program = JsonProgram::compile(&table, ExtraFields::Ignore).unwrap();
        let mut columns = Columns::new(&table).unwrap();
        let mut about = |body: &str| {
            assert!(program.decode(&mut columns, body.as_bytes()).is_err(), "{body}");
            let about = program.explain(&mut columns, body.as_bytes());
            assert_eq!(columns.rows(), 0);
            about.map(|about| format!("{}: {}", about.field.unwrap_or_default(), about.detail))
        };
        let told = [
            (r#"{"a": {"b": "x"}}"#, Some("a.b: string where long is wanted")),
            (r#"{"a": 1}"#, Some("a: number where struct is wanted")),
            (r#"{"a": {"b": null}}"#, Some("a.b: null where long is required")),
            (r#"{"a": {"at": null}}"#, Some("a.b: nothing where long is required")),
            (r#"{"a": {"b": 1, "at": "soon"}}"#, Some("a.at: string that is no date")),
            (r#"{"list": [1, 5000000000]}"#, Some("list[]: number that does not fit int")),
            (r#"{"list": [1, [2]]}"#, Some("list[]: array where int is wanted")),
            (r#"{"id": "x"}"#, Some("id: string that is no uuid")),
            (r#"{"a": {"b": 1"#, None),
            ("no JSON", None),
            ("[1, 2]", Some(": array where object is wanted")),
            ("true ", Some(": boolean where object is wanted")),
            (r#"{"a": {"b": 1}} {}"#, Some(": more after the end of the JSON text")),
        ];
        for (body, wanted) in told {
            assert_eq!(about(body).as_deref(), wanted, "{body}");
        }
    }
}
