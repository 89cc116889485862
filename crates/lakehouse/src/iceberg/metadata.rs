//! The table metadata document (`v<N>.metadata.json`, Iceberg table spec v2).
//!
//! Schema, spec and sort-order ids are those of the ledger. `TableMetadataBuilder` of the `iceberg`
//! crate gives ids of its own, so the document is kept here as its JSON form and every version is parsed
//! with the crate before it is put ([`Metadata::to_bytes`]). What other writers add is carried along.

mod served;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use iceberg::spec::TableMetadata;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use siltstone_protocol::{ErrorCode, PartitionSpec, Schema, SortOrder, layout::PARTITION_FIELD_ID_START};

use crate::{error::LakeError, foreign::Marker, format::ProjectionOptions};

/// Entries of the metadata log, and with it metadata files that are kept.
const METADATA_LOG_MAX_DEFAULT: usize = 100;
const NO_SNAPSHOT: i64 = -1;
pub(crate) const MAIN: &str = "main";

/// Ledger version shown; also in the summary of each snapshot of ours.
pub(crate) const VERSION: &str = "siltstone.version";
pub(crate) const COMMIT_ID: &str = "siltstone.commit-id";
pub(crate) const OFFSETS: &str = "siltstone.offsets";
/// The newest snapshot that we made, or built upon: it must stay an ancestor of the current one.
const SNAPSHOT_ID: &str = "siltstone.snapshot-id";
/// Set while the table and the ledger are apart ([`crate::foreign`]).
const APART: &str = "siltstone.apart";
const TABLE_UUID: &str = "siltstone.table-uuid";
const LOG_MAX: &str = "write.metadata.previous-versions-max";
const LOG_DELETE: &str = "write.metadata.delete-after-commit.enabled";

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Metadata {
    pub(crate) format_version: u8,
    pub(crate) table_uuid: String,
    pub(crate) location: String,
    pub(crate) last_sequence_number: i64,
    pub(crate) last_updated_ms: i64,
    pub(crate) last_column_id: i32,
    pub(crate) current_schema_id: i32,
    pub(crate) schemas: Vec<Value>,
    pub(crate) default_spec_id: i32,
    pub(crate) partition_specs: Vec<Value>,
    pub(crate) last_partition_id: i32,
    pub(crate) default_sort_order_id: i64,
    pub(crate) sort_orders: Vec<Value>,
    #[serde(default)]
    pub(crate) properties: BTreeMap<String, String>,
    #[serde(default)]
    current_snapshot_id: Option<i64>,
    #[serde(default)]
    refs: BTreeMap<String, Value>,
    #[serde(default)]
    pub(crate) snapshots: Vec<Snapshot>,
    #[serde(default)]
    snapshot_log: Vec<SnapshotLogEntry>,
    #[serde(default)]
    pub(crate) metadata_log: Vec<MetadataLogEntry>,
    /// Statistics files and whatever else another writer put there.
    #[serde(flatten)]
    other: Map<String, Value>,
    /// No snapshot may be older: a catalog checks its own log of metadata files, which it dates itself.
    #[serde(skip)]
    not_before_ms: Option<i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Snapshot {
    pub(crate) snapshot_id: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent_snapshot_id: Option<i64>,
    #[serde(default)]
    pub(crate) sequence_number: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) manifest_list: String,
    #[serde(default)]
    pub(crate) summary: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) schema_id: Option<i32>,
    #[serde(flatten)]
    pub(crate) other: Map<String, Value>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct SnapshotLogEntry {
    timestamp_ms: i64,
    snapshot_id: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct MetadataLogEntry {
    pub(crate) timestamp_ms: i64,
    pub(crate) metadata_file: String,
}

/// Layouts of a new table. The first of each is current.
#[derive(Debug)]
pub(crate) struct NewTable<'a> {
    pub(crate) table_uuid: &'a str,
    pub(crate) location: &'a str,
    pub(crate) schema: &'a Schema,
    pub(crate) partition_spec: &'a PartitionSpec,
    pub(crate) sort_order: &'a SortOrder,
    pub(crate) created_ms: i64,
}

