//! Persons of a provider as users of an organisation: who may be one, and what the config gives to them.

use std::{collections::BTreeSet, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::Row;

use super::{
    SignOnError,
    provider::{Person, Provider},
};
use crate::{
    auth::{Pattern, Role},
    config::OidcConfig,
    id,
    store::{Store, StoreError, Tx},
    tenants::KeyRing,
};

/// Users of an organisation.
const USERS_MAX: i64 = 100_000;
const TEXT_MAX: usize = 320;
const GROUPS_MAX: usize = 1_000;
/// Where a role binding comes from: the config, at each sign-on.
const FROM_SIGN_ON: &str = "sign_on";

/// What is kept sealed of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Profile {
    pub issuer: String,
    /// The issuer's name for the person.
    pub subject: String,
    /// Empty: the provider did not say, or has not verified it.
    pub email: String,
    pub name: String,
}

/// The users of the database.
#[derive(Debug)]
pub struct People {
    store: Store,
    keys: Arc<KeyRing>,
}

impl People {
    pub(super) fn new(store: Store, keys: Arc<KeyRing>) -> Self {
        Self { store, keys }
    }

    /// Opens what is sealed of a user.
    ///
    /// # Errors
    /// The database's; `Broken`: it does not open.
    pub async fn profile(
        &self,
        organisation: &str,
        user: &str,
        sealed: &[u8],
    ) -> Result<Profile, StoreError> {
        let opened = self.keys.of(organisation).await?.open("users.sealed", user, sealed)?;
        serde_json::from_slice(&opened).map_err(|_| StoreError::Broken { what: "the profile of a user" })
    }

    /// The user of a person, made at the first sign-on.
    pub(super) async fn sign_on(
        &self,
        organisation: &str,
        provider: &Provider,
        person: &Person,
        now_ms: i64,
    ) -> Result<String, SignOnError> {
        let config = &provider.config;
        let email = verified_email(&person.claims);
        allowed(config, &person.claims, email)?;
        let profile = Profile {
            issuer: config.issuer.clone(),
            subject: person.subject.clone(),
            email: email.unwrap_or_default().to_owned(),
            name: text(&person.claims, "name").unwrap_or_default().to_owned(),
        };
        let keys = self.keys.of(organisation).await?;
        let identity = keys.digest("users.identity", &format!("{}\n{}", profile.issuer, profile.subject));
        let broken = |_| StoreError::Broken { what: "the profile of a user" };
        let plain = serde_json::to_vec(&profile).map_err(broken)?;
        let mut tx = self.store.begin().await?;
        let known =
            sqlx::query("SELECT id, disabled_ms FROM users WHERE organisation_id = $1 AND identity = $2")
                .bind(organisation)
                .bind(identity.clone())
                .fetch_optional(tx.connection())
                .await?;
        let user = match known {
            Some(row) => {
                if row.try_get::<i64, _>("disabled_ms")? != 0 {
                    return Err(SignOnError::NotAllowed("it is disabled"));
                }
                let user: String = row.try_get("id")?;
                sqlx::query(
                    "UPDATE users SET provider = $2, sealed = $3, last_sign_on_ms = $4 WHERE id = $1",
                )
                .bind(&user)
                .bind(&config.name)
                .bind(keys.seal("users.sealed", &user, &plain).map_err(StoreError::from)?)
                .bind(now_ms)
                .execute(tx.connection())
                .await?;
                user
            }
            None => {
                let count = "SELECT COUNT(*) AS n FROM users WHERE organisation_id = $1";
                tx.room(count, organisation, "users", USERS_MAX).await?;
                let user = id::fresh(now_ms).to_string();
                sqlx::query(
                    "INSERT INTO users (id, organisation_id, provider, identity, sealed, created_ms, last_sign_on_ms,
                       disabled_ms) VALUES ($1, $2, $3, $4, $5, $6, $6, 0)",
                )
                .bind(&user)
                .bind(organisation)
                .bind(&config.name)
                .bind(identity)
                .bind(keys.seal("users.sealed", &user, &plain).map_err(StoreError::from)?)
                .bind(now_ms)
                .execute(tx.connection())
                .await?;
                user
            }
        };
        give_roles(&mut tx, organisation, &user, &roles(config, &person.claims), now_ms).await?;
        tx.commit().await?;
        Ok(user)
    }
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    let text = claims.get(name)?.as_str()?;
    (!text.is_empty() && text.len() <= TEXT_MAX && !text.chars().any(char::is_control)).then_some(text)
}

/// An address that the provider has verified: anybody can claim another one.
fn verified_email(claims: &Map<String, Value>) -> Option<&str> {
    // Some providers write the word.
    let verified = claims.get("email_verified").is_some_and(|said| said == true || said == "true");
    text(claims, "email").filter(|_| verified)
}

