//! Names, and the newest metadata of each table.
//!
//! A table `shop.eu.orders` is `orders` in the namespace `shop.eu`; one whose name has no dot is in `default`. The
//! names are those of the spec; whether a table is there to be read, the bucket says.
//!
//! Metadata is looked up when it is asked for: with a version in memory, one request tells that there is no newer
//! one. Who comes while a lookup is under way takes the result of the next, so that many readers of a table cost as
//! little as one and nobody is given what was older than their question.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use sha2::{Digest, Sha256};
use siltstone_lakehouse::{
    LakeError, TableStore,
    iceberg::{Newest, Published, PublishedMetadata},
};
use siltstone_protocol::{ErrorKind, Format};
use siltstone_spec::{READERS_DEFAULT_NAMESPACE, Spec, TableSpec};
use tokio::time::Instant;

use super::{
    access::Reader,
    answer::{Fault, Kind},
    request::{Namespace, Page},
};

/// A version in memory is built on for this long; old metadata files are deleted in the course of hours.
const KNOWN_TRUSTED: Duration = Duration::from_secs(300);
/// A listing does not ask again for this long about a table that was not there.
const ABSENT_TRUSTED: Duration = Duration::from_secs(5);
/// Metadata files kept in memory, bytes together.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// Tables of a listing looked up at once.
const LOOKUPS_AT_ONCE: usize = 16;

/// A metadata file, with what tells it from others.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) metadata: PublishedMetadata,
    /// Number and content, for `ETag`.
    pub(super) tag: String,
}

/// One table.
pub(super) struct Entry {
    /// The dotted name in the spec, or that of its dead letters.
    table: String,
    published: Published,
    /// Lookups begun.
    begun: AtomicU64,
    seen: tokio::sync::Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The last lookup that came to an end.
    ended: u64,
    /// The newest version, and since when it is built on.
    number: Option<(u64, Instant)>,
    absent: Option<Instant>,
}

/// The tables of a spec.
pub(super) struct Catalog {
    namespaces: BTreeMap<Namespace, BTreeMap<String, Arc<Entry>>>,
    properties: BTreeMap<&'static str, String>,
    kept: Mutex<Kept>,
}

/// Documents in memory, by table.
#[derive(Default)]
struct Kept {
    documents: HashMap<String, (Arc<Document>, u64)>,
    bytes: usize,
    uses: u64,
}

impl Catalog {
    pub(super) fn new(spec: &Spec, lake: &TableStore) -> Self {
        let mut namespaces: BTreeMap<Namespace, BTreeMap<String, Arc<Entry>>> = BTreeMap::new();
        // A table that has a catalog is found there: its metadata is none of the bucket's.
        let here = |table: &&TableSpec| table.formats.contains(&Format::Iceberg) && table.catalog.is_none();
        for table in spec.tables.iter().filter(here) {
            // Names given first stay: dead letters that have the name of a table are not written.
            for name in [table.name.clone(), table.dead_letter_name()] {
                let (namespace, last) = place(&name);
                let entry = Entry {
                    published: Published::new(lake, &name.replace('.', "/")),
                    table: name,
                    begun: AtomicU64::new(0),
                    seen: tokio::sync::Mutex::default(),
                };
                namespaces.entry(namespace).or_default().entry(last).or_insert_with(|| Arc::new(entry));
            }
        }
        let properties = lake.readers_properties().clone();
        Self { namespaces, properties, kept: Mutex::default() }
    }

