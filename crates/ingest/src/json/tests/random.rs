//! Properties over random tables, records and bytes.

use proptest::prelude::*;
use siltstone_protocol::{Field, PrimitiveType, RejectReason, Schema, Type};
use siltstone_spec::model::ExtraFields;

use super::{Cell, decode_all, one_column, rows};
use crate::json::{Encoding, Hints, JsonProgram};

/// A value as JSON text, and what its column should hold. `None`: no such member.
type Value = (Option<String>, Cell);

fn leaf_type() -> impl Strategy<Value = PrimitiveType> {
    use PrimitiveType as P;
    prop_oneof![
        Just(P::Boolean),
        Just(P::Int),
        Just(P::Long),
        Just(P::Float),
        Just(P::Double),
        (1u8..=38)
            .prop_flat_map(|precision| (Just(precision), 0..=precision))
            .prop_map(|(precision, scale)| P::Decimal { precision, scale }),
        Just(P::Date),
        Just(P::Time),
        Just(P::Timestamp),
        Just(P::Timestamptz),
        Just(P::String),
        Just(P::Uuid),
        (1u32..20).prop_map(P::Fixed),
        Just(P::Binary),
    ]
}

fn any_type() -> impl Strategy<Value = Type> {
    leaf_type().prop_map(Type::from).prop_recursive(3, 12, 4, |inner| {
        let list = (inner.clone(), any::<bool>()).prop_map(|(element, element_required)| Type::List {
            element_id: 0,
            element_required,
            element: Box::new(element),
        });
        let map = (inner.clone(), any::<bool>()).prop_map(|(value, value_required)| Type::Map {
            key_id: 0,
            key: Box::new(PrimitiveType::String.into()),
            value_id: 0,
            value_required,
            value: Box::new(value),
        });
        prop_oneof![fields(inner, 4).prop_map(Type::Struct), list, map]
    })
}

fn fields(inner: impl Strategy<Value = Type>, count: usize) -> impl Strategy<Value = Vec<Field>> {
    prop::collection::vec((inner, any::<bool>()), 1..=count).prop_map(|members| {
        let names = ["a", "b\"\\", "é", "long name of a column", "e", "f"];
        let named = members.into_iter().zip(names);
        named.map(|((data_type, required), name)| Field::new(0, name, required, data_type)).collect()
    })
}

fn schema() -> impl Strategy<Value = Schema> {
    fields(any_type(), 6).prop_map(|fields| Schema::new(0, fields))
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

/// Strings with every kind of escape, half of them written with `\u`.
fn string() -> impl Strategy<Value = (String, String)> {
    (prop_oneof!["[ -~]{0,40}", ".{0,12}", "\\PC{0,12}"], any::<bool>()).prop_map(
        |(text, escaped): (String, bool)| {
            let written = if escaped {
                let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
                format!("\"{units}\"")
            } else {
                json(&text)
            };
            (written, text)
        },
    )
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("\"");
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text.push('"');
    text
}

fn decimal(unscaled: i128, scale: u8) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (integer, fraction) = digits.split_at(digits.len() - usize::from(scale));
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{integer}") } else { format!("{sign}{integer}.{fraction}") }
}