impl Metadata {
    /// The metadata of a table without snapshots.
    pub(crate) fn create(new: &NewTable<'_>) -> Result<Self, LakeError> {
        let mut metadata = Self {
            format_version: 2,
            table_uuid: new.table_uuid.to_owned(),
            location: new.location.to_owned(),
            last_sequence_number: 0,
            last_updated_ms: new.created_ms,
            last_column_id: 0,
            current_schema_id: 0,
            schemas: Vec::new(),
            default_spec_id: 0,
            partition_specs: Vec::new(),
            last_partition_id: PARTITION_FIELD_ID_START - 1,
            default_sort_order_id: 0,
            sort_orders: Vec::new(),
            properties: default_properties(new),
            current_snapshot_id: Some(NO_SNAPSHOT),
            refs: BTreeMap::new(),
            snapshots: Vec::new(),
            snapshot_log: Vec::new(),
            metadata_log: Vec::new(),
            other: Map::new(),
            not_before_ms: None,
        };
        metadata.set_schema(new.schema)?;
        metadata.set_partition_spec(new.partition_spec)?;
        metadata.set_sort_order(&SortOrder::default())?;
        metadata.set_sort_order(new.sort_order)?;
        Ok(metadata)
    }

    /// Reads a stored document and checks that it is one we can write to.
    pub(crate) fn parse(path: &str, bytes: &[u8]) -> Result<Self, LakeError> {
        let metadata: Self = serde_json::from_slice(bytes).map_err(|error| LakeError::json(path, &error))?;
        if metadata.format_version != 2 {
            let problem = format!(
                "Iceberg format version {} is not supported, only 2; when another program upgraded the table, \
                 stop the workers, delete metadata/ (in a catalog: drop the table there, without purging its \
                 files) and start them again to have it rebuilt from the ledger",
                metadata.format_version
            );
            return Err(LakeError::invalid(path, problem).coded(ErrorCode::ForeignChange));
        }
        metadata.validate(path, bytes)?;
        Ok(metadata)
    }

    /// The document's bytes, read back through the `iceberg` crate: what does not parse is never put.
    pub(crate) fn to_bytes(&self, path: &str) -> Result<Bytes, LakeError> {
        let bytes = serde_json::to_vec(self).map_err(|error| LakeError::json(path, &error))?;
        self.validate(path, &bytes)?;
        Ok(Bytes::from(bytes))
    }

    fn validate(&self, path: &str, bytes: &[u8]) -> Result<(), LakeError> {
        match serde_json::from_slice::<TableMetadata>(bytes) {
            Ok(_) => Ok(()),
            Err(error) => Err(LakeError::json(path, &error)),
        }
    }

    /// The ledger version shown, `None` when the table is not one of ours.
    pub(crate) fn version(&self) -> Option<u64> {
        self.properties.get(VERSION)?.parse().ok()
    }

    /// Records that every ledger entry up to `version` is shown.
    pub(crate) fn set_version(&mut self, version: u64, committed_ms: i64) {
        self.properties.insert(VERSION.to_owned(), version.to_string());
        self.last_updated_ms = self.last_updated_ms.max(committed_ms);
    }

    pub(crate) fn current_snapshot(&self) -> Option<&Snapshot> {
        self.snapshot(self.current_snapshot_id?)
    }

    pub(crate) fn current_id(&self) -> Option<i64> {
        self.current_snapshot_id.filter(|id| *id != NO_SNAPSHOT)
    }

    pub(crate) fn main_ref(&self) -> Option<&Value> {
        self.refs.get(MAIN)
    }

    fn snapshot(&self, id: i64) -> Option<&Snapshot> {
        // Recent ones are asked for, and stand last.
        self.snapshots.iter().rev().find(|snapshot| snapshot.snapshot_id == id)
    }

    pub(crate) fn has_snapshot(&self, id: i64) -> bool {
        self.snapshot(id).is_some()
    }

