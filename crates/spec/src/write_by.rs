//! How rows are laid down, as text: partition fields, sort keys, compression.

use siltstone_protocol::{NullOrder, SortDirection, Transform};

use crate::{
    forms::{check_name, column_path},
    limits,
    model::{Compression, PartitionBy, SortBy},
    nearest::nearest,
};

const TRANSFORMS: [&str; 8] = ["identity", "year", "month", "day", "hour", "bucket", "truncate", "void"];

const PARTITION: &str = "a partition field is a column, year(c), month(c), day(c), hour(c), bucket(n, c), \
                         truncate(n, c), identity(c) or void(c), each with an optional `as name`";

/// Reads `day(ts)`, `bucket(16, id) as shard`, `country`.
pub(crate) fn partition(text: &str) -> Result<PartitionBy, String> {
    let (expression, name) = match text.trim().rsplit_once(" as ") {
        Some((expression, name)) => (expression.trim(), Some(name.trim())),
        None => (text.trim(), None),
    };
    let (transform, column) = match expression.split_once('(') {
        None => (Transform::Identity, expression),
        Some((function, rest)) => {
            let arguments = rest.strip_suffix(')').ok_or(PARTITION)?;
            call(function.trim(), arguments)?
        }
    };
    column_path(column).map_err(|_| PARTITION)?;
    let name = match name {
        Some(name) => {
            check_name(name)?;
            name.to_owned()
        }
        None => default_name(column, transform),
    };
    Ok(PartitionBy { column: column.to_owned(), transform, name })
}

fn call<'a>(function: &str, arguments: &'a str) -> Result<(Transform, &'a str), String> {
    let (number, column) = match arguments.split_once(',') {
        Some((number, column)) => (Some(number.trim()), column.trim()),
        None => (None, arguments.trim()),
    };
    let numbered = |name: &str, max: u32| -> Result<u32, String> {
        let number = number.and_then(|number| number.parse().ok()).filter(|n| (1..=max).contains(n));
        number
            .ok_or_else(|| format!("{name} takes a number from 1 to {max} and a column: {name}(16, column)"))
    };
    let transform = match function {
        "bucket" => Transform::Bucket(numbered("bucket", limits::BUCKETS_MAX)?),
        "truncate" => Transform::Truncate(numbered("truncate", limits::TRUNCATE_WIDTH_MAX)?),
        _ if number.is_some() => return Err(PARTITION.to_owned()),
        "identity" => Transform::Identity,
        "year" | "years" => Transform::Year,
        "month" | "months" => Transform::Month,
        "day" | "days" => Transform::Day,
        "hour" | "hours" => Transform::Hour,
        "void" => Transform::Void,
        other => {
            let hint =
                nearest(other, TRANSFORMS).map(|name| format!("did you mean {name}? ")).unwrap_or_default();
            return Err(format!("unknown transform; {hint}{PARTITION}"));
        }
    };
    Ok((transform, column))
}

/// Iceberg's names; a dot of a struct member becomes `_`.
pub(crate) fn default_name(column: &str, transform: Transform) -> String {
    let column = column.replace('.', "_");
    match transform {
        Transform::Identity => column,
        Transform::Bucket(_) => format!("{column}_bucket"),
        Transform::Truncate(_) => format!("{column}_trunc"),
        Transform::Year => format!("{column}_year"),
        Transform::Month => format!("{column}_month"),
        Transform::Day => format!("{column}_day"),
        Transform::Hour => format!("{column}_hour"),
        Transform::Void => format!("{column}_null"),
    }
}

const SORT: &str =
    "a sort key is a column, then optionally asc or desc, then optionally `nulls first` or `nulls last`";

/// Reads `a`, `b desc`, `c asc nulls last`.
pub(crate) fn sort(text: &str) -> Result<SortBy, String> {
    let lower = text.to_ascii_lowercase();
    let words: Vec<&str> = lower.split_whitespace().collect();
    let column = text.split_whitespace().next().ok_or(SORT)?;
    column_path(column).map_err(|_| SORT)?;
    let mut rest = &words[1..];
    let direction = match rest.first() {
        Some(&"asc") => SortDirection::Asc,
        Some(&"desc") => SortDirection::Desc,
        _ => SortDirection::Asc,
    };
    if matches!(rest.first(), Some(&"asc" | &"desc")) {
        rest = &rest[1..];
    }
    let null_order = match (rest, direction) {
        ([], SortDirection::Asc) | (["nulls", "first"], _) => NullOrder::NullsFirst,
        ([], SortDirection::Desc) | (["nulls", "last"], _) => NullOrder::NullsLast,
        _ => return Err(SORT.to_owned()),
    };
    Ok(SortBy { column: column.to_owned(), direction, null_order })
}

/// Reads `zstd`, `zstd(3)`, `snappy`, `lz4`, `none`.
pub(crate) fn compression(text: &str) -> Result<Compression, String> {
    let levels = limits::ZSTD_LEVEL_MIN..=limits::ZSTD_LEVEL_MAX;
    let wrong = || {
        let (min, max) = (levels.start(), levels.end());
        format!("must be zstd, zstd(level) with a level from {min} to {max}, snappy, lz4 or none")
    };
    match text {
        "zstd" => Ok(Compression::Zstd { level: limits::ZSTD_LEVEL_DEFAULT }),
        "snappy" => Ok(Compression::Snappy),
        "lz4" => Ok(Compression::Lz4),
        "none" => Ok(Compression::None),
        _ => {
            let level = text.strip_prefix("zstd(").and_then(|rest| rest.strip_suffix(')'));
            let level =
                level.and_then(|level| level.trim().parse().ok()).filter(|level| levels.contains(level));
            level.map(|level| Compression::Zstd { level }).ok_or_else(wrong)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn partition_fields_are_read() {
        let read = |text: &str| partition(text).map(|by| (by.column, by.transform, by.name)).unwrap();
        let of = |column: &str, transform, name: &str| (column.to_owned(), transform, name.to_owned());
        assert_eq!(read("day(ts)"), of("ts", Transform::Day, "ts_day"));
        assert_eq!(read("bucket(16, id)"), of("id", Transform::Bucket(16), "id_bucket"));
        assert_eq!(read("truncate( 4 ,s ) as head"), of("s", Transform::Truncate(4), "head"));
        assert_eq!(read("country"), of("country", Transform::Identity, "country"));
        assert_eq!(read("identity(a.b)"), of("a.b", Transform::Identity, "a_b"));
        assert_eq!(read("void(x)"), of("x", Transform::Void, "x_null"));
        for text in [
            "",
            "day()",
            "day(ts",
            "day(1, ts)",
            "bucket(id)",
            "bucket(0, id)",
            "bucket(65537, id)",
            "a b",
            "truncate(-1, s)",
            "day(ts) as",
            "day(ts) as a/b",
            "days_of(ts)",
            "a..b",
        ] {
            assert!(partition(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sort_keys_are_read() {
        let read = |text: &str| sort(text).map(|by| (by.direction, by.null_order)).unwrap();
        assert_eq!(read("a"), (SortDirection::Asc, NullOrder::NullsFirst));
        assert_eq!(read("a desc"), (SortDirection::Desc, NullOrder::NullsLast));
        assert_eq!(read("a ASC NULLS LAST"), (SortDirection::Asc, NullOrder::NullsLast));
        assert_eq!(read("a nulls first"), (SortDirection::Asc, NullOrder::NullsFirst));
        assert_eq!(sort("Desc").unwrap().column, "Desc");
        for text in ["", "a b", "a desc nulls", "a desc desc", "a,b"] {
            assert!(sort(text).is_err(), "{text}");
        }
    }
}
