//! Delta checkpoints and look-ups beyond the log's tail, by the `deltalake` crate over our store.
//!
//! The crate finds a store by the URL's scheme, and knows few without its cloud features. So it is given the
//! store itself, and a URL of which only the path counts.
//!
//! Its errors may quote the log, so only their step is kept.

use std::{sync::Arc, time::Duration};

use deltalake::{DeltaTable, DeltaTableBuilder, kernel::MetadataValue, protocol::checkpoints};
use object_store::{ObjectStore, path::Path};
use url::Url;

use crate::{crash_point, error::LakeError};

/// `memory` is a scheme that the crate always knows. The host looks like an S3 directory bucket, the sign
/// by which its kernel sorts listings itself: a local file system does not sort them.
const ROOT: &str = "memory://siltstone--x-s3/";

const LISTINGS_MAX: usize = 3;
const LISTING_PAUSE: Duration = Duration::from_millis(50);

/// What the table's own metadata says, read through its checkpoint.
pub(super) struct Stored {
    pub(super) shown: Option<u64>,
    pub(super) app_id: String,
    /// As they are called in files.
    pub(super) partition_columns: Vec<String>,
    pub(super) schema_id: i32,
}

/// Keys of the table's configuration by which it is known again.
pub(super) const CONFIG_TABLE_UUID: &str = "siltstone.table-uuid";
pub(super) const CONFIG_SCHEMA_ID: &str = "siltstone.schema-id";

/// Writes a checkpoint of this version, or of the newest. A version that is known is better: its log entries were all
/// there before the listing began, while a local folder's listing may show a later entry and pass over one before it.
pub(super) async fn write(
    store: Arc<dyn ObjectStore>,
    table_location: &Path,
    version: Option<u64>,
) -> Result<(), LakeError> {
    let table = open(store, table_location, version).await?;
    crash_point!("delta.before_checkpoint");
    checkpoints::create_checkpoint(&table, None)
        .await
        .map_err(|_| LakeError::data(table_location, "the delta checkpoint could not be made"))
}

/// What shows a table whose last commit of ours is too far back in the log. `None`: not ours.
pub(super) async fn stored(
    store: Arc<dyn ObjectStore>,
    table_location: &Path,
) -> Result<Option<Stored>, LakeError> {
    let table = open_newest(store, table_location).await?;
    let unreadable = || LakeError::data(table_location, "the delta log cannot be read");
    let snapshot = table.snapshot().map_err(|_| unreadable())?;
    let configuration = snapshot.metadata().configuration();
    let Some(uuid) = configuration.get(CONFIG_TABLE_UUID) else { return Ok(None) };
    let app_id = format!("{}{uuid}", super::actions::APP_ID_PREFIX);
    let log_store = table.log_store();
    let version = snapshot.snapshot().transaction_version(log_store.as_ref(), &app_id).await;
    let version = version.map_err(|_| unreadable())?;
    let schema = snapshot.schema();
    let in_files = |name: &String| {
        let mapped = schema.field(name)?.metadata().get("delta.columnMapping.physicalName")?;
        match mapped {
            MetadataValue::String(name) => Some(name.clone()),
            _ => None,
        }
    };
    let partition_columns = snapshot.metadata().partition_columns().iter();
    let partition_columns = partition_columns.map(|name| in_files(name).unwrap_or_else(|| name.clone()));
    Ok(Some(Stored {
        shown: version.and_then(|version| u64::try_from(version).ok()),
        app_id,
        partition_columns: partition_columns.collect(),
        schema_id: configuration.get(CONFIG_SCHEMA_ID).and_then(|id| id.parse().ok()).unwrap_or(-1),
    }))
}

/// The newest version, looked for more than once: a folder that is written to meanwhile may list with gaps.
async fn open_newest(store: Arc<dyn ObjectStore>, table_location: &Path) -> Result<DeltaTable, LakeError> {
    for _ in 1..LISTINGS_MAX {
        if let Ok(table) = open(Arc::clone(&store), table_location, None).await {
            return Ok(table);
        }
        tokio::time::sleep(LISTING_PAUSE).await;
    }
    open(store, table_location, None).await
}

/// The table as the crate sees it, without its files.
async fn open(
    store: Arc<dyn ObjectStore>,
    table_location: &Path,
    version: Option<u64>,
) -> Result<DeltaTable, LakeError> {
    let unreadable = |_| LakeError::data(table_location, "the delta log cannot be read");
    let mut url = Url::parse(ROOT).map_err(|_| LakeError::internal(table_location, "not a URL"))?;
    url.set_path(&format!("/{table_location}/data/"));
    let builder = DeltaTableBuilder::from_url(url.clone()).map_err(unreadable)?;
    let builder = builder.with_storage_backend(store, url).without_files();
    let builder = match version {
        Some(version) => builder.with_version(version),
        None => builder,
    };
    builder.load().await.map_err(unreadable)
}
