//! Backups that the server makes by itself.

use std::{fs, sync::Arc, time::Duration};

use super::{BackupError, backup, list};
use crate::{app::App, config::BackupConfig, store::Store};

/// It looks whether one is due this often; one that failed is tried again so soon.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Makes backups when they are due, and deletes the oldest, for as long as the server runs. Returns at once when the
/// config asks for none.
pub async fn keep(app: Arc<App>) {
    let Some(config) = &app.config.backup else { return };
    loop {
        if let Err(error) = round(&app.store, config, app.clock.now_ms()).await {
            tracing::error!(%error, "no backup was made; it is tried again in a minute");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Makes a backup if the newest is old enough, and deletes what is beyond the number that is kept.
///
/// # Errors
/// As [`backup`]; then none is deleted.
async fn round(store: &Store, config: &BackupConfig, now_ms: i64) -> Result<(), BackupError> {
    let directory = &config.directory;
    let newest = if directory.exists() { list(directory)?.pop() } else { None };
    let every_ms = i64::from(config.every_minutes) * 60_000;
    // One from the future, of a clock that was wrong, does not count.
    let is_fresh = |at_ms: i64| (at_ms..at_ms.saturating_add(every_ms)).contains(&now_ms);
    if newest.is_some_and(|newest| is_fresh(newest.at_ms)) {
        return Ok(());
    }
    let path = backup(store, directory, now_ms).await?;
    tracing::info!(path = %path.display(), "made a backup");
    let all = list(directory)?;
    for old in all.iter().rev().skip(config.keep) {
        fs::remove_dir_all(&old.path).map_err(|source| BackupError::Io { path: old.path.clone(), source })?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn backups_are_made_when_due_and_the_oldest_go() {
        let directory = tempfile::TempDir::new().unwrap();
        let url = format!("sqlite://{}", directory.path().join("db").display());
        let store = Store::open(&url, 2).await.unwrap();
        let directory = directory.path().join("backups");
        let config = BackupConfig { directory: directory.clone(), every_minutes: 1, keep: 2 };
        for now_ms in [60_000, 60_001, 119_999, 120_000, 180_500, 200_000] {
            round(&store, &config, now_ms).await.unwrap();
        }
        let times: Vec<_> = list(&directory).unwrap().into_iter().map(|one| one.at_ms).collect();
        assert_eq!(times, [120_000, 180_500]);
    }
}
