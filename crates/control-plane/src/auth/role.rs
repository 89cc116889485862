//! Who may do what: roles, permissions, and the one table that joins them. Pure, and deny by default.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::resource::{Pattern, Resource};

/// What an endpoint needs. Each endpoint declares exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Anybody, without a credential.
    Public,
    /// Anybody with a valid credential, about itself.
    Session,
    /// Send messages of a worker.
    Report,
    ReadOrganisation,
    ReadTables,
    DeleteTables,
    ReadWorkers,
    ReadCommands,
    /// Pause, resume, compact, expire, rotate.
    Command,
    ManageEnvironments,
    ManageClusters,
    ReadAccess,
    /// Service accounts, keys, role bindings, users, allow-lists.
    ManageAccess,
    ReadAudit,
}

impl Permission {
    pub const ALL: &'static [Self] = &[
        Self::Public,
        Self::Session,
        Self::Report,
        Self::ReadOrganisation,
        Self::ReadTables,
        Self::DeleteTables,
        Self::ReadWorkers,
        Self::ReadCommands,
        Self::Command,
        Self::ManageEnvironments,
        Self::ManageClusters,
        Self::ReadAccess,
        Self::ManageAccess,
        Self::ReadAudit,
    ];

    /// True when it changes something.
    pub fn changes(self) -> bool {
        use Permission as P;
        matches!(
            self,
            P::Report
                | P::DeleteTables
                | P::Command
                | P::ManageEnvironments
                | P::ManageClusters
                | P::ManageAccess
        )
    }
}

/// A role, bound to a principal on a resource and everything below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    OrganisationAdmin,
    EnvironmentAdmin,
    Operator,
    MetadataReader,
    Worker,
}

impl Role {
    pub const ALL: &'static [Self] = &[
        Self::OrganisationAdmin,
        Self::EnvironmentAdmin,
        Self::Operator,
        Self::MetadataReader,
        Self::Worker,
    ];

    /// The stable snake_case name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrganisationAdmin => "organisation_admin",
            Self::EnvironmentAdmin => "environment_admin",
            Self::Operator => "operator",
            Self::MetadataReader => "metadata_reader",
            Self::Worker => "worker",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|role| role.as_str() == name)
    }

    /// What the role gives, on the resource that it is bound to and everything below. The whole table.
    pub fn permissions(self) -> &'static [Permission] {
        use Permission as P;
        match self {
            Self::OrganisationAdmin => &[
                P::ReadOrganisation,
                P::ReadTables,
                P::DeleteTables,
                P::ReadWorkers,
                P::ReadCommands,
                P::Command,
                P::ManageEnvironments,
                P::ManageClusters,
                P::ReadAccess,
                P::ManageAccess,
                P::ReadAudit,
            ],
            Self::EnvironmentAdmin => &[
                P::ReadTables,
                P::DeleteTables,
                P::ReadWorkers,
                P::ReadCommands,
                P::Command,
                P::ManageClusters,
            ],
            Self::Operator => &[P::ReadTables, P::ReadWorkers, P::ReadCommands, P::Command],
            Self::MetadataReader => &[P::ReadTables],
            Self::Worker => &[P::Report],
        }
    }
}

/// A role that a principal has somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub role: Role,
    pub pattern: Pattern,
}

/// The answer to one question of a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny,
}

/// Decides. `grants` are those of the principal, already cut down to the scope of its key.
pub fn decide(grants: &[Grant], permission: Permission, resource: &Resource) -> Decision {
    let gives =
        |grant: &Grant| grant.role.permissions().contains(&permission) && grant.pattern.covers(resource);
    match permission {
        Permission::Public | Permission::Session => Decision::Allow,
        _ if grants.iter().any(gives) => Decision::Allow,
        _ => Decision::Deny,
    }
}

/// Decides for a list, which shows only what the grants cover: a right on anything within the resource is enough.
pub fn decide_within(grants: &[Grant], permission: Permission, resource: &Resource) -> Decision {
    let gives = |grant: &Grant| {
        grant.role.permissions().contains(&permission)
            && (grant.pattern.covers(resource) || grant.pattern.is_within(resource))
    };
    if grants.iter().any(gives) { Decision::Allow } else { Decision::Deny }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every role x permission, written out: a change of the table must be made twice.
    #[test]
    fn the_table_is_as_agreed() {
        use Permission as P;
        let agreed: &[(P, [bool; 5])] = &[
            (P::Report, [false, false, false, false, true]),
            (P::ReadOrganisation, [true, false, false, false, false]),
            (P::ReadTables, [true, true, true, true, false]),
            (P::DeleteTables, [true, true, false, false, false]),
            (P::ReadWorkers, [true, true, true, false, false]),
            (P::ReadCommands, [true, true, true, false, false]),
            (P::Command, [true, true, true, false, false]),
            (P::ManageEnvironments, [true, false, false, false, false]),
            (P::ManageClusters, [true, true, false, false, false]),
            (P::ReadAccess, [true, false, false, false, false]),
            (P::ManageAccess, [true, false, false, false, false]),
            (P::ReadAudit, [true, false, false, false, false]),
        ];
        for (permission, expected) in agreed {
            for (role, expected) in Role::ALL.iter().zip(expected) {
                let grant = Grant { role: *role, pattern: Pattern::Organisation };
                let decided = decide(&[grant], *permission, &Resource::Organisation);
                assert_eq!(decided == Decision::Allow, *expected, "{permission:?} {role:?}");
            }
        }
        assert_eq!(agreed.len() + 2, P::ALL.len());
    }

    #[test]
    fn without_grants_all_is_denied() {
        for permission in Permission::ALL {
            let open = matches!(permission, Permission::Public | Permission::Session);
            let decided = decide(&[], *permission, &Resource::Organisation);
            assert_eq!(decided == Decision::Allow, open, "{permission:?}");
        }
    }
}
