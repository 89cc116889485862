//! The exact texts; the vectors were computed with Python's `hmac` and `base64`, and with `cryptography`'s AESGCM.

use super::*;

const FIELDS: &str = "[{name: s, type: string}, {name: n, type: long}, {name: b, type: binary}, {name: u, type: uuid}, \
                      {name: d, type: date}]";
const ROWS: &str = r#"{"s":"ann@example.com","n":-5,"b":"00ff","u":"00112233445566778899aabbccddeeff","d":"2026-01-31"}
{"s":null,"n":null,"b":null,"u":null,"d":null}
{"s":"","n":0,"b":"","u":"00000000000000000000000000000000","d":"1970-01-01"}"#;

fn protect(how: &str) -> RecordBatch {
    let more = format!(
        "    protect: {{s: {how}, n: {how}, b: {how}, u: {how}, d: {how}}}\n{}",
        if matches!(how, "mask" | "drop") { "" } else { "    protection: {key: '${KEY}'}\n" }
    );
    apply(FIELDS, &more, ROWS).batch
}

fn vectors(how: &str) -> Vec<Vec<String>> {
    let text = include_str!("vectors.json");
    let all: serde_json::Value = serde_json::from_str(text).unwrap();
    serde_json::from_value(all[how].clone()).unwrap()
}

fn compare(how: &str) {
    let batch = protect(how);
    for (name, expected) in ["s", "n", "b", "u", "d"].iter().zip(vectors(how)) {
        let values: Vec<String> = column(&batch, name).into_iter().flatten().collect();
        assert_eq!(values, expected, "{how} {name}");
        assert!(column(&batch, name)[1].is_none(), "null stays null");
    }
}

#[test]
fn hashes_are_those_of_the_reference() {
    compare("hash");
}

#[test]
fn tokens_are_those_of_the_reference() {
    compare("tokenize");
}

#[test]
fn encrypted_values_are_those_of_the_reference() {
    compare("encrypt");
}

#[test]
fn masks_keep_the_shape() {
    let batch = apply(
        "[{name: s, type: string}, {name: n, type: long}]",
        "    protect: {s: mask, n: mask}\n",
        r#"{"s":"+49 170 1234567","n":4111111111111111}
{"s":"ann@example.com","n":1234567}
{"s":"Zoë Ü.","n":-12345678}
{"s":"","n":null}"#,
    )
    .batch;
    assert_eq!(column(&batch, "s"), texts(&["+** *** ***4567", "***@******e.com", "*** *.", ""]));
    assert_eq!(column(&batch, "n"), texts(&["************1111", "*******", "-****5678", "null"]));
}

#[test]
fn bytes_that_are_no_text_are_masked_one_by_one() {
    let batch = apply(
        "[{name: b, type: binary}]",
        "    protect: {b: mask}\n",
        "{\"b\":\"ff00ff\"}\n{\"b\":\"6869\"}",
    )
    .batch;
    assert_eq!(column(&batch, "b"), texts(&["***", "**"]));
}

#[test]
fn the_cast_comes_first() {
    let more =
        "    transforms: {cast: {n: string}}\n    protect: {n: hash}\n    protection: {key: '${KEY}'}\n";
    let cast = apply("[{name: n, type: long}]", more, "{\"n\":-5}").batch;
    assert_eq!(column(&cast, "n")[0].as_ref(), Some(&vectors("hash")[1][0]));
}

#[test]
fn nothing_shows_a_key() {
    let text = format!(
        "{:?} {:?}",
        keys(),
        transform(&table(FIELDS, "    protect: {s: hash}\n    protection: {key: '${KEY}'}\n"))
    );
    assert!(!text.contains("0123456789abcdef"), "{text}");
}
