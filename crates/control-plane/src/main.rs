//! The binary `siltstone-control-plane`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};
use siltstone_control_plane::{
    app::{App, StartError, open},
    audit::{self, AuditExport},
    backup,
    clock::Clock,
    config::Config,
    crypto::MasterKey,
    endpoints, housekeeping, reseal, serve, setup,
    tenants::KeyRing,
};

/// What workers report of tables: kept, shown, and never a record.
#[derive(Debug, Parser)]
#[command(name = "siltstone-control-plane", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop.
    Serve(ConfigArgs),
    /// Make the first organisation, and print its admin's API key, this once.
    Init {
        #[command(flatten)]
        config: ConfigArgs,
        /// The organisation's name.
        #[arg(long, default_value = "default")]
        organisation: String,
    },
    /// Check the audit log.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Master keys and data keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Make a backup, while the server runs or not. Prints where it is.
    Backup {
        #[command(flatten)]
        config: ConfigArgs,
        /// The folder of backups; the new one gets a name in it by its time.
        #[arg(long)]
        to: PathBuf,
    },
    /// Restore a backup into the empty database that the config names, of either engine. The server must not run.
    Restore {
        #[command(flatten)]
        config: ConfigArgs,
        /// A backup, or a folder of backups.
        #[arg(long)]
        from: PathBuf,
        /// From a folder: the newest backup at or before this time, like 2026-11-26T13:00:00Z. Default: the newest.
        #[arg(long, value_parser = backup::parse_time)]
        at: Option<i64>,
    },
    /// Write the database anew without what was deleted, and give its room back. Others wait meanwhile.
    Vacuum(ConfigArgs),
    /// Print the OpenAPI document.
    Openapi,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Find entries that were changed, taken out, moved or cut off. Exits with 1 when there are some.
    Verify(ConfigArgs),
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Print a fresh master key.
    Generate,
    /// Wrap every data key with the master key in use; the ones under `previous` are not needed after that.
    RotateMaster(ConfigArgs),
    /// Give every organisation a new data key. The server seals with it within a minute, seals anew what older ones
    /// sealed, and then deletes those.
    RotateData(ConfigArgs),
}

#[derive(Debug, clap::Args)]
struct ConfigArgs {
    /// The config file (TOML).
    #[arg(long)]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match run(Cli::parse().command).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(if matches!(error, StartError::Config(_)) { 2 } else { 1 })
        }
    }
}

async fn run(command: Command) -> Result<ExitCode, StartError> {
    let clock = Clock::system();
    match command {
        Command::Serve(args) => {
            let app = App::start(Config::read(&args.config)?, clock).await?;
            let bound = |address| tracing::info!(%address, "serving");
            let mut tasks = vec![
                tokio::spawn(housekeeping::keep(Arc::clone(&app))),
                tokio::spawn(reseal::keep(Arc::clone(&app))),
                tokio::spawn(backup::keep(Arc::clone(&app))),
            ];
            if let Some(topic) = &app.config.audit.kafka {
                tasks.push(tokio::spawn(AuditExport::new(topic, app.store.clone())?.run()));
            }
            let served = serve::serve(Arc::clone(&app), bound, stop()).await;
            for task in tasks {
                task.abort();
            }
            // Reads do not wait for their entries; the end does.
            if !app.audit.flush().await {
                tracing::error!("the audit log ended before the server");
            }
            served?;
        }
        Command::Init { config, organisation } => {
            let (store, keys) = open(&Config::read(&config.config)?).await?;
            let made = setup::organisation(&store, &keys, &clock, &organisation).await?;
            say(&made.key.reveal());
        }
        Command::Audit(AuditCommand::Verify(args)) => {
            let (store, _) = open(&Config::read(&args.config)?).await?;
            let (good, faults) = audit::verify(&store).await?;
            for (organisation, fault) in &faults {
                say(&format!("organisation {organisation}: {fault}"));
            }
            say(&format!("{good} entries hold"));
            return Ok(ExitCode::from(u8::from(!faults.is_empty())));
        }
        Command::Key(KeyCommand::Generate) => say(&MasterKey::generate()),
        Command::Key(KeyCommand::RotateMaster(args)) => {
            let (store, keys) = open(&Config::read(&args.config)?).await?;
            let wrapped = keys.rewrap().await?;
            audit::note_everywhere(&store, &clock, "key rotate-master", "data_keys").await?;
            say(&format!("{wrapped} data keys were wrapped anew"));
        }
        Command::Key(KeyCommand::RotateData(args)) => {
            let (store, keys) = open(&Config::read(&args.config)?).await?;
            let made = keys.rotate_data(None).await?;
            audit::note_everywhere(&store, &clock, "key rotate-data", "data_keys").await?;
            say(&format!("{made} data keys were made"));
        }
        Command::Backup { config, to } => {
            let (store, _) = open(&Config::read(&config.config)?).await?;
            audit::note_everywhere(&store, &clock, "backup", "organisation").await?;
            say(&backup::backup(&store, &to, clock.now_ms()).await?.display().to_string());
        }
        Command::Restore { config, from, at } => return restore(&config, &from, at, &clock).await,
        Command::Vacuum(args) => {
            let (store, _) = open(&Config::read(&args.config)?).await?;
            if !store.vacuum().await? {
                say("a reader held it up; try again");
                return Ok(ExitCode::from(1));
            }
        }
        Command::Openapi => say(&serde_json::to_string_pretty(&endpoints::document()).unwrap_or_default()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn restore(
    args: &ConfigArgs,
    from: &Path,
    at_ms: Option<i64>,
    clock: &Clock,
) -> Result<ExitCode, StartError> {
    let config = Config::read(&args.config)?;
    let from = backup::choose(from, at_ms)?;
    let url = config.database.url.reveal()?;
    let (store, restored) = backup::restore(&url, config.database.connections, &from, clock).await?;
    say(&format!("{} rows were restored from {}", restored.rows, from.display()));
    let (good, faults) = audit::verify(&store).await?;
    for (organisation, fault) in &faults {
        say(&format!("organisation {organisation}: {fault}"));
    }
    say(&format!("{good} entries of the audit log hold"));
    // Better now than at the first report.
    let unreadable = KeyRing::new(store, config.master_key.keys()?, clock.clone()).unreadable().await?;
    for (organisation, error) in &unreadable {
        say(&format!("organisation {organisation}: {error}"));
    }
    Ok(ExitCode::from(u8::from(!(faults.is_empty() && unreadable.is_empty()))))
}

/// A line of results.
fn say(line: &str) {
    // Nobody reads them any more: nothing is left to do.
    let _ = writeln!(std::io::stdout(), "{line}");
}

async fn stop() {
    let interrupted = tokio::signal::ctrl_c();
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupted => {}
        () = terminated => {}
    }
}
