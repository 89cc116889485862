//! Schemas before and after, and every mistake with the text that it gets.

use siltstone_protocol::{Schema, Type};

use super::*;
use crate::{Spec, model::Start};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const FIELDS: &str = "[{name: order_id, type: long, required: true}, {name: amount, type: double}, \
                      {name: note, type: string}, {name: tags, type: list<string>}, \
                      {name: cust, type: {struct: [{name: id, type: int}, {name: mail, type: string}, \
                      {name: phone, type: string}]}}]";

fn parse(table: &str) -> Result<Spec, String> {
    let text = format!(
        "source_clusters: [{{name: c, bootstrap_brokers: ['b:1']}}]\ndestination_bucket_url: file:///lake\n\
         tables:\n  - name: t\n    source_cluster_name: c\n    source_topic: t\n    source_format: json\n    \
         input_schema: {{fields: {FIELDS}}}\n{table}"
    );
    let env = |name: &str| match name {
        "KEY" => Some(KEY.to_owned()),
        "SHORT" => Some("too short".to_owned()),
        "REGION" => Some("eu".to_owned()),
        _ => None,
    };
    crate::parse(&text, "s.yaml", &env).map_err(|faults| {
        let faults: Vec<String> = faults
            .faults
            .iter()
            .map(|fault| format!("{}: {}", fault.path.trim_start_matches("tables[0]."), fault.message))
            .collect();
        faults.join("\n")
    })
}

fn table(text: &str) -> TableSpec {
    parse(text).unwrap().tables.remove(0)
}

fn source(table: &TableSpec) -> Schema {
    match &table.schema_mode {
        crate::SchemaMode::Inline(crate::InputSchema::Fields(schema)) => schema.clone(),
        _ => unreachable!("the fields stand in the spec"),
    }
}

