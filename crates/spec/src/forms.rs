//! Scalars with a form of their own: sizes, durations, names, addresses, transforms.
//!
//! Each is a type of the grammar. Its JSON Schema carries, under [`FORM`], how the walker checks and
//! converts the text; editors see the pattern beside it. Messages say what is allowed, never the value.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    limits,
    model::{PartitionBy, SortBy},
    quantity,
    secret::Secret,
    url_text, write_by,
};

/// The schema keyword that names a form; dropped from the published schema.
pub(crate) const FORM: &str = "x-siltstone-form";

/// Bytes, within bounds. Written `256MiB`, `64KB` or a plain number.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct Size<const MIN: u64, const MAX: u64>(pub(crate) u64);

impl<const MIN: u64, const MAX: u64> JsonSchema for Size<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": r"^([0-9]+ ?([KMGT]i?B|B)?|.*\$\{.*)$",
            FORM: {"name": "size", "min": MIN, "max": MAX},
        })
    }
}

/// Milliseconds, within bounds. Written `30s`, `5m`, `7d`, `1s500ms`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct Age<const MIN: u64, const MAX: u64>(pub(crate) u64);

impl<const MIN: u64, const MAX: u64> JsonSchema for Age<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Age".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^(([0-9]+(d|h|m|s|ms))+|.*\$\{.*)$",
            FORM: {"name": "age", "min": MIN, "max": MAX},
        })
    }
}

/// A secret: written as one reference, held as what it stands for.
pub(crate) struct SecretText(pub(crate) Secret);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

impl JsonSchema for SecretText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": r"^\$\{(file:[^{}]+|[A-Za-z_][A-Za-z0-9_]*)\}$",
            FORM: {"name": "secret"},
        })
    }
}

/// Any JSON, written as a text or as YAML of the same shape; held as JSON text.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct JsonText(pub(crate) String);

impl JsonSchema for JsonText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "object", "array"], FORM: {"name": "json"}})
    }
}

/// A list item or a top-level field that may be at fault while the rest is still checked.
pub(crate) struct Slot<T>(pub(crate) Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Slot<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for Slot<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

macro_rules! text_forms {
    ($($(#[doc = $doc:literal])+ $name:ident = $form:literal, $pattern:literal, max $max:expr;)+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Deserialize)]
        #[serde(transparent)]
        pub(crate) struct $name(pub(crate) String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    FORM: {"name": $form, "max": $max},
                })
            }
        }
    )+};
}

text_forms! {
    /// A name of ours or of Kafka's: letters, digits, `_`, `-`, `.`.
    Name = "name", r"^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|.*\$\{.*)$", max limits::NAME_CHARS_MAX;
    /// A table, all below a dotted name, or all.
    TablePatternText = "table_pattern", r"^(\*|[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(\.\*)?|.*\$\{.*)$",
        max limits::NAME_CHARS_MAX;
    /// A consumer group: any printable text.
    Group = "text", r"^.+$", max limits::NAME_CHARS_MAX;
    /// A condition in SQL.
    Expression = "text", r"^.+$", max limits::FILTER_CHARS_MAX;
    /// Any text on one line.
    Text = "text", r"^.+$", max limits::URL_CHARS_MAX;
    /// A column, dotted inside structs.
    Column = "column", r"^[^\s(),]+$", max limits::COLUMN_CHARS_MAX;
    /// The name of a new column, undotted.
    ColumnName = "column_name", r"^[^\s(),.]+$", max limits::COLUMN_CHARS_MAX;
    /// A host name or address.
    Host = "host", r"^[^\s:/,]+$", max limits::HOST_CHARS_MAX;
    /// `host:port`.
    Broker = "broker", r"^([^\s/,]+:[0-9]+|.*\$\{.*)$", max limits::HOST_CHARS_MAX;
    /// A destination URL.
    DestinationText = "destination", r"^((s3|gs|az)://[^/]+|file:///).*|.*\$\{.*$", max limits::URL_CHARS_MAX;
    /// An http or https URL.
    HttpUrl = "http_url", r"^(https?://.+|.*\$\{.*)$", max limits::URL_CHARS_MAX;
    /// A partition field.
    PartitionText = "partition", r"^.+$", max limits::NAME_CHARS_MAX;
    /// A sort key.
    SortText = "sort", r"^.+$", max limits::NAME_CHARS_MAX;
    /// A column type by name.
    TypeText = "type", r"^.+$", max limits::URL_CHARS_MAX;
    /// JSON text, taken as it stands.
    VerbatimJson = "verbatim_json", r"^\s*[\[{\x22]", max limits::SPEC_BYTES_MAX;
    /// Any text of many lines, taken as it stands.
    Verbatim = "verbatim", r"\S", max limits::SPEC_BYTES_MAX;
    /// A compression codec with an optional level.
    CompressionText = "compression", r"^(zstd(\([0-9]+\))?|snappy|lz4|none|.*\$\{.*)$", max 32;
}

/// A moment: RFC 3339 or milliseconds since 1970 UTC, which is what it is held as.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct Moment(pub(crate) i64);

impl JsonSchema for Moment {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": r"^([0-9]+|[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ].+|.*\$\{.*)$",
            FORM: {"name": "moment"},
        })
    }
}

