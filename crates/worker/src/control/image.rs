//! A whole table in parts, for a control plane to which the ledger's entries do not reach any more.

use siltstone_lakehouse::LedgerState;
use siltstone_protocol::{
    OffsetRange,
    image::{FILES_MAX, Image},
};

use super::{
    WireError,
    reporter::{ReportError, Reporting, TARGET_BYTES},
    statistics,
};

/// A file's entry is about so many bytes of JSON.
const FILE_BYTES: usize = 320;
/// What is opted in of a file, for each column and for its partition.
const STATISTICS_BYTES: usize = 400;

/// Sends the table as it is now, and returns its version.
///
/// # Errors
/// `Nonsense` when the control plane did not take it.
pub(super) async fn send(reporting: &Reporting<'_>) -> Result<u64, ReportError> {
    let table = reporting.table;
    let state = table.refresh().await?;
    let disclosure = &reporting.about.disclosure;
    let columns = disclosure.columns().len() + usize::from(disclosure.partition_values());
    let files_max = (TARGET_BYTES / (FILE_BYTES + columns * STATISTICS_BYTES)).clamp(1, FILES_MAX);
    let count = state.live_files.len().div_ceil(files_max).max(1);
    let parts = u32::try_from(count).unwrap_or(u32::MAX);
    let image_id = reporting.identity.commit_id();
    let mut files = state.live_files.values();
    let mut acknowledged = None;
    for part in 0..parts {
        let files: Vec<_> = files.by_ref().take(files_max).cloned().collect();
        let statistics = statistics::of_files(table, &state, disclosure, files.iter()).await?;
        let mut image = Image {
            table: reporting.about.identity.clone(),
            table_uuid: state.table_uuid.clone(),
            version: state.version,
            committed_ms: state.committed_ms,
            image_id: image_id.clone(),
            part,
            parts,
            schema: state.schema.clone(),
            partition_spec: state.partition_spec.clone(),
            sort_order: state.sort_order.clone(),
            formats: state.formats.clone(),
            files,
            ranges: if part == 0 { ranges(&state) } else { Vec::new() },
            statistics,
        };
        let sent = match reporting.wire.send(&image).await {
            Err(WireError::TooLarge(_)) if !image.statistics.is_empty() => {
                image.statistics.clear();
                reporting.wire.send(&image).await
            }
            ended => ended,
        };
        let ack = sent?;
        if ack.gap {
            return Err(ReportError::Nonsense);
        }
        acknowledged = ack.version;
    }
    tracing::info!(table = %table.name, version = state.version, parts, "reported as an image");
    match acknowledged {
        Some(version) if version == state.version => Ok(version),
        // Another worker is ahead of this one.
        Some(version) if version > state.version && version <= table.version() => Ok(version),
        _ => Err(ReportError::Nonsense),
    }
}

fn ranges(state: &LedgerState) -> Vec<OffsetRange> {
    let of = |(source, coverage): (&siltstone_lakehouse::SourcePartition, &siltstone_lakehouse::Coverage)| {
        let range = |&(start, end): &(i64, i64)| OffsetRange {
            cluster: source.cluster.clone(),
            topic: source.topic.clone(),
            partition: source.partition,
            start,
            end,
            lost: false,
        };
        coverage.intervals().iter().map(range).collect::<Vec<_>>()
    };
    state.coverage.iter().flat_map(of).collect()
}
