//! What applying a spec would change: pure, from the spec, the table as it is, and the schema wanted.
//!
//! 1. No table yet: `Create`.
//! 2. A schema in the spec is compared by name. Columns are added, widened or made optional. They are dropped, renamed
//!    and retyped when the spec's transforms say so ([`changes`]), and not because a schema leaves them out.
//! 3. Partition spec and sort order may change at any time: they hold for new files only.
//! 4. One reason to refuse refuses the whole plan, so that no table is left half-way.
//!
//! A schema in the spec (`inline`) is binding: what it leaves out is a fault. A registry's schema is what
//! producers write from now on: the plan says how the table will follow it ([`crate::evolve`]), and notices what it
//! cannot take; that is no reason to refuse.
//! A plan is a fixed point: planning again after it was applied gives `NothingToDo`.

mod changes;
mod follow;
mod schema;

pub use follow::incompatible;

use std::fmt;

use serde::Serialize;
use siltstone_protocol::{ErrorCode, Format, PartitionSpec, Schema, SchemaHistory, SortOrder};

use self::schema::Evolved;
use crate::{
    error::SpecError,
    model::{RestCatalog, TableSpec},
    resolve,
};

pub use changes::{given_up, pending};

/// The table as its ledger has it.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveTable {
    pub schema: Schema,
    pub partition_spec: PartitionSpec,
    pub sort_order: SortOrder,
    pub formats: Vec<Format>,
    /// Every partition spec that the table ever had.
    pub partition_specs: Vec<PartitionSpec>,
    /// What the schemas that it ever had say of its columns, and the largest of their ids.
    pub history: SchemaHistory,
    pub last_schema_id: i32,
    /// The ledger version that the plan is made for.
    pub version: u64,
}

/// What applying the spec would do to one table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "plan", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TablePlan {
    /// The table comes to be. Without a schema yet, its first record decides it.
    Create {
        table: String,
        schema: Option<Schema>,
        partition_spec: Option<PartitionSpec>,
        sort_order: Option<SortOrder>,
        formats: Vec<Format>,
        /// The catalog that keeps the Iceberg form: table and address.
        #[serde(skip_serializing_if = "Option::is_none")]
        catalog: Option<String>,
    },
    NothingToDo {
        table: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        notices: Vec<Notice>,
    },
    Change {
        table: String,
        from_version: u64,
        steps: Vec<Step>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        notices: Vec<Notice>,
    },
    Refused {
        table: String,
        reasons: Vec<Reason>,
    },
}

/// One change of a table. Steps of the schema come first, then [`Step::SetSchema`] that sums them up.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    AddColumn {
        column: String,
        data_type: String,
    },
    Widen {
        column: String,
        from: String,
        to: String,
    },
    MakeOptional {
        column: String,
    },
    /// The column leaves: rows already written no longer show it.
    DropColumn {
        column: String,
    },
    RenameColumn {
        column: String,
        name: String,
    },
    /// A new column takes the name: rows already written read null there.
    RetypeColumn {
        column: String,
        from: String,
        to: String,
    },
    /// From here on readers of the Delta table must know column mapping.
    MapColumns,
    /// The ledger change: the schema after the steps before. Ids of known columns are kept.
    SetSchema {
        schema: Schema,
    },
    SetPartitionSpec {
        partition_spec: PartitionSpec,
        fields: Vec<String>,
    },
    SetSortOrder {
        sort_order: SortOrder,
        fields: Vec<String>,
    },
    SetFormats {
        formats: Vec<Format>,
        added: Vec<Format>,
    },
}

/// What people should know beside the steps: what will become of records of the registry's newest schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    pub what: String,
    pub why: String,
}

/// Why a plan is refused, and the way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What to look up with `siltstone explain`.
    pub code: ErrorCode,
    pub what: String,
    pub why: String,
    pub way_out: String,
}

impl TablePlan {
    pub fn table(&self) -> &str {
        match self {
            Self::Create { table, .. }
            | Self::NothingToDo { table, .. }
            | Self::Change { table, .. }
            | Self::Refused { table, .. } => table,
        }
    }

    /// The plan, refused when it takes values from readers' eyes.
    #[must_use]
    pub fn without_loss(self) -> Self {
        let Self::Change { table, steps, .. } = &self else { return self };
        let reason = |step: &Step| {
            let (Step::DropColumn { column } | Step::RetypeColumn { column, .. }) = step else { return None };
            Some(Reason {
                code: ErrorCode::DataLossRefused,
                what: format!("column {column} is dropped or retyped"),
                why: "readers would no longer see its values in rows already written".to_owned(),
                way_out: "look at `siltstone plan`, then say apply --allow-data-loss".to_owned(),
            })
        };
        let reasons: Vec<Reason> = steps.iter().filter_map(reason).collect();
        if reasons.is_empty() { self } else { Self::Refused { table: table.clone(), reasons } }
    }