fn leaf(primitive: PrimitiveType) -> BoxedStrategy<(String, Cell)> {
    use PrimitiveType as P;
    let micros = || -62_135_596_800_000_000i64..253_402_300_800_000_000;
    let written = |micros: i64| chrono::DateTime::from_timestamp_micros(micros).unwrap();
    let whole = |value: i64| Cell::Whole(value.into());
    match primitive {
        P::Boolean => any::<bool>().prop_map(|value| (value.to_string(), Cell::Bool(value))).boxed(),
        P::Int => any::<i32>().prop_map(move |value| (value.to_string(), whole(value.into()))).boxed(),
        P::Long => prop_oneof![any::<i64>(), -1000i64..1000]
            .prop_map(move |value| (value.to_string(), whole(value)))
            .boxed(),
        P::Float => prop::num::f32::NORMAL
            .prop_map(|value| (json(&value), Cell::Real(f64::from(value).to_bits())))
            .boxed(),
        P::Double => {
            let written = prop_oneof![
                prop::num::f64::NORMAL,
                (-100_000_000i64..100_000_000).prop_map(|cents| cents as f64 / 100.0)
            ];
            written.prop_map(|value| (json(&value), Cell::Real(value.to_bits()))).boxed()
        }
        P::Decimal { precision, scale } => {
            let limit = 10i128.pow(precision.into());
            (any::<i128>(), any::<bool>())
                .prop_map(move |(value, quoted)| {
                    let value = value % limit;
                    let text = decimal(value, scale);
                    (if quoted { format!("\"{text}\"") } else { text }, Cell::Whole(value))
                })
                .boxed()
        }
        P::Date => (-719_162i32..2_932_897, any::<bool>())
            .prop_map(move |(days, number)| {
                let date = written(i64::from(days) * 86_400_000_000).format("\"%Y-%m-%d\"");
                (if number { days.to_string() } else { date.to_string() }, whole(days.into()))
            })
            .boxed(),
        P::Time => (0..86_400_000_000i64)
            .prop_map(move |micros| (written(micros).format("\"%H:%M:%S%.6f\"").to_string(), whole(micros)))
            .boxed(),
        P::Timestamp => micros()
            .prop_map(move |micros| {
                (written(micros).format("\"%Y-%m-%dT%H:%M:%S%.6f\"").to_string(), whole(micros))
            })
            .boxed(),
        P::Timestamptz => (micros(), any::<bool>())
            .prop_map(move |(micros, number)| {
                if number {
                    let millis = micros.div_euclid(1000);
                    return (millis.to_string(), whole(millis * 1000));
                }
                (written(micros).format("\"%Y-%m-%d %H:%M:%S%.6fZ\"").to_string(), whole(micros))
            })
            .boxed(),
        P::String => string().prop_map(|(written, text)| (written, Cell::Text(text))).boxed(),
        P::Uuid => any::<[u8; 16]>()
            .prop_map(|bytes| {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                (format!("\"{hex}\""), Cell::Bytes(bytes.to_vec()))
            })
            .boxed(),
        P::Fixed(length) => prop::collection::vec(any::<u8>(), length as usize)
            .prop_map(|bytes| (base64(&bytes), Cell::Bytes(bytes)))
            .boxed(),
        P::Binary => prop::collection::vec(any::<u8>(), 0..20)
            .prop_map(|bytes| (base64(&bytes), Cell::Bytes(bytes)))
            .boxed(),
    }
}

fn present(data_type: &Type) -> BoxedStrategy<(String, Cell)> {
    match data_type {
        Type::Primitive(primitive) => leaf(*primitive),
        Type::Struct(fields) => object(fields).prop_map(|(text, cells)| (text, Cell::Items(cells))).boxed(),
        Type::List { element, element_required, .. } => {
            let items = prop::collection::vec(item(element, *element_required), 0..4);
            items
                .prop_map(|items| {
                    let (texts, cells): (Vec<_>, Vec<_>) = items.into_iter().unzip();
                    (format!("[{}]", texts.join(" , ")), Cell::Items(cells))
                })
                .boxed()
        }
        Type::Map { value, value_required, .. } => {
            let entries = prop::collection::vec(item(value, *value_required), 0..4);
            entries
                .prop_map(|entries| {
                    let named = entries.into_iter().enumerate();
                    let (texts, cells): (Vec<_>, Vec<_>) = named
                        .map(|(key, (text, cell))| {
                            (format!("\"k{key}\":{text}"), (Cell::Text(format!("k{key}")), cell))
                        })
                        .unzip();
                    (format!("{{{}}}", texts.join(",")), Cell::Entries(cells))
                })
                .boxed()
        }
    }
}

/// A value, or null where that is allowed.
fn item(data_type: &Type, required: bool) -> BoxedStrategy<(String, Cell)> {
    if required {
        return present(data_type);
    }
    prop_oneof![4 => present(data_type), 1 => Just(("null".to_owned(), Cell::Null))].boxed()
}

fn member(field: &Field) -> BoxedStrategy<Value> {
    let written = item(&field.data_type, field.required).prop_map(|(text, cell)| (Some(text), cell));
    if field.required {
        return written.boxed();
    }
    prop_oneof![6 => written, 1 => Just((None, Cell::Null))].boxed()
}

/// An object with its members in any order, and perhaps one that nobody knows.
fn object(fields: &[Field]) -> BoxedStrategy<(String, Vec<Cell>)> {
    let names: Vec<String> = fields.iter().map(|field| json(&field.name)).collect();
    let members: Vec<_> = fields.iter().map(member).collect();
    let shuffled = (0..=fields.len()).collect::<Vec<_>>();
    (members, Just(shuffled).prop_shuffle(), any::<(bool, bool)>(), string())
        .prop_map(move |(members, mut order, (in_order, unknown), (text, _))| {
            if in_order {
                order.sort_unstable();
            }
            let written = order.into_iter().filter_map(|at| match members.get(at) {
                Some((value, _)) => Some(format!("{}:{}", names[at], value.as_ref()?)),
                None => unknown.then(|| format!(" \"nobody's\" : [{{\"x\":{text}}}, 1e5, null]\n")),
            });
            let text = written.collect::<Vec<_>>().join(",");
            (format!("{{{text}}}"), members.into_iter().map(|(_, cell)| cell).collect())
        })
        .boxed()
}

