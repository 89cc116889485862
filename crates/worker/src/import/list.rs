//! The files that a pattern means, in the order of their paths.

use std::{collections::BTreeSet, sync::Arc};

use futures::TryStreamExt;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path};
use siltstone_ingest::files::FileFormat;
use siltstone_lakehouse::LakeError;
use siltstone_protocol::ErrorCode;
use siltstone_spec::SourceFiles;

/// More files than this are for several calls.
const FILES_MAX: usize = 250_000;

/// A file to be read.
#[derive(Clone)]
pub(super) struct SourceFile {
    pub(super) path: Path,
    /// Without options: what people know it by.
    pub(super) url: String,
    pub(super) bytes: u64,
    /// What the store says of the content: another text, another content.
    pub(super) content: String,
    pub(super) etag: Option<String>,
    pub(super) changed_ms: i64,
    pub(super) format: FileFormat,
}

impl SourceFile {
    /// Whether this is what was listed.
    pub(super) fn is(&self, now: &ObjectMeta) -> bool {
        let by_time = || now.last_modified.timestamp_millis() == self.changed_ms;
        now.size == self.bytes && now.e_tag == self.etag && (self.etag.is_some() || by_time())
    }
}

/// Lists the files of a pattern.
///
/// # Errors
/// `Invalid`: there is none, there are too many, or one whose format nobody can tell.
pub(super) async fn list(
    store: &Arc<dyn ObjectStore>,
    files: &SourceFiles,
    format: Option<FileFormat>,
) -> Result<Vec<SourceFile>, LakeError> {
    let subject = "the files of the pattern";
    let prefix = Path::parse(files.prefix());
    let prefix = prefix.map_err(|_| LakeError::invalid(subject, "have a path that no object has"))?;
    let mut found: Vec<ObjectMeta> = Vec::new();
    if files.is_one() {
        match store.head(&prefix).await {
            Ok(meta) => found.push(meta),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(LakeError::store("look at", &prefix, &error)),
        }
    } else {
        let below = (!prefix.as_ref().is_empty()).then_some(&prefix);
        let mut listing = store.list(below);
        while let Some(meta) =
            listing.try_next().await.map_err(|error| LakeError::store("list", &prefix, &error))?
        {
            if !files.matches(meta.location.as_ref()) || is_folder(&meta) {
                continue;
            }
            if found.len() == FILES_MAX {
                let problem = format_args!("are more than {FILES_MAX}; narrow it, and call several times");
                return Err(LakeError::invalid(subject, problem).coded(ErrorCode::CommandRefused));
            }
            found.push(meta);
        }
    }
    if found.is_empty() {
        return Err(LakeError::invalid(subject, "are none; look at the bucket, the path and the pattern")
            .coded(ErrorCode::CommandRefused));
    }
    found.sort_unstable_by(|a, b| a.location.cmp(&b.location));
    let known = |meta: &ObjectMeta| format.or_else(|| FileFormat::of_name(meta.location.as_ref()));
    let unknown: BTreeSet<&str> = found
        .iter()
        .filter(|meta| known(meta).is_none())
        .map(|meta| ending(meta.location.as_ref()))
        .collect();
    if let Some(ending) = unknown.first() {
        let problem =
            format_args!("have names that do not tell their format ({ending}); say it with --format");
        return Err(LakeError::invalid(subject, problem).coded(ErrorCode::CommandRefused));
    }
    let local = files.bucket.url.starts_with("file://");
    let file = |meta: ObjectMeta| {
        let format = known(&meta)?;
        let changed_ms = meta.last_modified.timestamp_millis();
        // On a disk, what stands for the content also says where on the disk it is.
        let content = match &meta.e_tag {
            Some(etag) if !local => format!("{}:{etag}", meta.size),
            _ => format!("{}@{changed_ms}", meta.size),
        };
        let url = files.url_of(meta.location.as_ref());
        let (path, etag) = (meta.location, meta.e_tag);
        Some(SourceFile { path, url, bytes: meta.size, content, etag, changed_ms, format })
    };
    Ok(found.into_iter().filter_map(file).collect())
}

/// Some programs put an empty object where a folder would be.
fn is_folder(meta: &ObjectMeta) -> bool {
    meta.size == 0 && !meta.location.filename().is_some_and(|name| name.contains('.'))
}

/// The end of a name from its last dot: no part of it that could be a value.
fn ending(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let end = name.rfind('.').map_or("no ending", |at| &name[at..]);
    if end.len() <= 12 { end } else { "a long ending" }
}
