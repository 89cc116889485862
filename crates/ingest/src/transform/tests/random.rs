//! Random rows and specs against a model that goes row by row.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const FIELDS: &str = "[{name: k, type: long, required: true}, {name: n, type: string}, {name: a, type: long}, \
                      {name: s, type: {struct: [{name: x, type: string}, {name: y, type: long}]}}]";

fn row() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(|n| json!(n.to_string())),
        "[a-z0-9]{0,6}".prop_map(Value::from),
    ];
    let number =
        prop_oneof![Just(Value::Null), (-3i64..4).prop_map(Value::from), any::<i64>().prop_map(Value::from)];
    let inner = (text.clone(), number.clone()).prop_map(|(x, y)| json!({"x": x, "y": y}));
    (text, number, prop_oneof![Just(Value::Null), inner])
        .prop_map(|(n, a, s)| json!({"n": n, "a": a, "s": s}))
}

/// What a spec may ask for; each by itself.
#[derive(Debug, Clone)]
struct Asked {
    filter: bool,
    drop_y: bool,
    rename: bool,
    cast: bool,
    cast_inner: bool,
    constant: bool,
    mask: bool,
}

impl Asked {
    fn spec(&self) -> String {
        let mut lines = String::from("    transforms:\n      drop: [");
        lines.push_str(if self.drop_y { "s.y]\n" } else { "]\n" });
        if self.filter {
            lines.push_str("      filter: a >= 0\n");
        }
        if self.rename {
            lines.push_str("      rename: {n: name, s.x: ex}\n");
        }
        let (n, x) = if self.rename { ("name", "ex") } else { ("n", "x") };
        let mut casts = Vec::new();
        if self.cast {
            casts.push(format!("{n}: int"));
        }
        if self.cast_inner {
            casts.push(format!("s.{x}: int"));
        }
        lines.push_str(&format!("      cast: {{{}}}\n", casts.join(", ")));
        if self.constant {
            lines.push_str("      constant: {c: {type: int, value: 3}}\n");
        }
        if self.mask {
            lines.push_str("    protect: {a: mask}\n");
        }
        lines
    }

    /// The row in the end; `Ok(None)` when it is filtered, `Err` with the first column when it fails.
    fn model(&self, row: &Value) -> Result<Option<Value>, String> {
        if self.filter && row["a"].as_i64().is_none_or(|a| a < 0) {
            return Ok(None);
        }
        let int = |text: &Value, column: &str| match text {
            Value::Null => Ok(Value::Null),
            text => {
                let number = text.as_str().and_then(|text| text.parse::<i32>().ok());
                number.map(Value::from).ok_or_else(|| column.to_owned())
            }
        };
        let mut out = serde_json::Map::new();
        let (n, x) = if self.rename { ("name", "ex") } else { ("n", "x") };
        out.insert("k".to_owned(), row["k"].clone());
        out.insert(n.to_owned(), if self.cast { int(&row["n"], n)? } else { row["n"].clone() });
        let masked = |a: i64| {
            let text = a.to_string();
            let digits = text.trim_start_matches('-').len();
            let shown = if digits >= 8 { &text[text.len() - 4..] } else { "" };
            format!("{}{}{shown}", if a < 0 { "-" } else { "" }, "*".repeat(digits - shown.len()))
        };
        out.insert(
            "a".to_owned(),
            match row["a"].as_i64() {
                Some(a) if self.mask => masked(a).into(),
                _ => row["a"].clone(),
            },
        );
        if let Value::Object(inner) = &row["s"] {
            let mut made = serde_json::Map::new();
            let ex = if self.cast_inner { int(&inner["x"], &format!("s.{x}"))? } else { inner["x"].clone() };
            made.insert(x.to_owned(), ex);
            if !self.drop_y {
                made.insert("y".to_owned(), inner["y"].clone());
            }
            out.insert("s".to_owned(), made.into());
        } else {
            out.insert("s".to_owned(), Value::Null);
        }
        if self.constant {
            out.insert("c".to_owned(), 3.into());
        }
        Ok(Some(out.into()))
    }
}

fn rows_of(batch: &RecordBatch) -> Vec<BTreeMap<String, Value>> {
    let mut out = Vec::new();
    let mut writer = arrow_json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow_json::writer::LineDelimited>(&mut out);
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn batches_fare_as_their_rows_would_one_by_one(
        rows in prop::collection::vec(row(), 1..40),
        flags in prop::array::uniform7(any::<bool>()),
    ) {
        let [filter, drop_y, rename, cast, cast_inner, constant, mask] = flags;
        let asked = Asked { filter, drop_y, rename, cast, cast_inner, constant, mask };
        let rows: Vec<Value> = rows.into_iter().enumerate().map(|(k, mut row)| { row["k"] = k.into(); row }).collect();
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let applied = apply(FIELDS, &asked.spec(), &lines);
        let (mut kept, mut filtered, mut failed) = (Vec::new(), 0, Vec::new());
        for (place, row) in rows.iter().enumerate() {
            match asked.model(row) {
                Ok(Some(row)) => kept.push(serde_json::from_value::<BTreeMap<String, Value>>(row).unwrap()),
                Ok(None) => filtered += 1,
                Err(column) => failed.push(format!("{place} {column}: string that is no int")),
            }
        }
        prop_assert_eq!(applied.filtered, filtered);
        prop_assert_eq!(told(&applied.failed), failed);
        prop_assert_eq!(rows_of(&applied.batch), kept);
    }
}