/// The values of a claim that is a text or a list of texts.
fn values<'a>(claims: &'a Map<String, Value>, name: &str) -> BTreeSet<&'a str> {
    match claims.get(name) {
        Some(Value::String(one)) => [one.as_str()].into(),
        Some(Value::Array(all)) => all.iter().take(GROUPS_MAX).filter_map(Value::as_str).collect(),
        _ => BTreeSet::new(),
    }
}

fn allowed(config: &OidcConfig, claims: &Map<String, Value>, email: Option<&str>) -> Result<(), SignOnError> {
    if !config.email_domains.is_empty() {
        let domain = email.and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain);
        let is_one = |domain: &str| config.email_domains.iter().any(|one| one.eq_ignore_ascii_case(domain));
        if !domain.is_some_and(is_one) {
            return Err(SignOnError::NotAllowed("it has no verified email address of an allowed domain"));
        }
    }
    if let Some(rule) = &config.require {
        let has = values(claims, &rule.claim);
        if !rule.one_of.iter().any(|wanted| has.contains(wanted.as_str())) {
            return Err(SignOnError::NotAllowed("it lacks a claim that the config requires"));
        }
    }
    Ok(())
}

/// What the config gives to a person.
fn roles(config: &OidcConfig, claims: &Map<String, Value>) -> BTreeSet<(Role, String)> {
    let groups = values(claims, &config.groups_claim);
    let everybody = config.default_role.iter().map(|rule| (rule.role, &rule.resource));
    let of_group = config.group_roles.iter().filter(|rule| groups.contains(rule.group.as_str()));
    let all = everybody.chain(of_group.map(|rule| (rule.role, &rule.resource)));
    all.filter_map(|(role, resource)| Some((role, Pattern::parse(resource)?.to_string()))).collect()
}

/// The roles from the last sign-on are those of this one; what the API gave stays.
async fn give_roles(
    tx: &mut Tx,
    organisation: &str,
    user: &str,
    roles: &BTreeSet<(Role, String)>,
    now_ms: i64,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM user_role_bindings WHERE user_id = $1 AND origin = $2")
        .bind(user)
        .bind(FROM_SIGN_ON)
        .execute(tx.connection())
        .await?;
    for (role, pattern) in roles {
        sqlx::query(
            "INSERT INTO user_role_bindings (id, organisation_id, user_id, role, pattern, origin, created_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id::fresh(now_ms).to_string())
        .bind(organisation)
        .bind(user)
        .bind(role.as_str())
        .bind(pattern)
        .bind(FROM_SIGN_ON)
        .bind(now_ms)
        .execute(tx.connection())
        .await?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    const PROVIDER: &str =
        "name = \"c\"\nissuer = \"https://i\"\nclient_id = \"s\"\norganisation = \"acme\"\n";

    fn claims(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn who_is_not_named_by_the_config_does_not_sign_on() {
        let config = |more: &str| toml::from_str::<OidcConfig>(&format!("{PROVIDER}{more}")).unwrap();
        let may = |config: &OidcConfig, value: Value| {
            let claims = claims(value);
            allowed(config, &claims, verified_email(&claims)).is_ok()
        };
        let domains = config("email_domains = [\"example.com\"]\n");
        assert!(may(&domains, json!({ "email": "a@Example.com", "email_verified": true })));
        assert!(!may(&domains, json!({ "email": "a@example.com", "email_verified": false })));
        assert!(!may(&domains, json!({ "email": "a@example.com" })));
        assert!(!may(&domains, json!({ "email": "a@example.com@evil.org", "email_verified": true })));
        assert!(!may(&domains, json!({ "email": "a@sub.example.com", "email_verified": true })));
        assert!(!may(&domains, json!({})));
        let rule = config("require = { claim = \"groups\", one_of = [\"data\"] }\n");
        assert!(may(&rule, json!({ "groups": ["x", "data"] })) && may(&rule, json!({ "groups": "data" })));
        assert!(!may(&rule, json!({ "groups": ["database"] })) && !may(&rule, json!({})));
    }

    #[test]
    fn roles_are_those_of_all_and_of_the_groups() {
        let text = format!(
            "{PROVIDER}default_role = {{ role = \"metadata_reader\" }}\n[[group_roles]]\ngroup = \"ops\"\n\
             role = \"operator\"\nresource = \"environment/e\"\n"
        );
        let config: OidcConfig = toml::from_str(&text).unwrap();
        let reader = (Role::MetadataReader, "organisation".to_owned());
        assert_eq!(roles(&config, &claims(json!({}))), [reader.clone()].into());
        let both = [reader, (Role::Operator, "environment/e".to_owned())].into();
        assert_eq!(roles(&config, &claims(json!({ "groups": ["ops", 7] }))), both);
    }
}