    /// The plan with one more thing to know.
    #[must_use]
    pub fn with_notice(mut self, notice: Notice) -> Self {
        if let Self::NothingToDo { notices, .. } | Self::Change { notices, .. } = &mut self {
            notices.push(notice);
        }
        self
    }

    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// `live`: `None` before the table exists. `wanted_schema`: `None` while it is not known, as with a
/// registry that was not asked; then only what the spec itself says changes the table's schema.
pub fn plan(table: &TableSpec, live: Option<&LiveTable>, wanted_schema: Option<&Schema>) -> TablePlan {
    let Some(live) = live else { return create(table, wanted_schema) };
    let Evolved { schema, mut steps, mut reasons, notices } = schema::evolve(table, live, wanted_schema);
    // Names are looked up in a schema that is never applied when something was refused.
    match layout(table, live, &schema) {
        Ok(layout) => steps = in_order(live, &schema, steps, layout),
        Err(error) => reasons.push(unresolved(&error)),
    }
    formats(table, live, &mut steps, &mut reasons);
    if begins_mapping(table, live, &schema) {
        steps.push(Step::MapColumns);
    }
    let name = table.name.clone();
    if !reasons.is_empty() {
        TablePlan::Refused { table: name, reasons }
    } else if steps.is_empty() {
        TablePlan::NothingToDo { table: name, notices }
    } else {
        TablePlan::Change { table: name, from_version: live.version, steps, notices }
    }
}

fn create(table: &TableSpec, wanted_schema: Option<&Schema>) -> TablePlan {
    let layout = wanted_schema.map(|schema| -> Result<_, SpecError> {
        Ok((resolve::partition_spec(table, schema)?, resolve::sort_order(table, schema)?))
    });
    let (partition_spec, sort_order) = match layout.transpose() {
        Ok(layout) => layout.unzip(),
        Err(error) => {
            return TablePlan::Refused { table: table.name.clone(), reasons: vec![unresolved(&error)] };
        }
    };
    TablePlan::Create {
        table: table.name.clone(),
        schema: wanted_schema.cloned(),
        partition_spec,
        sort_order,
        formats: table.formats.clone(),
        catalog: table.catalog.as_ref().map(RestCatalog::place),
    }
}

fn unresolved(error: &SpecError) -> Reason {
    Reason {
        code: error.code(),
        what: error.without_table(),
        why: "partition_by and sort_by need columns of the table's schema".to_owned(),
        way_out: "name another column or transform".to_owned(),
    }
}

fn layout(table: &TableSpec, live: &LiveTable, schema: &Schema) -> Result<Vec<Step>, SpecError> {
    let mut steps = Vec::new();
    let wanted = resolve::partition_spec(table, schema)?;
    if !resolve::same_partitions(&wanted, &live.partition_spec) {
        let history = std::slice::from_ref(&live.partition_spec);
        let partition_spec = resolve::adopt_partition_spec(&wanted, history);
        let fields = table.partition_by.iter().map(|by| format!("{}({})", by.transform, by.column)).collect();
        steps.push(Step::SetPartitionSpec { partition_spec, fields });
    }
    let wanted = resolve::sort_order(table, schema)?;
    if wanted.fields != live.sort_order.fields {
        let sort_order = resolve::adopt_sort_order(&wanted, std::slice::from_ref(&live.sort_order));
        let fields = table.sort_by.iter().map(|by| by.column.clone()).collect();
        steps.push(Step::SetSortOrder { sort_order, fields });
    }
    Ok(steps)
}

/// The steps, so that after each of them the table's sort order is one of its columns: readers look them up.
fn in_order(live: &LiveTable, schema: &Schema, of_schema: Vec<Step>, mut layout: Vec<Step>) -> Vec<Step> {
    let fits = |order: &SortOrder, schema: &Schema| {
        order.fields.iter().all(|field| schema.path_of(field.source_id).is_some())
    };
    let mut steps = Vec::with_capacity(of_schema.len() + layout.len() + 1);
    if !fits(&live.sort_order, schema) {
        let early = |step: &Step| match step {
            Step::SetSortOrder { sort_order, .. } => fits(sort_order, &live.schema),
            _ => false,
        };
        let unsorted = || Step::SetSortOrder { sort_order: SortOrder::default(), fields: Vec::new() };
        let at = layout.iter().position(early);
        steps.push(at.map_or_else(unsorted, |at| layout.remove(at)));
    }
    steps.extend(of_schema);
    steps.extend(layout);
    steps
}

/// A Delta table finds columns by name until one is renamed, or takes a name that another one had. One that comes to be
/// over such columns maps them from the start.
fn begins_mapping(table: &TableSpec, live: &LiveTable, schema: &Schema) -> bool {
    let was = live.formats.contains(&Format::Delta) && live.history.is_mapped(live.schema.schema_id);
    let is = live.history.clone().and(schema).is_mapped(schema.schema_id);
    table.formats.contains(&Format::Delta) && !was && is
}

fn formats(table: &TableSpec, live: &LiveTable, steps: &mut Vec<Step>, reasons: &mut Vec<Reason>) {
    for gone in live.formats.iter().filter(|format| !table.formats.contains(format)) {
        let name = gone.as_str();
        reasons.push(Reason {
            code: ErrorCode::FormatRemoved,
            what: format!("formats no longer has {name}"),
            why: format!("readers of the {name} table would go on seeing it, without new rows"),
            way_out: format!("keep {name} in formats, or make a new table without it"),
        });
    }
    let is_new = |format: &&Format| !live.formats.contains(format);
    let added: Vec<Format> = table.formats.iter().filter(is_new).copied().collect();
    if !added.is_empty() {
        steps.push(Step::SetFormats { formats: table.formats.clone(), added });
    }
}

impl fmt::Display for TablePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingToDo { table, notices } => {
                write!(f, "{table}: nothing to do")?;
                notices.iter().try_for_each(|notice| notice.write(f))
            }
            Self::Create { table, schema, partition_spec, sort_order, formats, catalog } => {
                write!(f, "{table}: create, in {}", names(formats))?;
                if let Some(catalog) = catalog {
                    write!(f, "\n  catalog table {catalog}")?;
                }
                match schema {
                    None => f.write_str("\n  + columns as the first record's schema says")?,
                    Some(schema) => {
                        for field in &schema.fields {
                            let required = if field.required { " required" } else { "" };
                            let kind = schema::describe(&field.data_type);
                            write!(f, "\n  + {} {kind}{required}", field.name)?;
                        }
                    }
                }
                if let Some(spec) = partition_spec.as_ref().filter(|spec| !spec.fields.is_empty()) {
                    let fields: Vec<&str> = spec.fields.iter().map(|field| field.name.as_str()).collect();
                    write!(f, "\n  partitioned by {}", fields.join(", "))?;
                }
                match sort_order {
                    Some(order) if !order.fields.is_empty() => {
                        write!(f, "\n  sorted by {} column(s)", order.fields.len())
                    }
                    _ => Ok(()),
                }
            }
            Self::Change { table, from_version, steps, notices } => {
                write!(f, "{table}: change, from version {from_version}")?;
                steps.iter().try_for_each(|step| step.write(f))?;
                notices.iter().try_for_each(|notice| notice.write(f))
            }
            Self::Refused { table, reasons } => {
                write!(f, "{table}: refused")?;
                reasons.iter().try_for_each(|reason| {
                    let Reason { code, what, why, way_out } = reason;
                    write!(f, "\n  ! {what}: {why} [{code}]\n    way out: {way_out}")
                })
            }
        }
    }
}

