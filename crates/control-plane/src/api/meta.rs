//! The server about itself, and about who asks.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use siltstone_protocol::disclosure;

use crate::{
    auth::{Permission, Role, Who},
    endpoints::{Call, Page, Reply, document},
    problem::Problem,
};

/// It serves requests.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Health {
    pub status: &'static str,
}

/// A JSON object.
#[derive(Debug)]
pub struct AnyObject;

impl JsonSchema for AnyObject {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AnyObject".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

/// Who asks, and what may be done.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Session {
    pub organisation: String,
    /// As the audit log names it.
    pub actor: String,
    /// `null`: it is a user.
    pub service_account: Option<String>,
    pub api_key: Option<String>,
    /// The user of a session.
    pub user: Option<SessionUser>,
    /// In a session, what changes something sends this in the header `Siltstone-Csrf`.
    pub csrf_token: Option<String>,
    pub grants: Vec<SessionGrant>,
}

/// Who signed on.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionUser {
    pub id: String,
    pub name: String,
    pub email: String,
}

/// A role of the credential, where it counts, and what it gives.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionGrant {
    pub role: Role,
    pub resource: String,
    pub permissions: Vec<Permission>,
}

pub(crate) async fn healthz(_: Call) -> Result<Reply, Problem> {
    Reply::json(&Health { status: "ok" })
}

pub(crate) async fn openapi(_: Call) -> Result<Reply, Problem> {
    Reply::json(&document())
}

pub(crate) async fn disclosures(_: Call) -> Result<Reply, Problem> {
    Reply::json(&Page::whole(disclosure::fields()))
}

pub(crate) async fn session(call: Call) -> Result<Reply, Problem> {
    let principal = call.principal()?;
    let grants = principal.grants.iter().map(|grant| SessionGrant {
        role: grant.role,
        resource: grant.pattern.to_string(),
        permissions: grant.role.permissions().to_vec(),
    });
    let (service_account, api_key, user) = match &principal.who {
        Who::Key { service_account, key } => (Some(service_account.clone()), Some(key.clone()), None),
        Who::User { user, .. } => {
            let profile = super::people::profile(&call, user).await?;
            (None, None, Some(SessionUser { id: user.clone(), name: profile.name, email: profile.email }))
        }
    };
    Reply::json(&Session {
        organisation: principal.organisation.clone(),
        actor: principal.actor(),
        service_account,
        api_key,
        user,
        csrf_token: principal.session().map(|session| session.csrf().to_owned()),
        grants: grants.collect(),
    })
}
