//! What a seed stands for: how many workers, what they do, how bad the store is.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use siltstone_protocol::Schema;
use siltstone_spec::TableSpec;

pub(crate) const CLUSTER: &str = "lab";
pub(crate) const TOPIC: &str = "orders";
/// Where readers find the tables, and where they lie in the store.
pub(crate) const ROOT_URL: &str = "s3://bucket/lake";
pub(crate) const ROOT: &str = "lake";
/// Part of every value of a record: it must be in no name, no ledger entry and no error.
pub(crate) const SECRET: &str = "s3cr3t";
/// Age after which rows leave, when they do.
pub(crate) const ROWS_MS: i64 = 30 * 24 * HOUR_MS;
/// Ages at which snapshots and files without a name leave.
pub(crate) const SNAPSHOTS_MS: i64 = 8 * HOUR_MS;
pub(crate) const ORPHANS_MS: i64 = 3 * HOUR_MS;
pub(crate) const HOUR_MS: i64 = 3_600_000;

/// A fault of the program or the store that the simulation must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// The store overwrites whatever condition a put names.
    ConditionsIgnored,
    /// The store dates data files to the year 1970, so that none is too young for a clean-up.
    DatesLost,
    /// A worker that is refused takes the ledger's ranges and keeps the rows it has.
    RefusalIgnored,
    /// The store says that a data file is there, and loses it.
    WritesLost,
    /// An overwrite says that it looked at the newest version, whatever it looked at.
    LookIgnored,
}

/// How often a fault comes, of 1,000 operations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    /// Not done, and an error.
    pub(crate) refused: u32,
    /// Done, and an error.
    pub(crate) reply_lost: u32,
    /// An error, and done up to a minute later. Puts only.
    pub(crate) late: u32,
    /// A listing that ends with an error.
    pub(crate) cut_short: u32,
    /// The process ends before or after the operation.
    pub(crate) crash: u32,
    /// One worker is refused everything for a while.
    pub(crate) outage: u32,
}

impl Faults {
    pub(crate) const NONE: Self =
        Self { refused: 0, reply_lost: 0, late: 0, cut_short: 0, crash: 0, outage: 0 };
}

#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) workers: usize,
    pub(crate) partitions: i32,
    /// Records of each partition.
    pub(crate) records: i64,
    /// Records of one flush and partition, at most.
    pub(crate) flush_max: i64,
    pub(crate) rejected_percent: u64,
    pub(crate) faults: Faults,
    /// An operation takes up to this long.
    pub(crate) latency_ms: u64,
    /// Long pauses of a worker, up to days, of 100 pauses.
    pub(crate) long_pauses: u32,
    /// Each worker's clock against the store's.
    pub(crate) skew_ms: Vec<i64>,
    pub(crate) compactors: usize,
    pub(crate) janitors: usize,
    pub(crate) checkpoint_every: u64,
    pub(crate) rows_leave: bool,
    /// The schema grows, of 100 steps of a worker.
    pub(crate) grows: u32,
    /// Workers that replay dead letters, read source files in, ingest ranges anew.
    pub(crate) replayers: usize,
    pub(crate) importers: usize,
    pub(crate) overwriters: usize,
    /// What Iceberg shows is read from its manifests. Otherwise it is believed to show what it says, for speed.
    pub(crate) reads_manifests: bool,
    /// Operations after which the faults end.
    pub(crate) operations: u64,
    pub(crate) spec: TableSpec,
    pub(crate) schema: Schema,
}

