//! Every bound of the spec, by name. The grammar, its JSON Schema and the reference all take them
//! from here. Sizes are bytes, ages are milliseconds.

/// A spec file is at most this long.
pub const SPEC_BYTES_MAX: u64 = 4 << 20;
/// A schema file that the spec refers to is at most this long.
pub const SCHEMA_FILE_BYTES_MAX: u64 = 4 << 20;
/// A secret's file is at most this long.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 << 10;
/// YAML nests at most this deep, aliases followed.
pub const DEPTH_MAX: usize = 64;
/// A spec has at most this many YAML nodes, aliases followed.
pub const NODES_MAX: usize = 1_000_000;
/// Faults are listed up to this many.
pub const FAULTS_MAX: usize = 200;
/// Faults are noted up to this many.
pub const FAULTS_NOTED_MAX: usize = 10_000;

pub const CLUSTERS_MAX: usize = 100;
pub const BROKERS_MAX: usize = 100;
pub const REGISTRY_URLS_MAX: usize = 16;
pub const CLIENT_OPTIONS_MAX: usize = 100;
pub const TABLES_MAX: usize = 10_000;
pub const READER_TOKENS_MAX: usize = 1_000;
pub const READER_PATTERNS_MAX: usize = 1_000;
/// A token shorter than this can be guessed.
pub const READER_TOKEN_CHARS_MIN: usize = 16;
pub const READER_TOKEN_CHARS_MAX: usize = 4_096;
pub const PARTITION_FIELDS_MAX: usize = 16;
pub const SORT_FIELDS_MAX: usize = 16;
pub const FILTER_CHARS_MAX: usize = 8_000;
/// A key of column protection is at least this long.
pub const PROTECTION_KEY_BYTES_MIN: usize = 32;
pub const BLOOM_FILTERS_MAX: usize = 64;
pub const DISCLOSED_COLUMNS_MAX: usize = 256;
pub const COLUMNS_MAX: usize = 10_000;
pub const START_OFFSETS_MAX: usize = 10_000;

/// Names of clusters, tables, topics, groups: as long as Kafka's topics may be.
pub const NAME_CHARS_MAX: usize = 249;
pub const COLUMN_CHARS_MAX: usize = 255;
pub const HOST_CHARS_MAX: usize = 253;
pub const URL_CHARS_MAX: usize = 2_000;

pub const MAX_AGE_MIN: u64 = 100;
pub const MAX_AGE_MAX: u64 = 24 * HOUR;
pub const MAX_AGE_DEFAULT: &str = "30s";
pub const MAX_BYTES_MIN: u64 = 64 << 10;
pub const MAX_BYTES_MAX: u64 = 16 << 30;
pub const MAX_BYTES_DEFAULT: &str = "256MiB";
pub const MAX_ROWS_MAX: u64 = 1_000_000_000;
pub const MAX_ROWS_DEFAULT: u64 = 10_000_000;

pub const TARGET_SIZE_MIN: u64 = 1 << 20;
pub const TARGET_SIZE_MAX: u64 = 4 << 30;
pub const TARGET_SIZE_DEFAULT: &str = "512MiB";
pub const ROW_GROUP_BYTES_MIN: u64 = 64 << 10;
pub const ROW_GROUP_BYTES_MAX: u64 = 1 << 30;
pub const ROW_GROUP_BYTES_DEFAULT: &str = "8MiB";
pub const ZSTD_LEVEL_MIN: i32 = 1;
pub const ZSTD_LEVEL_MAX: i32 = 22;
pub const ZSTD_LEVEL_DEFAULT: i32 = 1;

pub const BUCKETS_MAX: u32 = 65_536;
pub const TRUNCATE_WIDTH_MAX: u32 = i32::MAX as u32;

pub const RETENTION_ROWS_MIN: u64 = HOUR;
pub const RETENTION_ROWS_MAX: u64 = 36_500 * DAY;
pub const SNAPSHOTS_MIN: u64 = MINUTE;
pub const SNAPSHOTS_MAX: u64 = 3_650 * DAY;
pub const SNAPSHOTS_DEFAULT: &str = "7d";
pub const SNAPSHOTS_KEPT_MAX: u32 = 100_000;
pub const SNAPSHOTS_KEPT_DEFAULT: u32 = 500;
pub const SNAPSHOTS_LEAST_DEFAULT: u32 = 1;
/// A file younger than this may belong to a commit in flight.
pub const ORPHANS_MIN: u64 = HOUR;
pub const ORPHANS_MAX: u64 = 3_650 * DAY;
pub const ORPHANS_DEFAULT: &str = "3d";

pub const MAINTENANCE_EVERY_MIN: u64 = MINUTE;
pub const MAINTENANCE_EVERY_MAX: u64 = 30 * DAY;
pub const MAINTENANCE_EVERY_DEFAULT: &str = "6h";

pub const COMPACTION_INPUTS_MAX: u32 = 1_000;
pub const COMPACTION_MIN_INPUTS_DEFAULT: u32 = 4;
pub const COMPACTION_MAX_INPUTS_DEFAULT: u32 = 64;
pub const COMPACTION_OVERLAP_MAX: u32 = 1_000;
pub const COMPACTION_OVERLAP_DEFAULT: u32 = 4;
pub const COMPACTION_RATE_MIN: u64 = 64 << 10;
pub const COMPACTION_RATE_MAX: u64 = 1 << 40;
pub const COMPACTION_BUSY_DEFAULT: u32 = 50;
pub const QUIET_AFTER_MAX: u64 = 30 * DAY;
pub const QUIET_AFTER_DEFAULT: &str = "10m";
/// A space-filling curve over more columns than this orders none of them.
pub const CURVE_COLUMNS_MAX: usize = 4;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