    /// True when another program moved the table to a state that does not descend from our last snapshot.
    pub(crate) fn was_rolled_back(&self) -> bool {
        let Some(ours) = self.properties.get(SNAPSHOT_ID).and_then(|id| id.parse::<i64>().ok()) else {
            return false;
        };
        let mut id = self.current_snapshot_id.filter(|id| *id != NO_SNAPSHOT);
        // A chain cannot be longer than the list; a parent that is not listed has expired.
        for _ in 0..=self.snapshots.len() {
            match id {
                None => return true,
                Some(id) if id == ours => return false,
                Some(_) => {}
            }
            match id.and_then(|id| self.snapshot(id)) {
                None => return false,
                Some(snapshot) => id = snapshot.parent_snapshot_id,
            }
        }
        true
    }

    /// True when the current snapshot is neither the last one that we made nor one that we built upon.
    pub(crate) fn is_foreign_head(&self) -> bool {
        let ours = self.properties.get(SNAPSHOT_ID).and_then(|id| id.parse::<i64>().ok());
        self.current_snapshot_id.filter(|id| *id != NO_SNAPSHOT) != ours
    }

    /// How far the table is apart from the ledger; `None`: it agrees.
    pub(crate) fn apart(&self) -> Option<Marker> {
        self.properties.get(APART).and_then(|text| text.parse().ok())
    }

    pub(crate) fn set_apart(&mut self, marker: Option<Marker>) {
        match marker {
            Some(marker) => self.properties.insert(APART.to_owned(), marker.to_string()),
            None => self.properties.remove(APART),
        };
    }

    /// Takes another program's snapshot as what is built upon. True when it was one.
    pub(crate) fn adopt_foreign_head(&mut self) -> bool {
        let Some(head) = self.current_snapshot().filter(|_| self.is_foreign_head()) else { return false };
        let (id, seen) = (head.snapshot_id, u64::try_from(head.sequence_number).unwrap_or(0));
        self.set_apart(Some(Marker::foreign(self.apart(), seen)));
        self.properties.insert(SNAPSHOT_ID.to_owned(), id.to_string());
        true
    }

    /// Snapshots of other programs from which the current one descends, newer than this sequence number.
    pub(crate) fn foreign_since(&self, sequence_number: u64) -> Vec<&Snapshot> {
        let mut found = Vec::new();
        let mut next = self.current_snapshot();
        while let Some(snapshot) = next
            && u64::try_from(snapshot.sequence_number).is_ok_and(|number| number > sequence_number)
            && found.len() <= self.snapshots.len()
        {
            if !snapshot.summary.contains_key(VERSION) {
                found.push(snapshot);
            }
            next = snapshot.parent_snapshot_id.and_then(|id| self.snapshot(id));
        }
        found
    }

    /// A schema that is as an earlier one to readers is that one: a catalog would give it that id, too.
    pub(crate) fn set_schema(&mut self, schema: &Schema) -> Result<(), LakeError> {
        let schema = schema.for_readers();
        let id = i64::from(schema.schema_id);
        let mut known = self.schemas.iter().filter_map(|known| Schema::deserialize(known).ok());
        let alike = match self.schema_json(schema.schema_id) {
            None => known.find(|known| known.fields == schema.fields),
            Some(_) => None,
        };
        if let Some(alike) = alike {
            self.current_schema_id = alike.schema_id;
            return Ok(());
        }
        put_layout(&mut self.schemas, "schema-id", id, &schema, "schema")?;
        self.current_schema_id = schema.schema_id;
        self.last_column_id = self.last_column_id.max(schema.last_field_id());
        Ok(())
    }

    pub(crate) fn set_partition_spec(&mut self, spec: &PartitionSpec) -> Result<(), LakeError> {
        put_layout(&mut self.partition_specs, "spec-id", i64::from(spec.spec_id), spec, "partition spec")?;
        self.default_spec_id = spec.spec_id;
        let last = spec.fields.iter().map(|field| field.field_id).max();
        self.last_partition_id = self.last_partition_id.max(last.unwrap_or(0));
        Ok(())
    }

