//! What rights are about: a tree of organisation, environments, clusters and tables.
//!
//! A request is about one [`Resource`]; a role is bound to a [`Pattern`], which covers a resource and what is below it.

use std::fmt;

/// What a request is about, within the organisation of its credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Organisation,
    Environment { environment: String },
    Cluster { environment: String, cluster: String },
    Table { environment: String, cluster: String, table: String },
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organisation => f.write_str("organisation"),
            Self::Environment { environment } => write!(f, "environment/{environment}"),
            Self::Cluster { environment, cluster } => {
                write!(f, "environment/{environment}/cluster/{cluster}")
            }
            Self::Table { environment, cluster, table } => {
                write!(f, "environment/{environment}/cluster/{cluster}/table/{table}")
            }
        }
    }
}

/// Where a role is bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    Organisation,
    Environment {
        environment: String,
    },
    Cluster {
        environment: String,
        cluster: String,
    },
    /// Tables of a cluster: one name, or all that begin with a prefix.
    Tables {
        environment: String,
        cluster: String,
        name: String,
        prefix: bool,
    },
}

impl Pattern {
    /// Reads `organisation`, `environment/E`, `environment/E/cluster/C`, `environment/E/cluster/C/table/NAME` and the
    /// last with a `*` at its end.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "organisation" {
            return Some(Self::Organisation);
        }
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        match parts.as_slice() {
            ["environment", environment] => {
                Some(Self::Environment { environment: (*environment).to_owned() })
            }
            ["environment", environment, "cluster", cluster] => {
                Some(Self::Cluster { environment: (*environment).to_owned(), cluster: (*cluster).to_owned() })
            }
            ["environment", environment, "cluster", cluster, "table", name] => {
                let prefix = name.ends_with('*');
                let name = name.strip_suffix('*').unwrap_or(name);
                let whole = !name.contains('*');
                let (environment, cluster) = ((*environment).to_owned(), (*cluster).to_owned());
                whole.then(|| Self::Tables { environment, cluster, name: name.to_owned(), prefix })
            }
            _ => None,
        }
    }

    /// True when the resource is what the pattern names, or below it. What is above it is not covered.
    pub fn covers(&self, resource: &Resource) -> bool {
        let (environment, cluster, table) = match resource {
            Resource::Organisation => (None, None, None),
            Resource::Environment { environment } => (Some(environment), None, None),
            Resource::Cluster { environment, cluster } => (Some(environment), Some(cluster), None),
            Resource::Table { environment, cluster, table } => {
                (Some(environment), Some(cluster), Some(table))
            }
        };
        match self {
            Self::Organisation => true,
            Self::Environment { environment: of } => environment == Some(of),
            Self::Cluster { environment: of, cluster: within } => {
                environment == Some(of) && cluster == Some(within)
            }
            Self::Tables { environment: of, cluster: within, name, prefix } => {
                let named = |table: &String| if *prefix { table.starts_with(name) } else { table == name };
                environment == Some(of) && cluster == Some(within) && table.is_some_and(named)
            }
        }
    }

    /// True when the pattern lies below the resource: then a list of what is in it shows a part.
    pub fn is_within(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Organisation => true,
            Resource::Environment { environment } => match self {
                Self::Organisation => false,
                Self::Environment { environment: of }
                | Self::Cluster { environment: of, .. }
                | Self::Tables { environment: of, .. } => of == environment,
            },
            Resource::Cluster { environment, cluster } => match self {
                Self::Organisation | Self::Environment { .. } => false,
                Self::Cluster { environment: of, cluster: within }
                | Self::Tables { environment: of, cluster: within, .. } => {
                    of == environment && within == cluster
                }
            },
            Resource::Table { .. } => self.covers(resource),
        }
    }

    /// True when all that `other` covers is covered by this one, too.
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Organisation, _) => true,
            (
                Self::Environment { environment },
                Self::Environment { environment: of }
                | Self::Cluster { environment: of, .. }
                | Self::Tables { environment: of, .. },
            ) => environment == of,
            (
                Self::Cluster { environment, cluster },
                Self::Cluster { environment: of, cluster: within }
                | Self::Tables { environment: of, cluster: within, .. },
            ) => environment == of && cluster == within,
            (
                Self::Tables { environment, cluster, name, prefix },
                Self::Tables { environment: of, cluster: within, name: named, prefix: many },
            ) => {
                let fits = if *prefix { named.starts_with(name) } else { !many && named == name };
                environment == of && cluster == within && fits
            }
            _ => false,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Organisation => f.write_str("organisation"),
            Self::Environment { environment } => write!(f, "environment/{environment}"),
            Self::Cluster { environment, cluster } => {
                write!(f, "environment/{environment}/cluster/{cluster}")
            }
            Self::Tables { environment, cluster, name, prefix } => {
                let star = if *prefix { "*" } else { "" };
                write!(f, "environment/{environment}/cluster/{cluster}/table/{name}{star}")
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(environment: &str, cluster: &str, table: &str) -> Resource {
        let (environment, cluster) = (environment.to_owned(), cluster.to_owned());
        Resource::Table { environment, cluster, table: table.to_owned() }
    }

    #[test]
    fn patterns_cover_what_is_below_and_nothing_beside_or_above() {
        let cases = [
            ("organisation", "organisation", true),
            ("organisation", "environment/e/cluster/c/table/t", true),
            ("environment/e", "organisation", false),
            ("environment/e", "environment/e/cluster/c", true),
            ("environment/e", "environment/e2/cluster/c", false),
            ("environment/e/cluster/c", "environment/e/cluster/c/table/shop.a", true),
            ("environment/e/cluster/c", "environment/e", false),
            ("environment/e/cluster/c/table/shop.*", "environment/e/cluster/c/table/shop.a", true),
            ("environment/e/cluster/c/table/shop.*", "environment/e/cluster/c/table/ship.a", false),
            ("environment/e/cluster/c/table/shop.*", "environment/e/cluster/d/table/shop.a", false),
            ("environment/e/cluster/c/table/shop.*", "environment/e/cluster/c", false),
            ("environment/e/cluster/c/table/shop", "environment/e/cluster/c/table/shop.a", false),
        ];
        for (pattern, resource, expected) in cases {
            let parts: Vec<&str> = resource.split('/').collect();
            let resource = match parts.as_slice() {
                [_] => Resource::Organisation,
                [_, e] => Resource::Environment { environment: (*e).to_owned() },
                [_, e, _, c] => Resource::Cluster { environment: (*e).to_owned(), cluster: (*c).to_owned() },
                [_, e, _, c, _, t] => table(e, c, t),
                _ => unreachable!(),
            };
            let read = Pattern::parse(pattern).unwrap();
            assert_eq!(read.to_string(), pattern);
            assert_eq!(read.covers(&resource), expected, "{pattern} {resource}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "",
            "environment",
            "environment/",
            "environment/e/table/t",
            "*",
            "environment/e/cluster/c/table/a*b",
        ] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }
}
