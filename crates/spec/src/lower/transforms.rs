//! Transforms and protection: names that can stand together, values that are of their types, a key where one is needed.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use siltstone_protocol::{PrimitiveType, Schema};

use super::{Lower, Place};
use crate::{
    forms::{Column, TypeText, column_path},
    limits,
    model::{KeyService, Literal, Protection, ProtectionKey, TableSpec, Transforms},
    raw::{RawConstant, RawKeyService, RawProtection, RawProtectionKey, RawTransforms},
    transform::{self, KAFKA, TransformPlace},
    url_text,
};

impl Lower<'_> {
    pub(super) fn transforms(&mut self, raw: RawTransforms, place: &Place<'_>) -> Transforms {
        let select = raw.select.map(|columns| self.source_columns(&columns, &place.key("select")));
        let drop = self.source_columns(&raw.drop, &place.key("drop"));
        let at = place.key("rename");
        for (column, name) in &raw.rename {
            self.named_column(column, &at);
            if name.0 == KAFKA {
                self.fault(&at.key(column), "_kafka is the name of kafka_metadata's column");
            }
        }
        let at = place.key("cast");
        let cast = raw.cast.into_iter().filter_map(|(column, to)| {
            self.named_column(&column, &at);
            self.cast_type(&to, &at.key(&column)).map(|to| (column, to))
        });
        let cast = cast.collect();
        let at = place.key("constant");
        let constant = raw.constant.into_iter().filter_map(|(column, constant)| {
            self.named_column(&column, &at);
            if column.contains('.') {
                self.fault(&at.key(&column), "a new column's name has no dot");
            }
            self.constant(&constant, &at.key(&column)).map(|literal| (column, literal))
        });
        let constant = constant.collect();
        Transforms {
            filter: raw.filter.map(|filter| filter.0),
            select,
            drop,
            rename: raw.rename.into_iter().map(|(column, name)| (column, name.0)).collect(),
            cast,
            constant,
        }
    }

    fn source_columns(&mut self, raw: &[Column], place: &Place<'_>) -> Vec<String> {
        for (index, column) in raw.iter().enumerate() {
            let inside = |outer: &Column| {
                column.0.strip_prefix(outer.0.as_str()).is_some_and(|rest| rest.starts_with('.'))
            };
            if let Some(outer) = raw.iter().position(inside) {
                self.fault(
                    &place.item(index),
                    format!("lies inside [{outer}] of the list, which names all of it"),
                );
            }
            if column.0.split('.').next() == Some(KAFKA) {
                self.fault(
                    &place.item(index),
                    "_kafka is the engine's own column; protect can drop members of it",
                );
            }
        }
        self.columns(raw, place)
    }

    /// A column that is the key of a mapping.
    fn named_column(&mut self, column: &str, place: &Place<'_>) {
        if let Err(message) = column_path(column) {
            return self.fault(place, message);
        }
        if column.split('.').next() == Some(KAFKA) {
            self.fault(
                &place.key(column),
                "_kafka is the engine's own column; only protect can name its members",
            );
        }
    }

    fn cast_type(&mut self, text: &TypeText, place: &Place<'_>) -> Option<PrimitiveType> {
        let primitive = text.0.trim().parse().ok();
        if primitive.is_none() {
            self.fault(
                place,
                "a column is cast to a primitive type: lists, maps and structs stay as they are",
            );
        }
        primitive
    }

    fn constant(&mut self, raw: &RawConstant, place: &Place<'_>) -> Option<Literal> {
        let Ok(data_type) = raw.data_type.0.trim().parse() else {
            self.fault(&place.key("type"), TYPES);
            return None;
        };
        match literal(data_type, &raw.value.0) {
            Ok(literal) => Some(literal),
            Err(Wrong::Type) => {
                self.fault(&place.key("type"), TYPES);
                None
            }
            Err(Wrong::Value) => {
                self.fault(
                    &place.key("value"),
                    format!("is not a value of type {data_type}{}", form_of(data_type)),
                );
                None
            }
        }
    }

    pub(super) fn protect(
        &mut self,
        raw: BTreeMap<String, RawProtection>,
        kafka_metadata: bool,
        place: &Place<'_>,
    ) -> BTreeMap<String, Protection> {
        let mut protect = BTreeMap::new();
        for (column, how) in raw {
            if let Err(message) = column_path(&column) {
                self.fault(place, message);
            }
            let how = match how {
                RawProtection::Hash => Protection::Hash,
                RawProtection::Mask => Protection::Mask,
                RawProtection::Tokenize => Protection::Tokenize,
                RawProtection::Drop => Protection::Drop,
                RawProtection::Encrypt => Protection::Encrypt,
            };
            self.own_column(&column, how, kafka_metadata, &place.key(&column));
            protect.insert(column, how);
        }
        protect
    }

    /// `_kafka` holds the record's key and headers; the rest of it is what other parts of the engine go by.
    fn own_column(&mut self, column: &str, how: Protection, kafka_metadata: bool, place: &Place<'_>) {
        let Some((KAFKA, member)) = column.split_once('.').or((column == KAFKA).then_some((KAFKA, "")))
        else {
            return;
        };
        if !kafka_metadata {
            return self.fault(place, "rows have _kafka only with kafka_metadata: true");
        }
        match (member, how) {
            ("key", _) | ("headers", Protection::Drop) => {}
            ("headers", _) => self.fault(place, "headers can be dropped, as a whole"),
            _ => self.fault(place, "of _kafka, key and headers can be protected"),
        }
    }

    pub(super) fn protection(
        &mut self,
        raw: Option<RawProtectionKey>,
        protect: &BTreeMap<String, Protection>,
        place: &Place<'_>,
    ) -> Option<ProtectionKey> {
        let keyed = protect.iter().find(|(_, how)| how.is_keyed());
        let Some(raw) = raw else {
            if let Some((column, how)) = keyed {
                let at = place.key("protect").key(column);
                self.fault(&at, format!("{} needs protection: {{key: ..}} beside protect", how.as_str()));
            }
            return None;
        };
        let place = place.key("protection");
        if keyed.is_none() {
            self.fault(&place, "is the key of protect, where nothing needs one; leave it out");
        }
        match (raw.key, raw.kms) {
            (Some(key), None) => {
                if key.0.reveal().len() < limits::PROTECTION_KEY_BYTES_MIN {
                    let min = limits::PROTECTION_KEY_BYTES_MIN;
                    self.fault(&place.key("key"), format!("must have at least {min} characters, at random"));
                }
                Some(ProtectionKey::Secret(key.0))
            }
            (None, Some(kms)) => Some(ProtectionKey::Service(self.key_service(kms, &place.key("kms")))),
            _ => {
                self.fault(&place, "must have exactly one of key, kms");
                None
            }
        }
    }

    fn key_service(&mut self, raw: RawKeyService, place: &Place<'_>) -> KeyService {
        let url = url_text::http_url(&raw.url.0).unwrap_or_default();
        if !url_text::is_private(&url) {
            let message = "must be https; http is for a service on this machine (127.0.0.1, ::1, localhost)";
            self.fault(&place.key("url"), message);
        }
        let name = url.rsplit_once("/keys/").map(|(_, name)| name);
        if name.is_none_or(|name| name.is_empty() || name.contains(['/', '?'])) {
            self.fault(&place.key("url"), "must end in /keys/NAME: https://host/v1/transit/keys/NAME");
        }
        KeyService {
            url,
            token: raw.token.0,
            wrapped_key: raw.wrapped_key.0,
            ca_file: raw.ca_file.map(|file| self.sources.path(&file.0)),
        }
    }

    /// The table's schema by an inline source, or `None` when transforms do not fit it.
    pub(super) fn transforms_fit(
        &mut self,
        table: &TableSpec,
        source: &Schema,
        place: &Place<'_>,
    ) -> Option<Schema> {
        let (faults, schema) = match transform::outcome(table, source) {
            Ok(outcome) => (outcome.unknown.clone(), outcome.schema()),
            Err(faults) => (faults, Schema::new(0, Vec::new())),
        };
        let mut sound = true;
        for fault in faults {
            let transforms = place.key("transforms");
            let at = match &fault.place {
                TransformPlace::Select(index) => transforms.key("select").item(*index),
                TransformPlace::Drop(index) => transforms.key("drop").item(*index),
                TransformPlace::Rename(column) => transforms.key("rename").key(column),
                TransformPlace::Cast(column) => transforms.key("cast").key(column),
                TransformPlace::Constant(column) => transforms.key("constant").key(column),
                // The fields of a spec do not have it.
                TransformPlace::Protect(column) if column.split('.').next() == Some(KAFKA) => continue,
                TransformPlace::Protect(column) => place.key("protect").key(column),
            };
            self.fault(&at, fault.message);
            sound = false;
        }
        sound.then_some(schema)
    }
}

