//! Roles of the database: what each kind of function may do there. `migrate` creates them, keeps their
//! rights up to date and writes their secrets.
//!
//! Rights belong to three roles that cannot log in: one that reads, one that writes, one that counts. Each
//! has two logins, and its secret names one of them. A rotation gives the other one a new password and lets
//! the secret name that, so functions that have read the secret before keep a login that works.
//!
//! A password is sent to PostgreSQL as the verifier that PostgreSQL would store (SCRAM-SHA-256, RFC 5802 and
//! 7677): statements end up in logs.

use std::collections::BTreeSet;
use std::time::Duration;

use postgres_protocol::password::scram_sha_256;
use sha2::{Digest, Sha256};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::error::chain;
use super::migrations::begin;
use super::statement::Parameter;
use super::url::DatabaseUrl;
use crate::config::{DatabaseConfig, RolesConfig, Secret};
use crate::error::Error;
use crate::hex::hex;
use crate::id::random_bytes;
use crate::secrets::Secrets;

/// A kind of function, by what it does in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Reads flags and usage.
    Read,
    /// Changes flags, and reads all that admins see.
    Write,
    /// Adds up evaluations.
    Count,
}

/// What `migrate` did about roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolesState {
    /// No secrets of roles are configured: all functions use one login.
    OneLogin,
    /// Every role has a login, and its secret names it.
    Ready {
        /// How many secrets were written by this run.
        written: usize,
    },
    /// The login of `migrate` may not create roles. An administrator has to run these statements, which
    /// hold verifiers and no passwords.
    ByHand {
        /// Statements, each with a semicolon at its end.
        sql: String,
    },
}

/// The rights of a role: tables, and what it may do with them.
type Grants = &'static [(&'static str, &'static [&'static str])];

const READS: &[&str] = &["SELECT"];
const ADDS: &[&str] = &["INSERT", "SELECT"];
const CHANGES: &[&str] = &["DELETE", "INSERT", "SELECT", "UPDATE"];
const ADDS_UP: &[&str] = &["INSERT", "SELECT", "UPDATE"];

/// When the secret of a role was last written, and which value. Only the digest is kept: of a document with
/// a password of 256 random bits it tells nothing.
const TABLE: &str = "
    create table if not exists pennon_role_secrets (
      role text primary key,
      digest text not null,
      written_at timestamptz not null default now()
    )";
/// A run that has changed a login writes the secret right after. Other runs wait for so long before they
/// take it for lost.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at a secret that another run is about to write.
const PAUSE: Duration = Duration::from_millis(500);

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
                ("pennon_installation", READS),
            ],
            Self::Write => &[
                ("feature_flag_schedules", CHANGES),
                ("feature_flag_user_overrides", CHANGES),
                ("feature_flags", CHANGES),
                ("pennon_api_keys", CHANGES),
                ("pennon_audit", ADDS),
                ("pennon_environment_settings", CHANGES),
                ("pennon_environments", ADDS_UP),
                ("pennon_installation", READS),
            ],
            Self::Count => &[
                ("pennon_counted_batches", &["DELETE", "INSERT", "SELECT"]),
                ("pennon_evaluation_counts", ADDS_UP),
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

/// What the database says about itself and about the login of `migrate`.
struct Facts {
    database: String,
    schema: String,
    may_create: bool,
    has_idle_timeout: bool,
}

/// The run of `migrate` as far as it is about roles.
struct Run<'a> {
    client: &'a Client,
    secrets: &'a Secrets,
    config: &'a DatabaseConfig,
    facts: Facts,
    /// The document of `migrate`'s own login.
    owner: Secret,
}

/// How it stands with the secret of one role.
enum Outcome {
    Kept,
    Written,
    /// The statements that an administrator has to run.
    ByHand(Vec<String>),
}

