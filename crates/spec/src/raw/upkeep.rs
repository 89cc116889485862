//! The grammar of what is done to a table's files later, and of what is told about them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::RawClustering;
use crate::{
    forms::{Age, Column, Size},
    limits,
};

/// Retention, applied by maintenance.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Retention")]
pub(crate) struct RawRetention {
    /// Age at which rows leave, whole files at a time unless `rows_rewrite` is true. Absent: never. Dead letters
    /// leave at the same age, counted from their rejection.
    #[schemars(example = "365d")]
    pub(crate) rows: Option<Age<{ limits::RETENTION_ROWS_MIN }, { limits::RETENTION_ROWS_MAX }>>,
    /// Column by which `rows` tells a row's age: a date or a timestamp. Default: the column of the first year,
    /// month, day or hour field of `partition_by`; without one, the Kafka timestamp with `kafka_metadata`. A
    /// file leaves when all of its rows are old; rows without a value stay.
    #[schemars(example = &"ordered_at")]
    pub(crate) rows_by: Option<Column>,
    /// True: a file whose oldest row stayed an eighth longer than `rows` is rewritten without its old rows, so that
    /// they do not wait for the others. A row is rewritten for this about eight times at most.
    #[schemars(extend("default" = false))]
    pub(crate) rows_rewrite: bool,
    /// Age at which snapshots expire.
    #[schemars(extend("default" = limits::SNAPSHOTS_DEFAULT))]
    pub(crate) snapshots: Age<{ limits::SNAPSHOTS_MIN }, { limits::SNAPSHOTS_MAX }>,
    /// Snapshots kept at most, whatever their age.
    #[schemars(range(min = 1, max = limits::SNAPSHOTS_KEPT_MAX),
        extend("default" = limits::SNAPSHOTS_KEPT_DEFAULT))]
    pub(crate) snapshots_max: u32,
    /// Snapshots kept at least, whatever their age.
    #[schemars(range(min = 1, max = limits::SNAPSHOTS_KEPT_MAX),
        extend("default" = limits::SNAPSHOTS_LEAST_DEFAULT))]
    pub(crate) snapshots_min: u32,
    /// Age at which files that nothing names are deleted.
    #[schemars(extend("default" = limits::ORPHANS_DEFAULT))]
    pub(crate) orphans: Age<{ limits::ORPHANS_MIN }, { limits::ORPHANS_MAX }>,
}

/// Maintenance by workers. `siltstone expire` and `siltstone vacuum` do the same by hand.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Maintenance")]
pub(crate) struct RawMaintenance {
    /// False: workers leave it alone.
    #[schemars(extend("default" = true))]
    pub(crate) enabled: bool,
    /// Time between two rounds over the table, whichever worker does them.
    #[schemars(extend("default" = limits::MAINTENANCE_EVERY_DEFAULT))]
    pub(crate) every: Age<{ limits::MAINTENANCE_EVERY_MIN }, { limits::MAINTENANCE_EVERY_MAX }>,
}

/// Disclosure. Default: nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Disclose")]
pub(crate) struct RawDisclose {
    /// Columns whose smallest and largest value per file may cross.
    #[schemars(length(max = limits::DISCLOSED_COLUMNS_MAX), extend("default" = json!([])),
        example = json!(["ordered_at"]))]
    pub(crate) bounds: Vec<Column>,
    /// True: partition values may cross.
    #[schemars(extend("default" = false))]
    pub(crate) partition_values: bool,
}

/// Compaction.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Compaction")]
pub(crate) struct RawCompaction {
    /// False: workers leave files as they are; `siltstone compact` rewrites them by hand.
    #[schemars(extend("default" = true))]
    pub(crate) enabled: bool,
    /// Bytes a second that one worker rewrites at most, on average. Absent: no limit.
    #[schemars(example = "50MiB")]
    pub(crate) max_rate: Option<Size<{ limits::COMPACTION_RATE_MIN }, { limits::COMPACTION_RATE_MAX }>>,
    /// Share of the time, in percent, in which one worker rewrites.
    #[schemars(range(min = 1, max = 100), extend("default" = limits::COMPACTION_BUSY_DEFAULT))]
    pub(crate) busy_percent: u32,
    /// A rewritten file is closed near this size. Default: `files.target_size`.
    pub(crate) target_size: Option<Size<{ limits::TARGET_SIZE_MIN }, { limits::TARGET_SIZE_MAX }>>,
    /// Fewer small files than this are left alone.
    #[schemars(range(min = 2, max = limits::COMPACTION_INPUTS_MAX),
        extend("default" = limits::COMPACTION_MIN_INPUTS_DEFAULT))]
    pub(crate) min_inputs: u32,
    /// Files that one rewrite takes at most.
    #[schemars(range(min = 2, max = limits::COMPACTION_INPUTS_MAX),
        extend("default" = limits::COMPACTION_MAX_INPUTS_DEFAULT))]
    pub(crate) max_inputs: u32,
    /// More files than this with overlapping sort-key ranges are rewritten into disjoint ones.
    #[schemars(range(min = 1, max = limits::COMPACTION_OVERLAP_MAX),
        extend("default" = limits::COMPACTION_OVERLAP_DEFAULT))]
    pub(crate) max_overlap: u32,
    /// A partition without new files for this long is compacted even below `min_inputs`.
    #[schemars(extend("default" = limits::QUIET_AFTER_DEFAULT))]
    pub(crate) quiet_after: Age<0, { limits::QUIET_AFTER_MAX }>,
    /// Order of rewritten rows.
    #[schemars(extend("default" = "sort"))]
    pub(crate) cluster: RawClustering,
}
