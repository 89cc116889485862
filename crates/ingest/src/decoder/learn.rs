//! Getting to know a schema: fetch it, compare it with the table, compile it.

use siltstone_protocol::{Field, RejectReason, Schema, SchemaHistory};
use siltstone_spec::{
    evolve::{Merge, Rules, merge},
    model::{EventTypes, OnIncompatible, SchemaMode, SourceFormat, TableSpec},
    plan::{Notice, given_up},
};

use super::{
    engine::{Decoder, SchemaNeed},
    event_type::event_type_field,
    incoming::{Incoming, Registered},
    kafka::{KAFKA_COLUMN, kafka_field},
    looked,
    programs::Key,
};
use crate::{
    IngestError, SchemaPart,
    dead_letter::About,
    registry::{RegisteredSchema, SchemaRegistry},
};

/// What [`Decoder::learn`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learned {
    /// Push the record again.
    Ready,
    /// The table must first become this: additions, widenings, or the first schema of all. Finish the
    /// batch, change the ledger, call [`Decoder::set_table_schema`], push the record again.
    Evolves(Schema),
    /// Records of this schema are rejected with this reason; push the record again to have it so.
    Refused(RejectReason),
    /// The table cannot take records of this schema, and the spec says that it then stops.
    Stops(IngestError),
}

/// A schema that was found, or why there never will be one.
enum Found {
    Incoming(Box<Incoming>),
    Refused(RejectReason),
    /// It is of the table's format, and no table can be made of it.
    Unusable(IngestError),
}

impl Decoder {
    /// Answers `NeedsSchema`.
    ///
    /// # Errors
    /// Kind `Unavailable`: nobody knows yet; pause, keep the record and call again. Else the spec is wrong.
    pub async fn learn(
        &mut self,
        need: SchemaNeed,
        registry: Option<&dyn SchemaRegistry>,
    ) -> Result<Learned, IngestError> {
        let key = need.key();
        let incoming = match self.find(need, registry).await? {
            Found::Incoming(incoming) => incoming,
            Found::Refused(reason) => return Ok(self.refuse(key, reason, None)),
            Found::Unusable(error) => return self.unusable(key, error),
        };
        if self.stage.is_some() {
            return self.learn_staged(key, *incoming, registry).await;
        }
        let wanted =
            match with_own(&incoming.schema, self.batch.as_ref().map(|batch| &batch.schema), &self.table) {
                Ok(wanted) => wanted,
                Err(error) => return self.unusable(key, error),
            };
        let Some(batch) = &self.batch else { return Ok(Learned::Evolves(wanted)) };
        match self.followed(&batch.schema, &wanted)? {
            Merge::Same { view } => match incoming.program(&batch.body_of(view), self.table.extra_fields) {
                Ok(program) => {
                    self.programs.insert(key, program, incoming.name.as_deref());
                    Ok(Learned::Ready)
                }
                Err(error) => self.unusable(key, error),
            },
            Merge::Evolves(schema) => Ok(Learned::Evolves(schema)),
            Merge::Refused(mismatch) => self.unusable(key, mismatch.into()),
        }
    }