    pub(crate) fn set_sort_order(&mut self, order: &SortOrder) -> Result<(), LakeError> {
        put_layout(&mut self.sort_orders, "order-id", order.order_id, order, "sort order")?;
        self.default_sort_order_id = order.order_id;
        Ok(())
    }

    /// The JSON of a schema of this id.
    pub(crate) fn schema_json(&self, id: i32) -> Option<&Value> {
        self.schemas.iter().find(|schema| layout_id(schema, "schema-id") == Some(i64::from(id)))
    }

    pub(crate) fn spec_json(&self, id: i32) -> Option<&Value> {
        self.partition_specs.iter().find(|spec| layout_id(spec, "spec-id") == Some(i64::from(id)))
    }

    /// A snapshot's time: the commit's, but after every earlier one.
    pub(crate) fn next_timestamp_ms(&self, committed_ms: i64) -> i64 {
        let last = self.snapshot_log.last().map(|entry| entry.timestamp_ms);
        let parent = self.current_snapshot().map(|snapshot| snapshot.timestamp_ms);
        let after = last.max(parent).map_or(committed_ms, |last| committed_ms.max(last.saturating_add(1)));
        self.not_before_ms.map_or(after, |floor| after.max(floor))
    }

    /// Makes `snapshot` the current one of branch main.
    pub(crate) fn add_snapshot(&mut self, snapshot: Snapshot) {
        let id = snapshot.snapshot_id;
        self.last_sequence_number = self.last_sequence_number.max(snapshot.sequence_number);
        self.last_updated_ms = self.last_updated_ms.max(snapshot.timestamp_ms);
        self.snapshot_log.push(SnapshotLogEntry { timestamp_ms: snapshot.timestamp_ms, snapshot_id: id });
        self.snapshots.push(snapshot);
        self.current_snapshot_id = Some(id);
        self.properties.insert(SNAPSHOT_ID.to_owned(), id.to_string());
        match self.refs.get_mut(MAIN).and_then(Value::as_object_mut) {
            Some(main) => {
                main.insert("snapshot-id".to_owned(), id.into());
            }
            None => {
                let main = serde_json::json!({"snapshot-id": id, "type": "branch"});
                self.refs.insert(MAIN.to_owned(), main);
            }
        }
    }

