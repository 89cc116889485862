//! One table: defaults that depend on other fields, and fields that must fit each other.

use std::{collections::BTreeMap, time::Duration};

use siltstone_protocol::{Format, Transform, disclosed::Disclosure};

use super::{Lower, Place};
use crate::{
    forms::{Column, SortText},
    limits,
    model::{
        Clustering, CompactionPolicy, Compression, DlqMode, ExtraFields, Files, Freshness, InputSchema,
        OnIncompatible, OnLostRange, PartitionBy, SchemaMode, SortBy, SourceCluster, SourceFormat, Start,
        TableSpec, Tombstones,
    },
    raw::*,
    resolve, write_by,
};

/// The record timestamp's column when `kafka_metadata` is on.
pub(super) const KAFKA_TIMESTAMP: &str = "_kafka.timestamp";

impl Lower<'_> {
    pub(super) fn table(
        &mut self,
        raw: RawTable,
        cluster: Option<&SourceCluster>,
        place: &Place<'_>,
    ) -> TableSpec {
        let name = self.table_name(&raw, place);
        let source = self.source(&raw, cluster, place);
        let partition_by = self.partition_by(&raw, place);
        let sort_by = self.sort_by(&raw.sort_by, &place.key("sort_by"));
        let files = self.files(&raw.files, &place.key("files"));
        let retention =
            self.retention(&raw.retention, &partition_by, raw.kafka_metadata, &place.key("retention"));
        let formats = self.formats(&raw.formats, &place.key("formats"));
        let catalog = self.catalog(raw.catalogs, &name, &formats, &place.key("catalogs"));
        let protect = self.protect(raw.protect, raw.kafka_metadata, &place.key("protect"));
        let table = TableSpec {
            cluster: raw.source_cluster_name.0,
            topic: raw.source_topic.0,
            group: raw.group.map_or_else(|| format!("siltstone-{name}"), |group| group.0),
            source_format: source.format,
            wire_format: source.wire,
            event_types: self.event_types(raw.event_types, &source.mode, place),
            schema_mode: source.mode,
            message_type: raw.message_type.map(|name| name.0),
            transforms: self.transforms(raw.transforms, &place.key("transforms")),
            protection: self.protection(raw.protection, &protect, place),
            protect,
            start: self.start(raw.start, &place.key("start")),
            on_lost_range: match raw.on_lost_range {
                RawOnLostRange::Stop => OnLostRange::Stop,
                RawOnLostRange::Continue => OnLostRange::Continue,
            },
            formats,
            catalog,
            compaction: self.compaction(&raw.compaction, &files, &sort_by, &place.key("compaction")),
            partition_by,
            sort_by,
            freshness: Freshness {
                max_age: Duration::from_millis(raw.freshness.max_age.0),
                max_bytes: raw.freshness.max_bytes.0,
                max_rows: raw.freshness.max_rows,
            },
            files,
            dlq_mode: match raw.dlq_mode {
                RawDlqMode::DeadLetter => DlqMode::DeadLetter,
                RawDlqMode::Skip => DlqMode::Skip,
                RawDlqMode::Stop => DlqMode::Stop,
            },
            on_incompatible: match raw.on_incompatible {
                RawOnIncompatible::DeadLetter => OnIncompatible::DeadLetter,
                RawOnIncompatible::Stop => OnIncompatible::Stop,
                RawOnIncompatible::NewColumn => OnIncompatible::NewColumn,
            },
            tombstones: match raw.tombstones {
                RawTombstones::Skip => Tombstones::Skip,
                RawTombstones::Reject => Tombstones::Reject,
                RawTombstones::Row => Tombstones::Row,
            },
            extra_fields: match raw.extra_fields {
                RawExtraFields::Ignore => ExtraFields::Ignore,
                RawExtraFields::Reject => ExtraFields::Reject,
            },
            kafka_metadata: raw.kafka_metadata,
            retention,
            maintenance_every: raw
                .maintenance
                .enabled
                .then(|| Duration::from_millis(raw.maintenance.every.0)),
            disclose: Disclosure::of_spec(
                &self.columns(&raw.disclose.bounds, &place.key("disclose").key("bounds")),
                raw.disclose.partition_values,
            ),
            name,
        };
        self.fit(&table, place);
        table
    }

    fn table_name(&mut self, raw: &RawTable, place: &Place<'_>) -> String {
        let name = raw.name.as_ref().map(|name| name.0.clone());
        let name = name.unwrap_or_else(|| format!("{}__{}", raw.source_cluster_name.0, raw.source_topic.0));
        let at = place.key("name");
        if name.len() > limits::NAME_CHARS_MAX {
            let max = limits::NAME_CHARS_MAX;
            self.fault(
                &at,
                format!("the default, cluster__topic, is longer than {max} characters; write a name"),
            );
        }
        if name.split('.').any(|part| part.eq_ignore_ascii_case("_siltstone")) {
            self.fault(&at, "_siltstone is the ledger's directory; choose another name");
        }
        name
    }

    fn formats(&mut self, raw: &[RawFormat], place: &Place<'_>) -> Vec<Format> {
        let mut formats: Vec<Format> = raw
            .iter()
            .map(|format| match format {
                RawFormat::Iceberg => Format::Iceberg,
                RawFormat::Delta => Format::Delta,
            })
            .collect();
        formats.sort_unstable();
        formats.dedup();
        if formats.len() < raw.len() {
            self.fault(place, "names a format twice");
        }
        formats
    }

    fn start(&mut self, raw: RawStart, place: &Place<'_>) -> Start {
        let at = match raw {
            RawStart::Word(RawStartWord::Earliest) => return Start::Earliest,
            RawStart::Word(RawStartWord::Latest) => return Start::Latest,
            RawStart::At(at) => at,
        };
        match (at.timestamp, at.offsets) {
            (Some(time), None) => Start::Timestamp(time.0),
            (None, Some(offsets)) => self.offsets(&offsets, &place.key("offsets")),
            _ => {
                self.fault(place, "must have exactly one of timestamp, offsets");
                Start::Earliest
            }
        }
    }

    fn offsets(&mut self, raw: &BTreeMap<String, RawOffset>, place: &Place<'_>) -> Start {
        if raw.is_empty() || raw.len() > limits::START_OFFSETS_MAX {
            self.fault(place, format!("must name 1 to {} partitions", limits::START_OFFSETS_MAX));
        }
        let mut offsets = BTreeMap::new();
        for (partition, offset) in raw {
            match partition.parse::<i32>() {
                Ok(number) if number >= 0 && number.to_string() == *partition => {
                    offsets.insert(number, offset.0);
                }
                _ => self.fault(place, "a partition is a whole number from 0"),
            }
        }
        Start::Offsets(offsets)
    }

    fn partition_by(&mut self, raw: &RawTable, place: &Place<'_>) -> Vec<PartitionBy> {
        if let Some(scheme) = raw.partitioning_scheme {
            return self.partitioning_scheme(scheme, raw, &place.key("partitioning_scheme"));
        }
        let place = place.key("partition_by");
        let mut fields: Vec<PartitionBy> = Vec::new();
        for (index, text) in raw.partition_by.iter().enumerate() {
            let Ok(by) = write_by::partition(&text.0) else { continue };
            let at = place.item(index);
            let alike = |known: &&PartitionBy| {
                known.column == by.column && resolve::splits_alike(known.transform, by.transform)
            };
            if fields.iter().find(alike).is_some() {
                self.fault(
                    &at,
                    "splits a column that a partition field before splits alike; keep the finer one",
                );
            } else if fields.iter().any(|known| known.name == by.name) {
                self.fault(&at, "has the name of a partition field before; add `as name`");
            }
            fields.push(by);
        }
        fields
    }

    fn partitioning_scheme(
        &mut self,
        scheme: RawScheme,
        raw: &RawTable,
        place: &Place<'_>,
    ) -> Vec<PartitionBy> {
        if !raw.partition_by.is_empty() {
            self.fault(place, "stands for one field of partition_by; write only one of both");
        }
        if !raw.kafka_metadata {
            let message = "partitions by the records' Kafka timestamp, which rows have only with \
             kafka_metadata: \
                           true; set it, or partition by a column of the record, such as partition_by: \
                           [day(ts)]";
            self.fault(place, message);
        }
        let transform = match scheme {
            RawScheme::Year => Transform::Year,
            RawScheme::Month => Transform::Month,
            RawScheme::Day => Transform::Day,
            RawScheme::Hour => Transform::Hour,
        };
        let name = write_by::default_name(KAFKA_TIMESTAMP, transform);
        vec![PartitionBy { column: KAFKA_TIMESTAMP.to_owned(), transform, name }]
    }

    fn sort_by(&mut self, raw: &[SortText], place: &Place<'_>) -> Vec<SortBy> {
        let mut keys: Vec<SortBy> = Vec::new();
        for (index, text) in raw.iter().enumerate() {
            let Ok(by) = write_by::sort(&text.0) else { continue };
            if keys.iter().any(|known| known.column == by.column) {
                self.fault(&place.item(index), "names a column that stands before");
            }
            keys.push(by);
        }
        keys
    }

    pub(super) fn columns(&mut self, raw: &[Column], place: &Place<'_>) -> Vec<String> {
        let mut columns: Vec<String> = Vec::new();
        for (index, column) in raw.iter().enumerate() {
            if columns.contains(&column.0) {
                self.fault(&place.item(index), "names a column that stands before");
            }
            columns.push(column.0.clone());
        }
        columns
    }

    fn files(&mut self, raw: &RawFiles, place: &Place<'_>) -> Files {
        if raw.row_group_bytes.0 > raw.target_size.0 {
            self.fault(&place.key("row_group_bytes"), "must not be larger than target_size");
        }
        let at = place.key("compression");
        let compression = match &raw.compression {
            RawCompression::Text(text) => write_by::compression(&text.0).unwrap_or(Compression::None),
            RawCompression::Parts(parts) => match (parts.codec, parts.level) {
                (RawCodec::Zstd, level) => {
                    Compression::Zstd { level: level.unwrap_or(limits::ZSTD_LEVEL_DEFAULT) }
                }
                (codec, level) => {
                    if level.is_some() {
                        self.fault(&at.key("level"), "only zstd has levels");
                    }
                    match codec {
                        RawCodec::Snappy => Compression::Snappy,
                        RawCodec::Lz4 => Compression::Lz4,
                        _ => Compression::None,
                    }
                }
            },
        };
        Files {
            target_size: raw.target_size.0,
            row_group_bytes: raw.row_group_bytes.0,
            compression,
            bloom_filters: self.columns(&raw.bloom_filters, &place.key("bloom_filters")),
        }
    }

    fn compaction(
        &mut self,
        raw: &RawCompaction,
        files: &Files,
        sort_by: &[SortBy],
        place: &Place<'_>,
    ) -> CompactionPolicy {
        if raw.max_inputs < raw.min_inputs {
            self.fault(&place.key("max_inputs"), "must not be smaller than min_inputs");
        }
        let cluster = match raw.cluster {
            RawClustering::Sort => Clustering::Sort,
            RawClustering::Zorder => Clustering::ZOrder,
            RawClustering::Hilbert => Clustering::Hilbert,
        };
        if cluster != Clustering::Sort && !(2..=limits::CURVE_COLUMNS_MAX).contains(&sort_by.len()) {
            let max = limits::CURVE_COLUMNS_MAX;
            self.fault(&place.key("cluster"), format!("a curve needs sort_by with 2 to {max} columns"));
        }
        CompactionPolicy {
            enabled: raw.enabled,
            max_rate: raw.max_rate.as_ref().map(|rate| rate.0),
            busy_percent: raw.busy_percent,
            target_size: raw.target_size.map_or(files.target_size, |size| size.0),
            min_inputs: raw.min_inputs,
            max_inputs: raw.max_inputs,
            max_overlap: raw.max_overlap,
            quiet_after: Duration::from_millis(raw.quiet_after.0),
            cluster,
        }
    }

    /// What several fields of a table say together.
    fn fit(&mut self, table: &TableSpec, place: &Place<'_>) {
        if table.tombstones == Tombstones::Row && !table.kafka_metadata {
            let message = "a row of nulls needs kafka_metadata: true, which then is all it holds";
            self.fault(&place.key("tombstones"), message);
        }
        if table.source_format != SourceFormat::Json && table.extra_fields == ExtraFields::Reject {
            self.fault(&place.key("extra_fields"), "is for source_format: json");
        }
        if table.source_format != SourceFormat::Protobuf && table.message_type.is_some() {
            self.fault(&place.key("message_type"), "is for source_format: protobuf");
        }
        if table.event_types.is_some() && table.message_type.is_some() {
            let message = "names one message, and event_types names those that are taken: keep one of both";
            self.fault(&place.key("message_type"), message);
        }
        if table.event_types.is_some() && table.tombstones == Tombstones::Row {
            let message = "a record without a value is of no type: with event_types, write skip or reject";
            self.fault(&place.key("tombstones"), message);
        }
        let SchemaMode::Inline(InputSchema::Fields(schema)) = &table.schema_mode else { return };
        if table.kafka_metadata && schema.column("_kafka").is_some() {
            let message = "has a column _kafka, which is the name of kafka_metadata's column";
            self.fault(&place.key("input_schema").key("fields"), message);
        }
        if table.tombstones == Tombstones::Row && schema.fields.iter().any(|field| field.required) {
            self.fault(&place.key("tombstones"), "a row of nulls needs a schema without required columns");
        }
        let Some(schema) = &self.transforms_fit(table, schema, place) else { return };
        let known =
            |column: &str| column.split('.').next() == Some("_kafka") || schema.field_at(column).is_some();
        let at = place.key("files").key("bloom_filters");
        for (index, column) in table.files.bloom_filters.iter().enumerate() {
            if !known(column) {
                self.fault(&at.item(index), "input_schema has no such column");
            }
        }
        let at = place.key("disclose").key("bounds");
        for (index, column) in table.disclose.columns().iter().enumerate() {
            if !known(column) {
                self.fault(&at.item(index), "input_schema has no such column");
            }
        }
        self.retention_fits(table, schema, place);
        self.layout_fits(table, schema, place);
    }

    /// With the columns at hand, what `resolve` would refuse later is refused now.
    fn layout_fits(&mut self, table: &TableSpec, schema: &siltstone_protocol::Schema, place: &Place<'_>) {
        let metadata = |column: &str| column.split('.').next() == Some("_kafka");
        let mut alone = table.clone();
        alone.sort_by.clear();
        for (index, by) in table.partition_by.iter().enumerate().filter(|(_, by)| !metadata(&by.column)) {
            alone.partition_by = vec![by.clone()];
            if let Err(error) = resolve::partition_spec(&alone, schema) {
                self.fault(&place.key("partition_by").item(index), error.without_table());
            }
        }
        for (index, by) in table.sort_by.iter().enumerate().filter(|(_, by)| !metadata(&by.column)) {
            alone.sort_by = vec![by.clone()];
            if let Err(error) = resolve::sort_order(&alone, schema) {
                self.fault(&place.key("sort_by").item(index), error.without_table());
            }
        }
    }
}
