//! What a request asks for. Paths and queries are bounded, decoded once, and looked at part by part.

use axum::http::{Method, Uri};
use percent_encoding::percent_decode_str;

use super::{
    BASE,
    answer::{Fault, Kind},
};

/// A path with its query is at most this long.
const URI_BYTES_MAX: usize = 16 << 10;
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1_000;
/// Stands between the levels of a namespace.
const SEPARATOR: char = '\u{1F}';

/// Levels of a namespace; none: the root.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Namespace(pub(super) Vec<String>);

impl Namespace {
    /// From a path or a query. No name has a dot in it, so clients that write dots between levels are understood.
    pub(super) fn of(text: &str) -> Self {
        Self(text.split([SEPARATOR, '.']).map(str::to_owned).collect())
    }

    /// As people write it.
    pub(super) fn dotted(&self) -> String {
        self.0.join(".")
    }
}

/// Endpoints of the protocol, by what this catalog does about them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Config,
    Token,
    Namespaces,
    Namespace(Namespace),
    Tables(Namespace),
    Table(Namespace, String),
    Credentials(Namespace, String),
    Report(Namespace, String),
    Views(Namespace),
    View,
    /// Would change something, or ask for work that is the client's.
    Write,
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Snapshots {
    All,
    /// Those that branches and tags name.
    Refs,
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// Begin after this name.
    pub(super) after: Option<String>,
    /// `None`: everything at once, as clients expect that do not ask for pages.
    pub(super) size: Option<usize>,
}

/// A request without headers and body.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) route: Route,
    query: Vec<(String, String)>,
}

impl Asked {
    /// # Errors
    /// `BadRequest`: too long, or not text.
    pub(super) fn of(method: &Method, uri: &Uri) -> Result<Self, Fault> {
        let query = uri.query().unwrap_or_default();
        if uri.path().len() + query.len() > URI_BYTES_MAX {
            return Err(Fault::new(Kind::BadRequest, "the address is too long"));
        }
        let path = uri.path().strip_prefix(BASE).unwrap_or_default();
        let Some(path) = path.strip_prefix("/v1/") else {
            return Ok(Self { route: Route::Unknown, query: Vec::new() });
        };
        let parts: Result<Vec<String>, _> = path
            .trim_end_matches('/')
            .split('/')
            .map(|part| percent_decode_str(part).decode_utf8().map(std::borrow::Cow::into_owned))
            .collect();
        let parts = parts.map_err(|_| Fault::new(Kind::BadRequest, "the address is not UTF-8"))?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Ok(Self { route: route(method, &parts), query })
    }

    /// A parameter of the query.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `pageToken` and `pageSize`. A client asks for pages by the first, which is empty at first.
    ///
    /// # Errors
    /// `BadRequest`: the size is not a number from 1.
    pub(super) fn page(&self) -> Result<Page, Fault> {
        let size = match self.query("pageSize") {
            None => None,
            Some(text) => match text.parse::<usize>() {
                Ok(size) if size > 0 => Some(size.min(PAGE_MAX)),
                _ => return Err(Fault::new(Kind::BadRequest, "pageSize is a number from 1")),
            },
        };
        Ok(match self.query("pageToken") {
            None => Page { after: None, size },
            Some(after) => {
                let after = (!after.is_empty()).then(|| after.to_owned());
                Page { after, size: Some(size.unwrap_or(PAGE_DEFAULT)) }
            }
        })
    }

    /// # Errors
    /// `BadRequest`: neither `all` nor `refs`.
    pub(super) fn snapshots(&self) -> Result<Snapshots, Fault> {
        match self.query("snapshots") {
            None | Some("all") => Ok(Snapshots::All),
            Some("refs") => Ok(Snapshots::Refs),
            Some(_) => Err(Fault::new(Kind::BadRequest, "snapshots is all or refs")),
        }
    }
}

fn route(method: &Method, parts: &[&str]) -> Route {
    let read = method == Method::GET || method == Method::HEAD;
    let post = method == Method::POST;
    let of = Namespace::of;
    match parts {
        ["config"] if read => Route::Config,
        ["oauth", "tokens"] if post => Route::Token,
        ["namespaces"] if read => Route::Namespaces,
        ["namespaces", namespace] if read => Route::Namespace(of(namespace)),
        ["namespaces", namespace, "tables"] if read => Route::Tables(of(namespace)),
        ["namespaces", namespace, "tables", name] if read => Route::Table(of(namespace), (*name).to_owned()),
        ["namespaces", namespace, "tables", name, "credentials"] if read => {
            Route::Credentials(of(namespace), (*name).to_owned())
        }
        ["namespaces", namespace, "tables", name, "metrics"] if post => {
            Route::Report(of(namespace), (*name).to_owned())
        }
        ["namespaces", namespace, "views"] if read => Route::Views(of(namespace)),
        ["namespaces", _, "views", _] if read => Route::View,
        ["namespaces" | "tables" | "views" | "transactions", ..] if !read => Route::Write,
        _ => Route::Unknown,
    }
}
