//! Tables with transforms: records are decoded into their own columns first, which become the table's a batch at a
//! time.
//!
//! 1. What is decoded into (the *source*) is every schema of records seen so far in one, by the same rules by which a
//!    table grows ([`merge`]). It is kept in memory only: a worker that begins anew begins with the first schema it
//!    meets.
//! 2. What the table must be is the source after its transforms. The ledger's schema is compared with that.
//! 3. Columns of the source that nothing of the table is made of, and that the filter does not look at, are passed over
//!    in the records' bytes and never built, and so are members of structs. A value there that means nothing (a text
//!    that is not UTF-8) rejects no record; one whose end cannot be told does, and of Avro one that no writer encodes
//!    (a boolean of 2, a number outside of int, a symbol or branch that the schema lacks).
//! 4. A source that grows closes the batch: what was decoded is changed into the table's columns and kept, until the
//!    caller finishes the batch.
//!
//! Names in the spec that nothing answers to are looked for in the latest registered schema too, whose records may come
//! later. What is still unknown then stops a new table: a mistyped name must not let a column through in the clear. A
//! table that is there goes on without columns that were to be left out, for producers may have dropped them; but not
//! where a column would come that has nearly such a name.

use std::sync::Arc;

use arrow::{array::RecordBatch, compute::concat_batches};
use siltstone_protocol::{Field, Schema, Type};
use siltstone_spec::{
    TableSpec,
    evolve::{Merge, Rules, merge},
};

use super::{
    engine::{Decoder, Finished},
    incoming::Incoming,
    learn::Learned,
    looked::{keep_only, look, with_absent},
    of_files,
    programs::Key,
};
use crate::{
    IngestError,
    dead_letter::FailedRow,
    registry::SchemaRegistry,
    transform::{KeySource, Transform},
};

/// What a decoder with transforms has besides the others.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) keys: KeySource,
    /// Records are of files, and what is known of those.
    pub(super) files: Option<Arc<of_files::Known>>,
    /// The ledger's schema.
    pub(super) table: Option<Schema>,
    /// All records' schemas so far in one, without the engine's own column.
    source: Option<Schema>,
    transform: Option<Transform>,
    closed: Closed,
    /// Why rows that were pushed will never come out: no batch may pass for complete until they are discarded.
    lost: Option<IngestError>,
}

/// Batches of the table's columns that wait for their caller.
#[derive(Debug, Default)]
struct Closed {
    batches: Vec<RecordBatch>,
    /// Rows that went in.
    rows: usize,
    bytes: usize,
    filtered: usize,
    failed: Vec<FailedRow>,
}

impl Stage {
    /// `None` for a table without transforms.
    pub(super) fn of(table: &TableSpec) -> Result<Option<Self>, IngestError> {
        if !table.has_transforms() {
            return Ok(None);
        }
        let keys = KeySource::of(table)?;
        Ok(Some(Self {
            keys,
            files: None,
            table: None,
            source: None,
            transform: None,
            closed: Closed::default(),
            lost: None,
        }))
    }

    pub(super) fn discard(&mut self) {
        self.closed = Closed::default();
        self.lost = None;
    }

    pub(super) fn closed_rows(&self) -> usize {
        self.closed.rows
    }

    pub(super) fn closed_bytes(&self) -> usize {
        self.closed.bytes
    }

    pub(super) fn can_fail(&self) -> bool {
        self.transform.as_ref().is_some_and(Transform::can_fail)
    }

    /// Changes what was decoded into the table's columns.
    fn close(&mut self, batch: RecordBatch) -> Result<(), IngestError> {
        let transform = self
            .transform
            .as_ref()
            .ok_or_else(|| IngestError::internal("rows were decoded before their transforms"))?;
        let came = batch.num_rows();
        let applied = transform.apply(batch)?;
        let closed = &mut self.closed;
        let placed = |failed: FailedRow| FailedRow { row: closed.rows + failed.row, ..failed };
        closed.failed.extend(applied.failed.into_iter().map(placed));
        closed.rows += came;
        closed.filtered += applied.filtered;
        if applied.batch.num_rows() > 0 {
            closed.bytes += applied.batch.get_array_memory_size();
            closed.batches.push(applied.batch);
        }
        Ok(())
    }

    /// What was closed, as one batch; `None` when nothing was.
    fn take(&mut self) -> Result<Option<Finished>, IngestError> {
        let Closed { batches, rows, filtered, failed, .. } = std::mem::take(&mut self.closed);
        if rows == 0 {
            return Ok(None);
        }
        let batch = match batches.as_slice() {
            [] => None,
            [only] => Some(only.clone()),
            [first, ..] => Some(
                concat_batches(&first.schema(), &batches)
                    .map_err(|_| IngestError::internal("batches of one table have different columns"))?,
            ),
        };
        Ok(Some(Finished { batch, filtered, failed }))
    }
}

