//! Requests to the control plane's API, and where the credential for them is kept.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use siltstone_protocol::ErrorCode;
use siltstone_worker::control::{WireSettingsError, client_builder};
use url::Url;

use crate::output::{Failure, Invalid};

const TIMEOUT: Duration = Duration::from_secs(20);
/// One answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Parts of one list.
const PARTS_MAX: usize = 10_000;
const CURSOR_CHARS_MAX: usize = 512;

/// Where the control plane is, and the key to it. Has no `Debug`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    pub url: String,
    pub api_key: String,
    /// PEM file of trusted authorities, instead of the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl Account {
    /// What `login` kept.
    pub fn load() -> anyhow::Result<Self> {
        let path = path()?;
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Invalid("not logged in: run `siltstone login --url URL` first".to_owned()).into());
            }
            Err(error) => anyhow::bail!("{} cannot be read: {}", path.display(), error.kind()),
        };
        // The reader's own message may quote the key.
        let broken = |_| Invalid(format!("{} is broken: run siltstone login again", path.display()));
        Ok(serde_json::from_slice(&text).map_err(broken)?)
    }

    /// Keeps it in a file that only its owner may read. Returns the path.
    pub fn save(&self) -> anyhow::Result<PathBuf> {
        let path = path()?;
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let fresh = folder.join(format!(".control-plane.{}.json", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        options.create_new(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)?;
        Ok(path)
    }
}

/// `control-plane.json` in the user's folder of settings.
fn path() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")));
    let folder =
        folder.ok_or_else(|| Invalid("set HOME or XDG_CONFIG_HOME to an absolute path".to_owned()))?;
    Ok(folder.join("siltstone").join("control-plane.json"))
}

fn unavailable(what: String) -> anyhow::Error {
    Failure::outside(ErrorCode::ControlPlaneUnavailable, format!("the control plane {what}")).into()
}

/// Reads from the API.
pub struct Client {
    client: reqwest::Client,
    base: Url,
}

#[derive(Deserialize)]
struct Part<T> {
    items: Vec<T>,
    #[serde(default)]
    next_cursor: Option<String>,
}

impl Client {
    pub fn new(account: &Account) -> anyhow::Result<Self> {
        let wrong = || Invalid("the URL must be https, or http to this machine itself".to_owned());
        let mut base = Url::parse(&account.url).map_err(|_| wrong())?;
        if !siltstone_spec::is_private(&account.url) {
            return Err(wrong().into());
        }
        base.set_path(&format!("{}/api/v1/", base.path().trim_end_matches('/')));
        let key = header::HeaderValue::from_str(&format!("Bearer {}", account.api_key));
        let mut key =
            key.map_err(|_| Invalid("the key holds characters that HTTP does not allow".to_owned()))?;
        key.set_sensitive(true);
        let headers = header::HeaderMap::from_iter([(header::AUTHORIZATION, key)]);
        let refused =
            |error: WireSettingsError| Failure::invalid(ErrorCode::ControlPlaneRefused, error.to_string());
        let builder = client_builder(&base, account.ca_file.as_deref()).map_err(refused)?;
        let client =
            builder.default_headers(headers).timeout(TIMEOUT).build().map_err(|_| {
                Failure::invalid(ErrorCode::ControlPlaneRefused, "the TLS settings are refused")
            })?;
        Ok(Self { client, base })
    }

    /// One answer. `path` is of segments, or one path.
    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<T> {
        let url = self.base.join(path)?;
        let at = url.path().to_owned();
        // No text of the transport's errors, which name the URL with its query.
        let failed = |error: reqwest::Error| match () {
            () if error.is_timeout() => unavailable(format!("did not answer in time ({at})")),
            () if error.is_connect() => {
                let host = self.base.host_str().unwrap_or_default();
                unavailable(format!(
                    "at {host} cannot be reached; check the address of the login, and ca_file"
                ))
            }
            () => unavailable(format!("broke off its answer ({at})")),
        };
        let mut answer = self.client.get(url).query(query).send().await.map_err(failed)?;
        match answer.status() {
            status if status.is_success() => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                let code = status.as_u16();
                let message = format!(
                    "the control plane refuses the key at {at} (status {code}); log in with one that may read it"
                );
                return Err(Failure::invalid(ErrorCode::ControlPlaneRefused, message).into());
            }
            status => return Err(unavailable(format!("answered {at} with status {}", status.as_u16()))),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let said = format!("gave an answer to {at} that is larger than {ANSWER_BYTES_MAX} bytes");
                return Err(unavailable(said));
            }
            body.extend_from_slice(&chunk);
        }
        let broken = |_| unavailable(format!("gave an answer to {at} that is not what it should be"));
        serde_json::from_slice(&body).map_err(broken)
    }

    /// A whole list, part by part.
    pub async fn list<T: DeserializeOwned>(&self, path: &[&str]) -> anyhow::Result<Vec<T>> {
        let (path, mut all, mut cursor) = (path.join("/"), Vec::new(), None::<String>);
        for _ in 0..PARTS_MAX {
            let query: Vec<_> = cursor.iter().map(|cursor| ("cursor", cursor.as_str())).collect();
            let part: Part<T> = self.get(&path, &query).await?;
            all.extend(part.items);
            match part.next_cursor {
                Some(next) if next.len() <= CURSOR_CHARS_MAX => cursor = Some(next),
                Some(_) => {
                    return Err(unavailable(format!(
                        "gave an answer to {path} that is not what it should be"
                    )));
                }
                None => return Ok(all),
            }
        }
        Err(unavailable(format!("gave a list {path} that does not end")))
    }
}
