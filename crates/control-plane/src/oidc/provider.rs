//! One provider: its discovery document and keys, kept for a while; exchanging a code; checking an ID token.

use std::{fmt, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use openidconnect::{
    AuthType, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, IssuerUrl, LogoutRequest, Nonce,
    OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, PostLogoutRedirectUrl,
    ProviderMetadataWithLogout, RedirectUrl, Scope, SignatureVerificationError, TokenResponse,
    core::{
        CoreAuthenticationFlow, CoreClient, CoreClientAuthMethod, CoreIdToken, CoreJwsSigningAlgorithm,
        CoreTokenResponse,
    },
    http::{self, header},
};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use url::Url;

use super::fetch::{self, FetchError};
use crate::{
    app::StartError,
    auth::session::BrowserSecret,
    clock::Clock,
    config::{ConfigError, OidcConfig},
    store::StoreError,
};

/// What a provider says of itself is asked for again after this.
const METADATA_MS: i64 = 3_600_000;
/// An unknown key is looked for this often at most.
const REFRESH_MS: i64 = 30_000;
/// Clocks may differ by so much.
const SKEW: TimeDelta = TimeDelta::seconds(60);

/// Signatures that count: none by a shared secret, and never `none`.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Nobody signed on. The texts say what to change, and nothing of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignOnError {
    #[error("there is no provider of this name; see GET /api/v1/sign-on")]
    UnknownProvider,
    #[error("no sign-on of this browser is under way, or it took too long, or was used already; begin again")]
    NoFlow,
    #[error("too many sign-ons; wait")]
    TooOften(u32),
    #[error("the provider of sign-on cannot be asked: {0}")]
    Unreachable(&'static str),
    #[error("the provider did not sign the person on; begin again")]
    ProviderRefused,
    #[error("the ID token does not hold: {0}; begin again, or check the provider in the config")]
    IdToken(&'static str),
    #[error("this account may not sign on here: {0}; ask an organisation admin")]
    NotAllowed(&'static str),
    #[error(
        "requests from this address are not allowed; ask an organisation admin for an entry in the allow-list"
    )]
    Address,
    #[error("the provider's organisation is not there; see `organisation` of the provider in the config")]
    Organisation,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for SignOnError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<FetchError> for SignOnError {
    fn from(error: FetchError) -> Self {
        Self::Unreachable(match error {
            FetchError::Unprotected => "an address of it is not https://",
            FetchError::NoAnswer => "it does not answer",
            FetchError::TooLarge => "its answer is too large",
        })
    }
}

/// Who the provider says that somebody is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    pub subject: String,
    pub claims: Map<String, Value>,
}

pub(super) struct Provider {
    pub config: OidcConfig,
    issuer: IssuerUrl,
    client_id: ClientId,
    client_secret: Option<ClientSecret>,
    callback: Option<RedirectUrl>,
    clock: Clock,
    http: reqwest::Client,
    /// And when it was fetched.
    metadata: Mutex<Option<(ProviderMetadataWithLogout, i64)>>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.config.name).finish_non_exhaustive()
    }
}

impl Provider {
    pub(super) fn new(config: &OidcConfig, callback: Option<Url>, clock: Clock) -> Result<Self, StartError> {
        let wrong = |what: &str| {
            StartError::Config(ConfigError::Value { what: format!("oidc {}: {what}", config.name) })
        };
        let issuer = IssuerUrl::new(config.issuer.clone()).map_err(|_| wrong("issuer: no address"))?;
        let secret = config.client_secret.as_ref().map(|secret| secret.reveal()).transpose()?;
        Ok(Self {
            issuer,
            client_id: ClientId::new(config.client_id.clone()),
            client_secret: secret.map(|secret| ClientSecret::new(secret.to_string())),
            callback: callback.map(RedirectUrl::from_url),
            clock,
            http: fetch::client().map_err(|_| wrong("TLS cannot be set up"))?,
            metadata: Mutex::default(),
            config: config.clone(),
        })
    }

