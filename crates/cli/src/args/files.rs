//! `backfill --files`: history that lies in files.

use clap::{Args, ValueEnum};
use siltstone_worker::import::{FileFormat, Packing};

/// Which files, and how they are read.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// Read files instead of the topic: Avro object container files, JSON lines or Parquet, e.g.
    /// 's3://bucket/history/**/*.avro' (also gs://, az://, file:///; options as in the destination's URL, which lends
    /// its own when there are none). `*` is any part of a name, `**` any number of folders. Names that begin with
    /// `_` or `.` are passed over. The table's transforms and protection are for their records too.
    #[arg(long, value_name = "URL", conflicts_with_all = ["from", "to", "partitions"])]
    pub files: Option<String>,
    /// What the files hold. Default: as their names end.
    #[arg(long, value_enum, requires = "files")]
    pub format: Option<Format>,
    /// How whole files of Avro or JSON are compressed. Default: as their first bytes say.
    #[arg(long, value_enum, default_value = "auto", requires = "files")]
    pub compression: Compression,
    /// Files that are read at once, at most; they share a quarter of --memory, so that large blocks or lines let fewer
    /// in. Default: one a processor.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64), requires = "files")]
    pub parallel: Option<u16>,
    /// Read files that changed since records of them were read in, from the record at which that ended.
    #[arg(long, requires = "files")]
    pub resume_changed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Avro,
    Json,
    Parquet,
}

impl From<Format> for FileFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Avro => Self::Avro,
            Format::Json => Self::Json,
            Format::Parquet => Self::Parquet,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    Auto,
    None,
    Gzip,
    Zstd,
}

impl From<Compression> for Packing {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Auto => Self::Auto,
            Compression::None => Self::None,
            Compression::Gzip => Self::Gzip,
            Compression::Zstd => Self::Zstd,
        }
    }
}
