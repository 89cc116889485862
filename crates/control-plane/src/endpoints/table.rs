//! All endpoints.

mod people;

use axum::http::{Method, StatusCode};
use siltstone_protocol::{
    Ack, Report,
    command::{CommandOutcome, CommandPoll, Commands},
    disclosure::DisclosedField,
    health::HealthReport,
    image::Image,
    message::{Message, Nothing},
    presence::{EventSample, Presence, ProfileSample},
};

use super::{Endpoint, Page, QueryKind, QueryParameter, Scope};
use crate::{
    api::{access, audit, commands, meta, tables, tenants, worker},
    audit::AuditEntry,
    auth::Permission as P,
};

const CURSOR: QueryParameter = QueryParameter {
    name: "cursor",
    about: "`next_cursor` of the part before.",
    kind: QueryKind::Text { max: 512 },
};
const CONFIRM: QueryParameter =
    QueryParameter { name: "confirm", about: "The organisation's name.", kind: QueryKind::Text { max: 400 } };
const LIMIT: QueryParameter = QueryParameter {
    name: "limit",
    about: "Items of a part at most.",
    kind: QueryKind::Integer { min: 1, max: 1_000, default: 100 },
};
const PREFIX: QueryParameter =
    QueryParameter { name: "prefix", about: "Only names that begin so.", kind: QueryKind::Text { max: 255 } };
const FROM: QueryParameter = QueryParameter {
    name: "from_ms",
    about: "From this time on, milliseconds since 1970 UTC.",
    kind: QueryKind::Integer { min: 0, max: i64::MAX, default: 0 },
};
const TO: QueryParameter = QueryParameter {
    name: "to_ms",
    about: "Before this time, milliseconds since 1970 UTC.",
    kind: QueryKind::Integer { min: 0, max: i64::MAX, default: i64::MAX },
};

const TABLE: QueryParameter =
    QueryParameter { name: "table", about: "Only those of this table.", kind: QueryKind::Text { max: 255 } };
const STEP: QueryParameter = QueryParameter {
    name: "step_ms",
    about: "Only the last sample of each step of time.",
    kind: QueryKind::Integer { min: 60_000, max: 30 * 86_400_000, default: 60_000 },
};

/// Every endpoint there is.
pub fn all() -> Vec<Endpoint> {
    let mut all = worker_endpoints();
    all.extend(meta_endpoints());
    all.extend(tenant_endpoints());
    all.extend(table_endpoints());
    all.extend(access_endpoints());
    all.extend(people::endpoints());
    all
}

fn worker_endpoints() -> Vec<Endpoint> {
    let (post, to) = (Method::POST, (P::Report, Scope::Worker));
    vec![
        Endpoint::new(post.clone(), Report::PATH, "report", to, "What happened to a table.", worker::report)
            .takes::<Report>()
            .gives::<Ack>(),
        Endpoint::new(
            post.clone(),
            Image::PATH,
            "image",
            to,
            "A part of the image of a table.",
            worker::image,
        )
        .takes::<Image>()
        .gives::<Ack>(),
        Endpoint::new(post.clone(), HealthReport::PATH, "health", to, "How tables fare.", worker::health)
            .takes::<HealthReport>()
            .gives::<Nothing>(),
        Endpoint::new(post.clone(), Presence::PATH, "presence", to, "A worker is there.", worker::presence)
            .takes::<Presence>()
            .gives::<Nothing>(),
        Endpoint::new(post.clone(), EventSample::PATH, "events", to, "A sample of events.", worker::events)
            .takes::<EventSample>()
            .gives::<Nothing>(),
        Endpoint::new(
            post.clone(),
            ProfileSample::PATH,
            "profile",
            to,
            "A sample of a profile.",
            worker::profile,
        )
        .takes::<ProfileSample>()
        .gives::<Nothing>(),
        Endpoint::new(
            post.clone(),
            CommandPoll::PATH,
            "pollCommands",
            to,
            "Waits for commands.",
            worker::poll,
        )
        .waits()
        .takes::<CommandPoll>()
        .gives::<Commands>(),
        Endpoint::new(
            post,
            CommandOutcome::PATH,
            "commandOutcome",
            to,
            "How a command ended.",
            worker::outcome,
        )
        .takes::<CommandOutcome>()
        .gives::<Nothing>(),
    ]
}

fn meta_endpoints() -> Vec<Endpoint> {
    let (get, public) = (Method::GET, (P::Public, Scope::Nothing));
    vec![
        Endpoint::new(
            get.clone(),
            "/healthz",
            "health_check",
            public,
            "Whether it serves requests.",
            meta::healthz,
        )
        .gives::<meta::Health>(),
        Endpoint::new(
            get.clone(),
            "/api/v1/openapi.json",
            "openapi",
            public,
            "This document.",
            meta::openapi,
        )
        .gives::<meta::AnyObject>(),
        Endpoint::new(
            get.clone(),
            "/api/v1/disclosures",
            "listDisclosures",
            public,
            "Every field that a worker can send, from the message types.",
            meta::disclosures,
        )
        .query(&[CURSOR, LIMIT])
        .gives::<Page<DisclosedField>>(),
        Endpoint::new(
            get,
            "/api/v1/session",
            "getSession",
            (P::Session, Scope::Nothing),
            "Who asks, and what may be done.",
            meta::session,
        )
        .gives::<meta::Session>(),
    ]
}

