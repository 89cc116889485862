//! `backfill` and `reset`: history, and how much of it.

use std::path::PathBuf;

use chrono::{DateTime, NaiveDate};
use clap::Args;
use siltstone_worker::reingest::Bound;

use super::{FileArgs, TableArgs};

#[derive(Debug, Args)]
pub struct BackfillArgs {
    #[command(flatten)]
    pub table: TableArgs,
    /// First offset of each partition, or the time of the first record: `earliest`, `latest`, an offset, a date or a
    /// time like 2026-01-31T00:00:00Z.
    #[arg(long, value_name = "BOUND", default_value = "earliest", value_parser = bound)]
    pub from: Bound,
    /// Where it ends, in the same words; it is not part of it. A partition that has no position yet gets it here: live
    /// workers begin where this ends.
    #[arg(long, value_name = "BOUND", default_value = "latest", value_parser = bound)]
    pub to: Bound,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub how: HistoryArgs,
}

#[derive(Debug, Args)]
pub struct ResetArgs {
    #[command(flatten)]
    pub table: TableArgs,
    /// First offset of each partition, or the time of the first record: `earliest`, `latest`, an offset, a date or a
    /// time like 2026-01-31T00:00:00Z.
    #[arg(long, value_name = "BOUND", value_parser = bound)]
    pub from: Bound,
    /// Where it ends, in the same words; it is not part of it.
    #[arg(long, value_name = "BOUND", value_parser = bound)]
    pub to: Bound,
    #[command(flatten)]
    pub how: HistoryArgs,
}

/// What of the topic, and with what means.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Only these partitions of the topic.
    #[arg(long = "partition", value_name = "PARTITION")]
    pub partitions: Vec<i32>,
    /// Only say what would be read and what would leave; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The memory budget of the process, e.g. `512MiB`.
    #[arg(long, default_value = "512MiB", env = "SILTSTONE_MEMORY")]
    pub memory: String,
    /// Where rows are put meanwhile when memory does not suffice. Default: the system's directory for such files.
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,
    /// How much may be there and in memory at once; then files are made of it, and a backfill commits them. What one
    /// that is killed read since its last commit is read again.
    #[arg(long, value_name = "SIZE", default_value = "16GiB")]
    pub spill_limit: String,
}

fn bound(text: &str) -> Result<Bound, String> {
    match text {
        "earliest" => return Ok(Bound::Earliest),
        "latest" => return Ok(Bound::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse::<u64>() {
        return i64::try_from(offset).map(Bound::Offset).map_err(|_| "no offset is so large".to_owned());
    }
    let day = || Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0)?.and_utc());
    let time = DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()).or_else(day);
    let time = time.map(|time| Bound::Time(time.timestamp_millis()));
    time.ok_or_else(|| {
        "it is `earliest`, `latest`, an offset, a date, or a time like 2026-01-31T00:00:00Z".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_word_an_offset_or_a_time() {
        assert_eq!(bound("earliest"), Ok(Bound::Earliest));
        assert_eq!(bound("1200"), Ok(Bound::Offset(1200)));
        assert_eq!(bound("2026-01-31"), Ok(Bound::Time(1_769_817_600_000)));
        assert_eq!(bound("2026-01-31T01:00:00+01:00"), Ok(Bound::Time(1_769_817_600_000)));
        for wrong in ["-5", "yesterday", "2026-13-01", ""] {
            assert!(bound(wrong).is_err(), "{wrong}");
        }
    }
}
