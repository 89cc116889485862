//! How the rows of one flush are laid down, and what comes of it.

use std::sync::Arc;

use siltstone_protocol::{FileEntry, PartitionSpec, Schema, SchemaHistory, SortOrder};
use siltstone_spec::Files;

use crate::{details::FileDetails, host::Host};

/// Everything that decides how rows of one flush are laid down.
#[derive(Clone)]
pub struct Layout {
    pub schema: Arc<Schema>,
    pub partition_spec: PartitionSpec,
    pub sort_order: SortOrder,
    pub files: Files,
    /// Files say of uuids that they are. Not where Delta shows them (`parquet_schema`).
    pub annotate_uuids: bool,
    /// What columns are called in files.
    pub names: Arc<SchemaHistory>,
    /// Key of the partition tokens in ledger entries.
    pub token_key: Arc<[u8; 32]>,
    /// Gives files their names.
    pub host: Host,
}

impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layout")
            .field("schema_id", &self.schema.schema_id)
            .field("spec_id", &self.partition_spec.spec_id)
            .field("sort_order_id", &self.sort_order.order_id)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// A file that is durable in the store and not yet named by the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenFile {
    pub entry: FileEntry,
    pub details: FileDetails,
}

#[cfg(test)]
pub(crate) mod tests {
    use siltstone_protocol::{Field, PrimitiveType as P, Schema, Type};

    /// A schema with a column of every type, and nesting.
    pub(crate) fn every_type() -> Schema {
        let primitives = [
            P::Boolean,
            P::Int,
            P::Long,
            P::Float,
            P::Double,
            P::Decimal { precision: 9, scale: 2 },
            P::Decimal { precision: 18, scale: 0 },
            P::Decimal { precision: 38, scale: 10 },
            P::Date,
            P::Time,
            P::Timestamp,
            P::Timestamptz,
            P::String,
            P::Uuid,
            P::Fixed(5),
            P::Binary,
        ];
        let mut fields: Vec<Field> =
            (1..).zip(primitives).map(|(id, p)| Field::optional(id, format!("c{id}"), p.into())).collect();
        fields.push(Field::required(20, "key", P::Long.into()));
        let inner = vec![
            Field::required(22, "a", P::Int.into()),
            Field::optional(23, "b", P::String.into()),
            Field::optional(24, "f", P::Double.into()),
        ];
        fields.push(Field::optional(21, "s", Type::Struct(inner)));
        fields.push(Field::optional(
            30,
            "l",
            Type::List { element_id: 31, element_required: false, element: Box::new(P::Long.into()) },
        ));
        let value = Type::Struct(vec![Field::optional(43, "v", P::Float.into())]);
        fields.push(Field::optional(
            40,
            "m",
            Type::Map {
                key_id: 41,
                key: Box::new(P::String.into()),
                value_id: 42,
                value_required: false,
                value: Box::new(value),
            },
        ));
        Schema::new(3, fields)
    }
}