impl Notice {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n  ! {}: {}", self.what, self.why)
    }
}

impl Step {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddColumn { column, data_type } => write!(f, "\n  + column {column} {data_type}"),
            Self::Widen { column, from, to } => write!(f, "\n  ~ column {column}: {from} becomes {to}"),
            Self::MakeOptional { column } => write!(f, "\n  ~ column {column}: becomes optional"),
            Self::DropColumn { column } => {
                write!(f, "\n  - column {column}: dropped, rows already written no longer show it")
            }
            Self::RenameColumn { column, name } => write!(f, "\n  ~ column {column}: renamed to {name}"),
            Self::RetypeColumn { column, from, to } => {
                write!(f, "\n  - column {column}: {from} becomes {to}, rows already written read null there")
            }
            Self::MapColumns => f.write_str(
                "\n  ~ delta: column mapping, from now on readers that do not know it refuse the Delta table",
            ),
            Self::SetSchema { .. } => Ok(()),
            Self::SetPartitionSpec { fields, .. } if fields.is_empty() => {
                f.write_str("\n  ~ no longer partitioned, for new files only")
            }
            Self::SetPartitionSpec { fields, .. } => {
                write!(f, "\n  ~ partitioned by {}, for new files only", fields.join(", "))
            }
            Self::SetSortOrder { fields, .. } if fields.is_empty() => {
                f.write_str("\n  ~ no longer sorted, for new files only")
            }
            Self::SetSortOrder { fields, .. } => {
                write!(f, "\n  ~ sorted by {}, for new files only", fields.join(", "))
            }
            Self::SetFormats { added, .. } => write!(f, "\n  + format {}", names(added)),
        }
    }
}

fn names(formats: &[Format]) -> String {
    formats.iter().map(|format| format.as_str()).collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
