//! Records of files for a table: of any schema, without the engine's own columns, and changed as those of the topic.
//!
//! 1. Records (Avro, JSON lines) go through the decoder of the table, told of another place for their schema
//!    ([`FileTable::decoder`]).
//! 2. Columns (Parquet) of a table with transforms go through the same [`Transform`], a batch at a time
//!    ([`FileTable::learn`]); the others fit the table as they are, and are not seen here.
//! 3. What the table's own source has by now is asked once: columns that only its later schemas have are null in
//!    files, as they are in older records. The key of protected columns is asked for once, too.
//!
//! A name in `transforms` or `protect` that nothing answers to is refused as it is for records of the topic. The
//! engine's own columns are null in files, unless a file was made of such a table; a filter that looks at them cannot
//! judge records of files, and is refused.

use std::sync::Arc;

use arrow::array::RecordBatch;
use siltstone_protocol::{Field, Schema, SchemaHistory, Type};
use siltstone_spec::{
    evolve::Merge,
    model::{InputSchema, SchemaMode, SourceFormat, TableSpec, Tombstones, WireFormat},
    transform::{Derived, Origin},
};

use super::{
    engine::{Decoder, Finished},
    kafka::KAFKA_COLUMN,
    learn::{followed, records_schema, with_own_columns},
    looked::{Looked, look, with_absent},
    staged::{check_exposed, grown, seen},
};
use crate::{
    IngestError,
    files::FileFormat,
    registry::SchemaRegistry,
    transform::{Applied, KeySource, Keys, Transform},
};

/// A table that files are read into. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FileTable(Arc<Known>);

#[derive(Debug)]
pub(super) struct Known {
    /// As the spec has it.
    table: TableSpec,
    /// Without what is of Kafka alone.
    bare: TableSpec,
    /// Of lines of JSON; `None`: only the table's columns are known.
    json: Option<SchemaMode>,
    pub(super) keys: Keys,
    /// Of the table's own records, where its source has one.
    pub(super) latest: Option<Schema>,
}

/// What [`FileTable::learn`] found.
#[derive(Debug)]
pub enum ColumnsLearned {
    Ready(ColumnStage),
    /// The table must first become this.
    Evolves(Schema),
}

/// How batches of a file's columns become batches of the table's.
#[derive(Debug)]
pub struct ColumnStage {
    source: Schema,
    view: Schema,
    transform: Transform,
}

impl ColumnStage {
    /// The columns that are to be read; those that the file lacks are null.
    pub fn source(&self) -> &Schema {
        &self.source
    }

    /// The same, called as the file calls them: a field that was renamed has the spec's name in the source.
    pub fn view(&self) -> &Schema {
        &self.view
    }

    /// Rows of the table.
    ///
    /// # Errors
    /// `Internal`: a bug. Rows that cannot be changed are no error.
    pub fn apply(&self, batch: RecordBatch) -> Result<Finished, IngestError> {
        let Applied { batch, filtered, failed } = self.transform.apply(batch)?;
        Ok(Finished { batch: (batch.num_rows() > 0).then_some(batch), filtered, failed })
    }
}

impl FileTable {
    /// `json`: whether there are JSON lines among the files.
    ///
    /// # Errors
    /// `Unavailable`: registry or key service do not answer. Those of the spec's own schema and key.
    pub async fn open(
        table: &TableSpec,
        registry: Option<&dyn SchemaRegistry>,
        json: bool,
    ) -> Result<Self, IngestError> {
        let transforms = table.has_transforms();
        let latest = match transforms || json {
            true => match records_schema(table, registry).await {
                // It is the producers' matter, and says nothing of files.
                Err(IngestError::SchemaRefused { .. }) => None,
                found => found?,
            },
            false => None,
        };
        let bare = TableSpec {
            wire_format: WireFormat::Raw,
            kafka_metadata: false,
            event_types: None,
            tombstones: Tombstones::Reject,
            ..table.clone()
        };
        let json = latest.as_ref().and_then(|latest| json_mode(table, latest));
        let keys = KeySource::of(table)?.open().await?;
        Ok(Self(Arc::new(Known { table: table.clone(), bare, json, keys, latest })))
    }

