//! People sign on with OpenID Connect: authorization code flow with PKCE, state and nonce.
//!
//! 1. `begin`: the browser gets a cookie with a fresh secret, and is sent to the provider with a state, a nonce and a
//!    challenge, each derived from that secret. The database has a digest of it, and when the flow ends.
//! 2. `finish`: the browser comes back with a code. The state must be that of its cookie, and the flow must be known;
//!    it is forgotten at once, so that nothing counts twice. `provider` exchanges the code and checks the ID token.
//! 3. `people`: the person becomes a user, gets the roles that the config gives to it, and a session.

mod fetch;
mod people;
mod provider;

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use axum::http::HeaderMap;
use sqlx::Row;
use url::Url;

use self::{people::People, provider::Provider};
pub use self::{people::Profile, provider::SignOnError};
use crate::{
    app::StartError,
    auth::{
        Sessions, network,
        rate::Buckets,
        session::{BrowserSecret, Cookies, Purpose},
    },
    clock::Clock,
    config::{Config, OidcConfig, public_url},
    store::{Store, StoreError},
    tenants::KeyRing,
};

/// Between the way to the provider and the way back.
pub const FLOW_SECONDS: i64 = 600;
/// Flows under way, of all browsers.
const FLOWS_MAX: i64 = 10_000;
/// Where the provider sends browsers back to.
pub const CALLBACK: &str = "/api/v1/oidc/callback";

/// What one browser brings back.
#[derive(Debug, Default)]
pub struct Answer<'a> {
    pub state: &'a str,
    pub code: &'a str,
    /// RFC 9207.
    pub issuer: Option<&'a str>,
    /// The provider refused.
    pub error: Option<&'a str>,
}

/// A person who signed on.
#[derive(Debug)]
pub struct SignedOn {
    pub organisation: String,
    pub user: String,
    pub secret: BrowserSecret,
    pub session_seconds: i64,
}

/// Why nobody signed on, and of which organisation it was, as far as that is known.
#[derive(Debug)]
pub struct Refused {
    pub organisation: String,
    pub error: SignOnError,
}

impl<E: Into<SignOnError>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self { organisation: String::new(), error: error.into() }
    }
}

/// Signing on and off, with every provider of the config.
#[derive(Debug)]
pub struct SignOn {
    store: Store,
    clock: Clock,
    providers: Vec<Provider>,
    people: People,
    public: Option<Url>,
    rates: Buckets,
}

/// How long sessions may rest, by provider, milliseconds.
pub fn idle_ms(config: &Config) -> HashMap<String, i64> {
    let idle = |one: &OidcConfig| (one.name.clone(), i64::from(one.session_idle_minutes) * 60_000);
    config.oidc.iter().map(idle).collect()
}

impl SignOn {
    /// Reads the secrets of the config. No provider is asked before somebody signs on.
    ///
    /// # Errors
    /// A secret cannot be read.
    pub fn new(config: &Config, store: Store, clock: Clock, keys: Arc<KeyRing>) -> Result<Self, StartError> {
        let public = config.public_url.as_deref().map(public_url).transpose()?;
        let mut providers = Vec::new();
        for one in &config.oidc {
            let callback = public.as_ref().and_then(|url| url.join(CALLBACK).ok());
            providers.push(Provider::new(one, callback, clock.clone())?);
        }
        let people = People::new(store.clone(), keys);
        Ok(Self { store, clock, providers, people, public, rates: Buckets::new(1.0, 30.0) })
    }

    /// Names and titles of the providers.
    pub fn providers(&self) -> impl Iterator<Item = &OidcConfig> {
        self.providers.iter().map(|provider| &provider.config)
    }

    fn provider(&self, name: &str) -> Result<&Provider, SignOnError> {
        self.providers.iter().find(|one| one.config.name == name).ok_or(SignOnError::UnknownProvider)
    }

    pub fn people(&self) -> &People {
        &self.people
    }

