//! The binary `siltstone-control-plane`.

use std::{io::Write, path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Parser, Subcommand};
use siltstone_control_plane::{
    app::{App, StartError, open},
    audit::{self, AuditExport},
    clock::Clock,
    config::Config,
    crypto::MasterKey,
    endpoints, housekeeping, serve, setup,
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
    /// Master keys.
    #[command(subcommand)]
    Key(KeyCommand),
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
            let order = tokio::spawn(housekeeping::keep(Arc::clone(&app)));
            let export = match &app.config.audit.kafka {
                Some(topic) => Some(tokio::spawn(AuditExport::new(topic, app.store.clone())?.run())),
                None => None,
            };
            let served = serve::serve(Arc::clone(&app), bound, stop()).await;
            order.abort();
            if let Some(export) = export {
                export.abort();
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
            let (_, keys) = open(&Config::read(&args.config)?).await?;
            say(&format!("{} data keys were wrapped anew", keys.rewrap().await?));
        }
        Command::Openapi => say(&serde_json::to_string_pretty(&endpoints::document()).unwrap_or_default()),
    }
    Ok(ExitCode::SUCCESS)
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
