//! Database roles: the privileges of each kind of function. `migrate` creates the roles, updates their
//! privileges and writes their secrets.
//!
//! Three group roles, which cannot log in themselves, have the privileges to read, to write and to count. Each has
//! two logins as members (`logins`), and its secret names one of them. A rotation sets a new password for the other
//! login and writes it to the secret, so functions that have read the old secret keep a login that works.
//!
//! Passwords are sent to PostgreSQL as SCRAM-SHA-256 verifiers (RFC 5802 and 7677), because statements may be
//! logged.

mod logins;

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::error::chain;
use super::migrations::begin;
use crate::config::{DatabaseConfig, RolesConfig, Secret};
use crate::error::Error;
use crate::hex::hex;
use crate::secrets::Secrets;

/// A kind of function, by its access to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Reads flags and usage.
    Read,
    /// Changes flags, and reads all that the admin API returns.
    Write,
    /// Counts evaluations.
    Count,
}

/// The state of the roles after `migrate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolesState {
    /// No secrets of roles are configured: all functions use one login.
    OneLogin,
    /// Every role with a configured secret has a login, which the secret names.
    Ready {
        /// How many secrets were written by this run.
        written: usize,
    },
    /// The login of `migrate` may not create roles. An administrator has to run these statements, which contain
    /// verifiers instead of passwords.
    ByHand {
        /// Statements, each terminated by a semicolon.
        sql: String,
    },
}

/// The privileges of a role by table.
type Grants = &'static [(&'static str, &'static [&'static str])];

const READS: &[&str] = &["SELECT"];
const ADDS: &[&str] = &["INSERT", "SELECT"];
const CHANGES: &[&str] = &["DELETE", "INSERT", "SELECT", "UPDATE"];
const UPSERTS: &[&str] = &["INSERT", "SELECT", "UPDATE"];

impl Role {
    pub(super) const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Count];

    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Count => "count",
        }
    }

    /// No role may change or delete an entry of the audit.
    fn grants(self) -> Grants {
        match self {
            Self::Read => &[
                ("feature_flag_user_overrides", READS),
                ("feature_flags", READS),
                ("pennon_api_keys", READS),
                ("pennon_environment_settings", READS),
                ("pennon_environments", READS),
                ("pennon_evaluation_counts", READS),
                ("pennon_evaluation_hours", READS),
                ("pennon_installation", READS),
                ("pennon_migrations", READS),
            ],
            Self::Write => &[
                ("feature_flag_schedules", CHANGES),
                ("feature_flag_user_overrides", CHANGES),
                ("feature_flags", CHANGES),
                ("pennon_api_keys", CHANGES),
                ("pennon_audit", ADDS),
                ("pennon_environment_settings", CHANGES),
                ("pennon_environments", UPSERTS),
                ("pennon_evaluation_counts", READS),
                ("pennon_evaluation_hours", READS),
                ("pennon_event_sequences", UPSERTS),
                ("pennon_installation", READS),
                ("pennon_key_uses", READS),
                ("pennon_migrations", READS),
                ("pennon_outbox", CHANGES),
                ("pennon_ramps", UPSERTS),
                ("pennon_webhook_destinations", CHANGES),
                ("pennon_webhooks", CHANGES),
            ],
            Self::Count => &[
                ("pennon_counted_batches", &["DELETE", "INSERT", "SELECT"]),
                ("pennon_evaluation_counts", UPSERTS),
                ("pennon_evaluation_hours", CHANGES),
                ("pennon_key_uses", UPSERTS),
            ],
        }
    }

    fn secret(self, config: &RolesConfig) -> Option<&str> {
        match self {
            Self::Read => config.read_secret.as_deref(),
            Self::Write => config.write_secret.as_deref(),
            Self::Count => config.count_secret.as_deref(),
        }
    }
}

/// Properties of the database and of the login of `migrate`.
struct Facts {
    database: String,
    schema: String,
    may_create: bool,
    has_idle_timeout: bool,
}

/// The part of a run of `migrate` that manages roles.
struct Run<'a> {
    client: &'a Client,
    secrets: &'a Secrets,
    config: &'a DatabaseConfig,
    facts: Facts,
    /// The secret document with the login of `migrate`.
    owner: Secret,
}

