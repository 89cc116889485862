//! The user's bucket: one object store for data files, ledger, Iceberg and Delta.
//!
//! 1. The destination's scheme chooses the store; its options are checked against a closed list.
//! 2. Credentials come from where each cloud's own tools look: environment, profile, instance.
//!    No option is a secret.
//! 3. Readers are told places as they know them: `az://` becomes `abfss://container@account.dfs...`, which
//!    is what Iceberg's own file systems take.
//! 4. [`TableStore::probe_conditional_put`] proves that the store honours put-if-absent. Everything that
//!    Siltstone promises rests on it, so a store that ignores it is refused at the start.
//!
//! Absent on purpose: any knowledge of tables beyond where they lie.

mod aws_profile;
mod options;
mod probe;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, StaticCredentialProvider,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider, S3ConditionalPut},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    path::Path,
};
use siltstone_datafile::Host;
use siltstone_protocol::ErrorCode;
use siltstone_spec::{Destination, SourceFiles};
use url::Url;

use self::options::Options;
use crate::{
    Ledger,
    error::{LakeError, StoreFault},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One request, with its body: a part of an upload must fit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const RETRIES_MAX: usize = 5;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// What Iceberg's and Hadoop's file systems put behind the account.
const AZURE_HOST: &str = "dfs.core.windows.net";
/// The account of the storage emulator.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";

/// A bucket and the prefix under which the tables lie.
#[derive(Clone)]
pub struct TableStore {
    /// Rooted at the bucket (at `/` for `file://`).
    pub store: Arc<dyn ObjectStore>,
    /// The destination's prefix.
    pub root: Path,
    /// The destination, without options.
    pub url: Url,
    /// The same place as readers name it, without a slash at the end.
    readers_url: String,
    /// What it was opened from, when it was.
    destination: Option<Arc<Destination>>,
    readers_properties: BTreeMap<&'static str, String>,
    /// Gives what is put there its names.
    pub host: Host,
    /// Versions from one checkpoint of a ledger to the next; `None`: as usual.
    pub checkpoint_every: Option<u64>,
}

impl TableStore {
    /// A store whose readers name the place as the destination does.
    pub fn new(store: Arc<dyn ObjectStore>, root: Path, url: Url) -> Self {
        let readers_url = url.as_str().trim_end_matches('/').to_owned();
        Self {
            store,
            root,
            url,
            readers_url,
            readers_properties: BTreeMap::new(),
            destination: None,
            host: Host::default(),
            checkpoint_every: None,
        }
    }

    /// The same place with other credentials. No request is made.
    ///
    /// # Errors
    /// `Invalid`: the destination is not `s3://`.
    pub fn with_credentials(&self, credentials: AwsCredentialProvider) -> Result<Self, LakeError> {
        let subject = format!("destination {}", self.url);
        let (Some(destination), Some(bucket), "s3") =
            (&self.destination, self.url.host_str(), self.url.scheme())
        else {
            return Err(LakeError::invalid(subject, "a catalog's credentials are taken for s3:// only")
                .coded(ErrorCode::StoreSettingRefused));
        };
        let options = Options::new(&subject, self.url.scheme(), &destination.options)?;
        let store = open_s3(&subject, bucket, &options, Some(credentials), &mut BTreeMap::new())?;
        Ok(Self { store, ..self.clone() })
    }

    /// Where a table lies, in the store. `table_location` is `TableSpec::location()`.
    pub fn table_location(&self, table_location: &str) -> Path {
        self.root.parts().chain(Path::from(table_location).parts()).collect()
    }

    /// Where a table lies, for readers: `s3://bucket/prefix/shop/orders`, `file:///abs/shop/orders`,
    /// `abfss://container@account.dfs.core.windows.net/prefix/shop/orders`.
    pub fn table_url(&self, table_location: &str) -> String {
        format!("{}/{}", self.readers_url, table_location.trim_matches('/'))
    }

    /// Where the store is, in Iceberg's own property names (`s3.endpoint`): what clients need beside credentials,
    /// of which none is among them.
    pub fn readers_properties(&self) -> &BTreeMap<&'static str, String> {
        &self.readers_properties
    }

    /// The ledger of the table at `location`.
    pub fn ledger(&self, location: Path) -> Ledger {
        match self.checkpoint_every {
            Some(versions) => Ledger::with_checkpoint_every(Arc::clone(&self.store), location, versions),
            None => Ledger::new(Arc::clone(&self.store), location),
        }
    }

    /// True when the store is on this machine's disk.
    pub fn is_local(&self) -> bool {
        self.url.scheme() == "file"
    }

    /// Proves that the store refuses to create an object that exists. Touches only an object of its
    /// own, under `<root>/_siltstone_probe/`, and deletes it.
    ///
    /// # Errors
    /// `Invalid`: the store ignores conditional puts, or refuses the credentials or the bucket.
    /// `Unavailable`: it does not answer.
    pub async fn probe_conditional_put(&self) -> Result<(), LakeError> {
        probe::conditional_put(self).await
    }
}