    /// The decoder of a file's records. `writer`: the file's own schema, Avro. `live`: the table's, if it exists.
    ///
    /// # Errors
    /// `Invalid`: nothing tells what the lines of a JSON file hold.
    pub fn decoder(
        &self,
        format: FileFormat,
        writer: &str,
        live: Option<&Schema>,
    ) -> Result<Decoder, IngestError> {
        let known = &self.0;
        let (source_format, schema_mode) = match format {
            FileFormat::Avro | FileFormat::Parquet => {
                (SourceFormat::Avro, SchemaMode::Inline(InputSchema::Avro(writer.to_owned())))
            }
            FileFormat::Json => (SourceFormat::Json, known.json_mode(live)?),
        };
        let table = TableSpec { source_format, schema_mode, ..known.bare.clone() };
        let mut decoder = Decoder::new(&table, live.cloned())?;
        if let Some(stage) = &mut decoder.stage {
            stage.keys = KeySource::Here(known.keys.clone());
            stage.files = Some(Arc::clone(known));
        }
        Ok(decoder)
    }

    /// What a file of these columns is to be mapped like, so that it fits a table that is there: what the table
    /// requires is required of each row, and texts are uuids where it has those.
    ///
    /// # Errors
    /// `SchemaRefused`.
    pub fn like(&self, columns: &Schema, live: &Schema) -> Result<Schema, IngestError> {
        let source = self.0.source(columns)?;
        // What is wrong with the columns is told when they are learned.
        let Ok(looked) = look(&self.0.bare, &source) else { return Ok(columns.clone()) };
        Ok(Schema::new(0, like(&source.fields, &looked.outcome.columns, &live.fields)))
    }

    /// How columns of a file become the table's. Only for a table with transforms. `live`: the table's schema, if it
    /// exists, and those before it.
    ///
    /// # Errors
    /// `Invalid`: the spec's transforms cannot be done with these columns. `SchemaRefused`: the table cannot take them.
    /// `GivenUp`: it is not to have one of them again.
    pub fn learn(
        &self,
        columns: &Schema,
        live: Option<(&Schema, &SchemaHistory)>,
    ) -> Result<ColumnsLearned, IngestError> {
        let Known { bare, keys, latest, .. } = &*self.0;
        let given = self.0.source(columns)?;
        let mut source = grown(bare, None, &given)?;
        let looked = match look(bare, &source) {
            Ok(looked) if looked.is_complete() => looked,
            _ => {
                if let Some(latest) = latest
                    && let Ok(wider) = grown(bare, Some(&source), latest)
                {
                    source = wider;
                }
                // Only what has another name: no filter judges files by a column that nobody knows.
                (source, _) = with_absent(bare, source, None);
                look(bare, &source)?.accept(bare, live.map(|(live, _)| live))?
            }
        };
        self.0.check_filter(&looked, columns)?;
        let wanted = looked.table_schema();
        let Some((live, history)) = live else { return Ok(ColumnsLearned::Evolves(wanted)) };
        let called = match followed(bare, history, live, &wanted)? {
            Merge::Same { view } => view,
            Merge::Evolves(schema) => return Ok(ColumnsLearned::Evolves(schema)),
            Merge::Refused(mismatch) => return Err(mismatch.into()),
        };
        check_exposed(bare, live, &called)?;
        let mut view = seen(bare, &source, &given)?;
        let (source, outcome) = looked.narrow(bare, &self.0.absent(columns), false)?;
        view.fields.retain(|field| source.fields.iter().any(|column| column.id == field.id));
        let transform = Transform::compile(bare, &source, &outcome, (&called, live), keys)?;
        Ok(ColumnsLearned::Ready(ColumnStage { source, view, transform }))
    }
}

