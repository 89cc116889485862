//! One open table: its ledger and everything that commits to it or shows it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use object_store::{ObjectStore, path::Path};
use siltstone_datafile::{Host, Layout};
use siltstone_lakehouse::{
    DeltaTable, DetailsCache, LakeError, Ledger, LedgerState, ProjectionOptions, TableFormat, TableStore,
    iceberg::{IcebergTable, RestTable, VendedCredentials},
};
use siltstone_protocol::{Change, ErrorKind, Format, Schema};
use siltstone_spec::{RestCatalog, TableSpec, resolve};
use tokio::sync::{Mutex, Notify, watch};

use crate::{
    absorb::Halted,
    error::{ForTable, WorkerError},
};

/// Details of this many recent files are kept for the projections; older ones are read from footers.
const DETAILS_CACHED_MAX: usize = 8192;

/// Where a table is: in a store, and in a catalog if it has one.
pub(crate) struct Place {
    /// The destination, with the table's own credentials if its catalog hands some out.
    pub(crate) lake: TableStore,
    name: String,
    location: Path,
    url: String,
    pub(crate) catalog: Option<Arc<RestTable>>,
}

impl Place {
    /// The place of this spec's table. No request is made.
    pub(crate) fn of(lake: &TableStore, spec: &TableSpec) -> Result<Self, WorkerError> {
        Self::new(lake, spec.name.clone(), spec.catalog.as_ref())
    }

    /// That of its dead-letter table.
    pub(crate) fn of_dead_letters(lake: &TableStore, spec: &TableSpec) -> Result<Self, WorkerError> {
        let catalog = spec.catalog.as_ref().map(RestCatalog::for_dead_letters);
        Self::new(lake, spec.dead_letter_name(), catalog.as_ref())
    }

    fn new(lake: &TableStore, name: String, catalog: Option<&RestCatalog>) -> Result<Self, WorkerError> {
        let below = name.replace('.', "/");
        let (location, url) = (lake.table_location(&below), lake.table_url(&below));
        let Some(spec) = catalog else {
            return Ok(Self { lake: lake.clone(), name, location, url, catalog: None });
        };
        let catalog = RestTable::new(spec, &url, lake.host.clone()).for_table(&name)?;
        let lake = if spec.vended_credentials {
            let vended = VendedCredentials::new(Arc::clone(&catalog), lake.host.clone());
            lake.with_credentials(Arc::new(vended)).for_table(&name)?
        } else {
            lake.clone()
        };
        Ok(Self { lake, name, location, url, catalog: Some(catalog) })
    }

    fn ledger(&self) -> Ledger {
        self.lake.ledger(self.location.clone())
    }
}