/// `name type`, members in brackets.
fn shown(fields: &[Field]) -> String {
    let shown = fields.iter().map(|field| match &field.data_type {
        Type::Struct(members) => format!("{} ({})", field.name, shown(members)),
        other => format!("{} {}{}", field.name, kind_of(other), if field.required { "!" } else { "" }),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn after(text: &str) -> String {
    let table = table(text);
    shown(&outcome(&table, &source(&table)).unwrap().schema().fields)
}

#[test]
fn without_transforms_nothing_changes() {
    let plain = table("");
    assert!(plain.transforms.is_empty() && plain.protect.is_empty() && plain.start == Start::Earliest);
    let made = outcome(&plain, &source(&plain)).unwrap();
    assert_eq!(made.schema(), source(&plain));
    assert!(made.columns.iter().enumerate().all(|(index, column)| column.origin == Origin::Source { index }));
}

#[test]
fn columns_are_selected_dropped_renamed_cast_and_made() {
    let text = "    transforms:\n      filter: amount > 0\n      select: [order_id, amount, cust.id, cust.mail]\n      \
                rename: {cust: customer, cust.mail: email, order_id: id}\n      \
                cast: {amount: 'decimal(12, 2)', customer.id: string, id: string}\n      \
                constant: {region: {type: string, value: '${REGION}'}, \
                one: {type: 'decimal(3, 1)', value: '-1.5'}}\n    \
                sort_by: [customer.email]\n";
    assert_eq!(
        after(text),
        "id string!, amount decimal(12, 2), customer (id string, email string), one decimal(3, 1), region string"
    );
    let table = table(text);
    let one = Literal::Decimal { unscaled: -15, precision: 3, scale: 1 };
    assert_eq!(table.transforms.constant["one"], one);
    assert_eq!(table.transforms.constant["region"], Literal::String("eu".to_owned()));
    assert_eq!(
        after("    transforms: {drop: [tags, cust.id, cust.mail, cust.phone]}\n"),
        "order_id long!, amount double, note string"
    );
}

#[test]
fn protected_columns_become_strings() {
    let text = "    kafka_metadata: true\n    protect: {order_id: hash, note: drop, cust.mail: mask, cust.phone: encrypt, \
                _kafka.key: tokenize, _kafka.headers: drop}\n    protection: {key: '${KEY}'}\n";
    let table = table(text);
    let mut source = source(&table);
    let members = vec![
        Field::optional(91, "offset", PrimitiveType::Long.into()),
        Field::optional(92, "key", PrimitiveType::Binary.into()),
        Field::optional(93, "headers", PrimitiveType::Binary.into()),
    ];
    source.fields.push(Field::optional(90, "_kafka", Type::Struct(members)));
    let made = outcome(&table, &source).unwrap();
    assert_eq!(
        shown(&made.schema().fields),
        "order_id string!, amount double, tags list, cust (id int, mail string, phone string), \
         _kafka (offset long, key string)"
    );
    assert!(made.unknown.is_empty());
    assert!(!format!("{table:?}").contains(KEY));
}

#[test]
fn the_column_of_event_types_is_not_one_of_those_that_select_leaves_out() {
    let types = crate::model::EventTypes { take: None, column: Some("kind".to_owned()) };
    let mut source = source(&table(""));
    source.fields.push(Field::optional(90, "kind", PrimitiveType::String.into()));
    let after = |text: &str| {
        let table = TableSpec { event_types: Some(types.clone()), ..table(text) };
        outcome(&table, &source).map(|made| shown(&made.schema().fields))
    };
    assert_eq!(after("    transforms: {select: [note]}\n").unwrap(), "note string, kind string");
    assert_eq!(
        after("    transforms: {select: [note], rename: {note: remark}}\n").unwrap(),
        "remark string, kind string"
    );
    let all = ["order_id", "amount", "note", "tags", "cust"].map(str::to_owned).to_vec();
    let table = TableSpec {
        event_types: Some(types.clone()),
        transforms: Transforms { drop: all, ..Transforms::default() },
        ..table("")
    };
    let faults = outcome(&table, &source).unwrap_err();
    assert_eq!(faults[0].to_string(), "transforms.drop[0]: leaves no column of the records");
}

#[test]
fn names_that_nothing_answers_to_are_told_apart() {
    let table = table("");
    let spec = TableSpec {
        transforms: Transforms { drop: vec!["ammount".to_owned()], ..Transforms::default() },
        ..table.clone()
    };
    let made = outcome(&spec, &source(&table)).unwrap();
    assert_eq!(made.unknown.len(), 1);
    assert_eq!(
        made.unknown[0].to_string(),
        "transforms.drop[0]: the source has no such column; did you mean amount?"
    );
}

#[test]
fn every_mistake_gets_its_text() {
    let cases = [
        (
            "transforms: {select: [order_ids]}",
            "transforms.select[0]: the source has no such column; did you mean order_id?",
        ),
        (
            "transforms: {select: [cust, cust.id]}",
            "transforms.select[1]: lies inside [0] of the list, which names all of it",
        ),
        (
            "transforms: {select: [note], drop: [note]}",
            "transforms.drop[0]: select keeps it; take it out of one of both",
        ),
        (
            "transforms: {drop: [order_id, amount, note, tags, cust]}",
            "transforms.drop[0]: leaves no column of the records",
        ),
        (
            "transforms: {drop: [_kafka.key]}",
            "transforms.drop[0]: _kafka is the engine's own column; protect can drop members of it",
        ),
        (
            "transforms: {rename: {note: amount}}",
            "transforms.rename.note: there is a amount already; drop it or rename it too",
        ),
        ("transforms: {rename: {note: a.b}}", "transforms.rename.note: a column's name has no dot"),
        (
            "transforms: {rename: {note: _kafka}}",
            "transforms.rename.note: _kafka is the name of kafka_metadata's column",
        ),
        (
            "transforms: {rename: {note: remark}, cast: {note: binary}}",
            "transforms.cast.note: is renamed: here it is remark",
        ),
        (
            "transforms: {select: [amount], cast: {note: binary}}",
            "transforms.cast.note: is left out by select or drop",
        ),
        ("transforms: {cast: {amount: date}}", "transforms.cast.amount: double cannot be cast to date"),
        (
            "transforms: {cast: {tags: string}}",
            "transforms.cast.tags: a list cannot be cast; name its members",
        ),
        (
            "transforms: {cast: {note: list<string>}}",
            "transforms.cast.note: a column is cast to a primitive type: lists, maps and structs stay as they are",
        ),
        ("transforms: {cast: {note: strng}}", "transforms.cast.note: unknown type, did you mean string?"),
        (
            "transforms: {constant: {note: {type: int, value: 1}}}",
            "transforms.constant.note: a column has this name already; choose another, or drop or rename that one",
        ),
        (
            "transforms: {constant: {day: {type: date, value: yesterday}}}",
            "transforms.constant.day.value: is not a value of type date, such as 2026-01-31",
        ),
        (
            "transforms: {constant: {n: {type: 'decimal(3, 1)', value: 1.25}}}",
            "transforms.constant.n.value: is not a value of type decimal(3, 1)",
        ),
        (
            "transforms: {constant: {n: {type: uuid, value: x}}}",
            "transforms.constant.n.type: a constant is of type boolean, int, long, float, double, decimal(p, s), date, \
             timestamp, timestamptz or string",
        ),
        (
            "protect: {cust.mial: mask}",
            "protect.cust.mial: the table has no such column; did you mean cust.mail?",
        ),
        (
            "protect: {nothing_like_it: mask}",
            "protect.nothing_like_it: the table has no such column (members of lists and maps cannot be named)",
        ),
        (
            "protect: {tags: mask}",
            "protect.tags: a list is dropped or kept as a whole; name its members, or drop it",
        ),
        ("protect: {note: hash}", "protect.note: hash needs protection: {key: ..} beside protect"),
        (
            "protect: {note: hsh}",
            "protect.note: must be one of hash, mask, tokenize, drop, encrypt, did you mean hash?",
        ),
        (
            "protect: {_kafka.key: mask}",
            "protect._kafka.key: rows have _kafka only with kafka_metadata: true",
        ),
        (
            "protect: {_kafka.offset: mask}\n    kafka_metadata: true",
            "protect._kafka.offset: of _kafka, key and headers can be protected",
        ),
        (
            "protect: {note: mask}\n    protection: {key: '${KEY}'}",
            "protection: is the key of protect, where nothing needs one; leave it out",
        ),
        (
            "protect: {note: hash}\n    protection: {key: '${SHORT}'}",
            "protection.key: must have at least 32 characters, at random",
        ),
        ("protect: {note: hash}\n    protection: {}", "protection: must have exactly one of key, kms"),
        (
            "protect: {note: hash}\n    protection: {kms: {url: 'http://vault.internal/v1/transit', token: '${KEY}', \
             wrapped_key: x}}",
            "protection.kms.url: must be https; http is for a service on this machine (127.0.0.1, ::1, localhost)\n\
             protection.kms.url: must end in /keys/NAME: https://host/v1/transit/keys/NAME",
        ),
        // What the rest of the table names are the columns as they are in the end.
        (
            "transforms: {rename: {note: remark}}\n    sort_by: [note]",
            "sort_by[0]: sort_by names the unknown column note",
        ),
        (
            "protect: {amount: drop}\n    partition_by: [amount]",
            "partition_by[0]: partition_by names the unknown column amount",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(&format!("    {text}\n")).map(drop), Err(expected.to_owned()), "{text}");
    }
}

#[test]
fn several_faults_are_told_at_once() {
    let text = "    transforms: {drop: [x_one], rename: {y_two: z}}\n    protect: {w_three: mask}\n";
    assert_eq!(parse(text).unwrap_err().lines().count(), 3);
}

#[test]
fn casts_that_cannot_fail_are_known() {
    use PrimitiveType as P;
    assert_eq!(castable(P::Int, P::Long), Castable::Always);
    assert_eq!(castable(P::Long, P::Int), Castable::Sometimes);
    assert_eq!(castable(P::String, P::Date), Castable::Sometimes);
    assert_eq!(castable(P::Double, P::String), Castable::Always);
    assert_eq!(castable(P::Binary, P::String), Castable::Sometimes);
    assert_eq!(castable(P::Long, P::Timestamptz), Castable::Never);
    assert_eq!(castable(P::Timestamptz, P::Date), Castable::Always);
    assert_eq!(castable(P::Date, P::Timestamp), Castable::Sometimes);
    for time in [P::Date, P::Timestamp, P::Timestamptz] {
        assert_eq!(castable(time, P::String), Castable::Sometimes);
    }
}
