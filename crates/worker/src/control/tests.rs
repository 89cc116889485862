//! Reporting to stub control planes: truthful, slow, dead and lying ones.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use object_store::{ObjectStoreExt, memory::InMemory, path::Path};
use siltstone_datafile::MemoryBudget;
use siltstone_lakehouse::TableStore;
use siltstone_protocol::{
    Ack, Change, Entry, ErrorKind, FileEntry, OffsetRange, Report,
    command::{Action, Command, CommandOutcome, CommandPoll, Outcome},
    image::Image,
};
use siltstone_spec::{ControlPlane, Secret, Spec};
use tokio::{runtime::Handle, sync::watch};

use super::{
    About, KeySource, Wire, WireError,
    commands::Commander,
    reporter::{Cursor, Reporter, Reporting},
};
use crate::{
    identity::Identity,
    runtime::{Shared, TableRuntime},
    table::Table,
};

const SPEC: &str = "
source_clusters: [{name: lab, bootstrap_brokers: ['localhost:9092'], schema_registry: {url: 'http://localhost'}}]
destination_bucket_url: file:///tmp
tables: [{name: a.b, source_cluster_name: lab, source_topic: t, source_format: avro}]
";

/// How a stub answers.
#[derive(Debug, Clone, PartialEq)]
enum Manner {
    Truthful,
    Hang,
    Status(u16),
    Body(&'static str),
    Huge,
    Redirect(String),
    Says(Ack),
}

/// A control plane that keeps what it was sent.
#[derive(Debug)]
struct Stub {
    manner: Manner,
    entries: Vec<Entry>,
    /// Version and uuid of an image that stands for the entries before.
    image: Option<(u64, String)>,
    images: Vec<Image>,
    outcomes: Vec<CommandOutcome>,
    requests: usize,
    keys: Vec<String>,
}

type Shelf = Arc<Mutex<Stub>>;

impl Stub {
    fn stand(&self) -> Option<(u64, String)> {
        let last = self.entries.last().map(|entry| (entry.version, entry.table_uuid.clone()));
        last.or_else(|| self.image.clone())
    }

    fn take(&mut self, report: Report) -> Ack {
        assert_eq!(report.table.name, "a.b__dead_letters");
        assert_eq!(report.table.location, "memory:///lake/a/b__dead_letters");
        assert_eq!(report.table.spec_digest.len(), 64);
        let stand = self.stand();
        let version = stand.as_ref().map(|(version, _)| *version);
        for entry in report.entries {
            let (next, uuid) = stand_after(self.stand());
            if uuid.is_some_and(|uuid| uuid != entry.table_uuid) || entry.version > next {
                return Ack { version, gap: true };
            }
            if entry.version == next {
                self.entries.push(entry);
            }
        }
        Ack { version: self.stand().map(|(version, _)| version), gap: false }
    }

    fn take_image(&mut self, image: Image) -> Ack {
        assert_eq!(image.ranges.is_empty(), image.part > 0);
        let last = image.part + 1 == image.parts;
        if last {
            self.entries.clear();
            self.image = Some((image.version, image.table_uuid.clone()));
        }
        self.images.push(image);
        Ack { version: self.stand().map(|(version, _)| version), gap: false }
    }
}

fn stand_after(stand: Option<(u64, String)>) -> (u64, Option<String>) {
    stand.map_or((0, None), |(version, uuid)| (version + 1, Some(uuid)))
}

fn lock(shelf: &Shelf) -> std::sync::MutexGuard<'_, Stub> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(shelf): State<Shelf>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let manner = {
        let mut stub = lock(&shelf);
        stub.requests += 1;
        stub.keys.push(headers[header::AUTHORIZATION].to_str().unwrap().to_owned());
        stub.manner.clone()
    };
    match manner {
        Manner::Hang => {
            std::future::pending::<()>().await;
            StatusCode::OK.into_response()
        }
        Manner::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Manner::Body(text) => text.into_response(),
        Manner::Huge => vec![b'['; 2 << 20].into_response(),
        Manner::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response(),
        Manner::Says(ack) => axum::Json(ack).into_response(),
        Manner::Truthful => {
            let mut stub = lock(&shelf);
            match uri.path() {
                "/worker/v1/report" => {
                    axum::Json(stub.take(serde_json::from_slice(&body).unwrap())).into_response()
                }
                "/worker/v1/image" => {
                    axum::Json(stub.take_image(serde_json::from_slice(&body).unwrap())).into_response()
                }
                "/worker/v1/commands/outcome" => {
                    stub.outcomes.push(serde_json::from_slice(&body).unwrap());
                    StatusCode::NO_CONTENT.into_response()
                }
                other => panic!("{other}"),
            }
        }
    }
}

