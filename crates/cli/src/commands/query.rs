//! `query`: SQL over the tables, by DataFusion, from the ledger's live files.

use std::sync::Arc;

use arrow::{array::RecordBatch, util::pretty::pretty_format_batches};
use datafusion::{
    datasource::{
        empty::EmptyTable,
        file_format::parquet::ParquetFormat,
        listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl},
    },
    prelude::{SessionConfig, SessionContext},
};
use siltstone_spec::Spec;
use siltstone_worker::{
    inspect::{self, LiveFiles},
    table::Table,
};

use super::load;
use crate::{
    args::QueryArgs,
    output::{self, Invalid},
};

/// The tables' bucket goes by this address inside a session.
/// Each table has a store of its own: its credentials may be its own, too.
const STORE: &str = "siltstone://table-";

pub async fn query(args: QueryArgs) -> anyhow::Result<u8> {
    let spec = load(&args.spec.file)?;
    let batches = ask(&spec, &args.sql).await?;
    if args.spec.json {
        let mut rows = arrow::json::ArrayWriter::new(std::io::stdout());
        rows.write_batches(&batches.iter().collect::<Vec<_>>())?;
        rows.finish()?;
        println!();
    } else {
        println!("{}", pretty_format_batches(&batches)?);
    }
    Ok(output::DONE)
}

/// Answers a statement over every table of the spec that exists, dead-letter tables included.
pub async fn ask(spec: &Spec, sql: &str) -> anyhow::Result<Vec<RecordBatch>> {
    let lake = inspect::open_lake(spec)?;
    let mut tables = Vec::new();
    for table in &spec.tables {
        for dead_letters in [false, true] {
            tables.extend(inspect::open_table(&lake, table, dead_letters).await?);
        }
    }
    ask_of(&tables, sql).await
}

/// Answers a statement over these tables.
pub async fn ask_of(tables: &[Table], sql: &str) -> anyhow::Result<Vec<RecordBatch>> {
    // Plain strings, as the files say.
    let config = SessionConfig::new()
        .with_information_schema(true)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false);
    let context = SessionContext::new_with_config(config);
    for (number, table) in tables.iter().enumerate() {
        let store = format!("{STORE}{number}/");
        context.register_object_store(&url::Url::parse(&store)?, table.store.clone());
        register(&context, &table.name, &store, inspect::live_files(table).await?)?;
    }
    let answer = async { context.sql(sql).await?.collect().await };
    answer.await.map_err(|error: datafusion::error::DataFusionError| Invalid(error.strip_backtrace()).into())
}

fn register(context: &SessionContext, name: &str, store: &str, live: LiveFiles) -> anyhow::Result<()> {
    let reference = datafusion::sql::TableReference::bare(name);
    if live.files.is_empty() {
        context.register_table(reference, Arc::new(EmptyTable::new(live.schema)))?;
        return Ok(());
    }
    let paths = live
        .files
        .iter()
        .map(|file| ListingTableUrl::parse(format!("{store}{}/{}", live.location, file.path)))
        .collect::<Result<Vec<_>, _>>()?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default())).with_file_extension(".parquet");
    let config = ListingTableConfig::new_with_multi_paths(paths)
        .with_listing_options(options)
        .with_schema(live.schema);
    context.register_table(reference, Arc::new(ListingTable::try_new(config)?))?;
    Ok(())
}