    /// The latest schema of the records, of all types together, where a registry has one that this table can read.
    pub(super) async fn latest(
        &self,
        registry: Option<&dyn SchemaRegistry>,
    ) -> Result<Option<Schema>, IngestError> {
        if let Some(files) = self.stage.as_ref().and_then(|stage| stage.files.as_ref()) {
            return Ok(files.latest.clone());
        }
        if let Some(types) = &self.table.event_types {
            return source_of_types(&self.table, types, registry).await;
        }
        let (Own::Subject(subject), Some(registry)) = (own(&self.table), registry) else { return Ok(None) };
        let found = match registry.latest(&subject).await {
            Ok(found) => found,
            Err(IngestError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(registered(&self.table, &subject, &found).ok().map(|incoming| incoming.schema))
    }

    /// What the table becomes for records that want it to be so.
    ///
    /// # Errors
    /// They would bring back a column that a person gave up.
    pub(super) fn followed(&self, table: &Schema, wanted: &Schema) -> Result<Merge, IngestError> {
        followed(&self.table, &self.history, table, wanted)
    }

    async fn find(
        &self,
        need: SchemaNeed,
        registry: Option<&dyn SchemaRegistry>,
    ) -> Result<Found, IngestError> {
        let found = match (need, own(&self.table)) {
            (SchemaNeed::Latest, Own::Fixed(incoming)) => return Ok(Found::Incoming(Box::new(incoming?))),
            (SchemaNeed::Latest, Own::Subject(subject)) => {
                known(&self.table, registry)?.latest(&subject).await.map_err(|error| match error {
                    // Without any schema nothing can be said of a record: it waits for the first one.
                    IngestError::NotFound { what, .. } => {
                        IngestError::unavailable(what, "the subject has no schema yet")
                    }
                    other => other,
                })?
            }
            (SchemaNeed::Id(id) | SchemaNeed::Message { id, .. }, _) => {
                match known(&self.table, registry)?.schema_by_id(id).await {
                    Ok(schema) => schema,
                    Err(IngestError::NotFound { .. }) => {
                        return Ok(Found::Refused(RejectReason::UnknownSchemaId));
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let path = match need {
            SchemaNeed::Message { path, .. } => Some(path),
            _ => None,
        };
        Ok(match Incoming::registered(&self.table, &found, path) {
            Ok(Registered::Of(incoming)) => Found::Incoming(incoming),
            Ok(Registered::OtherMessage(reason)) => Found::Refused(reason),
            Ok(Registered::OtherEventType) => Found::Refused(RejectReason::OtherEventType),
            Ok(Registered::OtherFormat) => Found::Refused(RejectReason::WrongSchemaFormat),
            Err(error) => Found::Unusable(error),
        })
    }

    /// The caller cannot take what `Evolves` asked for (a format of the table has no form for it): records of this
    /// schema are rejected as `incompatible_schema`, and their dead letters say `detail`.
    pub fn reject_schema(&mut self, need: SchemaNeed, detail: String) {
        let about = About { field: None, detail };
        self.programs.refuse(need.key(), RejectReason::IncompatibleSchema, Some(about));
    }

    fn refuse(&mut self, key: Key, reason: RejectReason, about: Option<About>) -> Learned {
        self.programs.refuse(key, reason, about);
        Learned::Refused(reason)
    }

    /// A schema from the registry is the producers' matter: what becomes of its records is in the spec. One from the
    /// spec is an error that somebody must correct.
    pub(super) fn unusable(&mut self, key: Key, error: IngestError) -> Result<Learned, IngestError> {
        if matches!(own(&self.table), Own::Fixed(_)) {
            return Err(error);
        }
        if self.table.on_incompatible == OnIncompatible::Stop {
            return Ok(Learned::Stops(error));
        }
        self.warn(key.id, &error);
        Ok(self.refuse(key, RejectReason::IncompatibleSchema, about(error)))
    }

    fn warn(&self, schema_id: Option<u32>, error: &IngestError) {
        // Names of columns and types only: see the error type.
        tracing::warn!(
            table = %self.table.name,
            topic = %self.table.topic,
            schema_id,
            %error,
            "records of this schema are rejected"
        );
    }
}

/// What a table becomes for records that want it to be so.
///
/// # Errors
/// `GivenUp`: they would bring back a column that a person gave up.
pub(super) fn followed(
    spec: &TableSpec,
    history: &SchemaHistory,
    table: &Schema,
    wanted: &Schema,
) -> Result<Merge, IngestError> {
    if let Some((column, how)) = given_up(history, table, wanted) {
        return Err(IngestError::GivenUp { column, how });
    }
    let rules = Rules { last_field_id: history.last_field_id(), ..Rules::of(spec) };
    Ok(merge(table, wanted, rules))
}

/// The column that a schema is refused for, and why.
fn about(error: IngestError) -> Option<About> {
    let IngestError::SchemaRefused { part, why } = error else { return None };
    let field = match part {
        SchemaPart::Column(path) => Some(path),
        SchemaPart::Whole(_) => None,
    };
    Some(About { field, detail: why })
}

/// The schema of a table's first version, as its source has it now; `None` when the subject does not exist
/// yet.
pub async fn initial_schema(
    table: &TableSpec,
    registry: Option<&dyn SchemaRegistry>,
) -> Result<Option<Schema>, IngestError> {
    Ok(wanted_schema(table, registry, None).await?.map(|wanted| wanted.schema))
}

/// What a table's source asks for.
#[derive(Debug)]
pub struct Wanted {
    /// After the table's transforms.
    pub schema: Schema,
    /// Names in the spec that nothing in the source answers to.
    pub notices: Vec<Notice>,
}

impl Wanted {
    fn plain(schema: Schema) -> Self {
        Self { schema, notices: Vec::new() }
    }
}

/// The schema that a table's source asks for now, after its transforms; `None` when the subject does not exist yet.
/// `live`: that of a table that is there already.
///
/// # Errors
/// `Invalid`, with all that is wrong, when the spec's transforms do not fit the source, or seem to be mistyped.
pub async fn wanted_schema(
    table: &TableSpec,
    registry: Option<&dyn SchemaRegistry>,
    live: Option<&Schema>,
) -> Result<Option<Wanted>, IngestError> {
    let records = records_schema(table, registry).await?;
    records.map(|records| finished(table, &records, live)).transpose()
}

/// The schema of the source's records now, before any transform; `None` when the subject does not exist yet.
pub(super) async fn records_schema(
    table: &TableSpec,
    registry: Option<&dyn SchemaRegistry>,
) -> Result<Option<Schema>, IngestError> {
    if let Some(types) = &table.event_types {
        return source_of_types(table, types, registry).await;
    }
    let incoming = match own(table) {
        Own::Fixed(incoming) => incoming?,
        Own::Subject(subject) => match known(table, registry)?.latest(&subject).await {
            Ok(schema) => registered(table, &subject, &schema)?,
            Err(IngestError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        },
    };
    Ok(Some(incoming.schema))
}

/// What the table is to be, of records of this schema.
fn finished(table: &TableSpec, incoming: &Schema, live: Option<&Schema>) -> Result<Wanted, IngestError> {
    if table.has_transforms() {
        let (source, absent) = looked::with_absent(table, incoming.clone(), live);
        let (looked, notices) = looked::look(table, &source)?.finding_null(absent).planned(table, live)?;
        return Ok(Wanted { schema: looked.table_schema(), notices });
    }
    with_own(incoming, None, table).map(Wanted::plain)
}

/// The schema that the types make together, as far as the registry names their subjects: by topic and record, by
/// record, or the topic's own. `None`: the first record says.
async fn source_of_types(
    table: &TableSpec,
    types: &EventTypes,
    registry: Option<&dyn SchemaRegistry>,
) -> Result<Option<Schema>, IngestError> {
    let registry = known(table, registry)?;
    let mut together: Option<Schema> = None;
    let of_topic = vec![format!("{}-value", table.topic)];
    let of_name = |name: &String| vec![format!("{}-{name}", table.topic), name.clone()];
    let subjects = types.take.iter().flatten().map(of_name).chain([of_topic]);
    for alternatives in subjects {
        let Some(found) = latest_of(registry, &alternatives).await? else { continue };
        // A subject of this name may be of something else.
        let Ok(Registered::Of(incoming)) = Incoming::registered(table, &found, None) else { continue };
        together = match &together {
            None => Some(incoming.schema),
            Some(schema) => match merge(schema, &incoming.schema, Rules::of(table)) {
                Merge::Evolves(grown) => Some(Schema::new(0, grown.fields)),
                // Its records will be told so.
                Merge::Same { .. } | Merge::Refused(_) => together,
            },
        };
    }
    Ok(together)
}

async fn latest_of(
    registry: &dyn SchemaRegistry,
    subjects: &[String],
) -> Result<Option<RegisteredSchema>, IngestError> {
    for subject in subjects {
        match registry.latest(subject).await {
            Ok(schema) => return Ok(Some(schema)),
            Err(IngestError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Whether a table's transforms fit the source that the spec itself describes; a registry is not asked.
///
/// # Errors
/// `Invalid`, with all that is wrong; what is wrong with the described schema itself.
pub fn check_transforms(table: &TableSpec) -> Result<(), IngestError> {
    match own(table) {
        Own::Fixed(incoming) if table.has_transforms() => {
            looked::look(table, &incoming?.schema)?.accept(table, None).map(drop)
        }
        _ => Ok(()),
    }
}

fn registered(table: &TableSpec, subject: &str, schema: &RegisteredSchema) -> Result<Incoming, IngestError> {
    match Incoming::registered(table, schema, None)? {
        Registered::Of(incoming) => Ok(*incoming),
        Registered::OtherFormat | Registered::OtherMessage(_) | Registered::OtherEventType => {
            let format = schema.format.as_str();
            Err(IngestError::schema_refused(
                format!("of subject {subject}"),
                format!("its format is {format}, not the table's"),
            ))
        }
    }
}

/// Where a table's own schema is, apart from the ids of records.
enum Own {
    Fixed(Result<Incoming, IngestError>),
    Subject(String),
}

fn own(table: &TableSpec) -> Own {
    match &table.schema_mode {
        _ if table.source_format == SourceFormat::Raw => Own::Fixed(Ok(Incoming::raw())),
        SchemaMode::Inline(input) => Own::Fixed(Incoming::inline(table, input)),
        SchemaMode::RegistryLatest { subject } => Own::Subject(subject.clone()),
        SchemaMode::Registry => Own::Subject(format!("{}-value", table.topic)),
        SchemaMode::None => {
            let why = "source_format avro, json and protobuf need a schema_mode";
            Own::Fixed(Err(IngestError::invalid(format!("table {}", table.name), why)))
        }
    }
}

fn known<'r>(
    table: &TableSpec,
    registry: Option<&'r dyn SchemaRegistry>,
) -> Result<&'r dyn SchemaRegistry, IngestError> {
    registry.ok_or_else(|| {
        let why = "its schema_mode needs a schema_registry, and its cluster has none";
        IngestError::invalid(format!("table {}", table.name), why)
    })
}

/// The schema of a table's first version, of records that are not the topic's: with the engine's own columns, if the
/// table is to have them.
pub fn with_own_columns(schema: &Schema, table: &TableSpec) -> Result<Schema, IngestError> {
    // A file that was made of such a table has them.
    let lacks = |name: &str| schema.column(name).is_none();
    let lacking = TableSpec {
        kafka_metadata: table.kafka_metadata && lacks(KAFKA_COLUMN),
        event_types: table.event_types.clone().filter(|types| types.column.as_deref().is_none_or(lacks)),
        ..table.clone()
    };
    with_own(schema, None, &lacking)
}

/// The schema with the engine's own columns, as the table has them or is to get them.
pub(super) fn with_own(
    incoming: &Schema,
    table: Option<&Schema>,
    spec: &TableSpec,
) -> Result<Schema, IngestError> {
    let mut wanted = incoming.clone();
    let mut add = |name: &str, new: &dyn Fn(i32) -> Field, setting: &str| {
        if wanted.column(name).is_some() {
            let why = format!("records have a field of this name; rename it or change {setting}");
            return Err(IngestError::column_refused(name, why));
        }
        let existing = table.and_then(|table| table.column(name)).cloned();
        let field = existing.unwrap_or_else(|| new(wanted.last_field_id()));
        wanted.fields.push(field);
        Ok(())
    };
    if let Some(column) = spec.event_types.as_ref().and_then(|types| types.column.as_deref()) {
        add(column, &|last_id| event_type_field(column, last_id), "event_types.column")?;
    }
    if spec.kafka_metadata {
        add(KAFKA_COLUMN, &kafka_field, "kafka_metadata")?;
    }
    Ok(wanted)
}