async fn serve(manner: Manner) -> (Shelf, String) {
    let stub = Stub {
        manner,
        entries: Vec::new(),
        image: None,
        images: Vec::new(),
        outcomes: Vec::new(),
        requests: 0,
        keys: Vec::new(),
    };
    let shelf = Arc::new(Mutex::new(stub));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new()
        .fallback(answer)
        .layer(axum::extract::DefaultBodyLimit::max(8 << 20))
        .with_state(shelf.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (shelf, url)
}

fn wire(url: &str) -> Arc<Wire> {
    let plane = ControlPlane {
        url: url.to_owned(),
        api_key: Secret::new("first".to_owned()),
        ca_file: None,
        region: None,
        commands: true,
    };
    Arc::new(Wire::new(&plane, Arc::default(), None).unwrap())
}

struct Lake {
    store: TableStore,
    memory: Arc<InMemory>,
    spec: Spec,
}

impl Lake {
    fn new() -> Self {
        let memory = Arc::new(InMemory::new());
        let url = url::Url::parse("memory:///lake").unwrap();
        let store = TableStore::new(memory.clone(), Path::from("lake"), url);
        Self { store, memory, spec: siltstone_spec::parse(SPEC, "spec.yaml", &|_| None).unwrap() }
    }

    async fn table(&self) -> Table {
        let spec = &self.spec.tables[0];
        Table::open_or_create_dead_letters(&self.store, spec, "create", 1).await.unwrap()
    }
}

fn range(start: i64, end: i64) -> OffsetRange {
    let (cluster, topic) = ("lab".to_owned(), "t".to_owned());
    OffsetRange { cluster, topic, partition: 0, start, end, lost: false }
}

/// Commits an entry that only moves a position.
async fn commit(table: &Table) -> u64 {
    let mut state = table.state.lock().await;
    let start = i64::try_from(state.version).unwrap();
    let range = range(start, start + 1);
    let change = Change::append(Vec::new(), vec![range], Vec::new());
    let id = format!("commit-{start}");
    table.ledger.commit(&mut state, change, &id, 2).await.unwrap();
    table.announce(state.version);
    state.version
}

async fn catch_up(lake: &Lake, table: &Table, wire: &Wire, cursor: &mut Cursor) -> Result<(), String> {
    let about = About::dead_letters(&lake.spec.tables[0], &table.url);
    let identity = Identity::default();
    let reporting = Reporting { wire, identity: &identity, table, about: &about };
    reporting.catch_up(cursor).await.map_err(|error| error.to_string())
}

fn entries(shelf: &Shelf) -> Vec<Entry> {
    lock(shelf).entries.clone()
}

async fn ledger(table: &Table) -> Vec<Entry> {
    let entries = table.ledger.entries(0, table.version()).await.unwrap();
    entries.into_iter().map(Arc::unwrap_or_clone).collect()
}

#[tokio::test]
async fn reports_are_the_ledger() {
    let (lake, (shelf, url)) = (Lake::new(), serve(Manner::Truthful).await);
    let (table, wire) = (lake.table().await, wire(&url));
    for _ in 0..150 {
        commit(&table).await;
    }
    let mut cursor = Cursor::default();
    catch_up(&lake, &table, &wire, &mut cursor).await.unwrap();
    assert_eq!(entries(&shelf), ledger(&table).await);
    let before = lock(&shelf).requests;
    catch_up(&lake, &table, &wire, &mut cursor).await.unwrap();
    assert_eq!(lock(&shelf).requests, before, "nothing new, nothing sent");
    commit(&table).await;
    catch_up(&lake, &table, &wire, &mut cursor).await.unwrap();
    let (requests, held) = {
        let stub = lock(&shelf);
        (stub.requests, stub.entries.len())
    };
    assert_eq!((requests, held), (before + 1, 152));
    // Another worker, or this one after a restart: asks, and sends what it already sent at most once more.
    commit(&table).await;
    catch_up(&lake, &table, &wire, &mut Cursor::default()).await.unwrap();
    assert_eq!(entries(&shelf), ledger(&table).await);
    assert!(lock(&shelf).images.is_empty());
    // What another worker committed is found.
    let other = Table::open_dead_letters(&lake.store, &lake.spec.tables[0]).await.unwrap().unwrap();
    commit(&other).await;
    catch_up(&lake, &table, &wire, &mut Cursor::default()).await.unwrap();
    assert_eq!(entries(&shelf), ledger(&other).await);
    assert!(lock(&shelf).keys.iter().all(|key| key == "Bearer first"));
}

#[tokio::test]
async fn a_control_plane_that_went_back_catches_up() {
    let (lake, (shelf, url)) = (Lake::new(), serve(Manner::Truthful).await);
    let (table, wire) = (lake.table().await, wire(&url));
    let mut cursor = Cursor::default();
    for left in [5, 1, 0] {
        for _ in 0..10 {
            commit(&table).await;
        }
        catch_up(&lake, &table, &wire, &mut cursor).await.unwrap();
        lock(&shelf).entries.truncate(left);
        commit(&table).await;
        catch_up(&lake, &table, &wire, &mut cursor).await.unwrap();
        assert_eq!(entries(&shelf), ledger(&table).await, "restored to {left} entries");
    }
    assert!(lock(&shelf).images.is_empty());
}

#[tokio::test]
async fn what_is_gone_from_the_ledger_becomes_an_image() {
    let (lake, (shelf, url)) = (Lake::new(), serve(Manner::Truthful).await);
    let (table, wire) = (lake.table().await, wire(&url));
    for _ in 0..20 {
        commit(&table).await;
    }
    let state = table.state.lock().await.clone();
    table.ledger.checkpoint(&state).await.unwrap();
    for version in 0..15 {
        let path = format!("lake/a/b__dead_letters/_siltstone/ledger/{version:020}.json");
        lake.memory.delete(&Path::from(path)).await.unwrap();
    }
    // Without what the first one holds in memory.
    let table = Table::open_dead_letters(&lake.store, &lake.spec.tables[0]).await.unwrap().unwrap();
    let mut cursor = Cursor::default();
    catch_up(&lake, &table, &wire, &mut cursor).await.unwrap();
    let uuid = state.table_uuid.clone();
    assert_eq!(lock(&shelf).image, Some((20, uuid.clone())));
    let range = lock(&shelf).images[0].ranges[0].clone();
    assert_eq!((range.start, range.end, range.topic.as_str()), (0, 20, "t"));
    commit(&table).await;
    catch_up(&lake, &table, &wire, &mut cursor).await.unwrap();
    assert_eq!(lock(&shelf).entries.iter().map(|entry| entry.version).collect::<Vec<_>>(), [21]);
    // The table was made anew under the name.
    lock(&shelf).image = Some((3, "another".to_owned()));
    lock(&shelf).entries.clear();
    catch_up(&lake, &table, &wire, &mut Cursor::default()).await.unwrap();
    assert_eq!(lock(&shelf).image, Some((21, uuid.clone())));
    // It was further than the new one is.
    lock(&shelf).image = Some((1000, "another".to_owned()));
    catch_up(&lake, &table, &wire, &mut Cursor::default()).await.unwrap();
    assert_eq!(lock(&shelf).image, Some((21, uuid)));
}

#[tokio::test]
async fn an_entry_that_is_larger_than_a_report_becomes_an_image_in_parts() {
    let (lake, (shelf, url)) = (Lake::new(), serve(Manner::Truthful).await);
    let (table, wire) = (lake.table().await, wire(&url));
    let file = |n: usize| FileEntry {
        path: format!("data/{n:026}.parquet"),
        bytes: 1,
        rows: 1,
        schema_id: 0,
        spec_id: 0,
        sort_order_id: 0,
        partition_token: Some("ab".repeat(32)),
    };
    let files: Vec<_> = (0..30_000).map(file).collect();
    let mut state = table.state.lock().await.clone();
    let change = Change::append(files.clone(), vec![range(0, 1)], Vec::new());
    table.ledger.commit(&mut state, change, "large", 2).await.unwrap();
    table.announce(state.version);
    catch_up(&lake, &table, &wire, &mut Cursor::default()).await.unwrap();
    let images = std::mem::take(&mut lock(&shelf).images);
    assert!(images.len() > 3 && images.iter().all(|image| image.parts as usize == images.len()));
    assert!(
        (0..).zip(&images).all(|(part, image)| image.part == part && image.image_id == images[0].image_id)
    );
    let told: Vec<_> = images.into_iter().flat_map(|image| image.files).collect();
    assert_eq!(told, files);
}

/// One table after the other, with what is left to the others while the control plane is out.
#[tokio::test]
async fn an_outage_is_met_once_and_made_up_for() {
    let (lake, (shelf, url)) = (Lake::new(), serve(Manner::Status(500)).await);
    let table = lake.table().await;
    commit(&table).await;
    let shared = shared(&lake).await;
    let runtime = TableRuntime::new(shared.clone(), lake.spec.tables[0].clone(), Handle::current());
    runtime.find().await.unwrap();
    let many = Arc::new(vec![runtime; 100]);
    let mut reporter = Reporter::new(wire(&url), Arc::default(), many, true);
    reporter.round(false).await;
    // Four at once, three tries each.
    assert!(lock(&shelf).requests <= 12, "{}", lock(&shelf).requests);
    lock(&shelf).manner = Manner::Truthful;
    reporter.round(false).await;
    assert!(entries(&shelf).is_empty(), "it rests");
    reporter.round(true).await;
    assert_eq!(entries(&shelf), ledger(&table).await);
}

#[tokio::test]
async fn liars_cost_a_bounded_number_of_messages() {
    let lake = Lake::new();
    let table = lake.table().await;
    for _ in 0..10 {
        commit(&table).await;
    }
    let (elsewhere, other_url) = serve(Manner::Truthful).await;
    let says = |version, gap| Manner::Says(Ack { version, gap });
    let manners = [
        Manner::Status(500),
        Manner::Status(400),
        Manner::Status(401),
        Manner::Status(204),
        Manner::Body("<html>"),
        Manner::Body("{\"version\": 3, \"gap\": false, \"disclose\": [\"email\"]}"),
        Manner::Body("{\"version\": -1}"),
        Manner::Body("{\"version\": 18446744073709551615}"),
        Manner::Huge,
        Manner::Redirect(format!("{other_url}/worker/v1/report")),
        says(Some(u64::MAX), false),
        says(Some(u64::MAX), true),
        says(Some(11), false),
        says(Some(0), false),
        says(Some(0), true),
        says(None, true),
        says(None, false),
    ];
    for manner in manners {
        let (shelf, url) = serve(manner.clone()).await;
        let wire = wire(&url);
        let mut cursor = Cursor::default();
        let ended = catch_up(&lake, &table, &wire, &mut cursor).await;
        let requests = lock(&shelf).requests;
        assert!(ended.is_err() && requests <= 60, "{manner:?}: {ended:?} after {requests}");
        assert!(!ended.unwrap_err().contains("html"));
        lock(&shelf).manner = Manner::Truthful;
        catch_up(&lake, &table, &wire, &mut Cursor::default()).await.unwrap();
        assert_eq!(entries(&shelf), ledger(&table).await, "{manner:?}");
    }
    assert_eq!(lock(&elsewhere).requests, 0, "a redirect was followed");
}

#[tokio::test(start_paused = true)]
async fn silence_ends() {
    let (lake, (shelf, url)) = (Lake::new(), serve(Manner::Hang).await);
    let table = lake.table().await;
    let ended = catch_up(&lake, &table, &wire(&url), &mut Cursor::default()).await;
    assert!(ended.is_err() && lock(&shelf).requests <= 3);
    let nobody = wire("http://127.0.0.1:9");
    let poll = CommandPoll { worker_id: "w".to_owned(), wait_seconds: 1 };
    let ended = nobody.send(&poll).await;
    assert!(matches!(ended, Err(WireError::Unreachable | WireError::TimedOut)), "{ended:?}");
}

async fn shared(lake: &Lake) -> Shared {
    let (_, stop) = watch::channel(false);
    Shared {
        lake: lake.store.clone(),
        budget: MemoryBudget::new(64 << 20),
        metrics: Arc::default(),
        progress: Arc::default(),
        identity: Arc::default(),
        readiness: Arc::default(),
        registries: Arc::default(),
        tables: 1,
        once: true,
        stop: stop.clone(),
        abandon: stop.clone(),
        finish: stop,
    }
}

#[tokio::test]
async fn commands_are_done_once_and_only_as_far_as_they_may() {
    let (lake, (shelf, url)) = (Lake::new(), serve(Manner::Truthful).await);
    lake.table().await;
    let shared = shared(&lake).await;
    let runtime = TableRuntime::new(shared.clone(), lake.spec.tables[0].clone(), Handle::current());
    runtime.find().await.unwrap();
    let (wire, tables) = (wire(&url), Arc::new(vec![runtime.clone()]));
    let reads = Arc::new(Mutex::new(0));
    let counted = reads.clone();
    let key = KeySource::new(move || {
        *counted.lock().unwrap() += 1;
        Some(Secret::new("second".to_owned()))
    });
    let new = |allowed| {
        let stop = shared.stop.clone();
        Commander::new(wire.clone(), "w".to_owned(), allowed, Some(key.clone()), tables.clone(), stop)
    };
    let commander = new(true);
    let command = |id: &str, action, table: Option<&str>| Command {
        id: id.to_owned(),
        action,
        table: table.map(str::to_owned),
        expires_ms: i64::MAX,
    };
    let steps = [
        (command("1", Action::Pause, Some("a.b")), Outcome::Done, true),
        (command("2", Action::Resume, Some("a.b")), Outcome::Done, false),
        // Handed out again: told again, not done again.
        (command("1", Action::Pause, Some("a.b")), Outcome::Done, false),
        (command("3", Action::Pause, Some("a.c")), Outcome::UnknownTable, false),
        (command("4", Action::Pause, None), Outcome::UnknownTable, false),
        (command("5", Action::Pause, Some("a.b__dead_letters")), Outcome::UnknownTable, false),
        (Command { expires_ms: 5, ..command("6", Action::Pause, Some("a.b")) }, Outcome::Expired, false),
        (command("7", Action::Compact, Some("a.b__dead_letters")), Outcome::Done, false),
        (command("8", Action::Expire, Some("a.b")), Outcome::Done, false),
        (command("9", Action::Rotate, None), Outcome::Done, false),
        (command("9", Action::Rotate, None), Outcome::Done, false),
    ];
    for (command, outcome, paused) in steps {
        commander.answer(command.clone()).await;
        let told = lock(&shelf).outcomes.last().cloned().unwrap();
        assert_eq!((told.command_id, told.outcome), (command.id.clone(), outcome));
        assert_eq!(runtime.switch.is_paused(), paused, "after {command:?}");
    }
    assert_eq!(*reads.lock().unwrap(), 1);
    assert_eq!(lock(&shelf).keys.last().unwrap(), "Bearer second");
    let told = lock(&shelf).outcomes.len();
    commander.answer(command("", Action::Pause, Some("a.b"))).await;
    assert_eq!(lock(&shelf).outcomes.len(), told, "without an id it is none");
    let forbidden = new(false);
    for action in Action::ALL {
        forbidden.answer(command(action.as_str(), *action, Some("a.b"))).await;
        assert_eq!(lock(&shelf).outcomes.last().unwrap().outcome, Outcome::NotAllowed);
    }
    assert!(!runtime.switch.is_paused());
}

#[tokio::test]
async fn nothing_but_the_closed_list_is_a_command() {
    let base = r#"{"id": "1", "action": "pause", "table": "a.b", "expires_ms": 9223372036854775807"#;
    let (shelf, url) = serve(Manner::Truthful).await;
    let wire = wire(&url);
    let poll = CommandPoll { worker_id: "w".to_owned(), wait_seconds: 1 };
    let ask = async |text: String| {
        lock(&shelf).manner = Manner::Body(Box::leak(text.into_boxed_str()));
        wire.send(&poll).await
    };
    assert_eq!(ask(format!(r#"{{"commands": [{base}}}]}}"#)).await.unwrap().commands.len(), 1);
    for more in [
        r#", "disclose": ["email"]"#,
        r#", "url": "https://elsewhere""#,
        r#", "destination_bucket_url": "s3://elsewhere""#,
        r#", "api_key": "theirs""#,
    ] {
        let ended = ask(format!(r#"{{"commands": [{base}{more}}}]}}"#)).await;
        assert_eq!(ended, Err(WireError::NotAnAnswer), "{more}");
        let ended = ask(format!(r#"{{"commands": [{base}}}]{more}}}"#)).await;
        assert_eq!(ended, Err(WireError::NotAnAnswer), "{more}");
    }
    for action in ["run", "disclose", "set_spec", "Pause", ""] {
        let ended = ask(format!(r#"{{"commands": [{}}}]}}"#, base.replace("pause", action))).await;
        assert_eq!(ended, Err(WireError::NotAnAnswer), "{action}");
    }
    assert_eq!(WireError::NotAnAnswer.kind(), ErrorKind::Data);
}
