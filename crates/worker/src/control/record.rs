//! A copy of everything that is sent to the control plane, for people to read.
//!
//! Each message is its moment, method, path, headers (without the key) and its JSON, indented. The copy is written
//! before the message is sent. When the file has grown large it becomes `FILE.1`, in the place of the one before.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use reqwest::header::HeaderMap;
use siltstone_datafile::Host;

/// A recording is at most this long, bytes, and one message longer at the most; as much again lies in `FILE.1`.
const RECORDING_BYTES_MAX: u64 = 64 << 20;

/// Writes the copy. Cheap to share.
#[derive(Debug, Clone)]
pub struct Recorder {
    inner: Arc<Mutex<Recording>>,
    host: Host,
}

#[derive(Debug)]
struct Recording {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Recorder {
    /// Appends to this file, which only its owner may read when it is made here.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_bound(path, RECORDING_BYTES_MAX)
    }

    fn with_bound(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = open(path)?;
        let bytes = file.metadata()?.len();
        let recording = Recording { path: path.to_owned(), file, bytes, bytes_max };
        Ok(Self { inner: Arc::new(Mutex::new(recording)), host: Host::default() })
    }

    /// Writes one message down. `headers` must not hold the key.
    pub(super) async fn record(
        &self,
        method: &str,
        path: &str,
        headers: &HeaderMap,
        body: bytes::Bytes,
    ) -> io::Result<()> {
        let at = chrono::DateTime::from_timestamp_millis(self.host.now_ms()).unwrap_or_default();
        let mut text = format!("# {}\n{method} {path}\n", at.format("%Y-%m-%dT%H:%M:%S%.3fZ"));
        for (name, value) in headers {
            text += &format!("{name}: {}\n", value.to_str().unwrap_or("?"));
        }
        text.push('\n');
        let inner = self.inner.clone();
        let written = tokio::task::spawn_blocking(move || {
            let json: serde_json::Value = serde_json::from_slice(&body).map_err(io::Error::from)?;
            text += &serde_json::to_string_pretty(&json).map_err(io::Error::from)?;
            text += "\n\n";
            inner.lock().unwrap_or_else(PoisonError::into_inner).write(text.as_bytes())
        });
        written.await.map_err(|_| io::Error::other("the writer died"))?
    }
}

impl Recording {
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.bytes >= self.bytes_max {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, old)?;
            self.file = open(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(text)?;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn recordings_are_bounded_and_readable() {
        let dir = std::env::temp_dir().join(format!("siltstone-record-{}", Host::default().ulid()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("sent.txt");
        let recorder = Recorder::with_bound(&path, 100).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        for n in 0..4 {
            let body = bytes::Bytes::from(format!("{{\"n\":{n}}}"));
            recorder.record("POST", "/worker/v1/report", &headers, body).await.unwrap();
        }
        let (new, old) = (std::fs::read_to_string(&path), std::fs::read_to_string(dir.join("sent.txt.1")));
        let (new, old) = (new.unwrap(), old.unwrap());
        let message = "POST /worker/v1/report\ncontent-type: application/json\n\n{\n  \"n\": 3\n}\n\n";
        assert!(new.ends_with(message) && old.contains("\"n\": 0"), "{old}{new}");
        assert!(new.len() + old.len() < 600);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
