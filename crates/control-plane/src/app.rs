//! Everything that a request can reach.

use std::sync::Arc;

use crate::{
    audit::AuditLog,
    auth::{Authenticator, Cookies, Sessions, rate::Buckets},
    backup::BackupError,
    clock::Clock,
    commands::CommandHub,
    config::{Config, ConfigError, MasterKeyError, public_url},
    id,
    inventory::ReportWriter,
    oidc::{self, SignOn},
    presence::Memory,
    store::{Store, StoreError},
    tenants::KeyRing,
};

/// The server's state.
#[derive(Debug)]
pub struct App {
    pub config: Config,
    pub store: Store,
    pub clock: Clock,
    pub keys: Arc<KeyRing>,
    pub auth: Authenticator,
    pub sign_on: SignOn,
    pub audit: AuditLog,
    pub reports: ReportWriter,
    pub memory: Memory,
    pub commands: CommandHub,
    pub rates: Buckets,
}

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("listen on {address}: {source}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("tls: {what}")]
    Tls { what: &'static str },
}

/// Opens the database with the keys of a config.
///
/// # Errors
/// The config's, the database's.
pub async fn open(config: &Config) -> Result<(Store, Arc<KeyRing>), StartError> {
    open_at(config, Clock::system()).await
}

async fn open_at(config: &Config, clock: Clock) -> Result<(Store, Arc<KeyRing>), StartError> {
    let masters = config.master_key.keys()?;
    let store = Store::open(&config.database.url.reveal()?, config.database.connections).await?;
    let keys = Arc::new(KeyRing::new(store.clone(), masters, clock));
    Ok((store, keys))
}

impl App {
    /// Opens everything.
    ///
    /// # Errors
    /// As [`open`].
    pub async fn start(config: Config, clock: Clock) -> Result<Arc<Self>, StartError> {
        let (store, keys) = open_at(&config, clock.clone()).await?;
        let (audit, _) = AuditLog::start(store.clone(), clock.clone());
        let rate = f64::from(config.limits.requests_per_second.max(1));
        let public = config.public_url.as_deref().map(public_url).transpose()?;
        let cookies = Cookies::new(public.as_ref());
        let sessions = Sessions::new(store.clone(), clock.clone(), oidc::idle_ms(&config));
        let failures = config.limits.failures_per_minute;
        Ok(Arc::new(Self {
            auth: Authenticator::new(store.clone(), clock.clone(), failures, cookies, sessions),
            sign_on: SignOn::new(&config, store.clone(), clock.clone(), Arc::clone(&keys))?,
            reports: ReportWriter::start(&store, &keys, &clock),
            commands: CommandHub::new(store.clone(), clock.clone()),
            memory: Memory::default(),
            rates: Buckets::new(rate, 2.0 * rate),
            audit,
            keys,
            store,
            clock,
            config,
        }))
    }

    /// A fresh identity: ULID text.
    pub fn fresh_id(&self) -> String {
        id::fresh(self.clock.now_ms()).to_string()
    }
}
