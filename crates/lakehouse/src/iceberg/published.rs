//! The newest metadata file, for those who only read: what a catalog hands to readers.
//!
//! Nothing is written, not even the hint. The file is handed on as it lies there, whoever wrote it; that it is
//! table metadata is all that is checked.

use std::fmt;

use bytes::Bytes;
use serde::Deserialize;

use super::bucket::Bucket;
use crate::{error::LakeError, store::TableStore};

/// Finds the newest metadata of one table.
pub struct Published {
    bucket: Bucket,
}

/// A metadata file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedMetadata {
    /// The N of `v<N>.metadata.json`.
    pub number: u64,
    /// Where readers find it.
    pub url: String,
    /// The document: one JSON object.
    pub bytes: Bytes,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Newest {
    /// The table is not shown as Iceberg.
    Absent,
    /// The number that the caller knows is the newest.
    Known,
    Newer(PublishedMetadata),
}

/// What every version of the table spec demands of the document.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    #[allow(dead_code)]
    format_version: u8,
    #[allow(dead_code)]
    location: String,
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").field("url", &self.bucket.url()).finish()
    }
}

impl Published {
    /// Of the table at `table_location`, which is `TableSpec::location()`.
    pub fn new(lake: &TableStore, table_location: &str) -> Self {
        let location = lake.table_location(table_location);
        Self { bucket: Bucket::new(lake.store.clone(), location, &lake.table_url(table_location)) }
    }

    /// The newest metadata at the time of the call. `known` is a number found before, at most a few minutes ago:
    /// older files are deleted in the course of hours, and one request tells then that there is nothing new.
    /// Cancel-safe.
    ///
    /// # Errors
    /// `Unavailable`: the store did not answer. `Data`: the file is not table metadata.
    pub async fn newest(&self, known: Option<u64>) -> Result<Newest, LakeError> {
        if let Some(known) = known
            && !self.bucket.has_metadata(known + 1).await?
        {
            return Ok(Newest::Known);
        }
        let Some(stored) = self.bucket.head().await? else { return Ok(Newest::Absent) };
        let name = Bucket::metadata_name(stored.version);
        serde_json::from_slice::<Document>(&stored.bytes)
            .map_err(|error| LakeError::json(self.bucket.path(&name), &error))?;
        let url = self.bucket.url_of(&name);
        Ok(Newest::Newer(PublishedMetadata { number: stored.version, url, bytes: stored.bytes }))
    }
}