impl Scenario {
    pub(crate) fn of(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x0005_eed0_fa11);
        let rng = &mut rng;
        let faults = match rng.random_range(0..10) {
            0 => Faults::NONE,
            1..=5 => Faults { refused: 10, reply_lost: 15, late: 6, cut_short: 10, crash: 4, outage: 1 },
            6..=8 => Faults { refused: 40, reply_lost: 50, late: 20, cut_short: 50, crash: 10, outage: 2 },
            _ => Faults { refused: 5, reply_lost: 5, late: 0, cut_short: 5, crash: 40, outage: 0 },
        };
        let workers = rng.random_range(1..=3);
        let rows_leave = rng.random_bool(0.25);
        let (spec, schema) = table(rng, rows_leave);
        let skew = [0, 0, 20_000, -20_000, 300_000, -300_000];
        let mut scenario = Self {
            seed,
            mutation,
            workers,
            partitions: rng.random_range(1..=3),
            records: rng.random_range(4..=12),
            flush_max: *[1, 2, 4].choose(rng).unwrap_or(&4),
            rejected_percent: *[0, 10, 40].choose(rng).unwrap_or(&10),
            faults,
            latency_ms: *[0, 3, 50, 2_000].choose(rng).unwrap_or(&3),
            long_pauses: *[0, 5, 25].choose(rng).unwrap_or(&5),
            skew_ms: (0..workers).map(|_| *skew.choose(rng).unwrap_or(&0)).collect(),
            compactors: rng.random_range(0..=workers),
            janitors: rng.random_range(0..=workers),
            checkpoint_every: rng.random_range(2..=9),
            rows_leave,
            grows: if rng.random_bool(0.3) { 10 } else { 0 },
            reads_manifests: seed.is_multiple_of(4),
            operations: rng.random_range(40..=140),
            replayers: 0,
            importers: 0,
            overwriters: 0,
            spec,
            schema,
        };
        scenario.draw_history(rng);
        scenario
    }

    /// History is made in some seeds only, which go on for longer: it takes operations from consumption.
    fn draw_history(&mut self, rng: &mut StdRng) {
        if rng.random_bool(0.3) {
            self.replayers = rng.random_range(0..=self.workers);
            self.importers = rng.random_range(0..=self.workers);
            self.overwriters = rng.random_range(0..=self.workers);
            self.operations += 80;
        }
        if self.mutation == Some(Mutation::LookIgnored) {
            (self.replayers, self.overwriters, self.rejected_percent) = (self.workers, self.workers, 40);
            self.operations = 500;
        }
    }
}

fn table(rng: &mut StdRng, rows_leave: bool) -> (TableSpec, Schema) {
    let formats = ["[iceberg, delta]", "[iceberg, delta]", "[iceberg, delta]", "[iceberg]", "[delta]"];
    let formats = formats.choose(rng).unwrap_or(&"[iceberg]");
    let partition = ["", "", "partition_by: [region]", "partition_by: [month(at)]"];
    let partition = partition.choose(rng).unwrap_or(&"");
    let sort = ["", "sort_by: [at]", "sort_by: [region, o]"].choose(rng).unwrap_or(&"");
    let inputs = rng.random_range(2..=5);
    let rows = format!("rows: 30d, rows_by: at, rows_rewrite: {}, ", inputs % 2 == 0);
    let rows = if rows_leave { rows.as_str() } else { "" };
    let text = format!(
        "
source_clusters: [{{name: {CLUSTER}, bootstrap_brokers: ['localhost:9092']}}]
destination_bucket_url: {ROOT_URL}
tables:
  - name: sim.orders
    source_cluster_name: {CLUSTER}
    source_topic: {TOPIC}
    source_format: json
    input_schema:
      fields:
        - {{name: p, type: int, required: true}}
        - {{name: o, type: long, required: true}}
        - {{name: at, type: timestamptz}}
        - {{name: region, type: string}}
    formats: {formats}
    {partition}
    {sort}
    files: {{compression: none}}
    compaction: {{min_inputs: 2, max_inputs: {inputs}, quiet_after: 30s}}
    retention: {{{rows}snapshots: 8h, snapshots_max: 20, snapshots_min: 1, orphans: 3h}}
    maintenance: {{every: 1h}}
"
    );
    let spec = siltstone_spec::parse(&text, "spec.yaml", &|_| None).unwrap();
    let spec = spec.tables[0].clone();
    let learned = siltstone_ingest::decoder::initial_schema(&spec, None);
    let schema = futures::executor::block_on(learned).unwrap().unwrap();
    (spec, schema)
}
