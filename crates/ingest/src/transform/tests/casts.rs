//! Every pair of types that can be cast, with values at the edges; `-` stands for a row that fails.

use super::*;

fn cast(from: &str, to: &str, values: &str) -> Vec<String> {
    let applied = apply(
        &format!("[{{name: k, type: int}}, {{name: v, type: '{from}'}}]"),
        &format!("    transforms: {{cast: {{v: '{to}'}}}}\n"),
        &values.split(';').enumerate().map(|(k, v)| format!("{{\"k\":{k},\"v\":{v}}}\n")).collect::<String>(),
    );
    let mut out: Vec<String> =
        column(&applied.batch, "v").into_iter().map(|v| v.unwrap_or("null".into())).collect();
    for row in applied.failed {
        out.insert(row, "-".to_owned());
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
            let made = siltstone_spec::transform::castable(from.parse().unwrap(), to.parse().unwrap());
            assert_eq!(made, siltstone_spec::transform::Castable::Never);
            continue;
        }
        assert_eq!(cast(from, to, values).join(" "), *expected, "{from} to {to}");
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
            if siltstone_spec::transform::castable(from, to) != siltstone_spec::transform::Castable::Never {
                let none =
                    arrow::array::new_null_array(&crate::transform::cast::arrow_type(from).unwrap(), 2);
                let done = crate::transform::cast::cast(&none, from, to).unwrap();
                assert_eq!(
                    done.data_type(),
                    &crate::transform::cast::arrow_type(to).unwrap(),
                    "{from} to {to}"
                );
            }
        }
    }
}
