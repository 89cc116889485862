//! The console: one web page, served by this binary from what is built into it. Nothing is fetched from elsewhere, no
//! script or style is inline, and the policy in the headers lets nothing else run.
//!
//! It reads the same API as every client, with the rights of who is signed in. The files hold no data, so that they
//! need no credential.

use std::{fmt::Write as _, sync::LazyLock};

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
    routing::get,
};
use sha2::{Digest, Sha256};

/// What the page may do: run and show what this server serves, and ask this server. No string becomes markup or code.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
                      object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const MISSING: &str = concat!(
    r#"{"type":"urn:siltstone:problem:not-found","title":"There is no such thing here","status":404,"#,
    r#""detail":"the console has no file of this name; it begins at /"}"#
);

/// One file of the console.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
    /// From the content, in quotes.
    etag: HeaderValue,
}

macro_rules! assets {
    ($($path:literal: $content_type:ident,)+) => {
        [$(($path, $content_type, include_str!(concat!("assets/", $path))),)+]
    };
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let all = assets! {
        "index.html": HTML,
        "icon.svg": SVG,
        "base.css": CSS,
        "dialogs.css": CSS,
        "parts.css": CSS,
        "phone.css": CSS,
        "tables.css": CSS,
        "theme.js": SCRIPT,
        "app.js": SCRIPT,
        "api.js": SCRIPT,
        "dom.js": SCRIPT,
        "format.js": SCRIPT,
        "frame.js": SCRIPT,
        "plot.js": SCRIPT,
        "routes.js": SCRIPT,
        "ui.js": SCRIPT,
        "views/access.js": SCRIPT,
        "views/audit.js": SCRIPT,
        "views/commands.js": SCRIPT,
        "views/disclosures.js": SCRIPT,
        "views/grants.js": SCRIPT,
        "views/health.js": SCRIPT,
        "views/lists.js": SCRIPT,
        "views/missing.js": SCRIPT,
        "views/organisation.js": SCRIPT,
        "views/overview.js": SCRIPT,
        "views/schema.js": SCRIPT,
        "views/signin.js": SCRIPT,
        "views/table.js": SCRIPT,
        "views/tables.js": SCRIPT,
        "views/users.js": SCRIPT,
        "views/workers.js": SCRIPT,
    };
    let asset = |(path, content_type, text): (&'static str, &'static str, &'static str)| Asset {
        path,
        content_type,
        text,
        etag: etag(text),
    };
    all.into_iter().map(asset).collect()
});

fn etag(text: &str) -> HeaderValue {
    let mut tag = String::from("\"");
    for byte in Sha256::digest(text).iter().take(16) {
        // Writing to a string does not fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The console at `/`, its files below `/console/`.
pub fn router() -> Router {
    let page = |headers: HeaderMap| async move { answer("index.html", &headers) };
    let file = |Path(path): Path<String>, headers: HeaderMap| async move { answer(&path, &headers) };
    Router::new().route("/", get(page)).route("/console/{*path}", get(file))
}

fn answer(path: &str, headers: &HeaderMap) -> Response<Body> {
    let Some(asset) = ASSETS.iter().find(|asset| asset.path == path) else {
        let mut response = Response::new(Body::from(MISSING));
        *response.status_mut() = StatusCode::NOT_FOUND;
        let problem = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, problem);
        return response;
    };
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let is_known = known.flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == asset.etag.as_bytes()
    });
    let mut response = Response::new(if is_known { Body::empty() } else { Body::from(asset.text) });
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let fixed = [
        (header::CONTENT_TYPE, asset.content_type),
        // Kept, and asked for again each time: a new version of the server is a new version of the page.
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().insert(header::ETAG, asset.etag.clone());
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{collections::BTreeSet, fs, path::PathBuf};

    use super::*;

    /// What the scripts import, and the page names, is served; what is in the folder is served.
    #[test]
    fn every_file_is_served_and_every_link_leads_to_one() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/console/assets");
        let served: BTreeSet<&str> = ASSETS.iter().map(|asset| asset.path).collect();
        let mut there = BTreeSet::new();
        for folder in ["", "views/"] {
            for entry in fs::read_dir(root.join(folder)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    there.insert(format!("{folder}{}", entry.file_name().into_string().unwrap()));
                }
            }
        }
        assert_eq!(there.iter().map(String::as_str).collect::<BTreeSet<_>>(), served);
        for asset in ASSETS.iter().filter(|asset| asset.content_type == SCRIPT) {
            let folder = asset.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            for import in asset.text.split(" from \"").skip(1).filter_map(|rest| rest.split('"').next()) {
                let path = match import.strip_prefix("../") {
                    Some(above) => above.to_owned(),
                    None => format!("{folder}/{}", import.trim_start_matches("./"))
                        .trim_start_matches('/')
                        .to_owned(),
                };
                assert!(served.contains(path.as_str()), "{} imports {import}", asset.path);
            }
        }
    }

    /// Nothing in the page needs what the policy forbids, and nothing comes from elsewhere.
    #[test]
    fn no_markup_from_strings_and_no_other_origin() {
        for asset in ASSETS.iter() {
            for forbidden in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=", "//cdn"]
            {
                assert!(!asset.text.contains(forbidden), "{}: {forbidden}", asset.path);
            }
            let elsewhere = asset
                .text
                .split("http")
                .skip(1)
                .filter(|rest| rest.starts_with("://") || rest.starts_with("s://"));
            let elsewhere: Vec<_> =
                elsewhere.filter(|rest| !rest.starts_with("://www.w3.org/2000/svg")).collect();
            assert!(elsewhere.is_empty(), "{}", asset.path);
        }
    }

    #[test]
    fn a_known_file_is_not_sent_again() {
        let first = answer("app.js", &HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers().get(header::ETAG).unwrap().clone();
        let again = answer("app.js", &HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)]));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(answer("../mod.rs", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }
}