impl Decoder {
    /// The table's columns of what was decoded since the last call.
    pub(super) fn finish_staged(&mut self) -> Result<Option<Finished>, IngestError> {
        self.close_stage()?;
        let Some(stage) = &mut self.stage else { return Ok(None) };
        stage.take().inspect_err(|error| stage.lost = Some(error.clone()))
    }

    fn close_stage(&mut self) -> Result<(), IngestError> {
        let (Some(stage), Some(batch)) = (&mut self.stage, &mut self.batch) else { return Ok(()) };
        if let Some(error) = &stage.lost {
            return Err(error.clone());
        }
        if batch.rows() == 0 {
            return Ok(());
        }
        // What is decoded has left the builders: nobody can try again.
        let closed = batch.finish().and_then(|decoded| stage.close(decoded));
        closed.inspect_err(|error| stage.lost = Some(error.clone()))
    }

    /// The ledger's schema changed; the batch is empty.
    pub(super) fn set_staged_schema(&mut self, schema: Schema) -> Result<(), IngestError> {
        // What the source becomes in this schema is seen when the next record's schema is learned.
        if let Some(stage) = &mut self.stage {
            stage.table = Some(schema);
            stage.transform = None;
        }
        self.batch = None;
        Ok(())
    }

    /// As `learn`, once the schema of the records is found.
    pub(super) async fn learn_staged(
        &mut self,
        key: Key,
        incoming: Incoming,
        registry: Option<&dyn SchemaRegistry>,
    ) -> Result<Learned, IngestError> {
        let Some(stage) = &mut self.stage else {
            return Err(IngestError::internal("a table without transforms"));
        };
        let keys = stage.keys.open().await?;
        let (source, live) = (stage.source.clone(), stage.table.clone());
        let is_first = source.is_none() && live.is_none();
        let files = stage.files.clone();
        let of_records = match &files {
            Some(files) => files.source(&incoming.schema)?,
            None => incoming.schema.clone(),
        };
        let mut source = match grown(&self.table, source.as_ref(), &of_records) {
            Ok(source) => source,
            Err(error) => return self.unusable(key, error),
        };
        let looked = match look(&self.table, &source) {
            Ok(looked) if looked.is_complete() => looked,
            first => {
                // Columns that only a later version of the schema has.
                if let Some(latest) = self.latest(registry).await?
                    && let Ok(wider) = grown(&self.table, Some(&source), &latest)
                {
                    source = wider;
                }
                let (whole, absent) = with_absent(&self.table, source, live.as_ref());
                source = whole;
                let looked = look(&self.table, &source).map(|looked| looked.finding_null(absent));
                match looked.and_then(|looked| looked.accept(&self.table, live.as_ref())) {
                    Ok(looked) => looked,
                    // What the spec says of the first schema it meets is for its author to mend.
                    Err(error) if is_first || first.is_ok() => return Err(error),
                    Err(error) => return self.unusable(key, error),
                }
            }
        };
        if let Some(files) = &files {
            files.check_filter(&looked, &incoming.schema)?;
        }
        let wanted = looked.table_schema();
        let Some(live) = live else { return Ok(Learned::Evolves(wanted)) };
        let called = match self.followed(&live, &wanted)? {
            Merge::Same { view } => view,
            Merge::Evolves(schema) => return Ok(Learned::Evolves(schema)),
            Merge::Refused(mismatch) => {
                let field = &mismatch.field;
                let by_spec = self.table.transforms.cast.contains_key(field)
                    || self.table.transforms.constant.contains_key(field)
                    || self.table.protect.contains_key(field);
                let error = mismatch.into();
                return if by_spec { Err(error) } else { self.unusable(key, error) };
            }
        };
        if let Err(error) = check_exposed(&self.table, &live, &called) {
            return self.unusable(key, error);
        }
        let mut body = seen(&self.table, &source, &of_records)?;
        let is_known = self.stage.as_ref().is_some_and(|stage| stage.source.as_ref() == Some(&source));
        if !is_known || self.batch.is_none() {
            looked.warn(&self.table);
            let absent = files.map(|files| files.absent(&incoming.schema)).unwrap_or_default();
            let (narrow, outcome) = looked.narrowed(&self.table, &absent)?;
            let compiled = Transform::compile(&self.table, &narrow, &outcome, (&called, &live), &keys);
            let transform = match compiled {
                Ok(transform) => transform,
                Err(error @ IngestError::SchemaRefused { .. }) => return self.unusable(key, error),
                Err(error) => return Err(error),
            };
            self.close_stage()?;
            self.programs.clear();
            self.batch = Some(self.batch_of(narrow, &absent)?);
            if let Some(stage) = &mut self.stage {
                stage.transform = Some(transform);
                stage.source = Some(source);
            }
        }
        let Some(batch) = &self.batch else { return Err(IngestError::internal("a batch is gone")) };
        keep_only(&mut body.fields, &batch.body.fields);
        match incoming.program_of_some(&body, self.table.extra_fields) {
            Ok(program) => {
                self.programs.insert(key, program, incoming.name.as_deref());
                Ok(Learned::Ready)
            }
            Err(error) => self.unusable(key, error),
        }
    }
}

