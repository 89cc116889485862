//! `[[oidc]]`: with whom people sign on, and what they may do then.

use serde::Deserialize;
use url::Url;

use super::{ConfigError, SecretRef};
use crate::auth::{Pattern, Role};

/// Providers at most.
const PROVIDERS_MAX: usize = 16;

/// An OpenID provider, and who of it belongs to which organisation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// Names it in addresses: letters, digits, dashes.
    pub name: String,
    /// What the button says; by default the name.
    #[serde(default)]
    pub title: Option<String>,
    /// As its discovery document says it, e.g. `https://login.example.com`.
    pub issuer: String,
    pub client_id: String,
    /// Absent: a public client.
    #[serde(default)]
    pub client_secret: Option<SecretRef>,
    /// Asked for besides `openid`.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// Name or id of the organisation that its people belong to.
    pub organisation: String,
    /// Domains of verified email addresses that may sign on. Empty: all may.
    #[serde(default)]
    pub email_domains: Vec<String>,
    /// A claim without which nobody signs on.
    #[serde(default)]
    pub require: Option<ClaimRule>,
    /// The claim that lists a person's groups.
    #[serde(default = "groups")]
    pub groups_claim: String,
    /// What everybody of it may do.
    #[serde(default)]
    pub default_role: Option<RoleRule>,
    /// What members of a group may do.
    #[serde(default)]
    pub group_roles: Vec<GroupRole>,
    /// A session ends after so long without a request.
    #[serde(default = "idle_minutes")]
    pub session_idle_minutes: u32,
    /// A session ends after so long in any case.
    #[serde(default = "hours")]
    pub session_hours: u32,
}

/// A claim that must have, or contain, one of some values.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRule {
    pub claim: String,
    pub one_of: Vec<String>,
}

/// A role, and where.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRule {
    pub role: Role,
    /// As in role bindings; by default the whole organisation.
    #[serde(default = "organisation")]
    pub resource: String,
}

/// A role of a group.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRole {
    pub group: String,
    pub role: Role,
    #[serde(default = "organisation")]
    pub resource: String,
}

fn scopes() -> Vec<String> {
    vec!["email".to_owned(), "profile".to_owned()]
}

fn groups() -> String {
    "groups".to_owned()
}

fn organisation() -> String {
    "organisation".to_owned()
}

fn idle_minutes() -> u32 {
    60
}

fn hours() -> u32 {
    12
}

/// True for HTTPS, and for HTTP within the machine.
pub(crate) fn is_protected(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && loopback)
}

/// The address under which browsers reach the server: only scheme, host and port.
///
/// # Errors
/// It is none, or is not protected.
pub(crate) fn public_url(text: &str) -> Result<Url, ConfigError> {
    let wrong = || ConfigError::Value {
        what: "public_url: https://HOST or http://LOOPBACK:PORT, without a path".to_owned(),
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if bare && url.username().is_empty() && is_protected(&url) { Ok(url) } else { Err(wrong()) }
}

pub(super) fn check(providers: &[OidcConfig], public: Option<&str>) -> Result<(), ConfigError> {
    if let Some(public) = public {
        public_url(public)?;
    }
    if providers.is_empty() {
        return Ok(());
    }
    if public.is_none() {
        return Err(wrong(
            "public_url: needed for [[oidc]]: the address under which browsers reach this server",
        ));
    }
    if providers.len() > PROVIDERS_MAX {
        return Err(wrong(format!("oidc: at most {PROVIDERS_MAX}")));
    }
    for (index, provider) in providers.iter().enumerate() {
        provider.check().map_err(|what| wrong(format!("oidc {}: {what}", provider.name)))?;
        if providers.iter().take(index).any(|other| other.name == provider.name) {
            return Err(wrong(format!("oidc {}: the name is given twice", provider.name)));
        }
    }
    Ok(())
}

fn wrong(what: impl Into<String>) -> ConfigError {
    ConfigError::Value { what: what.into() }
}

impl OidcConfig {
    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(plain) {
            return Err("name: 1 to 64 letters, digits and dashes".to_owned());
        }
        if !Url::parse(&self.issuer).is_ok_and(|url| is_protected(&url)) {
            return Err("issuer: an https:// address".to_owned());
        }
        let given = self.default_role.iter().map(|rule| (rule.role, &rule.resource));
        let groups = self.group_roles.iter().map(|rule| (rule.role, &rule.resource));
        for (role, resource) in given.chain(groups) {
            if role == Role::Worker || Pattern::parse(resource).is_none() {
                return Err(
                    "default_role, group_roles: a role of people, and a resource as in role bindings".into(),
                );
            }
        }
        if self.session_hours == 0 || self.session_hours > 24 * 31 || self.session_idle_minutes == 0 {
            return Err("session_hours: 1 to 744; session_idle_minutes: 1 or more".to_owned());
        }
        Ok(())
    }

    /// What the button says.
    pub fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(&self.name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PROVIDER: &str = "name = \"company\"\nissuer = \"https://login.example.com\"\nclient_id = \"siltstone\"\n\
                            organisation = \"acme\"\n";

    fn checked(text: &str, public: Option<&str>) -> Result<(), String> {
        check(&[toml::from_str(text).unwrap()], public).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_provider_is_reached_protected_and_gives_roles_of_people() {
        let public = Some("https://siltstone.example.com");
        checked(PROVIDER, public).unwrap();
        assert!(checked(PROVIDER, None).unwrap_err().contains("public_url"));
        assert!(checked(PROVIDER, Some("http://siltstone.example.com")).unwrap_err().contains("public_url"));
        assert!(checked(PROVIDER, Some("https://siltstone.example.com/x")).is_err());
        checked(PROVIDER, Some("http://127.0.0.1:8443")).unwrap();
        let plain = PROVIDER.replace("https", "http");
        assert!(checked(&plain, public).unwrap_err().contains("issuer"));
        let worker = format!("{PROVIDER}default_role = {{ role = \"worker\" }}\n");
        assert!(checked(&worker, public).unwrap_err().contains("default_role"));
    }
}