    /// The provider's own word. `not_from`: not what was fetched at this time, unless that was just now.
    async fn metadata(
        &self,
        not_from: Option<i64>,
    ) -> Result<(ProviderMetadataWithLogout, i64), SignOnError> {
        let mut held = self.metadata.lock().await;
        let now_ms = self.clock.now_ms();
        if let Some((metadata, at_ms)) = held.as_ref() {
            let age_ms = now_ms.saturating_sub(*at_ms);
            let wanted = not_from != Some(*at_ms) || age_ms < REFRESH_MS;
            if wanted && age_ms < METADATA_MS {
                return Ok((metadata.clone(), *at_ms));
            }
        }
        let send = |request: HttpRequest| fetch::send(self.http.clone(), request);
        let found = ProviderMetadataWithLogout::discover_async(self.issuer.clone(), &send).await;
        let found = found.map_err(|error| match error {
            openidconnect::DiscoveryError::Request(error) => error.into(),
            _ => SignOnError::Unreachable(
                "its discovery document or keys cannot be read, or are another issuer's",
            ),
        })?;
        *held = Some((found.clone(), now_ms));
        Ok((found, now_ms))
    }

    fn client(&self, metadata: &ProviderMetadataWithLogout) -> Client {
        // By the standard, `client_secret_basic` is meant when nothing is said.
        let methods = metadata.token_endpoint_auth_methods_supported();
        let basic = methods.is_none_or(|all| all.contains(&CoreClientAuthMethod::ClientSecretBasic));
        let kind = if basic { AuthType::BasicAuth } else { AuthType::RequestBody };
        let client = CoreClient::from_provider_metadata(
            metadata.clone(),
            self.client_id.clone(),
            self.client_secret.clone(),
        );
        let client = client.set_auth_type(kind);
        match &self.callback {
            Some(callback) => client.set_redirect_uri(callback.clone()),
            None => client,
        }
    }

    /// Where the browser of a flow goes.
    pub(super) async fn authorize(&self, secret: &BrowserSecret) -> Result<Url, SignOnError> {
        let (metadata, _) = self.metadata(None).await?;
        let verifier = PkceCodeVerifier::new(secret.derived("verifier"));
        let client = self.client(&metadata);
        let (state, nonce) = (CsrfToken::new(secret.derived("state")), Nonce::new(secret.derived("nonce")));
        let request =
            client.authorize_url(CoreAuthenticationFlow::AuthorizationCode, move || state, move || nonce);
        let scopes = self.config.scopes.iter().cloned().map(Scope::new);
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let (url, _, _) = request.add_scopes(scopes).set_pkce_challenge(challenge).url();
        Ok(url)
    }

    /// Who came back with a code.
    pub(super) async fn exchange(&self, secret: &BrowserSecret, code: &str) -> Result<Person, SignOnError> {
        let (metadata, at_ms) = self.metadata(None).await?;
        let client = self.client(&metadata);
        let send = |request: HttpRequest| fetch::send(self.http.clone(), request);
        let request = client.exchange_code(AuthorizationCode::new(code.to_owned()));
        let request = request.map_err(|_| SignOnError::Unreachable("it names no token endpoint"))?;
        let verifier = PkceCodeVerifier::new(secret.derived("verifier"));
        let answer = request.set_pkce_verifier(verifier).request_async(&send).await;
        let tokens = answer.map_err(|error| match error {
            openidconnect::RequestTokenError::Request(error) => error.into(),
            _ => SignOnError::ProviderRefused,
        })?;
        let token = tokens.id_token().ok_or(SignOnError::IdToken("there is none"))?;
        let nonce = Nonce::new(secret.derived("nonce"));
        let subject = match self.verify(&metadata, token, &nonce) {
            Err(Unverified::UnknownKey) => {
                let (newer, _) = self.metadata(Some(at_ms)).await?;
                self.verify(&newer, token, &nonce)
            }
            done => done,
        };
        let subject = subject.map_err(|fault| match fault {
            Unverified::UnknownKey => SignOnError::IdToken("no key of the provider has its id"),
            Unverified::Wrong(what) => SignOnError::IdToken(what),
        })?;
        let mut claims = payload(token).ok_or(SignOnError::IdToken("its claims"))?;
        if self.needs_more(&claims) && self.config.scopes.iter().any(|scope| scope != "openid") {
            for (name, value) in self.user_info(&metadata, &tokens, &subject).await? {
                claims.entry(name).or_insert(value);
            }
        }
        Ok(Person { subject, claims })
    }