fn table(rows: usize) -> impl Strategy<Value = (Schema, Vec<(String, Vec<Cell>)>)> {
    schema().prop_flat_map(move |schema| {
        let records = prop::collection::vec(object(&schema.fields), 1..rows);
        (Just(schema), records)
    })
}

/// Something done to a record on its way.
fn corrupt(record: &str, kind: u8, at: prop::sample::Index, byte: u8) -> Vec<u8> {
    let mut bytes = record.as_bytes().to_vec();
    let at = at.index(bytes.len());
    match kind {
        0 => bytes.truncate(at),
        1 => bytes[at] = byte,
        2 => bytes.insert(at, byte),
        3 => drop(bytes.remove(at)),
        4 => bytes.insert(at, b"{}[]\":,\\ 0-e."[usize::from(byte) % 13]),
        _ => {}
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn what_was_written_is_read((schema, records) in table(6)) {
        let program = JsonProgram::compile(&schema, ExtraFields::Ignore).unwrap();
        let bodies: Vec<_> = records.iter().map(|(text, _)| text.clone().into_bytes()).collect();
        let (results, batch) = decode_all(&program, &schema, &bodies);
        prop_assert!(results.iter().all(Result::is_ok), "{results:?}");
        prop_assert_eq!(rows(&batch), records.into_iter().map(|(_, cells)| cells).collect::<Vec<_>>());
    }

    #[test]
    fn a_bad_record_leaves_no_trace(
        (schema, records) in table(8),
        faults in prop::collection::vec((0u8..8, any::<prop::sample::Index>(), any::<u8>()), 8),
    ) {
        let program = JsonProgram::compile(&schema, ExtraFields::Ignore).unwrap();
        let bodies: Vec<_> = records.iter().zip(faults)
            .map(|((text, _), (kind, at, byte))| corrupt(text, kind, at, byte)).collect();
        let (results, batch) = decode_all(&program, &schema, &bodies);
        // Alone, every record must fare as it did among the others.
        let mut expected = Vec::new();
        for (body, result) in bodies.iter().zip(&results) {
            let (alone, row) = decode_all(&program, &schema, std::slice::from_ref(body));
            prop_assert_eq!(alone[0], *result);
            expected.extend(rows(&row));
        }
        prop_assert_eq!(rows(&batch), expected);
    }

    #[test]
    fn any_bytes_are_a_row_or_a_reason(
        schema in schema(),
        bodies in prop::collection::vec(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "[{}\\[\\]\",:abe0-9.\\\\utrflns -]{0,60}".prop_map(String::into_bytes),
        ], 0..8),
    ) {
        let program = JsonProgram::compile(&schema, ExtraFields::Reject).unwrap();
        let (results, batch) = decode_all(&program, &schema, &bodies);
        prop_assert_eq!(results.iter().filter(|result| result.is_ok()).count(), batch.num_rows());
    }

    #[test]
    fn the_grammar_is_serde_jsons(text in prop_oneof![
        "[{}\\[\\]\",:1 ]{0,8}",
        "-?[0-9.eE+-]{0,8}",
        "\"[a\\\\u0\"\u{1f}é/]{0,12}\"",
        "(true|false|null|nul|\\[|\\]|\\{|\\}|,|:|\"a\"|\"\"|0|-1.5e3| |\t|\n){0,8}",
    ]) {
        let schema = Schema::new(0, vec![Field::optional(1, "value", PrimitiveType::String.into())]);
        let hints = Hints { encodings: [(vec!["value".to_owned()], Encoding::RawJson)].into(), bare: true };
        let program = JsonProgram::compile_with_hints(&schema, ExtraFields::Ignore, &hints).unwrap();
        let (results, _) = decode_all(&program, &schema, &[text.clone().into_bytes()]);
        let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
        prop_assert_eq!(results[0].is_ok(), theirs);
    }

    #[test]
    fn doubles_are_the_nearest(text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?") {
        let schema = one_column(PrimitiveType::Double);
        let program = JsonProgram::compile(&schema, ExtraFields::Ignore).unwrap();
        let (results, batch) = decode_all(&program, &schema, &[format!("{{\"c\":{text}}}").into_bytes()]);
        let nearest: f64 = text.parse().unwrap();
        if nearest.is_finite() {
            prop_assert_eq!(rows(&batch), [[Cell::Real(nearest.to_bits())]]);
        } else {
            prop_assert_eq!(results[0], Err(RejectReason::OutOfRange));
        }
    }
}
