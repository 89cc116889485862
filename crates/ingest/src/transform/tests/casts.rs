//! Every pair of types that can be cast, with values at the edges; `-` stands for a row that fails.

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
        FixedSizeBinaryArray, Float32Array, Float64Array, Int32Array, Int64Array, StringArray,
        Time64MicrosecondArray, TimestampMicrosecondArray,
    },
    datatypes::{Date32Type, TimestampMicrosecondType},
};
use siltstone_protocol::PrimitiveType;
use siltstone_spec::transform::{Castable, castable};

use super::*;
use crate::transform::cast;

fn cast_of(from: &str, to: &str, values: &str) -> Applied {
    apply(
        &format!("[{{name: k, type: int}}, {{name: v, type: '{from}'}}]"),
        &format!("    transforms: {{cast: {{v: '{to}'}}}}\n"),
        &values.split(';').enumerate().map(|(k, v)| format!("{{\"k\":{k},\"v\":{v}}}\n")).collect::<String>(),
    )
}

fn cast_texts(from: &str, to: &str, values: &str) -> Vec<String> {
    let applied = cast_of(from, to, values);
    let mut out: Vec<String> =
        column(&applied.batch, "v").into_iter().map(|v| v.unwrap_or("null".into())).collect();
    for failed in applied.failed {
        out.insert(failed.row, "-".to_owned());
    }
    out
}