    /// Checks signature, issuer, audience, authorized party, times and nonce: the subject.
    fn verify(
        &self,
        metadata: &ProviderMetadataWithLogout,
        token: &CoreIdToken,
        nonce: &Nonce,
    ) -> Result<String, Unverified> {
        use ClaimsVerificationError as E;
        let client = self.client(metadata);
        let now = DateTime::<Utc>::from_timestamp_millis(self.clock.now_ms()).unwrap_or_default();
        let verifier = client
            .id_token_verifier()
            .set_allowed_algs(ALGORITHMS)
            .set_time_fn(move || now - SKEW)
            .set_issue_time_verifier_fn(move |at| if at <= now + SKEW { Ok(()) } else { Err(String::new()) });
        let claims = token.claims(&verifier, nonce).map_err(|fault| match fault {
            E::SignatureVerification(SignatureVerificationError::NoMatchingKey) => Unverified::UnknownKey,
            E::SignatureVerification(_) => Unverified::Wrong("its signature"),
            E::Expired(_) => Unverified::Wrong("its time"),
            E::InvalidAudience(_) => Unverified::Wrong("its audience"),
            E::InvalidIssuer(_) => Unverified::Wrong("its issuer"),
            E::InvalidNonce(_) => Unverified::Wrong("its nonce"),
            _ => Unverified::Wrong("its claims"),
        })?;
        // The library leaves this one to its callers. Of several audiences it takes none.
        if claims.authorized_party().is_some_and(|party| *party != self.client_id) {
            return Err(Unverified::Wrong("its audience"));
        }
        let subject = claims.subject().as_str();
        if subject.is_empty() || subject.len() > 255 {
            return Err(Unverified::Wrong("its subject"));
        }
        Ok(subject.to_owned())
    }

    /// Whether claims that matter may be with the provider's user info only.
    fn needs_more(&self, claims: &Map<String, Value>) -> bool {
        let groups = (!self.config.group_roles.is_empty()).then_some(self.config.groups_claim.as_str());
        let rule = self.config.require.as_ref().map(|rule| rule.claim.as_str());
        let mut wanted = ["email", "email_verified", "name"].into_iter().chain(groups).chain(rule);
        wanted.any(|name| !claims.contains_key(name))
    }

    async fn user_info(
        &self,
        metadata: &ProviderMetadataWithLogout,
        tokens: &CoreTokenResponse,
        subject: &str,
    ) -> Result<Map<String, Value>, SignOnError> {
        let unread = || SignOnError::Unreachable("its user info cannot be read");
        let Some(endpoint) = metadata.userinfo_endpoint() else { return Ok(Map::new()) };
        let request = http::Request::builder()
            .uri(endpoint.url().as_str())
            .header(header::ACCEPT, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", tokens.access_token().secret()))
            .body(Vec::new())
            .map_err(|_| unread())?;
        let answer = fetch::send(self.http.clone(), request).await?;
        if answer.status() != http::StatusCode::OK {
            return Err(unread());
        }
        let claims: Map<String, Value> = serde_json::from_slice(answer.body()).map_err(|_| unread())?;
        // It may be of somebody else, if tokens were mixed up.
        if claims.get("sub").and_then(Value::as_str) != Some(subject) {
            return Err(SignOnError::IdToken("its subject, which the user info has not"));
        }
        Ok(claims)
    }

    /// RP-initiated logout, when the provider has it and answers soon.
    pub(super) async fn end_session(&self, back: &Url) -> Option<Url> {
        let asked = tokio::time::timeout(Duration::from_secs(3), self.metadata(None)).await;
        let (metadata, _) = asked.ok()?.ok()?;
        let endpoint = metadata.additional_metadata().end_session_endpoint.clone()?;
        let request = LogoutRequest::from(endpoint)
            .set_client_id(self.client_id.clone())
            .set_post_logout_redirect_uri(PostLogoutRedirectUrl::from_url(back.clone()));
        Some(request.http_get_url())
    }
}

enum Unverified {
    UnknownKey,
    Wrong(&'static str),
}

/// The claims of a token that was verified.
fn payload(token: &CoreIdToken) -> Option<Map<String, Value>> {
    let text = token.to_string();
    let payload = text.split('.').nth(1)?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}
