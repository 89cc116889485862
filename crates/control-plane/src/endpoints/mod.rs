//! The one table of endpoints.
//!
//! An [`Endpoint`] says everything of itself: method, path, what right it needs on what, what it takes and gives. From
//! the table come the router (`dispatch`), the check of rights before any handler, and the OpenAPI document
//! (`openapi`). A handler cannot be reached in any other way.

mod call;
mod dispatch;
pub(crate) mod once;
mod openapi;
mod table;

use std::{fmt, sync::Arc};

use axum::http::{Method, StatusCode};
use futures::future::BoxFuture;
use schemars::{JsonSchema, Schema, SchemaGenerator};

pub use self::{
    call::{Call, Page, Reply},
    dispatch::router,
    openapi::document,
    table::all,
};
use crate::{auth::Permission, problem::Problem};

/// What a request is about, and so on what its right must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Nothing of anybody's.
    Nothing,
    Organisation,
    /// `{environment}` in the path.
    Environment,
    /// `{environment}` and `{cluster}` in the path.
    Cluster,
    /// `{environment}`, `{cluster}` and `{table}` in the path.
    Table,
    /// The one cluster of a worker's credential.
    Worker,
}

/// A parameter in the query.
#[derive(Debug, Clone, Copy)]
pub struct QueryParameter {
    pub name: &'static str,
    pub about: &'static str,
    pub kind: QueryKind,
}

/// What a query parameter may be.
#[derive(Debug, Clone, Copy)]
pub enum QueryKind {
    Integer {
        min: i64,
        max: i64,
        default: i64,
    },
    /// At most so many bytes, without control characters.
    Text {
        max: usize,
    },
    Word(&'static [&'static str]),
}

type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Reply, Problem>> + Send + Sync>;
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One endpoint.
#[derive(Clone)]
pub struct Endpoint {
    pub method: Method,
    /// In axum's form.
    pub path: &'static str,
    /// Unique; a verb and what it is about.
    pub operation: &'static str,
    pub about: &'static str,
    pub permission: Permission,
    pub scope: Scope,
    /// True: its answer may wait, and meanwhile it holds no place among the requests under way.
    pub waits: bool,
    /// True: it lists what the grants cover, and any right within the resource is enough.
    pub filtered: bool,
    /// True: its answer has a secret that is shown once, and is not kept for those who ask twice.
    pub shows_secret: bool,
    /// True: parameters of the query that it does not declare are passed over.
    pub lenient: bool,
    pub query: Vec<QueryParameter>,
    pub request: Option<SchemaOf>,
    pub response: Option<SchemaOf>,
    pub status: StatusCode,
    pub handler: Handler,
}

impl Endpoint {
    fn new<F>(
        method: Method,
        path: &'static str,
        operation: &'static str,
        (permission, scope): (Permission, Scope),
        about: &'static str,
        handler: fn(Call) -> F,
    ) -> Self
    where
        F: Future<Output = Result<Reply, Problem>> + Send + 'static,
    {
        Self {
            method,
            path,
            operation,
            about,
            permission,
            scope,
            waits: false,
            filtered: false,
            shows_secret: false,
            lenient: false,
            query: Vec::new(),
            request: None,
            response: None,
            status: StatusCode::OK,
            handler: Arc::new(move |call| Box::pin(handler(call))),
        }
    }

    fn waits(mut self) -> Self {
        self.waits = true;
        self
    }

    fn filtered(mut self) -> Self {
        self.filtered = true;
        self
    }

    fn shows_secret(mut self) -> Self {
        self.shows_secret = true;
        self
    }

    fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    fn query(mut self, parameters: &[QueryParameter]) -> Self {
        self.query.extend_from_slice(parameters);
        self
    }

    fn takes<T: JsonSchema>(mut self) -> Self {
        self.request = Some(|generator| generator.subschema_for::<T>());
        self
    }

    fn gives<T: JsonSchema>(mut self) -> Self {
        self.response = Some(|generator| generator.subschema_for::<T>());
        self
    }

    fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}
