//! Messages as they could be under a spec: its names, invented counts. For people who want to see what crosses.

use serde_json::Value as Json;
use siltstone_protocol::{
    Change, Effort, Entry, ErrorKind, Field, FileEntry, Message, OffsetRange, PartitionSpec, PrimitiveType,
    RejectReason, RejectedCount, Report, Schema, SourceFileRange, Transform,
    command::{CommandOutcome, CommandPoll, Outcome},
    disclosed::Value,
    health::{HealthReport, TableHealth, WorkState},
    image::Image,
    presence::{EventCode, EventCount, EventSample, FunctionCount, FunctionName, Presence, ProfileSample},
};
use siltstone_spec::{InputSchema, SchemaMode, Spec, TableSpec};

use super::About;

const UUID: &str = "5f0c9a52-6c57-4a35-9a6b-0d8f3a1c2e47";
const ULID: &str = "01KB0Q4W8ZN3V5X7T9R2M6C1DE";
const TOKEN: &str = "3b7f0c2d9e8a4516";
const AT_MS: i64 = 1_764_144_000_000;

/// An example of each message for the tables of a spec, by the message's name.
///
/// # Errors
/// Only if a message cannot be written as JSON.
pub fn examples(spec: &Spec) -> Result<Vec<(&'static str, Json)>, serde_json::Error> {
    let mut all = Vec::new();
    for table in &spec.tables {
        let location = format!("{}/{}", spec.destination.url, table.location());
        let about = About::table(table, &location);
        let statistics = about.disclosure.statistics(
            &file(0).path,
            about.disclosure.columns().iter().map(|c| (c.as_str(), Value::Long(1), Value::Long(900))),
            table.partition_by.iter().map(|by| (by.name.as_str(), Some(Value::Int(7)))),
        );
        let report = Report {
            table: about.identity.clone(),
            entries: entries(table),
            statistics: statistics.iter().cloned().collect(),
        };
        add(&mut all, &report)?;
        add(&mut all, &image(table, &about, statistics.into_iter().collect()))?;
    }
    let name = spec.tables.first().map_or("shop.orders", |table| table.name.as_str());
    let worker_id = || UUID.to_owned();
    let health = TableHealth {
        table: name.to_owned(),
        state: WorkState::Retrying,
        error: Some(ErrorKind::Unavailable),
        partitions: 6,
        lag_records: Some(1_250),
        freshness_ms: Some(4_200),
        backlog_files: Some(12),
        backlog_bytes: Some(402_653_184),
    };
    add(&mut all, &HealthReport { worker_id: worker_id(), at_ms: AT_MS, tables: vec![health] })?;
    let presence = Presence {
        worker_id: worker_id(),
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms: AT_MS,
        vcpus: 4,
        utilisation_percent: 37,
        memory_bytes: 734_003_200,
        private_address: Some([10, 0, 12, 7].into()),
        zone: Some("eu-west-1a".to_owned()),
        tables: u32::try_from(spec.tables.len()).unwrap_or(u32::MAX),
    };
    add(&mut all, &presence)?;
    let code = EventCode::CommitRetried;
    let error = Some(ErrorKind::Unavailable);
    let events = vec![EventCount { code, table: Some(name.to_owned()), error, count: 2 }];
    add(&mut all, &EventSample { worker_id: worker_id(), events })?;
    let function = FunctionName::new("siltstone_worker::ingest::Poller::run");
    let functions = vec![FunctionCount { function, samples: 61 }];
    add(&mut all, &ProfileSample { worker_id: worker_id(), duration_ms: 5_000, functions })?;
    add(&mut all, &CommandPoll { worker_id: worker_id(), wait_seconds: 25 })?;
    let outcome = Outcome::Failed { error: ErrorKind::Unavailable };
    add(&mut all, &CommandOutcome { worker_id: worker_id(), command_id: ULID.to_owned(), outcome })?;
    Ok(all)
}