    /// What clients need to find the bucket.
    pub(super) fn properties(&self) -> &BTreeMap<&'static str, String> {
        &self.properties
    }

    /// Namespaces right below the parent, and where the next page begins.
    ///
    /// # Errors
    /// `NoSuchNamespace`.
    pub(super) fn namespaces(
        &self,
        reader: &Reader<'_>,
        parent: &Namespace,
        page: &Page,
    ) -> Result<(Vec<Namespace>, Option<String>), Fault> {
        if !parent.0.is_empty() {
            self.namespace(reader, parent)?;
        }
        let depth = parent.0.len();
        let below =
            self.known_to(reader).filter(|known| known.0.len() > depth && known.0.starts_with(&parent.0));
        let names: BTreeSet<&String> = below.filter_map(|known| known.0.get(depth)).collect();
        let mut names =
            names.into_iter().filter(|name| page.after.as_ref().is_none_or(|after| *name > after));
        let taken: Vec<_> = names.by_ref().take(page.size.unwrap_or(usize::MAX)).collect();
        let next = names.next().and_then(|_| taken.last().map(|last| (*last).clone()));
        let full = |name: &String| {
            let mut levels = parent.0.clone();
            levels.push(name.clone());
            Namespace(levels)
        };
        Ok((taken.into_iter().map(full).collect(), next))
    }

    /// # Errors
    /// `NoSuchNamespace`, when nothing is in it or below it that the reader may know of.
    pub(super) fn namespace(&self, reader: &Reader<'_>, namespace: &Namespace) -> Result<(), Fault> {
        if self.known_to(reader).any(|known| known.0.starts_with(&namespace.0)) {
            return Ok(());
        }
        let what = format!("namespace {} does not exist", shown(&namespace.dotted()));
        Err(Fault::new(Kind::NoSuchNamespace, what))
    }

    fn known_to(&self, reader: &Reader<'_>) -> impl Iterator<Item = &Namespace> {
        let open =
            |tables: &BTreeMap<String, Arc<Entry>>| tables.values().any(|entry| reader.may(&entry.table));
        self.namespaces.iter().filter(move |(_, tables)| open(tables)).map(|(namespace, _)| namespace)
    }

    /// Tables of a namespace that are there to be read, and where the next page begins.
    ///
    /// # Errors
    /// `NoSuchNamespace`; those of the bucket.
    pub(super) async fn tables(
        &self,
        reader: &Reader<'_>,
        namespace: &Namespace,
        page: &Page,
    ) -> Result<(Vec<String>, Option<String>), Fault> {
        self.namespace(reader, namespace)?;
        let tables = self.namespaces.get(namespace);
        let tables: Vec<_> = tables
            .into_iter()
            .flatten()
            .filter(|(name, entry)| {
                reader.may(&entry.table) && page.after.as_ref().is_none_or(|after| *name > after)
            })
            .map(|(name, entry)| (name.clone(), entry.clone()))
            .collect();
        let mut looked = futures::stream::iter(tables)
            .map(
                |(name, entry)| async move { self.exists(&entry).await.map(|exists| exists.then_some(name)) },
            )
            .buffered(LOOKUPS_AT_ONCE);
        let size = page.size.unwrap_or(usize::MAX);
        let (mut names, mut next) = (Vec::new(), None);
        while let Some(found) = looked.next().await {
            let Some(name) = found? else { continue };
            if names.len() == size {
                next = names.last().cloned();
                break;
            }
            names.push(name);
        }
        Ok((names, next))
    }

    /// The table of this name in the spec, whether it is there to be read or not.
    ///
    /// # Errors
    /// `NoSuchTable`.
    pub(super) fn entry(
        &self,
        reader: &Reader<'_>,
        namespace: &Namespace,
        name: &str,
    ) -> Result<&Arc<Entry>, Fault> {
        let entry = self.namespaces.get(namespace).and_then(|tables| tables.get(name));
        entry.filter(|entry| reader.may(&entry.table)).ok_or_else(|| {
            let name = format!("{}.{name}", namespace.dotted());
            Fault::new(Kind::NoSuchTable, format!("table {} does not exist", shown(&name)))
        })
    }

    /// The newest metadata of a table, as of now.
    ///
    /// # Errors
    /// `NoSuchTable`; those of the bucket.
    pub(super) async fn document(
        &self,
        reader: &Reader<'_>,
        namespace: &Namespace,
        name: &str,
    ) -> Result<Arc<Document>, Fault> {
        let entry = self.entry(reader, namespace, name)?;
        let found = self.newest(entry).await?;
        found.ok_or_else(|| {
            let what = format!("table {} has no Iceberg metadata yet: no record came", entry.table);
            Fault::new(Kind::NoSuchTable, what)
        })
    }

    async fn exists(&self, entry: &Entry) -> Result<bool, Fault> {
        {
            let seen = entry.seen.lock().await;
            if seen.number.is_some() {
                return Ok(true);
            }
            if seen.absent.is_some_and(|since| since.elapsed() < ABSENT_TRUSTED) {
                return Ok(false);
            }
        }
        Ok(self.newest(entry).await?.is_some())
    }

    async fn newest(&self, entry: &Entry) -> Result<Option<Arc<Document>>, Fault> {
        let arrived = entry.begun.load(Ordering::Acquire);
        let mut seen = entry.seen.lock().await;
        let kept = self.kept().get(&entry.table);
        // The last lookup began after the question came.
        if seen.ended > arrived && kept.is_some() == seen.number.is_some() {
            return Ok(kept);
        }
        let this = entry.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let known = seen.number.filter(|(_, since)| kept.is_some() && since.elapsed() < KNOWN_TRUSTED);
        let newest = entry.published.newest(known.map(|(number, _)| number)).await;
        let found = match newest.map_err(|error| of_lake(&entry.table, &error))? {
            Newest::Known => kept,
            Newest::Absent => {
                (seen.number, seen.absent) = (None, Some(Instant::now()));
                self.kept().remove(&entry.table);
                None
            }
            Newest::Newer(metadata) => {
                (seen.number, seen.absent) = (Some((metadata.number, Instant::now())), None);
                let document = Arc::new(Document { tag: tag(&metadata), metadata });
                self.kept().put(&entry.table, document.clone());
                Some(document)
            }
        };
        seen.ended = this;
        Ok(found)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Whole after each of its calls, whoever panicked.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn get(&mut self, table: &str) -> Option<Arc<Document>> {
        self.uses += 1;
        let (document, used) = self.documents.get_mut(table)?;
        *used = self.uses;
        Some(document.clone())
    }

    fn remove(&mut self, table: &str) {
        if let Some((document, _)) = self.documents.remove(table) {
            self.bytes -= document.metadata.bytes.len();
        }
    }

    /// Takes the document in, and lets go of those unused for longest when all together are too many bytes.
    fn put(&mut self, table: &str, document: Arc<Document>) {
        self.remove(table);
        let bytes = document.metadata.bytes.len();
        if bytes > KEPT_BYTES_MAX {
            return;
        }
        while self.bytes + bytes > KEPT_BYTES_MAX {
            let oldest = self.documents.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(table, _)| table.clone()) else { break };
            self.remove(&oldest);
        }
        self.bytes += bytes;
        self.uses += 1;
        self.documents.insert(table.to_owned(), (document, self.uses));
    }
}

/// Where readers find the table of this dotted name.
fn place(table: &str) -> (Namespace, String) {
    match table.rsplit_once('.') {
        Some((namespace, name)) => (Namespace::of(namespace), name.to_owned()),
        None => (Namespace::of(READERS_DEFAULT_NAMESPACE), table.to_owned()),
    }
}

/// A table made anew in the same place has the numbers of the old one, but not its content.
fn tag(metadata: &PublishedMetadata) -> String {
    let digest = Sha256::digest(&metadata.bytes);
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{hex}", metadata.number)
}

fn of_lake(table: &str, error: &LakeError) -> Fault {
    tracing::warn!(table, %error, "metadata for readers cannot be read");
    let kind = if error.kind() == ErrorKind::Unavailable { Kind::Unavailable } else { Kind::Internal };
    Fault::new(kind, format!("the metadata of table {table} cannot be read: {error}"))
}

/// A name as a client sent it, when it is one; nothing else comes back.
fn shown(name: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.len() <= 500 && name.chars().all(plain) { name } else { "of this name" }
}
