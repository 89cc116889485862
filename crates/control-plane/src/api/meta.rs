//! The server about itself, and about who asks.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use siltstone_protocol::disclosure;

use crate::{
    auth::{Permission, Role},
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
    pub service_account: String,
    pub api_key: String,
    pub grants: Vec<SessionGrant>,
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
    Reply::json(&Session {
        organisation: principal.organisation.clone(),
        actor: principal.actor(),
        service_account: principal.service_account.clone(),
        api_key: principal.key.clone(),
        grants: grants.collect(),
    })
}