/// The source that takes these records too.
pub(super) fn grown(
    table: &TableSpec,
    source: Option<&Schema>,
    incoming: &Schema,
) -> Result<Schema, IngestError> {
    let incoming = spoken_of(table, incoming)?;
    let Some(source) = source else { return Ok(incoming) };
    match merge(source, &incoming, of_source(table)) {
        Merge::Same { .. } => Ok(source.clone()),
        Merge::Evolves(schema) => Ok(schema),
        Merge::Refused(mismatch) => Err(mismatch.into()),
    }
}

/// The schema with fields called by the alias by which the spec speaks of them: what is protected under its old name
/// must not come in the clear under a new one.
///
/// # Errors
/// `SchemaRefused`: two fields have had the name of what is protected or left out, and one of them would come as it is.
pub(super) fn spoken_of(table: &TableSpec, incoming: &Schema) -> Result<Schema, IngestError> {
    let transforms = &table.transforms;
    let listed = transforms.drop.iter().chain(transforms.select.iter().flatten());
    let names: Vec<&str> =
        listed.chain(transforms.rename.keys()).chain(table.protect.keys()).map(String::as_str).collect();
    let mut schema = incoming.clone();
    call(table, &mut schema.fields, "", &names)?;
    Ok(schema)
}

fn call(table: &TableSpec, fields: &mut [Field], prefix: &str, names: &[&str]) -> Result<(), IngestError> {
    let spoken = |name: &str| {
        let path = format!("{prefix}{name}");
        names.iter().any(|known| *known == path || known.starts_with(&format!("{path}.")))
    };
    let present: Vec<String> = fields.iter().map(|field| field.name.clone()).collect();
    let mut given: Vec<String> = Vec::new();
    for field in fields {
        if !spoken(&field.name) {
            let mut given_before = field.aliases.iter().filter(|alias| given.contains(alias));
            if let Some(alias) = given_before.find(|alias| is_hidden(table, &format!("{prefix}{alias}"))) {
                let why = format!(
                    "two fields have the alias {alias}, and the spec protects or drops {prefix}{alias}: name \
                     {prefix}{} in the spec too",
                    field.name
                );
                return Err(IngestError::column_refused(format!("{prefix}{}", field.name), why));
            }
            let is_free = |alias: &String| !present.contains(alias) && !given.contains(alias);
            let old = field.aliases.iter().position(|alias| spoken(alias) && is_free(alias));
            if let Some(alias) = old.and_then(|at| field.aliases.get_mut(at)) {
                given.push(alias.clone());
                std::mem::swap(alias, &mut field.name);
            }
        }
        if let Type::Struct(members) = &mut field.data_type {
            call(table, members, &format!("{prefix}{}.", field.name), names)?;
        }
    }
    Ok(())
}

/// Whether the spec keeps it, or something inside it, out of sight.
fn is_hidden(table: &TableSpec, path: &str) -> bool {
    let is_of = |known: &String| {
        known.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    table.protect.keys().chain(&table.transforms.drop).any(is_of)
}

/// A source that has the columns of these records by now, in their words.
pub(super) fn seen(table: &TableSpec, source: &Schema, records: &Schema) -> Result<Schema, IngestError> {
    match merge(source, records, of_source(table)) {
        Merge::Same { view } => Ok(view),
        _ => Err(IngestError::internal("a source does not take the records that it was made for")),
    }
}

/// Records that would fill a protected column from a field of another name, which nothing protects: the table follows
/// an alias that their own schema does not tell.
///
/// # Errors
/// `SchemaRefused`.
pub(super) fn check_exposed(table: &TableSpec, live: &Schema, called: &Schema) -> Result<(), IngestError> {
    let Some((column, field)) = exposed(table, &live.fields, &called.fields, ("", "")) else { return Ok(()) };
    let why = format!(
        "column {column} is protected and records call it {field} without saying so in an alias; protect {field} too, \
         or leave it out"
    );
    Err(IngestError::column_refused(column, why))
}

fn exposed(
    table: &TableSpec,
    live: &[Field],
    called: &[Field],
    (live_at, called_at): (&str, &str),
) -> Option<(String, String)> {
    let mut pairs = live.iter().zip(called).filter(|(_, called)| !called.name.starts_with('\0'));
    pairs.find_map(|(column, called)| {
        let (path, given) = (format!("{live_at}{}", column.name), format!("{called_at}{}", called.name));
        if table.protect.contains_key(&path) && !table.protect.contains_key(&given) {
            return Some((path, given));
        }
        let (Type::Struct(members), Type::Struct(others)) = (&column.data_type, &called.data_type) else {
            return None;
        };
        exposed(table, members, others, (&format!("{path}."), &format!("{given}.")))
    })
}

/// A source is in memory: it widens whatever formats can show, and keeps its names, for the spec goes by them.
fn of_source(table: &TableSpec) -> Rules {
    Rules { renames: false, widens: true, grows_in_maps: true, ..Rules::of(table) }
}