fn tenant_endpoints() -> Vec<Endpoint> {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let (all, one) = ("/api/v1/environments", "/api/v1/environments/{environment}");
    let (clusters, cluster) = (
        "/api/v1/environments/{environment}/clusters",
        "/api/v1/environments/{environment}/clusters/{cluster}",
    );
    let manage = (P::ManageEnvironments, Scope::Organisation);
    vec![
        Endpoint::new(
            get.clone(),
            "/api/v1/organisation",
            "getOrganisation",
            (P::ReadOrganisation, Scope::Organisation),
            "The organisation of the credential.",
            tenants::organisation,
        )
        .gives::<tenants::Organisation>(),
        Endpoint::new(
            delete.clone(),
            "/api/v1/organisation",
            "deleteOrganisation",
            (P::ManageAccess, Scope::Organisation),
            "Deletes the organisation: all that is known of it, its keys and its audit log.",
            tenants::delete_organisation,
        )
        .query(&[CONFIRM]),
        Endpoint::new(
            get.clone(),
            all,
            "listEnvironments",
            (P::ReadTables, Scope::Organisation),
            "Environments in which something may be read.",
            tenants::environments,
        )
        .filtered()
        .query(&[CURSOR, LIMIT])
        .gives::<Page<tenants::Environment>>(),
        Endpoint::new(
            post.clone(),
            all,
            "createEnvironment",
            manage,
            "Makes an environment.",
            tenants::make_environment,
        )
        .takes::<tenants::NewName>()
        .gives::<tenants::Environment>()
        .status(StatusCode::CREATED),
        Endpoint::new(
            delete.clone(),
            one,
            "deleteEnvironment",
            (P::ManageEnvironments, Scope::Environment),
            "Deletes an environment with all that is known of its clusters and tables.",
            tenants::delete_environment,
        ),
        Endpoint::new(
            get,
            clusters,
            "listClusters",
            (P::ReadTables, Scope::Environment),
            "Clusters in which something may be read.",
            tenants::clusters,
        )
        .filtered()
        .query(&[CURSOR, LIMIT])
        .gives::<Page<tenants::Cluster>>(),
        Endpoint::new(
            post,
            clusters,
            "createCluster",
            (P::ManageClusters, Scope::Environment),
            "Makes a cluster: workers with one credential, and their tables.",
            tenants::make_cluster,
        )
        .takes::<tenants::NewName>()
        .gives::<tenants::Cluster>()
        .status(StatusCode::CREATED),
        Endpoint::new(
            delete,
            cluster,
            "deleteCluster",
            (P::ManageClusters, Scope::Cluster),
            "Deletes a cluster with all that is known of its tables.",
            tenants::delete_cluster,
        ),
    ]
}

fn table_endpoints() -> Vec<Endpoint> {
    let get = Method::GET;
    let of_cluster = "/api/v1/environments/{environment}/clusters/{cluster}/tables";
    let one = "/api/v1/environments/{environment}/clusters/{cluster}/tables/{table}";
    let read = (P::ReadTables, Scope::Table);
    vec![
        Endpoint::new(
            get.clone(),
            of_cluster,
            "listTables",
            (P::ReadTables, Scope::Cluster),
            "Tables that may be read, by name.",
            tables::list,
        )
        .filtered()
        .query(&[PREFIX, CURSOR, LIMIT])
        .gives::<Page<tables::TableSummary>>(),
        Endpoint::new(get.clone(), one, "getTable", read, "One table.", tables::get).gives::<tables::Table>(),
        Endpoint::new(
            Method::DELETE,
            one,
            "deleteTable",
            (P::DeleteTables, Scope::Table),
            "Forgets all that is known of a table. The table itself is not touched.",
            tables::delete,
        ),
        Endpoint::new(
            get.clone(),
            "/api/v1/environments/{environment}/clusters/{cluster}/tables/{table}/files",
            "listFiles",
            read,
            "Live data files.",
            tables::files,
        )
        .query(&[CURSOR, LIMIT])
        .gives::<Page<tables::File>>(),
        Endpoint::new(
            get.clone(),
            "/api/v1/environments/{environment}/clusters/{cluster}/tables/{table}/commits",
            "listCommits",
            read,
            "Commits, newest first.",
            tables::commits,
        )
        .query(&[CURSOR, LIMIT])
        .gives::<Page<tables::Commit>>(),
        Endpoint::new(
            get.clone(),
            "/api/v1/environments/{environment}/clusters/{cluster}/tables/{table}/offsets",
            "listOffsets",
            read,
            "What is committed of each topic partition.",
            tables::offsets,
        )
        .query(&[CURSOR, LIMIT])
        .gives::<Page<tables::Offset>>(),
        Endpoint::new(
            get.clone(),
            "/api/v1/environments/{environment}/clusters/{cluster}/tables/{table}/series",
            "getSeries",
            read,
            "How a table fared over time.",
            tables::series,
        )
        .query(&[FROM, TO, STEP])
        .gives::<Page<tables::Sample>>(),
        Endpoint::new(
            get.clone(),
            "/api/v1/environments/{environment}/clusters/{cluster}/workers",
            "listWorkers",
            (P::ReadWorkers, Scope::Cluster),
            "Workers that are there, with samples of their events and profiles. Held in memory only.",
            tables::workers,
        )
        .query(&[CURSOR, LIMIT])
        .gives::<Page<crate::presence::WorkerView>>(),
        Endpoint::new(
            get,
            "/api/v1/environments/{environment}/clusters/{cluster}/commands",
            "listCommands",
            (P::ReadCommands, Scope::Cluster),
            "Commands, newest first.",
            commands::list,
        )
        .query(&[TABLE, CURSOR, LIMIT])
        .gives::<Page<commands::CommandView>>(),
        Endpoint::new(
            Method::POST,
            "/api/v1/environments/{environment}/clusters/{cluster}/tables/{table}/commands",
            "createCommand",
            (P::Command, Scope::Table),
            "Asks the workers to do something with a table.",
            commands::create,
        )
        .takes::<commands::NewCommand>()
        .gives::<commands::CommandView>()
        .status(StatusCode::CREATED),
        Endpoint::new(
            Method::POST,
            "/api/v1/environments/{environment}/clusters/{cluster}/rotate",
            "rotateWorkerKeys",
            (P::Command, Scope::Cluster),
            "Asks the workers to read their API key anew.",
            commands::rotate,
        )
        .gives::<commands::CommandView>()
        .status(StatusCode::CREATED),
    ]
}

