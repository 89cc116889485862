//! The store as one life of a worker sees it: slow, faulty, and gone when the life ends.
//!
//! Every operation waits before it takes effect and after, so that others come between, and a crash can fall on
//! either side. What goes wrong is drawn from the seed.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use rand::Rng;

use crate::world::{Life, World, violation};

/// A request that was given up may take effect this much later.
const LATE_MS_MAX: u64 = 60_000;
/// Longer than the age at which files without a name leave: a worker comes back to files that are gone.
const OUTAGES_MS: [u64; 4] = [20_000, 300_000, 3_600_000, 5 * 3_600_000];

/// What is to become of an operation.
struct Fate {
    before_ms: u64,
    after_ms: u64,
    crash_before: bool,
    crash_after: bool,
    refused: bool,
    reply_lost: bool,
    late_ms: Option<u64>,
    cut_short: bool,
}

#[derive(Clone)]
pub(crate) struct Handle {
    world: Arc<World>,
    life: Arc<Life>,
}

impl Handle {
    pub(crate) fn new(world: Arc<World>, life: Arc<Life>) -> Self {
        Self { world, life }
    }

    fn fate(&self, is_put: bool) -> Fate {
        self.world.budget();
        let now_ms = self.world.now_ms();
        let mut guard = self.world.state();
        let state = &mut *guard;
        state.operations += 1;
        let (faults, rng) = (state.faults, &mut state.rng);
        let mut happens = |of_1000: u32| rng.random_range(0..1000) < of_1000;
        let crash = happens(faults.crash);
        let mut fate = Fate {
            before_ms: 0,
            after_ms: 0,
            crash_before: false,
            crash_after: false,
            refused: happens(faults.refused),
            reply_lost: happens(faults.reply_lost),
            late_ms: None,
            cut_short: happens(faults.cut_short),
        };
        let (late, outage) = (is_put && happens(faults.late), happens(faults.outage));
        if crash {
            fate.crash_before = rng.random();
            fate.crash_after = !fate.crash_before;
        }
        if late {
            fate.late_ms = Some(rng.random_range(1..=LATE_MS_MAX));
        }
        if state.latency_ms > 0 {
            fate.before_ms = rng.random_range(0..=state.latency_ms);
            fate.after_ms = rng.random_range(0..=state.latency_ms) / 2;
        }
        if outage {
            let longest = OUTAGES_MS[rng.random_range(0..OUTAGES_MS.len())];
            state.outages.insert(self.life.number, now_ms + rng.random_range(1..=longest) as i64);
        }
        fate.refused |= state.outages.get(&self.life.number).is_some_and(|until_ms| now_ms < *until_ms);
        fate
    }