impl fmt::Debug for TableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableStore").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// Opens the destination. No request is made, except that a `file://` directory is created.
///
/// # Errors
/// `Invalid`: an unknown scheme or option, a missing bucket, a directory that cannot be made.
pub fn open(destination: &Destination) -> Result<TableStore, LakeError> {
    if destination.url.starts_with("file://") {
        let subject = format!("destination {}", destination.url);
        let url = Url::parse(&destination.url)
            .map_err(|_| LakeError::invalid(&subject, "not a URL").coded(ErrorCode::StoreSettingRefused))?;
        Options::new(&subject, url.scheme(), &destination.options)?;
        return open_local(&subject, url);
    }
    open_remote(format!("destination {}", destination.url), destination)
}

/// Opens the bucket of files that are to be read, as a destination is opened. No request is made, and nothing is
/// created.
///
/// # Errors
/// As [`open`].
pub fn open_source(files: &SourceFiles) -> Result<Arc<dyn ObjectStore>, LakeError> {
    if files.bucket.url.starts_with("file://") {
        return Ok(Arc::new(LocalFileSystem::new()));
    }
    Ok(open_remote(format!("source {}", files.bucket.url), &files.bucket)?.store)
}

fn open_remote(subject: String, destination: &Destination) -> Result<TableStore, LakeError> {
    let url = Url::parse(&destination.url)
        .map_err(|_| LakeError::invalid(&subject, "not a URL").coded(ErrorCode::StoreSettingRefused))?;
    let options = Options::new(&subject, url.scheme(), &destination.options)?;
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
    let bucket = bucket
        .ok_or_else(|| LakeError::invalid(&subject, "names no bucket").coded(ErrorCode::StoreSettingRefused))?
        .to_owned();
    let same = || url.as_str().trim_end_matches('/').to_owned();
    let mut readers_properties = BTreeMap::new();
    let (store, readers_url) = match url.scheme() {
        "s3" => (open_s3(&subject, &bucket, &options, None, &mut readers_properties)?, same()),
        "gs" => (open_gcs(&subject, &bucket, &options)?, same()),
        _ => {
            let (store, account) = open_azure(&subject, &bucket, &options)?;
            let path = url.path().trim_end_matches('/');
            (store, format!("abfss://{bucket}@{account}.{AZURE_HOST}{path}"))
        }
    };
    let root = Path::from_url_path(url.path()).map_err(|_| {
        LakeError::invalid(&subject, "the prefix is not a valid object path")
            .coded(ErrorCode::StoreSettingRefused)
    })?;
    let destination = Some(Arc::new(destination.clone()));
    Ok(TableStore { readers_url, readers_properties, destination, ..TableStore::new(store, root, url) })
}

fn open_local(subject: &str, url: Url) -> Result<TableStore, LakeError> {
    let directory = url.to_file_path().map_err(|()| {
        LakeError::invalid(subject, "not an absolute path (write file:///absolute/path)")
            .coded(ErrorCode::StoreSettingRefused)
    })?;
    std::fs::create_dir_all(&directory).map_err(|error| {
        LakeError::invalid(subject, format_args!("the directory cannot be made: {}", error.kind()))
            .coded(ErrorCode::StoreSettingRefused)
    })?;
    let root = Path::from_absolute_path(&directory).map_err(|_| {
        LakeError::invalid(subject, "the directory is not a valid object path")
            .coded(ErrorCode::StoreSettingRefused)
    })?;
    // Atomic (exclusive link), but written back by the system in its own time: a power cut may lose the
    // last seconds. Good for a machine's own tables, no replacement for a bucket.
    Ok(TableStore::new(Arc::new(LocalFileSystem::new()), root, url))
}

/// The region to sign with, and AWS credentials from where AWS's own tools look.
pub(crate) fn aws_credentials(
    subject: &str,
    region: Option<&str>,
) -> Result<(String, AwsCredentialProvider), LakeError> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name("none").with_retry(retry());
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region).ok_or_else(|| {
        LakeError::invalid(
            subject,
            "sigv4 needs a region; set sigv4.region, or AWS_REGION in the environment",
        )
        .coded(ErrorCode::CatalogSettingRefused)
    })?;
    if let Some(provider) = aws_profile::provider(subject, None, &builder)? {
        builder = builder.with_credentials(provider);
    }
    let store =
        builder.with_client_options(client_options()).build().map_err(|error| refused(subject, &error))?;
    Ok((region, store.credentials().clone()))
}

