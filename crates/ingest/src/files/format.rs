//! What a file holds.

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Avro object container file.
    Avro,
    /// JSON lines.
    Json,
    Parquet,
}

impl FileFormat {
    /// By the end of a file's name, what compressed it left out.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let bare = [".gz", ".gzip", ".zst", ".zstd"].iter().find_map(|end| name.strip_suffix(end));
        let bare = bare.unwrap_or(&name);
        let ends = |ends: &[&str]| ends.iter().any(|end| bare.ends_with(end));
        if ends(&[".avro"]) {
            Some(Self::Avro)
        } else if ends(&[".json", ".jsonl", ".ndjson"]) {
            Some(Self::Json)
        } else if ends(&[".parquet"]) {
            Some(Self::Parquet)
        } else {
            None
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Avro => "avro",
            Self::Json => "json",
            Self::Parquet => "parquet",
        }
    }
}