/// Creates the roles whose secrets are configured, gives them their rights, and writes the secrets that have
/// no value yet; all of them with `rotate`.
///
/// # Errors
/// When the database refuses a statement, or a secret cannot be read or written. The same call again
/// continues where this one stopped.
pub(super) async fn ensure(
    client: &Client,
    secrets: &Secrets,
    config: &DatabaseConfig,
    rotate: bool,
) -> Result<RolesState, Error> {
    let managed: Vec<(Role, &str)> = Role::ALL
        .into_iter()
        .filter_map(|role| Some((role, role.secret(&config.roles)?)))
        .collect();
    if managed.is_empty() {
        return Ok(RolesState::OneLogin);
    }
    let owner = secrets.resolve(&config.url).await;
    let owner = owner.map_err(Error::Unavailable)?;
    let owner =
        owner.ok_or_else(|| Error::Internal("no login to derive others from".to_owned()))?;
    let run = Run {
        client,
        secrets,
        config,
        facts: Facts::of(client).await?,
        owner,
    };
    let mut written = 0;
    let mut sql = Vec::new();
    for (role, secret) in managed {
        match run.ensure_login(role, secret, rotate).await? {
            Outcome::Kept => {}
            Outcome::Written => written += 1,
            Outcome::ByHand(statements) => sql.extend(statements),
        }
        run.ensure_rights(role).await?;
    }
    if sql.is_empty() {
        Ok(RolesState::Ready { written })
    } else {
        let sql = sql.join("\n");
        Ok(RolesState::ByHand { sql })
    }
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
            schema: schema.ok_or_else(|| Error::Internal("no schema to work in".to_owned()))?,
            may_create: row.get("may_create"),
            has_idle_timeout: row.get("has_idle_timeout"),
        })
    }

    /// What the names of roles begin with. Roles belong to the server, and several installations may have a
    /// database each on it.
    fn prefix(&self) -> String {
        // A name has 63 bytes at most, of which "_count_a" takes 8.
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
    /// Sees to it that the secret names a login that works, and gives it another one with `rotate`.
    async fn ensure_login(&self, role: Role, arn: &str, rotate: bool) -> Result<Outcome, Error> {
        let began = tokio::time::Instant::now();
        loop {
            let stored = self
                .secrets
                .current(arn)
                .await
                .map_err(Error::Unavailable)?;
            let named = stored.as_ref().and_then(|text| self.user_of(text));
            let digest = stored.as_ref().map(digest_of);
            // The lock keeps other runs away between looking and changing.
            begin(self.client).await.map_err(refused)?;
            self.execute(TABLE).await?;
            let known = self.known(role).await?;
            // The database may have moved to another host, or a proxy may stand before it.
            let leads_here = match (&stored, &named) {
                (Some(stored), Some(login)) => self.leads_here(stored, login)?,
                (Some(_), None) | (None, _) => false,
            };
            let is_named = leads_here
                && known
                    .as_ref()
                    .is_some_and(|known| Some(&known.digest) == digest.as_ref());
            let is_recent = known.as_ref().is_some_and(|known| known.is_recent);
            let exists = match &named {
                Some(login) => self.exists(login).await?,
                None => false,
            };
            if !is_named && is_recent && began.elapsed() < WRITTEN_WITHIN {
                self.execute("rollback").await?;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if is_named && exists && (!rotate || is_recent) {
                self.ensure_settings(role).await?;
                self.execute("commit").await?;
                return Ok(Outcome::Kept);
            }
            // The statements that were printed before are still to be run.
            if is_named
                && !exists
                && !self.facts.may_create
                && let (Some(login), Some(stored)) = (&named, &stored)
            {
                self.execute("commit").await?;
                let password = self.password_of(stored)?;
                return Ok(Outcome::ByHand(self.statements(role, login, &password)));
            }
            return self.change_login(role, arn, named.as_deref()).await;
        }
    }

    /// Gives the login that the secret does not name a new password, commits, and writes the secret.
    async fn change_login(
        &self,
        role: Role,
        arn: &str,
        named: Option<&str>,
    ) -> Result<Outcome, Error> {
        let [first, second] = self.facts.logins(role);
        let login = if named == Some(first.as_str()) {
            second
        } else {
            first
        };
        let mut bytes = [0; 32];
        random_bytes(&mut bytes)?;
        let password = Secret::new(hex(&bytes));
        let document = self.document(&login, &password)?;
        let statements = self.statements(role, &login, &password);
        self.execute("savepoint roles").await?;
        let by_hand = if self.facts.may_create {
            let all = self.missing_roles(role, &login).await?.into_iter();
            let all = all.chain(self.settings(&login, &password));
            match self.client.batch_execute(&all.collect::<String>()).await {
                Ok(()) => None,
                // Somebody else has created these roles, and only they may change them.
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    self.execute("rollback to savepoint roles").await?;
                    Some(statements)
                }
                Err(error) => return Err(refused(error)),
            }
        } else {
            Some(statements)
        };
        let digest = digest_of(&document);
        let note = "insert into pennon_role_secrets as known (role, digest) values ($1, $2)
            on conflict (role) do update set digest = excluded.digest, written_at = now()";
        let parameters: [Parameter<'_>; 2] = [(&role.name(), Type::TEXT), (&digest, Type::TEXT)];
        let noted = self.client.query_typed(note, &parameters).await;
        noted.map_err(refused)?;
        self.execute("commit").await?;
        let written = self.secrets.put(arn, &document).await;
        written.map_err(Error::Unavailable)?;
        Ok(match by_hand {
            None => Outcome::Written,
            Some(statements) => Outcome::ByHand(statements),
        })
    }

    /// Gives a role that exists exactly the rights that it is to have.
    async fn ensure_rights(&self, role: Role) -> Result<(), Error> {
        let group = self.facts.group(role);
        begin(self.client).await.map_err(refused)?;
        if self.exists(&group).await? {
            let (found, wanted) = (self.rights(&group).await?, wanted(role));
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

    /// What a role may do with tables of ours.
    async fn rights(&self, group: &str) -> Result<BTreeSet<(String, String)>, Error> {
        let query = "
            select pg_class.relname::text as table, acl.privilege_type as right
            from pg_class, aclexplode(relacl) as acl
            where relnamespace = current_schema()::regnamespace
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

    /// Connections of functions that ended without a word are closed by the server, but not where a pooler
    /// keeps them for others.
    async fn ensure_settings(&self, role: Role) -> Result<(), Error> {
        if !self.facts.may_create {
            return Ok(());
        }
        for login in self.facts.logins(role) {
            let query = "select coalesce(array_to_string(setconfig, ' '), '') as settings
                from pg_roles left join pg_db_role_setting on setrole = pg_roles.oid and setdatabase = 0
                where rolname = $1";
            let rows = self
                .client
                .query_typed(query, &[(&login, Type::TEXT)])
                .await
                .map_err(refused)?;
            let Some(row) = rows.first() else { continue };
            let seconds = self.config.roles.idle_session.as_secs();
            let setting = format!("idle_session_timeout={seconds}s");
            let settings: String = row.get("settings");
            let is_set = settings.split(' ').any(|one| one == setting);
            let is_right = if seconds > 0 {
                is_set
            } else {
                !settings.contains("idle_session_timeout")
            };
            if is_right || !self.facts.has_idle_timeout {
                continue;
            }
            self.execute("savepoint settings").await?;
            let changed = self.client.batch_execute(&self.idle_setting(&login)).await;
            if let Err(error) = changed {
                self.execute("rollback to savepoint settings").await?;
                tracing::warn!(domain = "config", login, error = %error, "the login keeps its idle_session_timeout");
            }
        }
        Ok(())
    }

    async fn known(&self, role: Role) -> Result<Option<Known>, Error> {
        let query =
            "select digest, written_at > clock_timestamp() - $2 * interval '1 second' as is_recent
            from pennon_role_secrets where role = $1";
        let within = WRITTEN_WITHIN.as_secs_f64();
        let parameters: [Parameter<'_>; 2] = [(&role.name(), Type::TEXT), (&within, Type::FLOAT8)];
        let rows = self.client.query_typed(query, &parameters).await;
        let rows = rows.map_err(refused)?;
        Ok(rows.first().map(|row| Known {
            digest: row.get("digest"),
            is_recent: row.get("is_recent"),
        }))
    }

    async fn exists(&self, role: &str) -> Result<bool, Error> {
        let query = "select from pg_roles where rolname = $1";
        let rows = self.client.query_typed(query, &[(&role, Type::TEXT)]).await;
        Ok(!rows.map_err(refused)?.is_empty())
    }

    async fn execute(&self, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(sql).await.map_err(refused)
    }

    /// Statements that create what does not exist of a role and its login.
    async fn missing_roles(&self, role: Role, login: &str) -> Result<Vec<String>, Error> {
        let group = self.facts.group(role);
        let mut statements = Vec::new();
        if !self.exists(&group).await? {
            statements.push(format!("create role {} nologin;\n", quoted(&group)));
        }
        if !self.exists(login).await? {
            statements.push(create_login(login, &group));
        }
        Ok(statements)
    }

    /// Everything about a role, for an administrator.
    fn statements(&self, role: Role, login: &str, password: &Secret) -> Vec<String> {
        let group = self.facts.group(role);
        let create = [
            format!("create role {} nologin;", quoted(&group)),
            create_login(login, &group),
        ];
        let rest = self.settings(login, password);
        let grants = self.grants(role).into_iter();
        let all = create.into_iter().chain(rest).chain(grants);
        all.map(|statement| statement.trim_end().to_owned())
            .collect()
    }

    fn settings(&self, login: &str, password: &Secret) -> Vec<String> {
        let verifier = scram_sha_256(password.expose().as_bytes());
        let login_name = quoted(login);
        let mut statements = vec![
            format!("alter role {login_name} login password '{verifier}';\n"),
            format!(
                "alter role {login_name} in database {} set search_path = {};\n",
                quoted(&self.facts.database),
                quoted(&self.facts.schema)
            ),
        ];
        if self.facts.has_idle_timeout {
            statements.push(self.idle_setting(login));
        }
        statements
    }

    fn idle_setting(&self, login: &str) -> String {
        let login = quoted(login);
        match self.config.roles.idle_session.as_secs() {
            0 => format!("alter role {login} reset idle_session_timeout;\n"),
            seconds => format!("alter role {login} set idle_session_timeout = '{seconds}s';\n"),
        }
    }

    fn grants(&self, role: Role) -> Vec<String> {
        let group = quoted(&self.facts.group(role));
        let schema = quoted(&self.facts.schema);
        let mut statements = vec![format!("grant usage on schema {schema} to {group};\n")];
        statements.extend(role.grants().iter().map(|(table, rights)| {
            let rights = rights.join(", ");
            format!("grant {rights} on {schema}.{} to {group};\n", quoted(table))
        }));
        statements
    }

    fn parsed(&self, document: &Secret) -> Option<DatabaseUrl> {
        DatabaseUrl::parse(document.expose(), &self.config.elsewhere).ok()
    }

    fn user_of(&self, document: &Secret) -> Option<String> {
        let url = self.parsed(document)?;
        url.config.get_user().map(str::to_owned)
    }

    /// Whether a document leads to where a new one would.
    fn leads_here(&self, document: &Secret, login: &str) -> Result<bool, Error> {
        let address = |document: &Secret| self.parsed(document).map(|url| url.address());
        let new = self.document(login, &Secret::new("of no importance"))?;
        Ok(address(document) == address(&new))
    }

    fn password_of(&self, document: &Secret) -> Result<Secret, Error> {
        let url = self.parsed(document);
        let password = url.as_ref().and_then(|url| url.config.get_password());
        let text = password.and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.map(Secret::new)
            .ok_or_else(|| Error::Internal("the secret of a role has no password".to_owned()))
    }

    /// The owner's document with another login.
    fn document(&self, login: &str, password: &Secret) -> Result<Secret, Error> {
        DatabaseUrl::with_login(
            self.owner.expose(),
            &self.config.elsewhere,
            self.config.roles.host.as_deref(),
            (login, password.expose()),
        )
        .map(Secret::new)
        .map_err(|invalid| Error::Internal(invalid.to_string()))
    }
}

/// What is known of the secret of a role.
struct Known {
    digest: String,
    is_recent: bool,
}

fn wanted(role: Role) -> BTreeSet<(String, String)> {
    let pair = |table: &str, right: &str| (table.to_owned(), right.to_owned());
    let grants = role.grants().iter();
    let all = grants.flat_map(|(table, rights)| rights.iter().map(move |right| pair(table, right)));
    all.collect()
}

fn create_login(login: &str, group: &str) -> String {
    format!(
        "create role {} login in role {};\n",
        quoted(login),
        quoted(group)
    )
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn digest_of(document: &Secret) -> String {
    hex(&Sha256::digest(document.expose()))
}

/// PostgreSQL's own texts name roles and tables, never a password.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refused(error: tokio_postgres::Error) -> Error {
    Error::Internal(format!("roles: {}", chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_its_owner_may_change_the_audit() {
        for role in Role::ALL {
            for (table, right) in wanted(role) {
                let harmless = ["SELECT", "INSERT"].contains(&right.as_str());
                assert!(table != "pennon_audit" || harmless, "{role:?}: {right}");
            }
        }
    }

    #[test]
    fn a_role_is_named_after_its_database() {
        let prefix = |database: &str| {
            let facts = Facts {
                database: database.to_owned(),
                schema: "public".to_owned(),
                may_create: true,
                has_idle_timeout: true,
            };
            facts.logins(Role::Count)[0].clone()
        };
        assert_eq!(prefix("pennon"), "pennon_count_a");
        assert_eq!(prefix("Flags"), "pennon_Flags_count_a");
        let long = prefix(&"x".repeat(60));
        assert!(
            long.len() <= 63 && long != prefix(&"x".repeat(61)),
            "{long}"
        );
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
