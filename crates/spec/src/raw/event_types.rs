//! Several event types in one topic.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    forms::{ColumnName, Text},
    limits,
};

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RawEventTypes {
    Names(#[schemars(length(min = 1, max = limits::EVENT_TYPES_MAX))] Vec<Text>),
    Parts(RawEventTypesParts),
}

/// Event types of one topic in one table: all fields of all types, each by its name, null where a type has no such
/// field. Fields of one name and different types are one column if one type holds both; else the later type's records
/// are rejected, by `dlq_mode`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "EventTypes")]
pub(crate) struct RawEventTypesParts {
    /// `all`, or a list of names.
    #[schemars(extend("default" = "all"))]
    pub(crate) take: RawTake,
    /// Name of a column that gets the name of the record's type.
    #[schemars(example = &"event_type")]
    pub(crate) column: Option<ColumnName>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum RawTake {
    Word(RawTakeWord),
    Names(#[schemars(length(min = 1, max = limits::EVENT_TYPES_MAX))] Vec<Text>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum RawTakeWord {
    /// Every type.
    All,
}