fn add<M: Message>(all: &mut Vec<(&'static str, Json)>, message: &M) -> Result<(), serde_json::Error> {
    all.push((M::NAME, serde_json::to_value(message)?));
    Ok(())
}

fn file(n: u8) -> FileEntry {
    FileEntry {
        path: format!("data/{}{n}.parquet", ULID.get(..25).unwrap_or(ULID)),
        bytes: 18_350_080,
        rows: 240_000,
        schema_id: 0,
        spec_id: 0,
        sort_order_id: 1,
        partition_token: Some(TOKEN.repeat(4)),
    }
}

fn range(table: &TableSpec) -> OffsetRange {
    let (cluster, topic) = (table.cluster.clone(), table.topic.clone());
    OffsetRange { cluster, topic, partition: 0, start: 480_000, end: 720_000, lost: false }
}

/// Columns of the spec. When records bring theirs: those that partition or sort the table, of invented types.
fn schema(table: &TableSpec) -> Schema {
    if let SchemaMode::Inline(InputSchema::Fields(schema)) = &table.schema_mode {
        return schema.clone();
    }
    let by = table.partition_by.iter().map(|by| (by.column.as_str(), by.transform));
    let sorted = table.sort_by.iter().map(|by| (by.column.as_str(), Transform::Identity));
    let mut schema = Schema::new(0, Vec::new());
    for (column, transform) in by.chain(sorted).filter(|(column, _)| !column.contains('.')) {
        if schema.column(column).is_some() {
            continue;
        }
        let primitive = match transform {
            Transform::Year | Transform::Month | Transform::Day | Transform::Hour => {
                PrimitiveType::Timestamptz
            }
            _ => PrimitiveType::Long,
        };
        let id = schema.last_field_id() + 1;
        schema.fields.push(Field::optional(id, column, primitive.into()));
    }
    schema
}

/// One entry of each kind.
fn entries(table: &TableSpec) -> Vec<Entry> {
    let schema = schema(table);
    let partition_spec = siltstone_spec::resolve::partition_spec(table, &schema).unwrap_or_default();
    let sort_order = siltstone_spec::resolve::sort_order(table, &schema).unwrap_or_default();
    let rejected = vec![RejectedCount { reason: RejectReason::Malformed, records: 3 }];
    let formats = table.formats.clone();
    let changes = [
        Change::Create {
            name: table.name.clone(),
            schema: schema.clone(),
            partition_spec: partition_spec.clone(),
            sort_order: sort_order.clone(),
            formats: formats.clone(),
        },
        Change::append(vec![file(0)], vec![range(table)], rejected.clone()),
        Change::Append {
            files: vec![file(0)],
            ranges: Vec::new(),
            rejected: Vec::new(),
            replayed: vec![range(table)],
            imported: Vec::new(),
            base: Some(4),
        },
        Change::Append {
            files: vec![file(0)],
            ranges: Vec::new(),
            rejected: Vec::new(),
            replayed: Vec::new(),
            imported: vec![SourceFileRange {
                source: "9c56cc51b374c3ba189210d5b6d4bf57".to_owned(),
                start: 0,
                end: 120_000,
                complete: true,
            }],
            base: None,
        },
        Change::Overwrite {
            removed: vec![file(0).path],
            added: vec![file(1)],
            ranges: vec![range(table)],
            replayed: vec![range(table)],
            base: 4,
            rejected,
        },
        Change::Replace {
            removed: vec![file(0).path],
            added: vec![file(1)],
            effort: Effort { spliced_bytes: 9_437_184, dropped_plans: 1 },
        },
        Change::Delete { removed: vec![file(1).path], added: vec![file(2)] },
        Change::SetSchema { schema },
        Change::SetPartitionSpec { partition_spec },
        Change::SetSortOrder { sort_order },
        Change::SetFormats { formats: formats.clone() },
        Change::ResetPositions { ranges: vec![range(table)] },
    ];
    let absorbs = formats.into_iter().map(|format| Change::Absorb {
        format,
        base: 4,
        seen: 6,
        removed: vec![file(0).path],
        added: vec![file(2)],
        absorbed: vec![TOKEN.repeat(4)],
        same_rows: true,
    });
    let entry = |(version, change)| Entry {
        format: siltstone_protocol::entry::ENTRY_FORMAT,
        version,
        table_uuid: UUID.to_owned(),
        commit_id: ULID.to_owned(),
        committed_ms: AT_MS,
        change,
    };
    (0..).zip(changes.into_iter().chain(absorbs)).map(entry).collect()
}

fn image(
    table: &TableSpec,
    about: &About,
    statistics: Vec<siltstone_protocol::disclosed::FileStatistics>,
) -> Image {
    let schema = schema(table);
    let partition_spec: PartitionSpec =
        siltstone_spec::resolve::partition_spec(table, &schema).unwrap_or_default();
    Image {
        table: about.identity.clone(),
        table_uuid: UUID.to_owned(),
        version: 12_000,
        committed_ms: AT_MS,
        image_id: ULID.to_owned(),
        part: 0,
        parts: 1,
        partition_spec,
        sort_order: siltstone_spec::resolve::sort_order(table, &schema).unwrap_or_default(),
        schema,
        formats: table.formats.clone(),
        files: vec![file(0)],
        ranges: vec![range(table)],
        statistics,
    }
}
