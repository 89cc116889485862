//! AWS shared credentials: the profile files, which `object_store` does not read.
//!
//! Order, as AWS tools have it: keys in the environment; web identity; the profile; then the container's
//! and the instance's role (those two are `object_store`'s own). The profile's name is the option
//! `profile` (which goes before all of these), else `AWS_PROFILE`, else `default`. Read are
//! `aws_access_key_id`, `aws_secret_access_key` and `aws_session_token` from
//! `AWS_SHARED_CREDENTIALS_FILE` (`~/.aws/credentials`) and then `AWS_CONFIG_FILE` (`~/.aws/config`).
//! Files are read again when their keys are older than a minute, because tools renew them under a
//! running process.
//!
//! Absent on purpose: `credential_process`, single sign-on and assumed roles of a profile. Export keys
//! from those into the environment or the credentials file.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use object_store::{
    CredentialProvider,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider},
};
use siltstone_protocol::ErrorCode;

use crate::error::LakeError;

const KEEP: Duration = Duration::from_secs(60);
/// A credentials file is small; anything larger is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The provider for a profile, if that is where credentials come from.
pub(super) fn provider(
    subject: &str,
    profile: Option<&str>,
    builder: &AmazonS3Builder,
) -> Result<Option<AwsCredentialProvider>, LakeError> {
    let named = profile.map(str::to_owned).or_else(|| std::env::var("AWS_PROFILE").ok());
    let elsewhere = [AmazonS3ConfigKey::AccessKeyId, AmazonS3ConfigKey::WebIdentityTokenFile]
        .iter()
        .any(|key| builder.get_config_value(key).is_some());
    // Only the option is stronger than the environment.
    if elsewhere && profile.is_none() {
        return Ok(None);
    }
    let credentials = ProfileCredentials::new(
        named.clone().unwrap_or_else(|| "default".to_owned()),
        files_of_environment(),
    );
    match (credentials.read(), named) {
        (Some(_), _) => Ok(Some(Arc::new(credentials))),
        (None, None) => Ok(None),
        (None, Some(name)) => Err(LakeError::invalid(
            subject,
            format_args!("AWS profile {name} has no access keys in the shared credentials or config file"),
        )
        .coded(ErrorCode::StoreSettingRefused)),
    }
}

fn files_of_environment() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE")).map(PathBuf::from);
    let file = |variable: &str, name: &str| {
        std::env::var_os(variable)
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join(".aws").join(name)))
    };
    [file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), file("AWS_CONFIG_FILE", "config")]
        .into_iter()
        .flatten()
        .collect()
}

/// The keys of one profile, held for a minute.
struct ProfileCredentials {
    profile: String,
    files: Vec<PathBuf>,
    held: Mutex<Option<(Instant, Arc<AwsCredential>)>>,
}

impl ProfileCredentials {
    fn new(profile: String, files: Vec<PathBuf>) -> Self {
        Self { profile, files, held: Mutex::new(None) }
    }

    fn read(&self) -> Option<AwsCredential> {
        self.files.iter().find_map(|file| {
            let size = std::fs::metadata(file).ok()?.len();
            let text = (size <= FILE_BYTES_MAX).then(|| std::fs::read_to_string(file).ok())??;
            parse(&text, &self.profile)
        })
    }
}

#[async_trait]
impl CredentialProvider for ProfileCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read_at, credential)) = held.as_ref()
            && read_at.elapsed() < KEEP
        {
            return Ok(Arc::clone(credential));
        }
        let credential = Arc::new(self.read().ok_or_else(|| object_store::Error::Unauthenticated {
            path: self.profile.clone(),
            source: "the AWS profile has no access keys".into(),
        })?);
        *held = Some((Instant::now(), Arc::clone(&credential)));
        Ok(credential)
    }
}

impl fmt::Debug for ProfileCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileCredentials").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// The keys of `profile` in an AWS configuration file: sections `[name]` or `[profile name]`.
fn parse(text: &str, profile: &str) -> Option<AwsCredential> {
    let (mut inside, mut key_id, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let name = section.0.trim();
            inside = name.strip_prefix("profile ").map_or(name, str::trim) == profile;
        } else if inside && let Some((name, value)) = line.split_once('=') {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "aws_access_key_id" => key_id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(AwsCredential { key_id: key_id?, secret_key: secret?, token })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\n[default]\naws_access_key_id = A\naws_secret_access_key=s=1\n\n[profile lake]\n\
                        aws_access_key_id=B\naws_secret_access_key = t\naws_session_token = u\n[half]\n\
                        aws_access_key_id=C\n";

    #[test]
    fn sections_and_keys_are_read() {
        let default = parse(FILE, "default").unwrap();
        assert_eq!((default.key_id.as_str(), default.secret_key.as_str()), ("A", "s=1"));
        let lake = parse(FILE, "lake").unwrap();
        assert_eq!((lake.key_id.as_str(), lake.token.as_deref()), ("B", Some("u")));
        assert!(parse(FILE, "half").is_none() && parse(FILE, "other").is_none());
    }

    #[test]
    fn debug_shows_no_key() {
        let provider = ProfileCredentials::new("lake".into(), Vec::new());
        assert_eq!(format!("{provider:?}"), "ProfileCredentials { profile: \"lake\", .. }");
    }
}
