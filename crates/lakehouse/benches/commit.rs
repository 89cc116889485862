//! What one commit costs: a ledger entry of one data file, shown as Iceberg and as Delta, over a store in memory.
//!
//! `after_N`: on a table that already has N commits. `files_N`: on a table of N live files, which came by commits of
//! ten thousand each (SILTSTONE_BENCH_FILES_MAX leaves out the larger ones; a million takes 4 GB). The cost must grow
//! with neither.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use criterion::{Criterion, criterion_group, criterion_main};
use support::Bench;

fn by_commits(c: &mut Criterion) {
    let runtime = runtime();
    let mut bench = runtime.block_on(Bench::new());
    let mut group = c.benchmark_group("commit");
    group.sample_size(10);
    for commits in [10, 1_000, 10_000] {
        runtime.block_on(async {
            while bench.commits < commits {
                bench.commit(1).await;
            }
        });
        group.bench_function(format!("after_{commits}"), |b| b.iter(|| runtime.block_on(bench.commit(1))));
    }
    group.finish();
    runtime.block_on(bench.close());
}

fn by_files(c: &mut Criterion) {
    let max = std::env::var("SILTSTONE_BENCH_FILES_MAX").map_or(1_000_000, |max| max.parse().unwrap());
    let runtime = runtime();
    let mut bench = runtime.block_on(Bench::new());
    let mut group = c.benchmark_group("commit");
    group.sample_size(10);
    for files in [1_000, 10_000, 100_000, 1_000_000].into_iter().filter(|files| *files <= max) {
        runtime.block_on(async {
            while bench.files < files {
                bench.commit((files - bench.files).min(10_000)).await;
            }
        });
        group.bench_function(format!("files_{files}"), |b| b.iter(|| runtime.block_on(bench.commit(1))));
    }
    group.finish();
    runtime.block_on(bench.close());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

criterion_group!(benches, by_commits, by_files);
criterion_main!(benches);