    /// Begins: the secret for the browser's cookie, and where it goes.
    ///
    /// # Errors
    /// The provider is none of the config's or does not answer; too many flows are under way.
    pub async fn begin(&self, provider: &str, address: IpAddr) -> Result<(BrowserSecret, Url), SignOnError> {
        let now_ms = self.clock.now_ms();
        self.rates.take(&address.to_string(), now_ms).map_err(SignOnError::TooOften)?;
        let provider = match provider {
            "" => self.providers.first().ok_or(SignOnError::UnknownProvider)?,
            name => self.provider(name)?,
        };
        let secret = BrowserSecret::generate();
        let to = provider.authorize(&secret).await?;
        let mut tx = self.store.begin().await?;
        sqlx::query("DELETE FROM sign_ons WHERE expires_ms <= $1")
            .bind(now_ms)
            .execute(tx.connection())
            .await?;
        let count = sqlx::query("SELECT COUNT(*) AS n FROM sign_ons").fetch_one(tx.connection()).await?;
        if count.try_get::<i64, _>("n")? >= FLOWS_MAX {
            return Err(SignOnError::TooOften(60));
        }
        sqlx::query("INSERT INTO sign_ons (digest, provider, expires_ms) VALUES ($1, $2, $3)")
            .bind(secret.digest())
            .bind(&provider.config.name)
            .bind(now_ms + FLOW_SECONDS * 1_000)
            .execute(tx.connection())
            .await?;
        tx.commit().await?;
        Ok((secret, to))
    }

    /// Finishes: the person is who the provider says, belongs here, and gets a session.
    ///
    /// # Errors
    /// Why not.
    pub async fn finish(
        &self,
        (cookies, sessions): (&Cookies, &Sessions),
        headers: &HeaderMap,
        address: IpAddr,
        answer: Answer<'_>,
    ) -> Result<SignedOn, Refused> {
        self.rates.take(&format!("{address} back"), self.clock.now_ms()).map_err(SignOnError::TooOften)?;
        let secret = cookies.get(Purpose::SignOn, headers).ok_or(SignOnError::NoFlow)?;
        if !secret.is_derived("state", answer.state) {
            return Err(SignOnError::NoFlow.into());
        }
        let provider = self.take_flow(&secret).await?;
        let organisation = self.organisation(&provider.config.organisation).await?;
        let of = |error: SignOnError| Refused { organisation: organisation.clone(), error };
        let networks = network::allowed(&self.store, &organisation).await?;
        if !network::lets_in(networks.iter().map(|(_, network)| network), address) {
            return Err(of(SignOnError::Address));
        }
        if answer.issuer.is_some_and(|issuer| issuer != provider.config.issuer) {
            return Err(of(SignOnError::IdToken("its issuer")));
        }
        if answer.error.is_some() || answer.code.is_empty() {
            return Err(of(SignOnError::ProviderRefused));
        }
        let person = provider.exchange(&secret, answer.code).await.map_err(of)?;
        let user =
            self.people.sign_on(&organisation, provider, &person, self.clock.now_ms()).await.map_err(of)?;
        let seconds = i64::from(provider.config.session_hours) * 3_600;
        let mut tx = self.store.begin().await?;
        let session = sessions.begin(&mut tx, &user, seconds * 1_000).await?;
        tx.commit().await?;
        // The session that this browser had before, whoever's it was, ends.
        if let Some(before) = cookies.get(Purpose::Session, headers) {
            sessions.end_of(&before).await?;
        }
        Ok(SignedOn { organisation, user, secret: session, session_seconds: seconds })
    }

    /// The provider of a flow, which is over by that.
    async fn take_flow(&self, secret: &BrowserSecret) -> Result<&Provider, SignOnError> {
        let mut tx = self.store.begin().await?;
        let row = sqlx::query("DELETE FROM sign_ons WHERE digest = $1 RETURNING provider, expires_ms")
            .bind(secret.digest())
            .fetch_optional(tx.connection())
            .await?;
        tx.commit().await?;
        let row = row.ok_or(SignOnError::NoFlow)?;
        if row.try_get::<i64, _>("expires_ms")? <= self.clock.now_ms() {
            return Err(SignOnError::NoFlow);
        }
        self.provider(&row.try_get::<String, _>("provider")?)
    }

    /// The id of an organisation that the config names.
    async fn organisation(&self, named: &str) -> Result<String, SignOnError> {
        let rows = sqlx::query("SELECT id FROM organisations WHERE id = $1 OR name = $1 LIMIT 2")
            .bind(named)
            .fetch_all(self.store.pool())
            .await?;
        match rows.as_slice() {
            [one] => Ok(one.try_get("id")?),
            _ => Err(SignOnError::Organisation),
        }
    }

    /// Where the browser of a user goes to end the provider's own session, when it has such a place.
    pub async fn end_at_provider(&self, user: &str) -> Result<Option<Url>, StoreError> {
        let row = sqlx::query("SELECT provider FROM users WHERE id = $1")
            .bind(user)
            .fetch_optional(self.store.pool())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let name: String = row.try_get("provider")?;
        match (self.provider(&name), &self.public) {
            (Ok(provider), Some(public)) => Ok(provider.end_session(public).await),
            _ => Ok(None),
        }
    }
}