const TYPES: &str = "a constant is of type boolean, int, long, float, double, decimal(p, s), date, timestamp, \
                     timestamptz or string";

enum Wrong {
    Type,
    Value,
}

fn form_of(data_type: PrimitiveType) -> &'static str {
    match data_type {
        PrimitiveType::Boolean => ": true or false",
        PrimitiveType::Date => ", such as 2026-01-31",
        PrimitiveType::Timestamp => ", such as 2026-01-31T12:00:00",
        PrimitiveType::Timestamptz => ", such as 2026-01-31T12:00:00Z",
        _ => "",
    }
}

fn literal(data_type: PrimitiveType, text: &str) -> Result<Literal, Wrong> {
    fn read<T: std::str::FromStr>(text: &str) -> Result<T, Wrong> {
        text.parse().map_err(|_| Wrong::Value)
    }
    Ok(match data_type {
        PrimitiveType::Boolean => Literal::Boolean(read(text)?),
        PrimitiveType::Int => Literal::Int(read(text)?),
        PrimitiveType::Long => Literal::Long(read(text)?),
        PrimitiveType::Float => Literal::Float(read(text)?),
        PrimitiveType::Double => Literal::Double(read(text)?),
        PrimitiveType::Decimal { precision, scale } => {
            let unscaled = decimal(text, precision, scale).ok_or(Wrong::Value)?;
            Literal::Decimal { unscaled, precision, scale }
        }
        PrimitiveType::Date => {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| Wrong::Value)?;
            let days = date.signed_duration_since(NaiveDate::default()).num_days();
            Literal::Date(i32::try_from(days).map_err(|_| Wrong::Value)?)
        }
        PrimitiveType::Timestamp => {
            let time =
                NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map_err(|_| Wrong::Value)?;
            Literal::Timestamp(time.and_utc().timestamp_micros())
        }
        PrimitiveType::Timestamptz => {
            let time = DateTime::parse_from_rfc3339(text).map_err(|_| Wrong::Value)?;
            Literal::Timestamptz(time.timestamp_micros())
        }
        PrimitiveType::String => Literal::String(text.to_owned()),
        _ => return Err(Wrong::Type),
    })
}

/// Digits with an optional sign and point, exactly.
fn decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |part: &str| part.bytes().all(|c| c.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let missing = usize::from(scale).checked_sub(fraction.len())?;
    let all = format!("0{whole}{fraction}{}", "0".repeat(missing));
    let unscaled: i128 = all.parse().ok()?;
    let fits = unscaled < 10i128.checked_pow(u32::from(precision))?;
    fits.then_some(if is_negative { -unscaled } else { unscaled })
}
