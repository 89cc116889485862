//! Several schemas that hold for one value (`$ref` and its neighbours, `allOf`), asked as if they were one.

use std::collections::BTreeMap;

use super::{ordered::Json, resolve::Node};

/// Schemas that all hold for the same value.
pub(super) struct Conjunction<'a> {
    pub(super) nodes: Vec<Node<'a>>,
}

impl<'a> Node<'a> {
    pub(super) fn member(self, name: &str) -> Option<Self> {
        self.json.get(name).map(|json| Node { document: self.document, json })
    }

    pub(super) fn is_null_schema(self) -> bool {
        let only = |value: Option<&Json>| value == Some(&Json::Null);
        self.json.get("type").and_then(Json::as_str) == Some("null")
            || only(self.json.get("const"))
            || matches!(self.json.get("enum").map(Json::items), Some([Json::Null]))
    }
}

impl<'a> Conjunction<'a> {
    pub(super) fn get(&self, keyword: &str) -> Option<Node<'a>> {
        self.nodes.iter().find_map(|node| node.member(keyword))
    }

    pub(super) fn text(&self, keyword: &str) -> Option<&'a str> {
        self.get(keyword).and_then(|node| node.json.as_str())
    }

    pub(super) fn connect(&self, connect_type: &str) -> bool {
        self.text("connect.type") == Some(connect_type)
    }

    /// The types without null, and whether null is one of them.
    pub(super) fn kinds(&self) -> (Vec<&'a str>, bool) {
        let mut nullable = self.nodes.iter().any(|node| node.json.get("nullable") == Some(&Json::Bool(true)));
        let mut kinds: Vec<&str> = match self.get("type").map(|node| node.json) {
            Some(Json::String(kind)) => vec![kind.as_str()],
            Some(kinds) => kinds.items().iter().filter_map(Json::as_str).collect(),
            None => Vec::new(),
        };
        let with_null = kinds.len();
        kinds.retain(|kind| *kind != "null");
        nullable |= kinds.len() < with_null;
        (kinds, nullable)
    }

    /// The branches of `oneOf` or `anyOf` but null.
    pub(super) fn union(&self) -> Option<Vec<Node<'a>>> {
        let branches: Vec<_> = self.branches().filter(|branch| !branch.is_null_schema()).collect();
        (!branches.is_empty() && self.properties().is_empty()).then_some(branches)
    }

    pub(super) fn union_has_null(&self) -> bool {
        self.branches().any(Node::is_null_schema)
    }

    fn branches(&self) -> impl Iterator<Item = Node<'a>> {
        let union = self.get("oneOf").or_else(|| self.get("anyOf"));
        union.into_iter().flat_map(|union| {
            union.json.items().iter().map(move |json| Node { document: union.document, json })
        })
    }

    /// The values of `enum` or `const`.
    pub(super) fn values(&self) -> Option<Vec<&'a Json>> {
        match self.get("enum") {
            Some(values) => Some(values.json.items().iter().collect()),
            None => self.get("const").map(|value| vec![value.json]),
        }
    }

    /// Properties in order: of the document, or of Connect's `connect.index` where all have one.
    pub(super) fn properties(&self) -> Vec<(&'a str, Vec<Node<'a>>)> {
        let mut properties: Vec<(&str, Vec<Node<'a>>)> = Vec::new();
        let mut known: BTreeMap<&str, usize> = BTreeMap::new();
        for node in &self.nodes {
            for (name, json) in node.json.get("properties").map_or(&[][..], Json::members) {
                let node = Node { document: node.document, json };
                let index = *known.entry(name.as_str()).or_insert_with(|| {
                    properties.push((name.as_str(), Vec::new()));
                    properties.len() - 1
                });
                if let Some((_, nodes)) = properties.get_mut(index) {
                    nodes.push(node);
                }
            }
        }
        let index =
            |nodes: &[Node<'a>]| nodes.iter().find_map(|node| node.json.get("connect.index")?.as_whole());
        if properties.iter().all(|(_, nodes)| index(nodes).is_some()) {
            properties.sort_by_key(|(_, nodes)| index(nodes));
        }
        properties
    }

    pub(super) fn requires(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| {
            node.json
                .get("required")
                .map_or(&[][..], Json::items)
                .iter()
                .any(|item| item.as_str() == Some(name))
        })
    }

    /// The schema of an object's values, when all members share one.
    pub(super) fn map_values(&self) -> Option<Node<'a>> {
        let additional = self.get("additionalProperties");
        if let Some(schema) = additional.filter(|node| !node.json.members().is_empty()) {
            return Some(schema);
        }
        let patterns = self.get("patternProperties")?;
        let ([(_, json)], None | Some(Json::Bool(false))) =
            (patterns.json.members(), additional.map(|node| node.json))
        else {
            return None;
        };
        Some(Node { document: patterns.document, json })
    }
}