/// The result for one role.
enum Outcome {
    Kept,
    Written,
    /// The statements that an administrator has to run.
    ByHand(String),
}

/// Protects the audit and the functions, and warns if every role may create objects beside the tables. Then creates the
/// roles whose secrets are configured, grants their privileges, and writes the secrets that are empty or outdated; with
/// `rotate`, all of them.
///
/// # Errors
/// If a statement fails, or a secret cannot be read or written. A retry continues where this call stopped.
pub(super) async fn ensure(
    client: &Client,
    secrets: &Secrets,
    config: &DatabaseConfig,
    rotate: bool,
) -> Result<RolesState, Error> {
    protect_audit(client).await?;
    protect_functions(client).await?;
    warn_if_schema_is_open(client).await?;
    let managed: Vec<(Role, &str)> = Role::ALL
        .into_iter()
        .filter_map(|role| Some((role, role.secret(&config.roles)?)))
        .collect();
    if managed.is_empty() {
        return Ok(RolesState::OneLogin);
    }
    let owner = secrets.resolve(&config.url).await;
    let owner = owner.map_err(Error::Unavailable)?;
    let owner = owner.ok_or_else(|| {
        Error::Internal("neither DATABASE_SECRET_ARN nor DATABASE_URL is set".to_owned())
    })?;
    let run = Run {
        client,
        secrets,
        config,
        facts: Facts::of(client).await?,
        owner,
    };
    let mut written = 0;
    let mut sql = String::new();
    for (role, secret) in managed {
        match run.ensure_login(role, secret, rotate).await? {
            Outcome::Kept => {}
            Outcome::Written => written += 1,
            Outcome::ByHand(statements) => sql += &statements,
        }
        run.ensure_rights(role).await?;
    }
    if sql.is_empty() {
        Ok(RolesState::Ready { written })
    } else {
        // All or nothing, also if the client continues after a statement that failed.
        let sql = format!("begin;\n{sql}commit;");
        Ok(RolesState::ByHand { sql })
    }
}

/// Revokes all privileges on the audit from everybody but its owner, except those to read it and to add to it.
/// Default privileges of the database may grant more, for example all privileges to the login of an existing service.
/// `TRIGGER` is revoked too, because a trigger can change the entries that are added.
async fn protect_audit(client: &Client) -> Result<(), Error> {
    // Grants on columns are revoked with those on the table.
    let query = format!(
        "select distinct acl.privilege_type || ' from ' || grantee.name as right,
                pg_catalog.format('revoke %s on %s from %s cascade;', acl.privilege_type, audit.oid::regclass,
                  grantee.name) as statement
         from pg_class as audit
           cross join lateral (
             select (aclexplode(relacl)).*
             union all
             select (aclexplode(attacl)).* from pg_attribute where attrelid = audit.oid
           ) as acl
           {GRANTEE}
         where relname = 'pennon_audit' and relnamespace = quote_ident(current_schema())::regnamespace
           and acl.grantee <> relowner and acl.privilege_type not in ('SELECT', 'INSERT')
         order by 1"
    );
    let revoked = revoke(client, &query).await?;
    if !revoked.is_empty() {
        tracing::warn!(
            domain = "config",
            rights = revoked.join(", "),
            "rights on pennon_audit were revoked: only its owner may change or delete entries"
        );
    }
    Ok(())
}

/// Revokes the right to execute Pennon's functions, most of which run with the rights of their owner, from everybody
/// else. Only triggers call them, which needs no right. Migrations revoke it too, but a restore without privileges
/// creates the functions again, and everybody may execute a new function.
async fn protect_functions(client: &Client) -> Result<(), Error> {
    // The schema pg_catalog is named because of functions of other roles; see `warn_if_schema_is_open`.
    let query = format!(
        "select known.oid::regprocedure::text || ' from ' || grantee.name as right,
                pg_catalog.format('revoke execute on function %s from %s cascade;', known.oid::regprocedure,
                  grantee.name) as statement
         from pg_proc as known
           cross join lateral pg_catalog.aclexplode(coalesce(proacl, pg_catalog.acldefault('f', proowner))) as acl
           {GRANTEE}
         where proname like 'pennon\\_%' and pronamespace = quote_ident(current_schema())::regnamespace
           and acl.grantee <> proowner
         order by 1"
    );
    let revoked = revoke(client, &query).await?;
    if !revoked.is_empty() {
        tracing::info!(
            domain = "config",
            functions = revoked.join(", "),
            "the right to execute functions of the triggers was revoked, for example after a restore without privileges"
        );
    }
    Ok(())
}

