//! Any bytes as a JSON record of a table with every type: a row or a reason, never a panic; columns stay aligned, a
//! reject leaves no trace, and what became a row is JSON.

use std::sync::LazyLock;

use siltstone_ingest::{columns::Columns, json::JsonProgram};
use siltstone_protocol::{Field, PrimitiveType as P, Schema, Type};
use siltstone_spec::model::ExtraFields;

pub(crate) const GOOD: &[u8] = br#"{"a":1,"l":[{"x":"y"}],"m":{"k":1.5}}"#;

static TABLE: LazyLock<(Schema, JsonProgram)> = LazyLock::new(|| {
    let item = Type::Struct(vec![
        Field::optional(20, "x", P::String.into()),
        Field::optional(21, "y", P::Uuid.into()),
    ]);
    let list = Type::List { element_id: 22, element_required: false, element: Box::new(item) };
    let key = Box::new(P::String.into());
    let value = Box::new(P::Double.into());
    let map = Type::Map { key_id: 23, key, value_id: 24, value_required: true, value };
    let types = [
        ("a", P::Long.into()),
        ("b", P::Int.into()),
        ("c", P::Boolean.into()),
        ("d", P::Double.into()),
        ("e", P::Float.into()),
        ("f", P::Decimal { precision: 20, scale: 4 }.into()),
        ("g", P::Date.into()),
        ("h", P::Time.into()),
        ("i", P::Timestamp.into()),
        ("j", P::Timestamptz.into()),
        ("k", P::Binary.into()),
        ("n", P::Fixed(3).into()),
        ("s", P::String.into()),
        ("l", list),
        ("m", map),
    ];
    let fields =
        types.into_iter().zip(1..).map(|((name, data_type), id)| Field::optional(id, name, data_type));
    let schema = Schema::new(0, fields.collect());
    let program = JsonProgram::compile(&schema, ExtraFields::Ignore).expect("the table is good");
    (schema, program)
});

pub(crate) fn run(body: &[u8]) {
    let (schema, program) = &*TABLE;
    let mut columns = Columns::new(schema).expect("the table is good");
    program.decode(&mut columns, GOOD).expect("the record is good");
    let row = program.decode(&mut columns, body);
    program.decode(&mut columns, GOOD).expect("the record is good");
    let rows = 2 + usize::from(row.is_ok());
    assert!(columns.columns().iter().all(|column| column.len() == rows));
    let batch = columns.finish().expect("columns are whole");
    assert_eq!(batch.num_rows(), rows);
    assert_eq!(batch.slice(0, 1), batch.slice(rows - 1, 1));
    if row.is_ok() {
        let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        assert!(serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok());
    }
}