fn access_endpoints() -> Vec<Endpoint> {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let (read, manage) = ((P::ReadAccess, Scope::Organisation), (P::ManageAccess, Scope::Organisation));
    let (accounts, bindings, keys) =
        ("/api/v1/service-accounts", "/api/v1/role-bindings", "/api/v1/api-keys");
    vec![
        Endpoint::new(
            get.clone(),
            accounts,
            "listServiceAccounts",
            read,
            "Service accounts.",
            access::accounts,
        )
        .query(&[CURSOR, LIMIT])
        .gives::<Page<access::ServiceAccount>>(),
        Endpoint::new(
            post.clone(),
            accounts,
            "createServiceAccount",
            manage,
            "Makes one.",
            access::make_account,
        )
        .takes::<tenants::NewName>()
        .gives::<access::ServiceAccount>()
        .status(StatusCode::CREATED),
        Endpoint::new(
            delete.clone(),
            "/api/v1/service-accounts/{service_account}",
            "deleteServiceAccount",
            manage,
            "Deletes one, with its keys and role bindings.",
            access::delete_account,
        ),
        Endpoint::new(
            get.clone(),
            bindings,
            "listRoleBindings",
            read,
            "Who has which role where.",
            access::bindings,
        )
        .query(&[CURSOR, LIMIT])
        .gives::<Page<access::RoleBinding>>(),
        Endpoint::new(
            post.clone(),
            bindings,
            "createRoleBinding",
            manage,
            "Gives a role.",
            access::make_binding,
        )
        .takes::<access::NewRoleBinding>()
        .gives::<access::RoleBinding>()
        .status(StatusCode::CREATED),
        Endpoint::new(
            delete.clone(),
            "/api/v1/role-bindings/{role_binding}",
            "deleteRoleBinding",
            manage,
            "Takes a role away. It counts at once.",
            access::delete_binding,
        ),
        Endpoint::new(
            get.clone(),
            keys,
            "listApiKeys",
            read,
            "API keys, without their secrets.",
            access::keys,
        )
        .query(&[CURSOR, LIMIT])
        .gives::<Page<access::KeyView>>(),
        Endpoint::new(
            post.clone(),
            keys,
            "createApiKey",
            manage,
            "Makes a key, shown this once.",
            access::make_key,
        )
        .shows_secret()
        .takes::<access::NewKey>()
        .gives::<access::ShownKey>()
        .status(StatusCode::CREATED),
        Endpoint::new(
            post,
            "/api/v1/api-keys/{api_key}/rotate",
            "rotateApiKey",
            manage,
            "Makes a successor, shown this once; the old key goes on for so long.",
            access::rotate_key,
        )
        .shows_secret()
        .takes::<access::Rotation>()
        .gives::<access::ShownKey>()
        .status(StatusCode::CREATED),
        Endpoint::new(
            delete,
            "/api/v1/api-keys/{api_key}",
            "revokeApiKey",
            manage,
            "Revokes a key. It counts at once.",
            access::revoke_key,
        ),
        Endpoint::new(
            get,
            "/api/v1/audit",
            "listAudit",
            (P::ReadAudit, Scope::Organisation),
            "The audit log, newest first.",
            audit::list,
        )
        .query(&[CURSOR, LIMIT])
        .gives::<Page<AuditEntry>>(),
    ]
}
