//! Manifests and manifest lists in the bucket, with what is known of them in memory.
//!
//! Manifests never change, so what was once read or written stays true: a bounded cache of decoded
//! manifests (those we wrote last are the ones merged next), and for each manifest of the current
//! snapshot the digests of its live paths, so that a replace finds the manifests it must rewrite
//! without reading the others.

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use iceberg::{
    io::FileWrite,
    spec::{FormatVersion, ManifestFile, ManifestList, ManifestListWriter},
};

use crate::error::LakeError;

use super::{
    bucket::Bucket,
    data_file::ManifestEntry,
    decode::{Manifest, decode_manifest},
    encode::EncodedManifest,
    fault,
};

/// Entries of decoded manifests kept in memory.
const ENTRIES_CACHED_MAX: usize = 8192;
/// Manifests read at once.
pub(crate) const READS_AT_ONCE: usize = 8;

#[derive(Debug)]
pub(crate) struct Manifests {
    bucket: Bucket,
    decoded: HashMap<String, Arc<Manifest>>,
    order: VecDeque<String>,
    entries_cached: usize,
    /// Sorted digests of live paths, by manifest.
    paths: HashMap<String, Box<[u64]>>,
}

impl Manifests {
    pub(crate) fn new(bucket: Bucket) -> Self {
        Self {
            bucket,
            decoded: HashMap::new(),
            order: VecDeque::new(),
            entries_cached: 0,
            paths: HashMap::new(),
        }
    }

    /// The manifests that `lines` name, from memory or from the store, in the order of `lines`.
    pub(crate) async fn load(&mut self, lines: &[&ManifestFile]) -> Result<Vec<Arc<Manifest>>, LakeError> {
        let bucket = self.bucket.clone();
        let reads: Vec<_> = lines
            .iter()
            .map(|line| {
                let known = self.decoded.get(&line.manifest_path).cloned();
                let (bucket, line) = (bucket.clone(), (*line).clone());
                async move {
                    match known {
                        Some(manifest) => Ok(manifest),
                        None => read(&bucket, &line).await,
                    }
                }
            })
            .collect();
        let manifests: Vec<_> = futures::stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        for (line, manifest) in lines.iter().zip(&manifests) {
            self.remember(&line.manifest_path, manifest);
        }
        Ok(manifests)
    }

    /// Puts an encoded manifest; its entries are remembered.
    pub(crate) async fn put(
        &mut self,
        below: &str,
        encoded: EncodedManifest,
        entries: Vec<ManifestEntry>,
    ) -> Result<ManifestFile, LakeError> {
        self.bucket.put_new(below, encoded.bytes).await?;
        self.remember(&encoded.file.manifest_path, &Arc::new(Manifest { entries }));
        Ok(encoded.file)
    }

    /// Indices of those of `lines` that list one of `urls` as live.
    pub(crate) async fn holding(
        &mut self,
        lines: &[ManifestFile],
        urls: &HashSet<String>,
    ) -> Result<Vec<usize>, LakeError> {
        let wanted: Vec<u64> = urls.iter().map(|url| digest(url)).collect();
        // Manifests not seen by this process are read once, the newest first, and then known by digest.
        for chunk in lines.chunks(READS_AT_ONCE) {
            let unknown: Vec<&ManifestFile> =
                chunk.iter().filter(|line| !self.paths.contains_key(&line.manifest_path)).collect();
            self.load(&unknown).await?;
        }
        Ok((0..lines.len())
            .filter(|&index| {
                let known = self.paths.get(&lines[index].manifest_path);
                known.is_none_or(|paths| wanted.iter().any(|path| paths.binary_search(path).is_ok()))
            })
            .collect())
    }

    /// Forgets manifests that are not in the current snapshot.
    pub(crate) fn retain(&mut self, current: &[ManifestFile]) {
        let current: HashSet<&str> = current.iter().map(|line| line.manifest_path.as_str()).collect();
        self.paths.retain(|path, _| current.contains(path.as_str()));
        self.order.retain(|path| current.contains(path.as_str()));
        self.decoded.retain(|path, _| current.contains(path.as_str()));
        self.entries_cached = self.decoded.values().map(|manifest| manifest.entries.len()).sum();
    }

    fn remember(&mut self, path: &str, manifest: &Arc<Manifest>) {
        if !self.paths.contains_key(path) {
            let live = manifest.entries.iter().filter(|entry| entry.is_live());
            let mut digests: Vec<u64> = live.map(|entry| digest(&entry.file.path)).collect();
            digests.sort_unstable();
            self.paths.insert(path.to_owned(), digests.into_boxed_slice());
        }
        if manifest.entries.len() > ENTRIES_CACHED_MAX || self.decoded.contains_key(path) {
            return;
        }
        self.entries_cached += manifest.entries.len();
        self.order.push_back(path.to_owned());
        self.decoded.insert(path.to_owned(), Arc::clone(manifest));
        while self.entries_cached > ENTRIES_CACHED_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(manifest) = self.decoded.remove(&oldest) {
                self.entries_cached -= manifest.entries.len();
            }
        }
    }
}

/// Reads a manifest; nothing is remembered.
pub(crate) async fn read(bucket: &Bucket, line: &ManifestFile) -> Result<Arc<Manifest>, LakeError> {
    if line.key_metadata.is_some() {
        return Err(fault::bad_manifest(&line.manifest_path, "is encrypted, which is not supported"));
    }
    let bytes = bucket.get_url(&line.manifest_path).await?;
    decode_manifest(&bytes, line).map(Arc::new)
}

fn digest(url: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    url.hash(&mut hasher);
    hasher.finish()
}

/// Reads a manifest list.
pub(crate) async fn read_list(bucket: &Bucket, url: &str) -> Result<Vec<ManifestFile>, LakeError> {
    let bytes = bucket.get_url(url).await?;
    let list = ManifestList::parse_with_version(&bytes, FormatVersion::V2)
        .map_err(|_| LakeError::data(url, "is not a manifest list of format version 2"))?;
    Ok(list.consume_entries().into_iter().collect())
}

/// The bytes of a manifest list.
pub(crate) async fn encode_list(
    lines: &[ManifestFile],
    snapshot_id: i64,
    parent_snapshot_id: Option<i64>,
    sequence_number: i64,
) -> Result<Bytes, LakeError> {
    let failed = |_| LakeError::internal("manifest list", "cannot be encoded");
    let sink = Sink::default();
    let mut writer =
        ManifestListWriter::v2(Box::new(sink.clone()), snapshot_id, parent_snapshot_id, sequence_number);
    writer.add_manifests(lines.iter().cloned()).map_err(failed)?;
    writer.close().await.map_err(failed)?;
    let bytes = std::mem::take(&mut *sink.0.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Bytes::from(bytes))
}

/// Takes the bytes that the crate would write to a file: the put is ours.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

#[async_trait]
impl FileWrite for Sink {
    async fn write(&mut self, bytes: Bytes) -> iceberg::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes);
        Ok(())
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        Ok(())
    }
}