/// Proves that the places of these tables honour put-if-absent. Where a catalog is, its bucket may take nothing but
/// tables' folders, and a table may have credentials of its own: there the table's folder is tried.
///
/// # Errors
/// As [`TableStore::probe_conditional_put`].
pub(crate) async fn probe(lake: &TableStore, tables: &[TableSpec]) -> Result<(), WorkerError> {
    let mut tried = tables.is_empty() || tables.iter().any(|table| table.catalog.is_none());
    if tried {
        lake.probe_conditional_put().await.map_err(WorkerError::from)?;
    }
    let mut unanswered = None;
    for table in tables {
        let Some(catalog) = &table.catalog else { continue };
        if tried && !catalog.vended_credentials {
            continue;
        }
        match probe_folder(&Place::of(lake, table)?).await.for_table(&table.name) {
            Ok(()) => tried = true,
            // The other tables do not need this catalog.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(table = table.name, %error, code = %error.code(), "the table's place was not tried");
                unanswered = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    unanswered.filter(|_| !tried).map_or(Ok(()), Err)
}

async fn probe_folder(place: &Place) -> Result<(), LakeError> {
    if let Some(catalog) = &place.catalog {
        catalog.prepare().await?;
    }
    let mut folder = place.lake.clone();
    folder.root = place.location.clone();
    folder.probe_conditional_put().await
}

/// A table in use. Cheap to share.
pub struct Table {
    pub name: String,
    pub location: Path,
    pub url: String,
    pub store: Arc<dyn ObjectStore>,
    pub ledger: Ledger,
    pub token_key: Arc<[u8; 32]>,
    pub details: DetailsCache,
    pub projection: ProjectionOptions,
    /// Where the Iceberg form's metadata is kept; `None`: in the bucket.
    pub catalog: Option<Arc<RestTable>>,
    pub host: Host,
    files: siltstone_spec::Files,
    /// The ledger's state as this worker knows it; `ledger.refresh` brings it up to date.
    pub state: Mutex<LedgerState>,
    /// Files that a format no longer has and the ledger is about to let go: not worth rewriting.
    pub lacking: std::sync::Mutex<HashSet<String>>,
    /// Newest version known, for the projectors.
    version: AtomicU64,
    announced: Notify,
    /// Formats that another program changed in a way that cannot be reconciled.
    halts: watch::Sender<BTreeMap<Format, Halted>>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.name)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// The table of this spec if its ledger exists.
    ///
    /// # Errors
    /// Store and ledger errors, with the table's name.
    pub async fn open(lake: &TableStore, spec: &TableSpec) -> Result<Option<Self>, WorkerError> {
        let place = Place::of(lake, spec)?;
        Self::open_at(place, spec).await
    }

    /// The dead-letter table of this spec if its ledger exists.
    pub async fn open_dead_letters(lake: &TableStore, spec: &TableSpec) -> Result<Option<Self>, WorkerError> {
        let place = Place::of_dead_letters(lake, spec)?;
        Self::open_at(place, spec).await
    }

    async fn open_at(place: Place, spec: &TableSpec) -> Result<Option<Self>, WorkerError> {
        let ledger = place.ledger();
        match ledger.load().await.for_table(&place.name)? {
            Some(state) => Ok(Some(Self::with_state(place, spec, ledger, state).await?)),
            None => Ok(None),
        }
    }

    /// Opens the table, creating it with this schema when there is none.
    ///
    /// # Errors
    /// `Invalid` when the spec's partitioning or order does not fit the schema.
    pub async fn open_or_create(
        lake: &TableStore,
        spec: &TableSpec,
        schema: Schema,
        commit_id: &str,
        now_ms: i64,
    ) -> Result<Self, WorkerError> {
        let invalid = |error: siltstone_spec::SpecError| WorkerError::Spec {
            code: error.code(),
            table: spec.name.clone(),
            message: error.to_string(),
        };
        let change = Change::Create {
            name: spec.name.clone(),
            partition_spec: resolve::partition_spec(spec, &schema).map_err(invalid)?,
            sort_order: resolve::sort_order(spec, &schema).map_err(invalid)?,
            schema,
            formats: spec.formats.clone(),
        };
        Self::create_at(Place::of(lake, spec)?, spec, change, commit_id, now_ms).await
    }

    /// Opens the dead-letter table of this spec, creating it when there is none.
    pub async fn open_or_create_dead_letters(
        lake: &TableStore,
        spec: &TableSpec,
        commit_id: &str,
        now_ms: i64,
    ) -> Result<Self, WorkerError> {
        if let Some(table) = Self::open_dead_letters(lake, spec).await? {
            return Ok(table);
        }
        let change = Change::Create {
            name: spec.dead_letter_name(),
            schema: siltstone_ingest::dead_letter::schema(),
            partition_spec: Default::default(),
            sort_order: Default::default(),
            formats: spec.formats.clone(),
        };
        Self::create_at(Place::of_dead_letters(lake, spec)?, spec, change, commit_id, now_ms).await
    }

    async fn create_at(
        place: Place,
        spec: &TableSpec,
        change: Change,
        commit_id: &str,
        now_ms: i64,
    ) -> Result<Self, WorkerError> {
        let name = place.name.as_str();
        if let Change::Create { schema, formats, .. } = &change {
            crate::formats::check_new(name, schema, formats)?;
        }
        if let Some(catalog) = &place.catalog {
            // A catalog that refuses would leave a table that is never shown.
            catalog.prepare().await.for_table(name)?;
        }
        let ledger = place.ledger();
        let state = match ledger.create(change, commit_id, now_ms).await {
            Ok(state) => state,
            // Another worker was first: its table is the table.
            Err(error) if error.kind() == siltstone_protocol::ErrorKind::Conflict => {
                ledger.load().await.for_table(name)?.ok_or(WorkerError::Internal {
                    table: name.to_owned(),
                    what: "the ledger was created by another worker and is gone",
                })?
            }
            Err(error) => return Err(error).for_table(name),
        };
        Self::with_state(place, spec, ledger, state).await
    }

    async fn with_state(
        place: Place,
        spec: &TableSpec,
        ledger: Ledger,
        state: LedgerState,
    ) -> Result<Self, WorkerError> {
        let token_key = ledger.token_key().await.for_table(&place.name)?;
        let version = AtomicU64::new(state.version);
        let Place { lake, name, location, url, catalog } = place;
        Ok(Self {
            name,
            location,
            url,
            store: lake.store.clone(),
            catalog,
            ledger,
            token_key,
            details: DetailsCache::new(DETAILS_CACHED_MAX),
            projection: ProjectionOptions {
                snapshots_max: spec.retention.snapshots_max,
                snapshots_min: spec.retention.snapshots_min,
                snapshots_age: spec.retention.snapshots,
            },
            host: lake.host.clone(),
            files: spec.files.clone(),
            state: Mutex::new(state),
            lacking: std::sync::Mutex::default(),
            version,
            halts: watch::Sender::default(),
            announced: Notify::new(),
        })
    }

    /// How files of rows in this schema are laid down now.
    pub async fn layout(&self, schema: Arc<Schema>) -> Layout {
        let state = self.state.lock().await;
        let (partition_spec, sort_order) = state.layout_of(&schema);
        Layout {
            schema,
            partition_spec,
            sort_order,
            files: self.files.clone(),
            annotate_uuids: !state.formats.contains(&Format::Delta),
            names: Arc::new(state.schema_history()),
            token_key: self.token_key.clone(),
            host: self.host.clone(),
        }
    }

    /// The ledger's newest state; the projector hears of what others committed. The copy is cheap.
    ///
    /// # Errors
    /// Those of the ledger, with the table's name.
    pub async fn refresh(&self) -> Result<LedgerState, WorkerError> {
        let mut state = self.state.lock().await;
        self.ledger.refresh(&mut state).await.for_table(&self.name)?;
        // A state left behind by clean-up finds no next entry: it goes on from a checkpoint.
        if state.version < self.version()
            && let Some(fresh) = self.ledger.load().await.for_table(&self.name)?
        {
            *state = fresh;
        }
        self.announce(state.version);
        Ok(state.clone())
    }

    /// The table's projections, one for each of its formats.
    pub async fn projections(&self) -> Vec<Box<dyn TableFormat>> {
        let formats = self.state.lock().await.formats.clone();
        formats.into_iter().map(|format| self.projection_of(format)).collect()
    }

    /// The projection into one format.
    pub fn projection_of(&self, format: Format) -> Box<dyn TableFormat> {
        let (store, location) = (self.store.clone(), self.location.clone());
        match format {
            Format::Iceberg => {
                let iceberg = IcebergTable::new(store, location, self.url.clone(), self.projection);
                Box::new(iceberg.with_catalog(self.catalog.clone()).with_host(self.host.clone()))
            }
            Format::Delta => Box::new(DeltaTable::new(store, location, self.url.clone(), self.projection)),
        }
    }

    /// Tells the projector that the ledger has this version.
    pub fn announce(&self, version: u64) {
        if self.version.fetch_max(version, Ordering::AcqRel) < version {
            self.announced.notify_waiters();
        }
    }

    /// Stops the projection of a format for good, in this process.
    pub fn halt(&self, format: Format, halted: Halted) {
        self.halts.send_modify(|halts| {
            halts.entry(format).or_insert(halted);
        });
    }

    /// Why a format was halted.
    pub fn halted(&self, format: Format) -> Option<Halted> {
        self.halts.borrow().get(&format).cloned()
    }

    /// Follows which formats are halted.
    pub(crate) fn halts(&self) -> watch::Receiver<BTreeMap<Format, Halted>> {
        self.halts.subscribe()
    }

    /// The newest known version.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Waits until a newer version than this is known. Cancel-safe. Those who wait go on in the order in which they
    /// came.
    pub async fn newer_than(&self, known: u64) {
        loop {
            let mut announced = std::pin::pin!(self.announced.notified());
            announced.as_mut().enable();
            if self.version() > known {
                return;
            }
            announced.await;
        }
    }
}