#[test]
fn values_are_cast_or_fail() {
    let cases: &[(&str, &str, &str, &str)] = &[
        ("string", "int", r#""1";"-2147483648";"2147483648";"1.5";"";null"#, "1 -2147483648 - - - null"),
        ("string", "long", r#""9223372036854775807";"9223372036854775808""#, "9223372036854775807 -"),
        ("string", "double", r#""0.1";"1e3";"x""#, "0.1 1000.0 -"),
        ("string", "boolean", r#""true";"false";"maybe""#, "true false -"),
        ("string", "decimal(5, 2)", r#""1.239";"-1.2";"999.99";"1000";"x""#, "1.24 -1.20 999.99 - -"),
        ("string", "date", r#""2026-01-31";"2026-02-30";"x""#, "2026-01-31 - -"),
        ("string", "time", r#""12:30:01";"25:00:00""#, "12:30:01 -"),
        ("string", "timestamp", r#""2026-01-31T12:00:00";"x""#, "2026-01-31T12:00:00 -"),
        (
            "string",
            "timestamptz",
            r#""2026-01-31T12:00:00Z";"2026-01-31T12:00:00+02:00";"2026-01-31T12:00:00";"x""#,
            "2026-01-31T12:00:00Z 2026-01-31T10:00:00Z 2026-01-31T12:00:00Z -",
        ),
        (
            "string",
            "uuid",
            r#""00112233-4455-6677-8899-AABBCCDDEEFF";"00112233445566778899aabbccddeeff";"0011""#,
            "00112233445566778899aabbccddeeff 00112233445566778899aabbccddeeff -",
        ),
        ("long", "int", "5;2147483648;null", "5 - null"),
        ("long", "string", "5;-1;null", "5 -1 null"),
        ("long", "decimal(3, 1)", "5;100;null", "5.0 - null"),
        ("long", "boolean", "1", "!"),
        ("double", "int", "1.9;-1.9;1e10", "1 -1 -"),
        ("double", "decimal(4, 1)", "1.25;1000.0", "1.3 -"),
        ("double", "string", "0.5", "0.5"),
        ("decimal(6, 3)", "decimal(4, 1)", "1.25;999.96", "1.3 -"),
        ("decimal(6, 3)", "string", "1.25", "1.250"),
        ("decimal(6, 3)", "double", "1.25", "1.25"),
        ("decimal(12, 1)", "int", "7.0;99999999999.0", "7 -"),
        ("boolean", "string", "true;false", "true false"),
        ("boolean", "int", "true;false", "1 0"),
        ("date", "string", r#""2026-01-31""#, "2026-01-31"),
        ("date", "timestamp", r#""2026-01-31""#, "2026-01-31T00:00:00"),
        ("date", "timestamptz", r#""2026-01-31""#, "2026-01-31T00:00:00Z"),
        ("timestamp", "timestamptz", r#""2026-01-31T12:00:00.5""#, "2026-01-31T12:00:00.500Z"),
        ("timestamptz", "timestamp", r#""2026-01-31T12:00:00Z""#, "2026-01-31T12:00:00"),
        ("timestamptz", "date", r#""2026-01-31T23:59:59Z";"1969-12-31T23:59:59Z""#, "2026-01-31 1969-12-31"),
        (
            "timestamptz",
            "string",
            r#""2026-01-31T12:00:00.000001Z";null"#,
            "2026-01-31T12:00:00.000001Z null",
        ),
        ("timestamp", "string", r#""2026-01-31T12:00:00""#, "2026-01-31T12:00:00"),
        ("time", "string", r#""12:30:01""#, "12:30:01"),
        ("binary", "string", r#""6869";"ff""#, "hi -"),
        ("string", "binary", r#""hi""#, "6869"),
        ("fixed[2]", "string", r#""6869";"ffff""#, "hi -"),
        ("uuid", "string", r#""00112233445566778899aabbccddeeff""#, "00112233-4455-6677-8899-aabbccddeeff"),
    ];
    for (from, to, values, expected) in cases {
        if *expected == "!" {
            assert_eq!(castable(from.parse().unwrap(), to.parse().unwrap()), Castable::Never);
            continue;
        }
        assert_eq!(cast_texts(from, to, values).join(" "), *expected, "{from} to {to}");
    }
}

#[test]
fn what_cannot_be_cast_is_told_by_both_types() {
    for (from, to, values, expected) in [
        ("string", "int", r#""1";"x""#, "1 v: string that is no int"),
        ("string", "decimal(5, 2)", r#""1000""#, "0 v: string that is no decimal(5, 2)"),
        ("long", "int", "5;2147483648", "1 v: long that does not fit int"),
        ("double", "decimal(4, 1)", "1000.0", "0 v: double that does not fit decimal(4, 1)"),
        ("binary", "string", r#""ff""#, "0 v: binary that is not UTF-8 where string is wanted"),
        ("fixed[2]", "string", r#""ffff""#, "0 v: fixed[2] that is not UTF-8 where string is wanted"),
    ] {
        assert_eq!(told(&cast_of(from, to, values).failed), [expected], "{from} to {to}");
    }
}

/// The least and the greatest of what a column of the type can hold, what is between, and null.
fn edges(of: PrimitiveType) -> ArrayRef {
    use PrimitiveType as P;
    let target = cast::arrow_type(of).unwrap();
    let bytes = |size: usize| {
        let values = [Some(vec![0u8; size]), Some(vec![0x41; size]), Some(vec![255; size]), None];
        let size = i32::try_from(size).unwrap();
        FixedSizeBinaryArray::try_from_sparse_iter_with_size(values.into_iter(), size).unwrap()
    };
    let binary: [Option<&[u8]>; 4] = [Some(b""), Some(b"0"), Some(b"\xff"), None];
    match of {
        P::Boolean => Arc::new(BooleanArray::from(vec![Some(false), Some(true), None])),
        P::Int => Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(0), Some(i32::MAX), None])),
        P::Long => Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(0), Some(i64::MAX), None])),
        P::Float => Arc::new(Float32Array::from(vec![Some(f32::MIN), Some(0.0), Some(f32::MAX), None])),
        P::Double => Arc::new(Float64Array::from(vec![Some(f64::MIN), Some(0.0), Some(f64::MAX), None])),
        P::Decimal { precision, .. } => {
            let most = 10i128.pow(precision.into()) - 1;
            let values = Decimal128Array::from(vec![Some(-most), Some(0), Some(most), None]);
            Arc::new(values.with_data_type(target))
        }
        P::Date => Arc::new(Date32Array::from(vec![Some(i32::MIN), Some(0), Some(i32::MAX), None])),
        P::Time => Arc::new(Time64MicrosecondArray::from(vec![Some(0), Some(1), Some(86_399_999_999), None])),
        P::Timestamp | P::Timestamptz => {
            let values = TimestampMicrosecondArray::from(vec![Some(i64::MIN), Some(0), Some(i64::MAX), None]);
            Arc::new(values.with_data_type(target))
        }
        P::String => Arc::new(StringArray::from(vec![Some(""), Some("0"), Some("\u{10ffff}"), None])),
        P::Uuid => Arc::new(bytes(16)),
        P::Fixed(size) => Arc::new(bytes(size as usize)),
        P::Binary => Arc::new(BinaryArray::from(binary.to_vec())),
    }
}

#[test]
fn every_pair_that_the_spec_allows_is_carried_out() {
    let types = [
        "boolean",
        "int",
        "long",
        "float",
        "double",
        "decimal(9, 2)",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "string",
        "uuid",
        "fixed[4]",
        "binary",
    ];
    for from in types {
        for to in types {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let castable = castable(from, to);
            if castable == Castable::Never {
                continue;
            }
            let values = edges(from);
            let done = cast::cast(&values, from, to).unwrap();
            assert_eq!(done.data_type(), &cast::arrow_type(to).unwrap(), "{from} to {to}");
            if castable == Castable::Always {
                assert_eq!(done.null_count(), values.null_count(), "{from} to {to}");
            }
        }
    }
}

#[test]
fn dates_and_times_far_away_are_the_same_or_fail() {
    use PrimitiveType as P;
    let shown = |array: &ArrayRef| {
        let batch = RecordBatch::try_from_iter_with_nullable([("v", Arc::clone(array), true)]).unwrap();
        column(&batch, "v").into_iter().map(|v| v.unwrap_or("-".into())).collect::<Vec<_>>().join(" ")
    };
    let days: ArrayRef =
        Arc::new(Date32Array::from(vec![-106_751_992, -106_751_991, 106_751_991, 106_751_992]));
    let micros = cast::cast(&days, P::Date, P::Timestamp).unwrap();
    let micros = micros.as_primitive::<TimestampMicrosecondType>();
    assert_eq!(
        micros.iter().collect::<Vec<_>>(),
        [None, Some(-106_751_991 * 86_400_000_000), Some(106_751_991 * 86_400_000_000), None]
    );
    let days: ArrayRef = Arc::new(Date32Array::from(vec![i32::MIN, -719_529, 2_932_897, i32::MAX]));
    assert_eq!(shown(&cast::cast(&days, P::Date, P::String).unwrap()), "- -0001-12-31 +10000-01-01 -");
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN, -1, i64::MAX]));
    let days = cast::cast(&times, P::Timestamp, P::Date).unwrap();
    assert_eq!(days.as_primitive::<Date32Type>().values(), &[-106_751_992, -1, 106_751_991]);
    let texts = cast::cast(&times, P::Timestamp, P::String).unwrap();
    assert_eq!(shown(&texts), "- 1969-12-31T23:59:59.999999 -");
}