impl Known {
    fn json_mode(&self, live: Option<&Schema>) -> Result<SchemaMode, IngestError> {
        if let Some(mode) = &self.json {
            return Ok(mode.clone());
        }
        let of_table = live.filter(|_| !self.table.has_transforms()).cloned().map(called_by_records);
        of_table.map(|schema| SchemaMode::Inline(InputSchema::Fields(schema))).ok_or_else(|| {
            let why = format!(
                "nothing tells the columns of JSON lines before their transforms: register the schema of the records of \
                 topic {}, or give the table an input_schema",
                self.table.topic
            );
            IngestError::invalid(format!("table {}", self.table.name), why)
        })
    }

    /// The engine's own columns that the table is to have and these records lack.
    pub(super) fn absent(&self, records: &Schema) -> Vec<String> {
        let event_type = self.table.event_types.as_ref().and_then(|types| types.column.as_deref());
        let kafka = self.table.kafka_metadata.then_some(KAFKA_COLUMN);
        let lacking = event_type.into_iter().chain(kafka).filter(|name| records.column(name).is_none());
        lacking.map(str::to_owned).collect()
    }

    /// The columns of records, with the engine's own.
    pub(super) fn source(&self, records: &Schema) -> Result<Schema, IngestError> {
        with_own_columns(records, &self.table)
    }

    /// A condition over what no record of a file has would leave out all of them.
    pub(super) fn check_filter(&self, looked: &Looked, records: &Schema) -> Result<(), IngestError> {
        let absent = self.absent(records);
        match looked.filtered_by.iter().find(|column| absent.contains(column)) {
            None => Ok(()),
            Some(column) => {
                let why = format!(
                    "transforms.filter: records of files have no {column}; read them with a spec whose filter does not \
                     look at it"
                );
                Err(IngestError::invalid(format!("table {}", self.table.name), why))
            }
        }
    }
}

/// Where the lines' schema is, if the table's own records have one by now.
fn json_mode(table: &TableSpec, latest: &Schema) -> Option<SchemaMode> {
    let fields = || SchemaMode::Inline(InputSchema::Fields(latest.clone()));
    if table.source_format != SourceFormat::Json {
        // Without transforms the table's columns are as good, and are there already.
        return table.has_transforms().then(fields);
    }
    Some(match &table.schema_mode {
        _ if table.event_types.is_some() => fields(),
        SchemaMode::Registry => SchemaMode::RegistryLatest { subject: format!("{}-value", table.topic) },
        mode => mode.clone(),
    })
}

/// The table's columns without those that a record's own type decides on: records call them by the base's name.
fn called_by_records(mut table: Schema) -> Schema {
    leave_out_variants(&mut table.fields);
    table
}

fn leave_out_variants(fields: &mut Vec<Field>) {
    fields.retain(|field| field.variant_of.is_none());
    for field in fields {
        inside(&mut field.data_type);
    }
}

fn inside(data_type: &mut Type) {
    match data_type {
        Type::Primitive(_) => {}
        Type::Struct(members) => leave_out_variants(members),
        Type::List { element, .. } => inside(element),
        Type::Map { value, .. } => inside(value),
    }
}

fn like(source: &[Field], derived: &[Derived], live: &[Field]) -> Vec<Field> {
    let one = |derived: &Derived| {
        let from = source.get(derived.origin.index()?)?;
        let live = Field::of_name(live, &derived.field.name)?;
        let data_type = match (&derived.origin, &from.data_type, &live.data_type) {
            (Origin::Source { .. }, ..) => live.data_type.clone(),
            (Origin::Members { members, .. }, Type::Struct(inside), Type::Struct(wanted)) => {
                Type::Struct(like(inside, members, wanted))
            }
            _ => from.data_type.clone(),
        };
        Some(Field { required: live.required, data_type, ..from.clone() })
    };
    derived.iter().filter_map(one).collect()
}