/// Checks a text against its form and converts it to what the type reads.
pub(crate) fn check(form: &Value, text: &str) -> Result<Value, String> {
    let name = form.get("name").and_then(Value::as_str).unwrap_or_default();
    match name {
        "size" => {
            let bounds = bounds(form, quantity::format_size);
            let wrong = || format!("must be a size {bounds}, such as 256MiB, 64KB or a number of bytes");
            within(form, quantity::parse_size(text)).map(Value::from).ok_or_else(wrong)
        }
        "age" => {
            let bounds = bounds(form, age_text);
            let wrong = || format!("must be a duration {bounds}, such as 30s, 5m, 7d or 1s500ms");
            let millis = quantity::parse_duration(text).and_then(|age| u64::try_from(age.as_millis()).ok());
            within(form, millis).map(Value::from).ok_or_else(wrong)
        }
        "moment" => moment(text).map(Value::from).ok_or_else(|| MOMENT.to_owned()),
        _ => {
            let max = form.get("max").and_then(Value::as_u64).unwrap_or(u64::MAX);
            if text.is_empty() {
                return Err("must not be empty".to_owned());
            }
            if text.chars().count() as u64 > max {
                return Err(format!("must not be longer than {max} characters"));
            }
            check_text(name, text).map(|()| json!(text))
        }
    }
}

const MOMENT: &str =
    "must be a time such as 2026-01-31T12:00:00Z (RFC 3339), or milliseconds since 1970-01-01 UTC";

fn check_text(name: &str, text: &str) -> Result<(), String> {
    match name {
        "name" => check_name(text),
        "table_pattern" => check_table_pattern(text),
        "text" => plain_text(text),
        "column" => column_path(text),
        "column_name" if text.contains('.') => Err("a column's name has no dot".to_owned()),
        "column_name" => column_path(text),
        "host" => url_text::check_host(text),
        "broker" => url_text::check_broker(text),
        "destination" => url_text::destination(text).map(drop),
        "http_url" => url_text::http_url(text).map(drop),
        "partition" => write_by::partition(text).map(|_: PartitionBy| ()),
        "sort" => write_by::sort(text).map(|_: SortBy| ()),
        "type" => crate::columns::check_type_text(text),
        "verbatim_json" => json_text(text),
        "compression" => write_by::compression(text).map(drop),
        _ => Ok(()),
    }
}

/// Letters, digits, `_`, `-` and `.`, the latter neither at the ends nor doubled.
pub(crate) fn check_name(text: &str) -> Result<(), String> {
    let letters = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if letters && text.split('.').all(|part| !part.is_empty()) {
        return Ok(());
    }
    Err("a name is letters, digits, _ - and single dots that stand between other characters".to_owned())
}

fn check_table_pattern(text: &str) -> Result<(), String> {
    let name = text.strip_suffix(".*").unwrap_or(text);
    let sound = text == "*" || check_name(name).is_ok();
    if sound { Ok(()) } else { Err("must be a table's name, a name with .* behind it, or *".to_owned()) }
}

fn plain_text(text: &str) -> Result<(), String> {
    let plain = !text.chars().any(char::is_control) && text.trim() == text;
    if plain { Ok(()) } else { Err("must be one line without spaces at its ends".to_owned()) }
}

/// A column as it may stand in a partition field or a sort key.
pub(crate) fn column_path(text: &str) -> Result<(), String> {
    let apart = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '(' | ')' | ',');
    if text.is_empty() || text.chars().any(apart) || text.split('.').any(str::is_empty) {
        return Err(
            "must be a column's name, dotted inside structs, without spaces, commas or brackets".to_owned()
        );
    }
    Ok(())
}

/// The parser's own message may quote the text, so that only the place is told.
pub(crate) fn json_text(text: &str) -> Result<(), String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(|error| {
        format!("must be JSON; it breaks off at its line {}, column {}", error.line(), error.column())
    })
}

fn moment(text: &str) -> Option<i64> {
    if let Ok(millis) = text.parse::<i64>() {
        return (millis >= 0).then_some(millis);
    }
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    Some(time.timestamp_millis()).filter(|millis| *millis >= 0)
}

fn within(form: &Value, number: Option<u64>) -> Option<u64> {
    let bound = |key: &str| form.get(key).and_then(Value::as_u64);
    number.filter(|n| bound("min").is_none_or(|min| *n >= min) && bound("max").is_none_or(|max| *n <= max))
}

fn bounds(form: &Value, text: fn(u64) -> String) -> String {
    let bound = |key: &str| form.get(key).and_then(Value::as_u64).map(text).unwrap_or_default();
    format!("from {} to {}", bound("min"), bound("max"))
}

fn age_text(millis: u64) -> String {
    quantity::format_duration(std::time::Duration::from_millis(millis))
}

/// What a form takes, in words, for messages and the reference.
pub(crate) fn describe(form: &Value) -> String {
    let name = form.get("name").and_then(Value::as_str).unwrap_or_default();
    match name {
        "size" => format!("size, {}", bounds(form, quantity::format_size)),
        "age" => format!("duration, {}", bounds(form, age_text)),
        "moment" => "time (RFC 3339 or milliseconds)".to_owned(),
        "secret" => "secret: `${VAR}` or `${file:/path}`".to_owned(),
        "json" => "JSON, as text or as YAML".to_owned(),
        "verbatim_json" => "JSON text".to_owned(),
        "verbatim" => "text, taken as it stands".to_owned(),
        "name" => "name".to_owned(),
        "table_pattern" => "`table`, `name.*` or `*`".to_owned(),
        "column" | "column_name" => "column".to_owned(),
        "host" => "host name".to_owned(),
        "broker" => "`host:port`".to_owned(),
        "destination" | "http_url" => "URL".to_owned(),
        "partition" => "partition field".to_owned(),
        "sort" => "sort key".to_owned(),
        "type" => "type name".to_owned(),
        "compression" => "`zstd`, `zstd(level)`, `snappy`, `lz4` or `none`".to_owned(),
        _ => "text".to_owned(),
    }
}
