//! A workload's rows as an Avro object container file, not compressed: `backfill.py` makes the other files of it.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
};

use anyhow::Context;
use clap::Args;

use crate::rows::{Shape, long, string};

const SYNC: [u8; 16] = *b"siltstone--bench";
/// As Java's writer has it by default.
const BLOCK_BYTES: usize = 64_000;
/// Before each body of a workload: the magic byte and the schema's id.
const FRAME_BYTES: usize = 5;

#[derive(Debug, Args)]
pub struct ContainerArgs {
    /// `orders-avro` or `wide-avro`.
    #[arg(long, value_enum)]
    shape: Shape,
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Number of the first row.
    #[arg(long, default_value_t = 0)]
    first: u64,
    #[arg(long)]
    out: PathBuf,
}

pub fn container(args: &ContainerArgs) -> anyhow::Result<()> {
    let id = match args.shape {
        Shape::OrdersAvro => 1,
        Shape::WideAvro => 2,
        _ => anyhow::bail!("a container file has records of one Avro schema"),
    };
    let schema = Shape::schema_of_id(id).context("the workload has no schema")?;
    let mut head = b"Obj\x01".to_vec();
    long(&mut head, 1);
    string(&mut head, "avro.schema");
    string(&mut head, &schema);
    long(&mut head, 0);
    head.extend(SYNC);
    let file = File::create(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let mut file = BufWriter::new(file);
    file.write_all(&head)?;
    let (mut block, mut record) = (Vec::new(), Vec::new());
    let (mut records, mut bytes) = (0_i64, 0_u64);
    for n in 0..args.rows {
        record.clear();
        args.shape.write(args.first + n, &mut record);
        let body = record.get(FRAME_BYTES..).context("a record without its frame")?;
        bytes += body.len() as u64;
        block.extend_from_slice(body);
        records += 1;
        if block.len() >= BLOCK_BYTES || n + 1 == args.rows {
            let mut lengths = Vec::new();
            long(&mut lengths, std::mem::take(&mut records));
            long(&mut lengths, block.len() as i64);
            file.write_all(&lengths)?;
            file.write_all(&block)?;
            file.write_all(&SYNC)?;
            block.clear();
        }
    }
    file.flush()?;
    println!("{}", serde_json::json!({"rows": args.rows, "value_bytes": bytes}));
    Ok(())
}