    /// Drops snapshots beyond `snapshots_max`, and older than `snapshots_age` beyond `snapshots_min`, never
    /// the current one nor what a branch or tag of another program holds. Returns the dropped ones.
    pub(crate) fn expire_snapshots(&mut self, options: &ProjectionOptions, now_ms: i64) -> Vec<Snapshot> {
        if self.current_snapshot().is_none() {
            return Vec::new();
        }
        let count = |count: u32| usize::try_from(count.max(1)).unwrap_or(usize::MAX);
        let (most, least) = (count(options.snapshots_max), count(options.snapshots_min));
        let age_ms = i64::try_from(options.snapshots_age.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = now_ms.saturating_sub(age_ms);
        let parents: BTreeMap<i64, (Option<i64>, i64)> =
            self.snapshots.iter().map(|s| (s.snapshot_id, (s.parent_snapshot_id, s.timestamp_ms))).collect();
        let mut kept = BTreeSet::new();
        let mut next = self.current_snapshot_id;
        while let Some((parent, timestamp_ms)) = next.and_then(|id| parents.get(&id))
            && kept.len() < most
            && (kept.len() < least || *timestamp_ms >= oldest_ms)
        {
            if !next.is_some_and(|id| kept.insert(id)) {
                break;
            }
            next = *parent;
        }
        for (name, reference) in &self.refs {
            let mut next = reference.get("snapshot-id").and_then(Value::as_i64);
            let whole = name != MAIN && reference.get("type").and_then(Value::as_str) == Some("branch");
            while let Some(id) = next
                && kept.insert(id)
                && whole
            {
                next = parents.get(&id).and_then(|(parent, _)| *parent);
            }
        }
        // Staged by another program and not (yet) on a branch: left until it is old.
        let lineage: BTreeSet<i64> = self.snapshot_log.iter().map(|entry| entry.snapshot_id).collect();
        let (stay, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.snapshots).into_iter().partition(|s| {
            kept.contains(&s.snapshot_id)
                || (!lineage.contains(&s.snapshot_id)
                    && !s.summary.contains_key(VERSION)
                    && s.timestamp_ms >= oldest_ms)
        });
        self.snapshots = stay;
        if !gone.is_empty() {
            let gone: BTreeSet<i64> = gone.iter().map(|s| s.snapshot_id).collect();
            // History before a gap would be misleading: the log starts after the last expired snapshot.
            let start = self.snapshot_log.iter().rposition(|entry| gone.contains(&entry.snapshot_id));
            self.snapshot_log.drain(..start.map_or(0, |index| index + 1));
            for list in ["statistics", "partition-statistics"] {
                if let Some(Value::Array(items)) = self.other.get_mut(list) {
                    items.retain(|item| {
                        item.get("snapshot-id").and_then(Value::as_i64).is_none_or(|id| !gone.contains(&id))
                    });
                }
            }
        }
        gone
    }

    /// Adds the previous metadata file to the log. Returns the files that fell out of it, when the
    /// table's properties let them be deleted.
    pub(crate) fn log_previous(&mut self, previous: MetadataLogEntry) -> Vec<MetadataLogEntry> {
        let max = self.properties.get(LOG_MAX).and_then(|max| max.parse().ok());
        let max = max.unwrap_or(METADATA_LOG_MAX_DEFAULT).max(1);
        self.metadata_log.push(previous);
        let excess = self.metadata_log.len().saturating_sub(max);
        let dropped: Vec<_> = self.metadata_log.drain(..excess).collect();
        if self.properties.get(LOG_DELETE).is_some_and(|on| on == "true") { dropped } else { Vec::new() }
    }

    /// True when this is the table of the ledger with this identity. A catalog gives the table a UUID of its own.
    pub(crate) fn belongs_to(&self, table_uuid: &str) -> bool {
        let said = self.properties.get(TABLE_UUID).filter(|_| self.not_before_ms.is_some());
        said.unwrap_or(&self.table_uuid).eq_ignore_ascii_case(table_uuid)
    }
}

fn default_properties(new: &NewTable<'_>) -> BTreeMap<String, String> {
    let data = format!("{}/data", new.location);
    let log_max = METADATA_LOG_MAX_DEFAULT.to_string();
    [
        // Another engine's clean-up must not delete files that the Delta log names.
        ("gc.enabled", "false"),
        ("write.format.default", "parquet"),
        ("write.parquet.compression-codec", "zstd"),
        ("write.data.path", &data),
        (LOG_MAX, &log_max),
        (LOG_DELETE, "true"),
        (TABLE_UUID, new.table_uuid),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

pub(crate) fn layout_id(layout: &Value, key: &str) -> Option<i64> {
    layout.get(key)?.as_i64()
}

/// Adds a schema, spec or order under its own id. The same id with another content is another writer's.
fn put_layout<T: Serialize + for<'de> Deserialize<'de> + PartialEq>(
    layouts: &mut Vec<Value>,
    key: &str,
    id: i64,
    layout: &T,
    what: &str,
) -> Result<(), LakeError> {
    match layouts.iter().find(|known| layout_id(known, key) == Some(id)) {
        None => {
            let json = serde_json::to_value(layout).map_err(|error| LakeError::json(what, &error))?;
            layouts.push(json);
            Ok(())
        }
        Some(known) if T::deserialize(known).is_ok_and(|known| known == *layout) => Ok(()),
        Some(_) => Err(LakeError::invalid(
            format_args!("iceberg {what} {id}"),
            "another program gave this id to something else; undo its change of the table",
        )
        .coded(ErrorCode::ForeignChange)),
    }
}
