//! The roles of people who use admin routes, from the names of their groups.

use std::collections::BTreeSet;
use std::fmt;

use crate::environment::Environment;

/// The prefix of groups that limit an editor to one environment.
const EDITOR_OF: &str = "editor:";

/// A role. Every role may read everything.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads everything and changes nothing.
    Viewer,
    /// Changes flags of one environment, with their overrides, schedules and ramps.
    EditorOf(Environment),
    /// Changes flags of every environment.
    Editor,
    /// Does everything.
    Admin,
}

impl Role {
    /// The role of the members of a group. Names are compared exactly: a group with a similar name has no role.
    #[must_use]
    pub fn of_group(name: &str) -> Option<Self> {
        match name {
            "viewer" => Some(Self::Viewer),
            "editor" => Some(Self::Editor),
            "admin" | "admins" => Some(Self::Admin),
            _ => {
                let environment = Environment::parse(name.strip_prefix(EDITOR_OF)?);
                environment.ok().map(Self::EditorOf)
            }
        }
    }

    /// The groups whose members have at least this role, as a list in a sentence.
    #[must_use]
    pub fn groups(&self) -> String {
        match self {
            Self::Viewer => "viewer, editor, editor:<environment>, admin or admins".to_owned(),
            Self::EditorOf(environment) => {
                format!("{EDITOR_OF}{environment}, editor, admin or admins")
            }
            Self::Editor => "editor, admin or admins".to_owned(),
            Self::Admin => "admin or admins".to_owned(),
        }
    }
}

/// The name of the role's group.
impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Viewer => formatter.write_str("viewer"),
            Self::EditorOf(environment) => write!(formatter, "{EDITOR_OF}{environment}"),
            Self::Editor => formatter.write_str("editor"),
            Self::Admin => formatter.write_str("admin"),
        }
    }
}

/// The roles of one person, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(BTreeSet<Role>);

impl Roles {
    /// The roles of a member of these groups; `None` if no group has a role.
    pub(crate) fn of_groups(groups: &[String]) -> Option<Self> {
        let roles: BTreeSet<Role> = groups
            .iter()
            .filter_map(|name| Role::of_group(name))
            .collect();
        (!roles.is_empty()).then_some(Self(roles))
    }

    /// Whether a person with these roles may do what needs this role.
    #[must_use]
    pub fn include(&self, needed: &Role) -> bool {
        let has = |role: &Role| self.0.contains(role);
        match needed {
            Role::Viewer => true,
            Role::EditorOf(_) => has(needed) || has(&Role::Editor) || has(&Role::Admin),
            Role::Editor => has(&Role::Editor) || has(&Role::Admin),
            Role::Admin => has(&Role::Admin),
        }
    }

    /// The roles, the least one first.
    pub fn iter(&self) -> impl Iterator<Item = &Role> {
        self.0.iter()
    }

    /// The environments that these roles name, sorted by name.
    pub fn environments(&self) -> impl Iterator<Item = &Environment> {
        self.0.iter().filter_map(|role| match role {
            Role::EditorOf(environment) => Some(environment),
            Role::Viewer | Role::Editor | Role::Admin => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str) -> Role {
        Role::of_group(name).expect("a role")
    }

    fn roles(groups: &[&str]) -> Option<Roles> {
        let groups: Vec<String> = groups.iter().map(|name| (*name).to_owned()).collect();
        Roles::of_groups(&groups)
    }

    #[test]
    fn only_the_exact_name_of_a_group_is_a_role() {
        for name in ["viewer", "editor", "editor:staging", "admin"] {
            assert_eq!(role(name).to_string(), name);
        }
        assert_eq!(role("admins"), Role::Admin);
        for name in [
            "",
            "Viewer",
            "viewers",
            "Editor",
            "editors",
            "EDITOR:staging",
            "ADMIN",
            " admin",
            "admin ",
            "admin\n",
            "admin\u{200b}",
            "admin,viewer",
            "[admin]",
            "\"admin\"",
            "\u{430}dmin",
            "ad\u{1e43}in",
            "\u{ff41}dmin",
            "editor:",
            "editor: ",
            "editor:*",
            "editor:production,admin",
            "editor:production admin",
            "editor:production:admin",
            "editor::production",
            "editor:{environment}",
            "editor:.environments",
            "editor:pr\u{43e}duction",
            "editor:123456789012345678901",
            "editor:production\0",
            "editor;production",
            "editor\u{ff1a}production",
            "admin:production",
            "viewer:production",
        ] {
            assert_eq!(Role::of_group(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_role_includes_those_below_it_and_no_other() {
        let needed = [
            "viewer",
            "editor:staging",
            "editor:production",
            "editor",
            "admin",
        ];
        for (groups, allowed) in [
            (&["viewer"][..], &[true, false, false, false, false]),
            (&["editor:staging"], &[true, true, false, false, false]),
            (&["editor:Staging"], &[true, false, false, false, false]),
            (
                &["editor:staging", "editor:production"],
                &[true, true, true, false, false],
            ),
            (&["viewer", "editor"], &[true, true, true, true, false]),
            (&["admin"], &[true; 5]),
            (&["users", "admins"], &[true; 5]),
        ] {
            let roles = roles(groups).expect("a role");
            let found = needed.map(|name| roles.include(&role(name)));
            assert_eq!(&found, allowed, "{groups:?}");
        }
        assert_eq!(roles(&["users", "editor:"]), None);
        assert_eq!(roles(&[]), None);
    }

    #[test]
    fn every_group_in_the_message_of_a_missing_role_has_that_role() {
        for name in ["viewer", "editor:staging", "editor", "admin"] {
            let needed = role(name);
            let text = needed.groups().replace("<environment>", "staging");
            for group in text.split([',', ' ']).filter(|it| !["", "or"].contains(it)) {
                let roles = roles(&[group]).expect("a role");
                assert!(roles.include(&needed), "{group} of {name}");
            }
        }
    }
}
