//! What one commit costs: a ledger entry of one data file, shown as Iceberg and as Delta, over a store in memory.
//!
//! Neither the number of live files nor the number of commits before it may make it dearer. CPU time is that of the
//! whole process, so checkpoints that are written in the background count with the commits that they fall among.

use std::time::Instant;

use clap::Args;

use crate::compact::cpu_seconds;

#[path = "../../crates/lakehouse/benches/support/mod.rs"]
mod support;

use support::Bench;

/// Files of one commit while a table is filled.
const FILES_AT_ONCE: i64 = 10_000;

#[derive(Debug, Args)]
pub struct CommitsArgs {
    /// Tables of so many live files; a million takes some GB.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 1_000_000])]
    files: Vec<i64>,
    /// Commits measured at each size.
    #[arg(long, default_value_t = 1_000)]
    measured: i64,
    /// One table with so many commits of one file each, measured by tenths; 0: none.
    #[arg(long, default_value_t = 10_000)]
    commits: i64,
}

pub fn commits(args: &CommitsArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        if args.commits > 0 {
            let mut bench = Bench::new().await;
            let tenth = (args.commits / 10).max(1);
            while bench.commits < args.commits {
                measure(&mut bench, tenth).await;
            }
            bench.close().await;
        }
        let mut bench = Bench::new().await;
        for files in &args.files {
            while bench.files < *files {
                bench.commit((files - bench.files).min(FILES_AT_ONCE)).await;
            }
            measure(&mut bench, args.measured).await;
        }
        bench.close().await;
    });
    Ok(())
}

/// Commits one file at a time and prints what one came to.
async fn measure(bench: &mut Bench, commits: i64) {
    let (files, before) = (bench.files, bench.commits);
    let (cpu, began) = (cpu_seconds(), Instant::now());
    let mut times = Vec::new();
    for _ in 0..commits {
        let each = Instant::now();
        bench.commit(1).await;
        times.push(each.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let each = |seconds: f64| seconds * 1e3 / commits as f64;
    let line = serde_json::json!({
        "live_files_before": files, "commits_before": before, "commits": commits,
        "cpu_ms": each(cpu_seconds() - cpu), "wall_ms": each(began.elapsed().as_secs_f64()),
        "median_ms": times.get(times.len() / 2), "slowest_ms": times.last(),
    });
    println!("{line}");
}