    /// One operation: `effect` happens at one instant, if it happens.
    async fn operate<T: Send + 'static>(
        &self,
        what: &'static str,
        path: &Path,
        fate: Fate,
        effect: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.wait(fate.before_ms).await;
        if fate.crash_before {
            self.crash().await;
        }
        if fate.refused {
            self.world.note(&self.life, what, path.as_ref(), "refused");
            return Err(self.fault());
        }
        if let Some(late_ms) = fate.late_ms {
            self.world.note(&self.life, what, path.as_ref(), "late");
            let (handle, path) = (self.clone(), path.clone());
            // On its way, whatever becomes of the worker.
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(late_ms)).await;
                handle.world.note(&handle.life, "lands", path.as_ref(), "");
                drop(effect(&handle));
            });
            return Err(self.fault());
        }
        let result = effect(self);
        if fate.crash_after {
            self.crash().await;
        }
        self.wait(fate.after_ms).await;
        if fate.reply_lost {
            self.world.note(&self.life, what, path.as_ref(), "reply lost");
            return Err(self.fault());
        }
        result
    }

    /// Lets others come between; does not return when the life has ended meanwhile.
    async fn wait(&self, ms: u64) {
        if ms == 0 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        if !self.life.is_alive() || self.world.state().violation.is_some() {
            std::future::pending::<()>().await;
        }
    }

    async fn crash(&self) {
        self.world.end(&self.life);
        std::future::pending::<()>().await;
    }

    fn fault(&self) -> Error {
        let texts = [
            "error sending request",
            "Server returned non-2xx status code: 503 Service Unavailable: <Code>SlowDown</Code>",
            "Server returned non-2xx status code: 429 Too Many Requests",
            "operation timed out",
        ];
        let text = texts[self.world.below(texts.len() as u64) as usize];
        Error::Generic { store: "S3", source: text.into() }
    }

    /// Which task asks: each knows its own outcomes.
    fn task() -> String {
        tokio::task::try_id().map_or_else(String::new, |id| id.to_string())
    }

    /// I-7: nothing is put in a folder while the outcome of another conditional put there is unknown and not asked for.
    fn begin_put(&self, path: &Path) {
        let folder = folder(path);
        let state = self.world.state();
        let open = state.unknown.get(&Self::task()).and_then(|folders| folders.get(folder)).cloned();
        drop(state);
        if let Some(open) = open {
            let what =
                format_args!("{path} is put while the outcome of {open} is unknown and was not read back");
            self.world.check(Err(violation("I-7", what)));
        }
    }

    fn end_put<T>(&self, path: &Path, result: &Result<T>) {
        let unknown = match result {
            Err(Error::AlreadyExists { .. }) | Ok(_) => false,
            Err(_) => !self.world.state().known.contains(&(self.life.number, path.to_string())),
        };
        if unknown {
            let (folder, path) = (folder(path).to_owned(), path.to_string());
            self.world.state().unknown.entry(Self::task()).or_default().insert(folder, path);
        }
    }

    fn read_back(&self, path: &Path) {
        let mut state = self.world.state();
        if let Some(folders) = state.unknown.get_mut(&Self::task()) {
            folders.retain(|_, open| open != path.as_ref());
        }
    }

    fn put_now(&self, path: &Path, bytes: Bytes, options: PutOptions) -> Result<PutResult> {
        let now_ms = self.world.now_ms();
        let mut guard = self.world.state();
        let state = &mut *guard;
        let put = state.objects.put(path, bytes.clone(), options, now_ms);
        let checked = match &put {
            Ok(_) => state.model.put(&self.world.scenario, &state.objects, path.as_ref(), &bytes, now_ms),
            Err(_) => Ok(()),
        };
        drop(guard);
        let outcome = if put.is_ok() { "" } else { "exists" };
        self.world.note_bytes(&self.life, "put", path.as_ref(), outcome, &bytes);
        self.world.check(checked);
        put
    }

    fn delete_now(&self, path: &Path) -> Result<()> {
        let now_ms = self.world.now_ms();
        let mut guard = self.world.state();
        let state = &mut *guard;
        let checked = state.model.delete(&self.world.scenario, &state.objects, path.as_ref(), now_ms);
        let deleted = state.objects.delete(path);
        drop(guard);
        self.world.note(&self.life, "delete", path.as_ref(), if deleted.is_ok() { "" } else { "absent" });
        if deleted.is_ok() {
            self.world.check(checked);
        }
        deleted
    }

    /// A listing: all of it, or its beginning and an error.
    fn listing(
        &self,
        prefix: Option<&Path>,
        keep: impl Fn(&ObjectMeta) -> bool + Send + 'static,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (handle, prefix) = (self.clone(), prefix.cloned());
        let listing = async move {
            let fate = handle.fate(false);
            let cut = fate.cut_short;
            let place = prefix.clone().unwrap_or_default();
            let listed = handle.operate("list", &place, fate, move |handle| {
                let listed = handle.world.state().objects.list(prefix.as_ref());
                handle.world.note(&handle.life, "list", prefix.unwrap_or_default().as_ref(), "");
                Ok(listed)
            });
            let mut answers: Vec<Result<ObjectMeta>> =
                listed.await?.into_iter().filter(|meta| keep(meta)).map(Ok).collect();
            if cut {
                answers.truncate(handle.world.below(answers.len() as u64 + 1) as usize);
                handle.world.note(&handle.life, "list", place.as_ref(), "cut short");
                answers.push(Err(handle.fault()));
            }
            Ok::<_, Error>(stream::iter(answers))
        };
        stream::once(listing).try_flatten().boxed()
    }
}

fn folder(path: &Path) -> &str {
    path.as_ref().rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated store")
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("life", &self.life.number).finish_non_exhaustive()
    }
}

#[async_trait]
impl ObjectStore for Handle {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let bytes = Bytes::from(payload);
        let conditional = options.mode == PutMode::Create;
        if conditional {
            self.begin_put(path);
        }
        let fate = self.fate(true);
        let to = path.clone();
        let put = self.operate("put", path, fate, move |handle| handle.put_now(&to, bytes, options)).await;
        if conditional {
            self.end_put(path, &put);
        }
        put
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "multipart".into(), implementer: "simulation".into() })
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.read_back(path);
        let (fate, from) = (self.fate(false), path.clone());
        self.operate("get", path, fate, move |handle| {
            let got = handle.world.state().objects.get(&from, options);
            let outcome = if got.is_ok() { "" } else { "absent" };
            if got.is_ok() {
                handle.world.state().known.insert((handle.life.number, from.to_string()));
            }
            handle.world.note(&handle.life, "get", from.as_ref(), outcome);
            got
        })
        .await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let handle = self.clone();
        let deletions = paths.then(move |path| {
            let handle = handle.clone();
            async move {
                let path = path?;
                let (fate, gone) = (handle.fate(false), path.clone());
                handle.operate("delete", &path, fate, move |handle| handle.delete_now(&gone)).await?;
                Ok(path)
            }
        });
        deletions.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, |_| true)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = offset.clone();
        self.listing(prefix, move |meta| meta.location > offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.world.state().objects.list_with_delimiter(prefix)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".into(), implementer: "simulation".into() })
    }
}
