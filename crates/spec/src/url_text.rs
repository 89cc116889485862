//! Addresses: brokers, registries, the destination. None may carry a secret.

use std::collections::BTreeMap;

use url::Url;

use crate::{model::Destination, nearest::nearest};

/// Options that a destination of a scheme takes.
const OPTIONS: [(&str, &[&str]); 4] = [
    ("file", &[]),
    ("s3", &["region", "endpoint", "path_style", "allow_http", "profile", "skip_signature"]),
    ("gs", &["endpoint", "allow_http", "credentials_file", "skip_signature"]),
    ("az", &["account", "endpoint", "allow_http", "use_emulator"]),
];

const FLAGS: [&str; 4] = ["path_style", "allow_http", "skip_signature", "use_emulator"];

/// Reads `s3://bucket/prefix?region=eu-west-1`, `file:///data/lake`.
pub(crate) fn destination(text: &str) -> Result<Destination, String> {
    let (address, query) = text.split_once('?').unwrap_or((text, ""));
    let (scheme, rest) = address.split_once("://").unwrap_or(("", ""));
    let Some((_, known)) = OPTIONS.iter().find(|(name, _)| *name == scheme) else {
        return Err("must be a URL s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or \
                    file:///absolute/path"
            .to_owned());
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    check_bucket(scheme, bucket)?;
    let prefix = prefix.trim_end_matches('/');
    check_prefix(prefix)?;
    if scheme == "file" && prefix.is_empty() {
        return Err("a file destination is file:///absolute/path, and not the root directory".to_owned());
    }
    let options = options(query, known)?;
    let url = if prefix.is_empty() {
        format!("{scheme}://{bucket}")
    } else {
        format!("{scheme}://{bucket}/{prefix}")
    };
    Ok(Destination { url, options })
}

fn check_bucket(scheme: &str, bucket: &str) -> Result<(), String> {
    if scheme == "file" {
        return if bucket.is_empty() {
            Ok(())
        } else {
            Err("a file destination has three slashes: file:///absolute/path".to_owned())
        };
    }
    if bucket.contains(['@', ':']) {
        return Err(
            "a destination carries no credentials and no port; credentials come from the environment, \
                    another endpoint from the option endpoint"
                .to_owned(),
        );
    }
    let letters = bucket.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c));
    if letters && (3..=63).contains(&bucket.len()) {
        return Ok(());
    }
    Err("a bucket's name is 3 to 63 lower-case letters, digits, - _ and dots".to_owned())
}

fn check_prefix(prefix: &str) -> Result<(), String> {
    let sound = |part: &str| !part.is_empty() && part != "." && part != "..";
    let odd = |c: char| {
        c.is_control()
            || c.is_whitespace()
            || matches!(c, '#' | '%' | '\\' | '{' | '}' | '"' | '<' | '>' | '*')
    };
    if (prefix.is_empty() || prefix.split('/').all(sound)) && !prefix.contains(odd) {
        return Ok(());
    }
    Err("a destination's path has no empty part, no . or .., no spaces and none of # % \\ { } \" < > *"
        .to_owned())
}

fn options(query: &str, known: &[&str]) -> Result<BTreeMap<String, String>, String> {
    let mut options = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if !known.contains(&name.as_ref()) {
            if is_secret_like(&name) {
                return Err(
                    "credentials are no option; they come from the environment or the instance".to_owned()
                );
            }
            let hint = nearest(&name, known.iter().copied());
            let hint = hint.map(|name| format!(", did you mean {name}?")).unwrap_or_default();
            let all = match known {
                [] => "this scheme has none".to_owned(),
                known => format!("known here: {}", known.join(", ")),
            };
            return Err(if hint.is_empty() {
                format!("unknown option; {all}")
            } else {
                format!("unknown option{hint}")
            });
        }
        if value.is_empty() {
            return Err(format!("the option {name} needs a value"));
        }
        if FLAGS.contains(&name.as_ref()) && !matches!(value.as_ref(), "true" | "false") {
            return Err(format!("the option {name} is true or false"));
        }
        if options.insert(name.clone().into_owned(), value.into_owned()).is_some() {
            return Err(format!("the option {name} is given twice"));
        }
    }
    Ok(options)
}

/// True for names under which people keep secrets.
pub(crate) fn is_secret_like(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passwd", "secret", "token", "credential", "access_key", "account_key", "sas", "signature"]
        .iter()
        .any(|part| name.contains(part))
}

/// An http or https URL without credentials, query and trailing slash.
pub(crate) fn http_url(text: &str) -> Result<String, String> {
    let wrong = || "must be a URL http://host or https://host, with an optional port and path".to_owned();
    let url = Url::parse(text).map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "a URL carries no credentials here; use the fields username and password, or token".to_owned()
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("a base URL has no ? and no #".to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// True when nobody on the way can read what is sent to this URL: https, or http that stays on this machine.
pub fn is_private(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.has_host() && (url.scheme() == "https" || (url.scheme() == "http" && loopback))
}

/// `host:port`, with an IPv6 address in brackets.
pub(crate) fn check_broker(text: &str) -> Result<(), String> {
    let wrong = || "must be host:port, such as broker-1.internal:9092".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    if port.parse::<u16>().unwrap_or(0) == 0 {
        return Err(wrong());
    }
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    check_host(bracketed.unwrap_or(host))?;
    if host.contains(':') && bracketed.is_none() { Err(wrong()) } else { Ok(()) }
}

pub(crate) fn check_host(text: &str) -> Result<(), String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if !text.is_empty() && text.chars().all(letter) {
        return Ok(());
    }
    Err("must be a host name or an address, without a scheme".to_owned())
}
