//! What a grammar cannot say: names resolve, fields fit each other. Makes the model.
//!
//! A table or cluster with a fault of form is left out here, so that one mistake is reported once.

mod catalog;
mod cluster;
mod readers;
mod retention;
mod source;
mod table;
mod transforms;

use std::collections::{BTreeMap, HashMap};

use crate::{
    environment::Sources,
    error::Fault,
    model::{DlqMode, SourceCluster, Spec, TableSpec},
    nearest::nearest,
    raw::RawSpec,
    url_text,
    yaml::{Node, Position},
};

/// A place in the file, whether written there or not: faults point at the nearest node that is.
pub(crate) struct Place<'a> {
    node: Option<&'a Node>,
    position: Position,
    path: String,
}

impl<'a> Place<'a> {
    pub(crate) fn root(node: &'a Node) -> Self {
        Self { node: Some(node), position: node.position, path: String::new() }
    }

    pub(crate) fn key(&self, key: &str) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        self.child(self.node.and_then(|node| node.get(key)), path)
    }

    pub(crate) fn item(&self, index: usize) -> Self {
        self.child(self.node.and_then(|node| node.item(index)), format!("{}[{index}]", self.path))
    }

    fn child(&self, node: Option<&'a Node>, path: String) -> Self {
        Self { node, position: node.map_or(self.position, |node| node.position), path }
    }
}

pub(crate) struct Lower<'a> {
    sources: &'a Sources<'a>,
    pub(crate) faults: Vec<Fault>,
}

impl<'a> Lower<'a> {
    pub(crate) fn new(sources: &'a Sources<'a>) -> Self {
        Self { sources, faults: Vec::new() }
    }

    fn fault(&mut self, place: &Place<'_>, message: impl Into<String>) {
        let (line, column) = (place.position.line, place.position.column);
        self.faults.push(Fault { line, column, path: place.path.clone(), message: message.into() });
    }

    /// The model, to be used only when there are no faults. `root`: the whole file.
    pub(crate) fn spec(&mut self, raw: RawSpec, root: &Node) -> Option<Spec> {
        let root = Place::root(root);
        let place = root.key("source_clusters");
        let clusters_sound =
            !raw.source_clusters.is_empty() && raw.source_clusters.iter().all(|c| c.0.is_some());
        let mut clusters: Vec<SourceCluster> = Vec::new();
        for (index, cluster) in raw.source_clusters.into_iter().enumerate() {
            let Some(cluster) = cluster.0 else { continue };
            let cluster = self.cluster(cluster, &place.item(index));
            if clusters.iter().any(|known| known.name == cluster.name) {
                self.fault(&place.item(index).key("name"), "the name is taken by a cluster before");
            }
            clusters.push(cluster);
        }
        let place = root.key("tables");
        let mut tables: Vec<(usize, TableSpec)> = Vec::new();
        for (index, table) in raw.tables.into_iter().enumerate() {
            let Some(table) = table.0 else { continue };
            let at = place.item(index);
            let cluster = clusters.iter().find(|cluster| cluster.name == table.source_cluster_name.0);
            if cluster.is_none() && clusters_sound {
                let names = || clusters.iter().map(|cluster| cluster.name.as_str());
                let message = match nearest(&table.source_cluster_name.0, names()) {
                    Some(name) => format!("no cluster of this name, did you mean {name}?"),
                    None => format!(
                        "no cluster of this name; known are {}",
                        names().collect::<Vec<_>>().join(", ")
                    ),
                };
                self.fault(&at.key("source_cluster_name"), message);
            }
            tables.push((index, self.table(table, cluster, &at)));
        }
        self.names(&tables, &place);
        self.catalog_names(&tables, &place);
        let control_plane = raw.control_plane.map(|raw| self.control_plane(raw, &root.key("control_plane")));
        let destination = url_text::destination(&raw.destination_bucket_url.0?.0).ok()?;
        for (index, table) in &tables {
            let vended = table.catalog.as_ref().is_some_and(|catalog| catalog.vended_credentials);
            if vended && !destination.url.starts_with("s3://") {
                let at = place.item(*index).key("catalogs").item(0).key("vended_credentials");
                self.fault(
                    &at,
                    "is for s3:// destinations; leave it out, and give credentials by the environment",
                );
            }
        }
        let tables: Vec<TableSpec> = tables.into_iter().map(|(_, table)| table).collect();
        let place = root.key("readers_catalog");
        let readers_catalog = raw.readers_catalog.map(|raw| self.readers_catalog(raw, &tables, &place));
        Some(Spec { source_clusters: clusters, destination, control_plane, readers_catalog, tables })
    }

    /// No two tables share a place or a consumer group.
    fn names(&mut self, tables: &[(usize, TableSpec)], place: &Place<'_>) {
        let mut locations: BTreeMap<String, usize> = BTreeMap::new();
        let mut groups: HashMap<(&str, &str), usize> = HashMap::new();
        for (index, table) in tables {
            let at = place.item(*index);
            // Catalogs and some file systems do not tell case apart.
            let folded = table.location().to_lowercase();
            if let Some(other) = locations.insert(folded, *index) {
                self.fault(&at.key("name"), format!("the name is taken by tables[{other}]"));
            }
            if let Some(other) = groups.insert((&table.cluster, &table.group), *index) {
                let message = format!("the group is taken by tables[{other}]; each table needs its own");
                self.fault(&at.key("group"), message);
            }
        }
        for (index, table) in tables {
            let at = place.item(*index).key("name");
            let location = table.location().to_lowercase();
            let outer = location.match_indices('/').find_map(|(end, _)| locations.get(&location[..end]));
            if let Some(other) = outer {
                let message =
                    format!("lies inside tables[{other}], whose files are below its own name; rename one");
                self.fault(&at, message);
            }
            let dead_letters = table.dead_letter_name().replace('.', "/").to_lowercase();
            if let (DlqMode::DeadLetter, Some(other)) = (table.dlq_mode, locations.get(&dead_letters)) {
                let message = format!("its dead-letter table has the name of tables[{other}]; rename one");
                self.fault(&at, message);
            }
        }
    }
}