/// The name of each grantee in `acl`, as SQL writes it.
const GRANTEE: &str = "cross join lateral (
             select case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end as name
           ) as grantee";

/// Runs each `statement` of a query in its transaction, and returns each `right`.
async fn revoke(client: &Client, query: &str) -> Result<Vec<String>, Error> {
    begin(client).await.map_err(refused)?;
    let rows = client.query_typed(query, &[]).await.map_err(refused)?;
    let column = |name: &str| -> Vec<String> { rows.iter().map(|row| row.get(name)).collect() };
    let statements = column("statement").join("\n") + "\ncommit";
    client.batch_execute(&statements).await.map_err(refused)?;
    Ok(column("right"))
}

/// Logs a warning if every role may create objects in the schema of the tables, the default before PostgreSQL 15. A role
/// that may only read could then create functions and operators that statements of other roles call. The privilege is
/// not revoked here, because an existing service may need it, and because only the owner of the schema may revoke it.
/// If the login of `migrate` has it only as one of all roles, the logged statement first grants it to this login.
async fn warn_if_schema_is_open(client: &Client) -> Result<(), Error> {
    let query = "
        select pg_catalog.format(
                 case when pg_catalog.pg_has_role(nspowner, 'usage') then ''
                   else 'grant create on schema %1$I to %2$I; ' end
                 || 'revoke create on schema %1$I from public', nspname, current_user) as statement
        from pg_namespace
        where nspname = current_schema() and pg_catalog.has_schema_privilege('public', oid, 'create')";
    let rows = client.query_typed(query, &[]).await.map_err(refused)?;
    if let Some(row) = rows.first() {
        tracing::warn!(
            domain = "config",
            statement = row.get::<_, String>("statement"),
            "every role may create functions in the schema of the tables, and statements of other roles, such as the \
             owner, may call them; revoke this privilege"
        );
    }
    Ok(())
}

impl Facts {
    async fn of(client: &Client) -> Result<Self, Error> {
        let query = "
            select current_database()::text as database, current_schema()::text as schema,
                   rolcreaterole or rolsuper as may_create,
                   current_setting('server_version_num')::integer >= 140000 as has_idle_timeout
            from pg_roles where rolname = current_user";
        let rows = client.query_typed(query, &[]).await.map_err(refused)?;
        let row = rows.first();
        let row = row.ok_or_else(|| Error::Internal("the login has no role".to_owned()))?;
        let schema: Option<String> = row.get("schema");
        Ok(Self {
            database: row.get("database"),
            schema: schema.ok_or_else(|| {
                Error::Internal("no schema of the login's search_path exists".to_owned())
            })?,
            may_create: row.get("may_create"),
            has_idle_timeout: row.get("has_idle_timeout"),
        })
    }

    /// The prefix of role names. Roles belong to the server, which several installations may share.
    fn prefix(&self) -> String {
        // A name has at most 63 bytes, of which "_count_a" takes 8.
        match self.database.as_str() {
            "pennon" => "pennon".to_owned(),
            short if short.len() <= 48 => format!("pennon_{short}"),
            long => format!("pennon_{}", hex(&Sha256::digest(long)[..16])),
        }
    }

    fn group(&self, role: Role) -> String {
        format!("{}_{}", self.prefix(), role.name())
    }

    /// The two logins of a role.
    fn logins(&self, role: Role) -> [String; 2] {
        let group = self.group(role);
        [format!("{group}_a"), format!("{group}_b")]
    }
}

