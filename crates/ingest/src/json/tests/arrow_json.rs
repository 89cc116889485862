//! The same batch as Arrow's own JSON reader makes, where both take the same values.

use std::sync::Arc;

use arrow_json::ReaderBuilder;
use proptest::prelude::*;
use siltstone_protocol::{Field, PrimitiveType as P, Schema, Type};
use siltstone_spec::model::ExtraFields;

use super::decode_all;
use crate::{columns::Columns, json::JsonProgram};

fn schema() -> Schema {
    let tags = Type::List { element_id: 7, element_required: false, element: Box::new(P::String.into()) };
    let place = vec![Field::optional(9, "x", P::Double.into()), Field::optional(10, "y", P::Int.into())];
    let fields = vec![
        Field::required(1, "id", P::Long.into()),
        Field::optional(2, "amount", P::Double.into()),
        Field::optional(3, "ok", P::Boolean.into()),
        Field::optional(4, "note", P::String.into()),
        Field::optional(5, "at", P::Timestamptz.into()),
        Field::optional(6, "tags", tags),
        Field::optional(8, "place", Type::Struct(place)),
        Field::optional(11, "price", P::Decimal { precision: 12, scale: 2 }.into()),
        Field::optional(12, "day", P::Date.into()),
    ];
    Schema::new(0, fields)
}

fn record() -> impl Strategy<Value = String> {
    let optional = prop::option::of::<BoxedStrategy<String>>;
    let text = |strategy: BoxedStrategy<String>| {
        strategy.prop_map(|text| serde_json::to_string(&text).unwrap()).boxed()
    };
    let tags = prop::collection::vec(prop_oneof![text(".{0,5}".boxed()), Just("null".to_owned())], 0..4);
    let members = (
        any::<i64>().prop_map(|value| value.to_string()),
        optional(prop::num::f64::NORMAL.prop_map(|value| serde_json::to_string(&value).unwrap()).boxed()),
        optional(any::<bool>().prop_map(|value| value.to_string()).boxed()),
        optional(text(".{0,20}".boxed())),
        optional(
            "\"20[0-9]{2}-0[13-9]-[12][0-9]T1[0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{6})?(Z|[+-]0[0-9]:30)\""
                .boxed(),
        ),
        optional(tags.prop_map(|tags| format!("[{}]", tags.join(","))).boxed()),
        optional(
            (any::<f32>(), any::<i32>())
                .prop_filter_map("finite", |(x, y)| {
                    x.is_finite().then(|| {
                        format!("{{\"y\":{y},\"x\":{}}}", serde_json::to_string(&f64::from(x)).unwrap())
                    })
                })
                .boxed(),
        ),
        optional("-?[1-9][0-9]{0,8}\\.[0-9]{2}".boxed()),
        optional("\"20[0-9]{2}-1[0-2]-[12][0-9]\"".boxed()),
    );
    members.prop_map(|(id, amount, ok, note, at, tags, place, price, day)| {
        let members = [
            ("id", Some(id)),
            ("amount", amount),
            ("ok", ok),
            ("note", note),
            ("at", at),
            ("tags", tags),
            ("place", place),
            ("price", price),
            ("day", day),
        ];
        let written = members.into_iter().filter_map(|(name, value)| Some(format!("\"{name}\":{}", value?)));
        format!("{{{}}}", written.collect::<Vec<_>>().join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_batch_is_the_same(records in prop::collection::vec(record(), 1..12)) {
        let schema = schema();
        let program = JsonProgram::compile(&schema, ExtraFields::Ignore).unwrap();
        let bodies: Vec<_> = records.iter().map(|text| text.clone().into_bytes()).collect();
        let (results, ours) = decode_all(&program, &schema, &bodies);
        prop_assert!(results.iter().all(Result::is_ok), "{results:?}");
        let arrow_schema = Arc::clone(Columns::new(&schema).unwrap().arrow_schema());
        let mut decoder = ReaderBuilder::new(arrow_schema).build_decoder().unwrap();
        decoder.decode(records.join("\n").as_bytes()).unwrap();
        prop_assert_eq!(ours, decoder.flush().unwrap().unwrap());
    }
}
