use arrow::array::{ArrayRef, Date32Array, TimestampMicrosecondArray};

use super::*;
use crate::transform::Condition;

const FIELDS: &str = "[{name: orderId, type: long}, {name: amount, type: double}, {name: country, type: string}, \
                      {name: at, type: timestamptz}, {name: n, type: string}, {name: b, type: long}, \
                      {name: cust, type: {struct: [{name: id, type: int}]}}]";

fn kept(filter: &str, rows: &str) -> (Vec<Option<String>>, usize, Vec<String>) {
    let applied = apply(FIELDS, &format!("    transforms: {{filter: \"{filter}\"}}\n"), rows);
    (column(&applied.batch, "orderId"), applied.filtered, told(&applied.failed))
}

#[test]
fn conditions_over_columns_and_members_are_understood() {
    let rows = r#"{"orderId":1,"amount":5,"country":"DE","at":"2026-01-31T12:00:00Z","cust":{"id":7}}
{"orderId":2,"amount":-1,"country":"XX","at":"2025-01-31T12:00:00Z","cust":{"id":8}}
{"orderId":3,"amount":null,"country":"FR","at":null,"cust":null}
{"orderId":4,"amount":0.5,"country":null,"at":"2026-06-01T00:00:00Z","cust":{"id":null}}"#;
    for (filter, expected) in [
        ("amount > 0 and country <> 'XX'", "1"),
        ("amount > 0", "1 4"),
        ("country in ('DE', 'FR')", "1 3"),
        ("orderId >= 2 and orderId < 4", "2 3"),
        ("cust.id = 7 or cust is null", "1 3"),
        ("at >= '2026-01-01T00:00:00Z'", "1 4"),
        ("upper(country) = 'FR'", "3"),
        ("country like 'D%' or coalesce(amount, 1) = 1", "1 3"),
        ("not (amount > 0)", "2"),
        ("true", "1 2 3 4"),
        ("orderId % 2 = 0", "2 4"),
    ] {
        let (ids, filtered, failed) = kept(filter, rows);
        let ids: Vec<String> = ids.into_iter().flatten().collect();
        assert_eq!(ids.join(" "), expected, "{filter}");
        assert_eq!((ids.len() + filtered, failed.len()), (4, 0), "{filter}");
    }
}

#[test]
fn a_row_for_which_it_cannot_be_computed_fails_alone() {
    let rows: String = (0..1000)
        .map(|id| {
            let (n, b) = (if id == 137 { "x".to_owned() } else { id.to_string() }, i64::from(id != 500));
            format!("{{\"orderId\":{id},\"n\":\"{n}\",\"b\":{b}}}\n")
        })
        .collect();
    let (ids, filtered, failed) = kept("cast(n as int) >= 100", &rows);
    let at = |place: &str| vec![format!("{place}: transforms.filter cannot be computed")];
    assert_eq!((ids.len(), filtered, failed), (899, 100, at("137 n")));
    let (ids, filtered, failed) = kept("10 / b > 1", &rows);
    assert_eq!((ids.len(), filtered, failed), (999, 0, at("500 b")));
    let (ids, filtered, failed) = kept("b <> 0 and 10 / b > 1", &rows);
    assert_eq!((ids.len(), filtered, failed.len()), (999, 1, 0), "what is guarded does not fail");
}

#[test]
fn only_what_can_fail_keeps_records() {
    let can_fail = |filter: &str| {
        transform(&table(FIELDS, &format!("    transforms: {{filter: \"{filter}\"}}\n"))).can_fail()
    };
    for safe in [
        "amount > 0",
        "orderId > 0 and country <> 'x'",
        "cust.id is not null",
        "at > '2026-01-01T00:00:00Z'",
        "b in (1, 2)",
    ] {
        assert!(!can_fail(safe), "{safe}");
    }
    for unsafe_one in ["10 / b > 1", "cast(n as int) > 0", "b + 1 > 0"] {
        assert!(can_fail(unsafe_one), "{unsafe_one}");
    }
}

#[test]
fn a_date_that_is_no_moment_of_the_other_type_fails_its_row() {
    let fields = "[{name: d, type: date}, {name: at, type: timestamp}]";
    let table = table(fields, "    transforms: {filter: d < at}\n");
    let transform = transform(&table);
    assert!(transform.can_fail(), "dates go on after the last nanosecond");
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(1), Some(2_932_896), None]));
    let moments: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![200_000_000_000; 3]));
    let batch = RecordBatch::try_new(arrow_schema(&source(&table)).unwrap(), vec![days, moments]).unwrap();
    let applied = transform.apply(batch).unwrap();
    assert_eq!(applied.filtered, 1);
    assert_eq!(told(&applied.failed), ["1: transforms.filter cannot be computed from at, d"]);
    assert_eq!(column(&applied.batch, "d"), texts(&["1970-01-02"]));
}

#[test]
fn what_is_no_condition_of_one_row_is_refused() {
    let source = source(&table(FIELDS, ""));
    let refused = |filter: &str| match Condition::parse(filter, &source) {
        Err(fault) => fault.to_string(),
        Ok(condition) => condition.compile().unwrap_err().to_string(),
    };
    for (filter, expected) in [
        ("amunt > 0", "transforms.filter: the source has no column amunt; did you mean amount?"),
        ("cust.nr > 0", "nr"),
        ("amount >", "transforms.filter: SQL error"),
        ("amount", "it is no condition"),
        ("country > 5 + ", "SQL error"),
        ("sum(amount) > 1", "no aggregates"),
        ("random() > 0.5", "says something else each time"),
        ("at > now()", "says something else each time"),
        ("exists (select 1)", "transforms.filter"),
        ("nothing_such(amount)", "nothing_such"),
    ] {
        let message = refused(filter);
        assert!(message.contains(expected), "{filter}: {message}");
        assert!(message.len() < 500, "{message}");
    }
}
