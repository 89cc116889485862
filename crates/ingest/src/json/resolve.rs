//! Finding what a `$ref` points at, within the documents that came with the schema. Nothing is fetched.
//!
//! A reference is `uri#fragment`. The uri is empty (same document), the name of a registry reference, the
//! `$id` of a document, or the `$id` of a schema embedded in one; it is compared whole, then resolved against
//! the `$id` of the referring document. The fragment is a JSON pointer, or an `$anchor`.

use super::ordered::Json;

/// Bound on the search for embedded ids and anchors.
const SEARCH_DEPTH_MAX: usize = 64;

/// The schema (first) and everything it refers to.
pub(super) struct Documents {
    documents: Vec<Document>,
}

struct Document {
    name: String,
    root: Json,
}

/// A schema node and the document it is in.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) document: usize,
    pub(super) json: &'a Json,
}

impl Documents {
    pub(super) fn new(root: Json) -> Self {
        Self { documents: vec![Document { name: String::new(), root }] }
    }

    pub(super) fn add(&mut self, name: &str, root: Json) {
        self.documents.push(Document { name: name.to_owned(), root });
    }

    pub(super) fn root(&self) -> Option<Node<'_>> {
        self.documents.first().map(|document| Node { document: 0, json: &document.root })
    }

    /// What `reference`, found in document `from`, points at.
    pub(super) fn resolve(&self, from: usize, reference: &str) -> Option<Node<'_>> {
        let (uri, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let base = if uri.is_empty() {
            Node { document: from, json: &self.documents.get(from)?.root }
        } else {
            self.find(uri).or_else(|| self.find(&absolute(id_of(&self.documents.get(from)?.root)?, uri)))?
        };
        let json = match fragment {
            "" => base.json,
            pointer if pointer.starts_with('/') => point(base.json, pointer)?,
            anchor => search(base.json, SEARCH_DEPTH_MAX, &mut |node| {
                let named = |key: &str, text: &str| node.get(key).and_then(Json::as_str) == Some(text);
                let hashed = format!("#{anchor}");
                named("$anchor", anchor) || named("$id", &hashed) || named("id", &hashed)
            })?,
        };
        Some(Node { document: base.document, json })
    }

    fn find(&self, uri: &str) -> Option<Node<'_>> {
        let documents = || self.documents.iter().enumerate();
        let whole =
            documents().find(|(_, document)| document.name == uri || id_of(&document.root) == Some(uri));
        if let Some((index, document)) = whole {
            return Some(Node { document: index, json: &document.root });
        }
        documents().find_map(|(index, document)| {
            let json = search(&document.root, SEARCH_DEPTH_MAX, &mut |node| {
                id_of(node).is_some_and(|id| {
                    id == uri || id_of(&document.root).is_some_and(|base| absolute(base, id) == uri)
                })
            })?;
            Some(Node { document: index, json })
        })
    }
}

fn id_of(node: &Json) -> Option<&str> {
    let id = node.get("$id").or_else(|| node.get("id")).and_then(Json::as_str)?;
    let id = id.strip_suffix('#').unwrap_or(id);
    (!id.is_empty()).then_some(id)
}

/// `uri` seen from `base`: only as much of RFC 3986 as schema ids use.
fn absolute(base: &str, uri: &str) -> String {
    if uri.contains("://") || uri.starts_with("urn:") {
        return uri.to_owned();
    }
    let authority_end = base.find("://").map_or(0, |scheme| {
        let start = scheme + 3;
        base[start..].find('/').map_or(base.len(), |slash| start + slash)
    });
    if uri.starts_with('/') {
        return format!("{}{uri}", &base[..authority_end]);
    }
    match base.rfind('/') {
        Some(slash) if slash >= authority_end => {
            format!("{}/{}", &base[..slash], uri.strip_prefix("./").unwrap_or(uri))
        }
        _ if authority_end > 0 => format!("{base}/{uri}"),
        _ => uri.to_owned(),
    }
}

fn point<'a>(root: &'a Json, pointer: &str) -> Option<&'a Json> {
    let mut node = root;
    for part in pointer.split('/').skip(1) {
        let part = percent_decoded(part)?.replace("~1", "/").replace("~0", "~");
        node = match node {
            Json::Array(items) => items.get(part.parse::<usize>().ok()?)?,
            _ => node.get(&part)?,
        };
    }
    Some(node)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        rest = tail.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

/// The first node, parents before children, that `wanted` takes.
fn search<'a>(node: &'a Json, depth: usize, wanted: &mut dyn FnMut(&Json) -> bool) -> Option<&'a Json> {
    if depth == 0 {
        return None;
    }
    if matches!(node, Json::Object(_)) && wanted(node) {
        return Some(node);
    }
    let members = node.members().iter().map(|(_, value)| value);
    for child in members.chain(node.items()) {
        if let Some(found) = search(child, depth - 1, wanted) {
            return Some(found);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::absolute;

    #[test]
    fn relative_ids_resolve_against_the_document() {
        assert_eq!(absolute("http://a.example/s/order.json", "item.json"), "http://a.example/s/item.json");
        assert_eq!(absolute("http://a.example/s/order.json", "./item.json"), "http://a.example/s/item.json");
        assert_eq!(absolute("http://a.example/s/order.json", "/item.json"), "http://a.example/item.json");
        assert_eq!(absolute("http://a.example", "item.json"), "http://a.example/item.json");
        assert_eq!(absolute("http://a.example/x", "urn:b:c"), "urn:b:c");
        assert_eq!(absolute("order.json", "item.json"), "item.json");
    }
}