fn open_s3(
    subject: &str,
    bucket: &str,
    options: &Options,
    credentials: Option<AwsCredentialProvider>,
    readers: &mut BTreeMap<&'static str, String>,
) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retry());
    let mut client = client_options();
    if let Some(region) = options.text("region") {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = options.text("endpoint") {
        builder = builder.with_endpoint(endpoint);
        if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none() {
            // Stores behind an endpoint of their own seldom have regions, but the signature names one.
            builder = builder.with_region("us-east-1");
        }
    }
    if let Some(path_style) = options.flag("path_style")? {
        builder = builder.with_virtual_hosted_style_request(!path_style);
    }
    *readers = s3_properties(&builder);
    if let Some(allow) = options.flag("allow_http")? {
        client = client.with_allow_http(allow);
    }
    if let Some(credentials) = credentials {
        builder = builder.with_credentials(credentials);
    } else if options.flag("skip_signature")? == Some(true) {
        builder = builder.with_skip_signature(true);
    } else if let Some(provider) = aws_profile::provider(subject, options.text("profile"), &builder)? {
        builder = builder.with_credentials(provider);
    }
    let store = builder.with_client_options(client).build();
    store.map(|store| Arc::new(store) as Arc<dyn ObjectStore>).map_err(|error| refused(subject, &error))
}

/// Endpoint, region and style of addressing, as far as they are set.
fn s3_properties(builder: &AmazonS3Builder) -> BTreeMap<&'static str, String> {
    let mut properties = BTreeMap::new();
    if let Some(region) = builder.get_config_value(&AmazonS3ConfigKey::Region) {
        properties.insert("client.region", region.clone());
        properties.insert("s3.region", region);
    }
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    let bare = |text: &String| {
        Url::parse(text).is_ok_and(|url| url.username().is_empty() && url.password().is_none())
    };
    if let Some(endpoint) = endpoint.filter(bare) {
        let virtual_hosted = builder.get_config_value(&AmazonS3ConfigKey::VirtualHostedStyleRequest);
        let path_style = virtual_hosted.as_deref() != Some("true");
        properties.insert("s3.endpoint", endpoint);
        properties.insert("s3.path-style-access", path_style.to_string());
    }
    properties
}

fn open_gcs(subject: &str, bucket: &str, options: &Options) -> Result<Arc<dyn ObjectStore>, LakeError> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry());
    let mut client = client_options();
    if let Some(endpoint) = options.text("endpoint") {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
    }
    if let Some(path) = options.text("credentials_file") {
        builder = builder.with_application_credentials(path);
    }
    if let Some(allow) = options.flag("allow_http")? {
        client = client.with_allow_http(allow);
    }
    if options.flag("skip_signature")? == Some(true) {
        // The flag alone is heeded by reads only: puts and deletes would look for a token all the same.
        let nobody = GcpCredential { bearer: String::new() };
        builder = builder
            .with_skip_signature(true)
            .with_credentials(Arc::new(StaticCredentialProvider::new(nobody)));
    }
    let store = builder.with_client_options(client).build();
    store.map(|store| Arc::new(store) as Arc<dyn ObjectStore>).map_err(|error| refused(subject, &error))
}

/// The store, and the account it belongs to.
fn open_azure(
    subject: &str,
    bucket: &str,
    options: &Options,
) -> Result<(Arc<dyn ObjectStore>, String), LakeError> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket).with_retry(retry());
    let mut client = client_options();
    if let Some(account) = options.text("account") {
        builder = builder.with_account(account);
    }
    let emulator = options.flag("use_emulator")?;
    if let Some(endpoint) = options.text("endpoint") {
        if emulator == Some(true) {
            let problem = "option endpoint has no effect beside use_emulator; the emulator's address is taken \
                           from the environment, AZURITE_BLOB_STORAGE_URL";
            return Err(LakeError::invalid(subject, problem).coded(ErrorCode::StoreSettingRefused));
        }
        builder = builder.with_endpoint(endpoint.to_owned());
    }
    if let Some(emulator) = emulator {
        builder = builder.with_use_emulator(emulator);
    }
    if let Some(allow) = options.flag("allow_http")? {
        client = client.with_allow_http(allow);
    }
    let builder = builder.with_client_options(client);
    let emulated = builder.get_config_value(&AzureConfigKey::UseEmulator).as_deref() == Some("true");
    let account = builder.get_config_value(&AzureConfigKey::AccountName);
    let account = account.or_else(|| emulated.then(|| EMULATOR_ACCOUNT.to_owned()));
    let account = account.ok_or_else(|| {
        let problem = "names no storage account; set the option account, or AZURE_STORAGE_ACCOUNT_NAME";
        LakeError::invalid(subject, problem).coded(ErrorCode::StoreSettingRefused)
    })?;
    let store = builder.build().map_err(|error| refused(subject, &error))?;
    Ok((Arc::new(store), account))
}

/// A builder's refusal. Its text may quote values of the environment, so only a code is kept.
fn refused(subject: &str, error: &object_store::Error) -> LakeError {
    let fault = StoreFault::of(error);
    LakeError::invalid(
        subject,
        format_args!(
            "the store cannot be set up ({fault}); look at the options and at the credentials in the \
             environment"
        ),
    )
    .coded(ErrorCode::StoreSettingRefused)
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(5),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT }
}

fn client_options() -> ClientOptions {
    ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT)
}

#[cfg(test)]
mod tests;
