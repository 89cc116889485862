//! Credentials on requests.

use std::time::Duration;

use bytes::Bytes;
use object_store::{
    aws::{AwsAuthorizer, AwsCredentialProvider},
    client::HttpRequest,
};
use reqwest::{
    Request,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use siltstone_protocol::ErrorCode;
use siltstone_spec::{CatalogAuth, Secret};
use tokio::{sync::Mutex, time::Instant};
use url::Url;

use super::wire::{TokenAnswer, body_of};
use crate::{
    error::{CatalogFault, CatalogFaultCode, LakeError},
    store,
};

/// A token that says nothing of its life is renewed after half of this.
const LIFE_DEFAULT: Duration = Duration::from_secs(3600);
/// A token is renewed this long before it expires, or at half of its life when that is shorter.
const RENEW_BEFORE: Duration = Duration::from_secs(120);
const SCOPE_DEFAULT: &str = "catalog";
const TOKEN_BYTES_MAX: usize = 1 << 20;

pub(super) enum Auth {
    None,
    Token(HeaderValue),
    OAuth2(OAuth2),
    SigV4 { region: String, signing_name: String, credentials: AwsCredentialProvider },
}

pub(super) struct OAuth2 {
    url: Url,
    client_id: Secret,
    client_secret: Secret,
    scope: String,
    token: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    header: HeaderValue,
    renew_at: Instant,
}

/// A token that was put on a request; told back when the catalog refused it.
pub(super) struct Used(Option<HeaderValue>);

impl Auth {
    /// `base`: the catalog's URI.
    pub(super) fn new(auth: &CatalogAuth, base: &Url, subject: &str) -> Result<Self, LakeError> {
        Ok(match auth {
            CatalogAuth::None => Self::None,
            CatalogAuth::Token(token) => Self::Token(bearer(token.reveal()).ok_or_else(|| {
                LakeError::invalid(subject, "the token holds characters that HTTP does not allow")
                    .coded(ErrorCode::CatalogSettingRefused)
            })?),
            CatalogAuth::OAuth2 { token_url, client_id, client_secret, scope } => {
                let url = match token_url {
                    Some(url) => Url::parse(url).map_err(|_| {
                        LakeError::invalid(subject, "oauth2.token_url is not a URL")
                            .coded(ErrorCode::CatalogSettingRefused)
                    })?,
                    None => {
                        let mut url = base.clone();
                        url.set_path(&format!("{}/v1/oauth/tokens", base.path().trim_end_matches('/')));
                        url
                    }
                };
                Self::OAuth2(OAuth2 {
                    url,
                    client_id: client_id.clone(),
                    client_secret: client_secret.clone(),
                    scope: scope.clone().unwrap_or_else(|| SCOPE_DEFAULT.to_owned()),
                    token: Mutex::new(None),
                })
            }
            CatalogAuth::SigV4 { region, signing_name } => {
                let (region, credentials) = store::aws_credentials(subject, region.as_deref())?;
                Self::SigV4 { region, signing_name: signing_name.clone(), credentials }
            }
        })
    }

    /// Puts credentials on a request. `body` is the request's.
    pub(super) async fn sign(
        &self,
        http: &reqwest::Client,
        request: &mut Request,
        body: Option<&Bytes>,
    ) -> Result<Used, CatalogFault> {
        match self {
            Self::None => Ok(Used(None)),
            Self::Token(header) => {
                request.headers_mut().insert(AUTHORIZATION, header.clone());
                Ok(Used(None))
            }
            Self::OAuth2(oauth2) => {
                let header = oauth2.header(http).await?;
                request.headers_mut().insert(AUTHORIZATION, header.clone());
                Ok(Used(Some(header)))
            }
            Self::SigV4 { region, signing_name, credentials } => {
                let credential = credentials
                    .get_credential()
                    .await
                    .map_err(|_| CatalogFault::of(CatalogFaultCode::NoCredentials))?;
                let mut signed = HttpRequest::new(body.cloned().unwrap_or_default().into());
                *signed.method_mut() = request.method().clone();
                *signed.uri_mut() = request
                    .url()
                    .as_str()
                    .parse()
                    .map_err(|_| CatalogFault::of(CatalogFaultCode::Unreadable))?;
                if let Some(kind) = request.headers().get(CONTENT_TYPE) {
                    signed.headers_mut().insert(CONTENT_TYPE, kind.clone());
                }
                AwsAuthorizer::new(&credential, signing_name, region).authorize(&mut signed, None);
                for (name, value) in signed.headers() {
                    if name != HOST {
                        let mut value = value.clone();
                        value.set_sensitive(true);
                        request.headers_mut().insert(name.clone(), value);
                    }
                }
                Ok(Used(None))
            }
        }
    }

    /// The catalog refused the credentials. True when there are others to try.
    pub(super) async fn renew(&self, used: Used) -> bool {
        let (Self::OAuth2(oauth2), Some(used)) = (self, used.0) else { return false };
        let mut token = oauth2.token.lock().await;
        // Somebody else may have renewed it meanwhile.
        if token.as_ref().is_some_and(|token| token.header == used) {
            *token = None;
        }
        true
    }
}

impl OAuth2 {
    /// The token at hand, or a fresh one. Who comes meanwhile waits for it.
    async fn header(&self, http: &reqwest::Client) -> Result<HeaderValue, CatalogFault> {
        let mut token = self.token.lock().await;
        if let Some(known) = token.as_ref().filter(|token| Instant::now() < token.renew_at) {
            return Ok(known.header.clone());
        }
        let fresh = self.ask(http).await?;
        let header = fresh.header.clone();
        *token = Some(fresh);
        Ok(header)
    }

    /// RFC 6749, section 4.4.
    async fn ask(&self, http: &reqwest::Client) -> Result<Token, CatalogFault> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair("client_id", self.client_id.reveal())
            .append_pair("client_secret", self.client_secret.reveal())
            .append_pair("scope", &self.scope)
            .finish();
        let began = Instant::now();
        let request = http.post(self.url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let mut answer = request.body(form).send().await.map_err(|error| CatalogFault::transport(&error))?;
        let status = answer.status();
        let body = body_of(&mut answer, TOKEN_BYTES_MAX).await?;
        if !status.is_success() {
            let code = match status.as_u16() {
                400 | 401 | 403 => CatalogFaultCode::TokenRefused,
                404 => CatalogFaultCode::NoTokenEndpoint,
                _ => CatalogFaultCode::Failed,
            };
            return Err(CatalogFault { code, status: Some(status.as_u16()), kind: None });
        }
        let unreadable = || CatalogFault::of(CatalogFaultCode::Unreadable);
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| unreadable())?;
        let life = answer.expires_in.map_or(LIFE_DEFAULT, Duration::from_secs);
        let renew_after = life.saturating_sub(RENEW_BEFORE).max(life / 2);
        let header = bearer(&answer.access_token).ok_or_else(unreadable)?;
        Ok(Token { header, renew_at: began + renew_after })
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}