impl Run<'_> {
    /// Grants and revokes until an existing role has exactly its privileges.
    async fn ensure_rights(&self, role: Role) -> Result<(), Error> {
        let group = self.facts.group(role);
        begin(self.client).await.map_err(refused)?;
        if self.exists(&group).await? {
            let (found, wanted) = (self.rights(&group).await?, wanted_rights(role));
            let schema = quoted(&self.facts.schema);
            let change = |verb: &str, (table, right): &(String, String), word: &str| {
                let (table, group) = (quoted(table), quoted(&group));
                format!("{verb} {right} on {schema}.{table} {word} {group};\n")
            };
            let more = found.difference(&wanted);
            let more = more.map(|right| change("revoke", right, "from"));
            let missing = wanted.difference(&found);
            let missing = missing.map(|right| change("grant", right, "to"));
            let statements: String = more.chain(missing).collect();
            if !statements.is_empty() {
                let usage = format!("grant usage on schema {schema} to {};\n", quoted(&group));
                self.execute(&(usage + &statements)).await?;
            }
        }
        self.execute("commit").await
    }

    /// The privileges of a role on Pennon's tables.
    async fn rights(&self, group: &str) -> Result<BTreeSet<(String, String)>, Error> {
        let query = "
            select pg_class.relname::text as table, acl.privilege_type as right
            from pg_class, aclexplode(relacl) as acl
            where relnamespace = quote_ident(current_schema())::regnamespace
              and (relname like 'feature\\_flag%' or relname like 'pennon\\_%')
              and acl.grantee = (select oid from pg_roles where rolname = $1)";
        let rows = self
            .client
            .query_typed(query, &[(&group, Type::TEXT)])
            .await
            .map_err(refused)?;
        let rights = rows.iter().map(|row| (row.get("table"), row.get("right")));
        Ok(rights.collect())
    }

    async fn exists(&self, role: &str) -> Result<bool, Error> {
        let query = "select from pg_roles where rolname = $1";
        let rows = self.client.query_typed(query, &[(&role, Type::TEXT)]).await;
        Ok(!rows.map_err(refused)?.is_empty())
    }

    async fn execute(&self, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await.map_err(refused)
    }

    /// Grants the privileges of a role if the current user may. Otherwise `ensure_rights` does so as the owner of the
    /// tables: an administrator with `CREATEROLE` alone may create the roles, but not grant these privileges.
    fn grants(&self, role: Role) -> String {
        let group = quoted(&self.facts.group(role));
        let schema = quoted(&self.facts.schema);
        let grants = role.grants().iter().map(|(table, rights)| {
            let rights = rights.join(", ");
            format!("grant {rights} on {schema}.{} to {group};\n", quoted(table))
        });
        let grants: String = grants.collect();
        format!(
            "do $grants$ begin\ngrant usage on schema {schema} to {group};\n{grants}\
             exception when insufficient_privilege then\n\
             raise warning 'run migrate again: it grants the privileges of % as the owner of the tables', '{}';\n\
             end $grants$;\n",
            self.facts.group(role).replace('\'', "''")
        )
    }
}

fn wanted_rights(role: Role) -> BTreeSet<(String, String)> {
    let pair = |table: &str, right: &str| (table.to_owned(), right.to_owned());
    let grants = role.grants().iter();
    let all = grants.flat_map(|(table, rights)| rights.iter().map(move |right| pair(table, right)));
    all.collect()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Messages of PostgreSQL name roles and tables, never a password.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: tokio_postgres::Error) -> Error {
    Error::Internal(format!("roles: {}", chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_may_change_audit_entries() {
        for role in Role::ALL {
            for (table, right) in wanted_rights(role) {
                let harmless = ["SELECT", "INSERT"].contains(&right.as_str());
                assert!(table != "pennon_audit" || harmless, "{role:?}: {right}");
            }
        }
    }

    #[test]
    fn a_role_is_named_after_its_database() {
        let login = |database: &str| {
            let facts = Facts {
                database: database.to_owned(),
                schema: "public".to_owned(),
                may_create: true,
                has_idle_timeout: true,
            };
            facts.logins(Role::Count)[0].clone()
        };
        assert_eq!(login("pennon"), "pennon_count_a");
        assert_eq!(login("Flags"), "pennon_Flags_count_a");
        let long = login(&"x".repeat(60));
        assert!(long.len() <= 63 && long != login(&"x".repeat(61)), "{long}");
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
