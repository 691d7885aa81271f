//! Logins of the roles, and the secrets that name them.

use std::time::Duration;

use postgres_protocol::password::scram_sha_256;
use sha2::{Digest, Sha256};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::super::migrations::begin;
use super::super::statement::Parameter;
use super::super::url::DatabaseUrl;
use super::{Outcome, Role, Run, quoted, refused};
use crate::config::Secret;
use crate::error::Error;
use crate::hex::hex;
use crate::id::random_bytes;

/// When the secret of a role was last written, and the digest of its value. `by_hand` is the same digest if an
/// administrator has to change the login. Their statements end with a comment on the login, which contains the digest:
/// so a later run sees that they were run. The digest reveals nothing, because the password has 256 random bits.
const TABLE: &str = "
    create table if not exists pennon_role_secrets (
      role text primary key,
      digest text not null,
      written_at timestamptz not null default now()
    );
    alter table pennon_role_secrets add column if not exists by_hand text";
/// A run writes the secret right after it has changed a login. After this time, other runs assume that the write has
/// failed.
const WRITE_LIMIT: Duration = Duration::from_secs(30);
/// The pause between two reads of a secret that another run is about to write.
const PAUSE: Duration = Duration::from_millis(500);

/// The last write of the secret of a role.
struct LastWrite {
    digest: String,
    is_recent: bool,
    /// Whether an administrator still has to run the statements.
    is_by_hand: bool,
}

impl Run<'_> {
    /// Ensures that the secret names an existing login at the current address. With `rotate`, changes to the other
    /// login, unless the secret was written within [`WRITE_LIMIT`].
    pub(super) async fn ensure_login(
        &self,
        role: Role,
        arn: &str,
        rotate: bool,
    ) -> Result<Outcome, Error> {
        let started = tokio::time::Instant::now();
        loop {
            let stored = self
                .secrets
                .current(arn)
                .await
                .map_err(Error::Unavailable)?;
            let named = stored.as_ref().and_then(|text| self.login_in(role, text));
            let digest = stored.as_ref().map(digest_of);
            // The lock excludes other runs between the check and the change.
            begin(self.client).await.map_err(refused)?;
            self.execute(TABLE).await?;
            let last_write = self.last_write(role, named.as_deref()).await?;
            // The database may have moved to another host, or a proxy may stand before it.
            let is_current = match (&stored, &named) {
                (Some(stored), Some(login)) => self.has_current_address(stored, login)?,
                (Some(_), None) | (None, _) => false,
            };
            let is_up_to_date = is_current
                && last_write
                    .as_ref()
                    .is_some_and(|write| Some(&write.digest) == digest.as_ref());
            let is_recent = last_write.as_ref().is_some_and(|write| write.is_recent);
            let exists = match &named {
                Some(login) => self.exists(login).await?,
                None => false,
            };
            if !is_up_to_date && is_recent && started.elapsed() < WRITE_LIMIT {
                self.execute("rollback").await?;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let is_by_hand = last_write.as_ref().is_some_and(|write| write.is_by_hand);
            if is_up_to_date && exists && !is_by_hand && (!rotate || is_recent) {
                self.ensure_settings(role).await?;
                self.execute("commit").await?;
                return Ok(Outcome::Kept);
            }
            // A new password would make the statements of the last run useless.
            if is_up_to_date
                && (is_by_hand || !exists && !self.facts.may_create)
                && let (Some(login), Some(stored)) = (&named, &stored)
            {
                let by_hand = self.set_login(role, login, stored).await?;
                self.execute("commit").await?;
                return Ok(by_hand.map_or(Outcome::Kept, Outcome::ByHand));
            }
            return self.change_login(role, arn, named.as_deref()).await;
        }
    }

    /// Sets a new password for the login that the secret does not name, commits, and writes the secret.
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
        let digest = digest_of(&document);
        let by_hand = self.set_login(role, &login, &document).await?;
        let record = "insert into pennon_role_secrets (role, digest, by_hand)
            values ($1, $2, case when $3 then $2 end)
            on conflict (role) do update
            set digest = excluded.digest, written_at = now(), by_hand = excluded.by_hand";
        let parameters: [Parameter<'_>; 3] = [
            (&role.name(), Type::TEXT),
            (&digest, Type::TEXT),
            (&by_hand.is_some(), Type::BOOL),
        ];
        let recorded = self.client.query_typed(record, &parameters).await;
        recorded.map_err(refused)?;
        self.execute("commit").await?;
        let written = self.secrets.put(arn, &document).await;
        written.map_err(Error::Unavailable)?;
        Ok(by_hand.map_or(Outcome::Written, Outcome::ByHand))
    }

    /// Gives a login the password of a document, and creates it if it does not exist. Returns the statements if an
    /// administrator has to run them.
    async fn set_login(
        &self,
        role: Role,
        login: &str,
        document: &Secret,
    ) -> Result<Option<String>, Error> {
        let password = self.password_of(document)?;
        let mut statements = self.missing_roles(role, login).await?;
        statements.extend(self.settings(login, &password));
        statements.push(self.grants(role));
        let (login, digest) = (quoted(login), digest_of(document));
        statements.push(format!("comment on role {login} is '{digest}';\n"));
        let statements = statements.concat();
        if self.facts.may_create {
            self.execute("savepoint roles").await?;
            match self.client.batch_execute(&statements).await {
                Ok(()) => return Ok(None),
                // Another login created these roles, and only that login may change them.
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    self.execute("rollback to savepoint roles").await?;
                }
                Err(error) => return Err(refused(error)),
            }
        }
        Ok(Some(statements))
    }

    /// Sets `idle_session_timeout`, so that the server closes connections that ended functions left open. Not set
    /// behind a pooler, which keeps idle connections on purpose.
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
            let is_current_value = if seconds > 0 {
                is_set
            } else {
                !settings.contains("idle_session_timeout")
            };
            if is_current_value || !self.facts.has_idle_timeout {
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

    /// The last write of the secret, which names this login.
    async fn last_write(
        &self,
        role: Role,
        login: Option<&str>,
    ) -> Result<Option<LastWrite>, Error> {
        let query =
            "select digest, written_at > clock_timestamp() - $2 * interval '1 second' as is_recent,
                   coalesce(by_hand = digest, false) and digest is distinct from (
                     select pg_catalog.shobj_description(oid, 'pg_authid') from pg_roles where rolname = $3
                   ) as is_by_hand
            from pennon_role_secrets where role = $1";
        let within = WRITE_LIMIT.as_secs_f64();
        let parameters: [Parameter<'_>; 3] = [
            (&role.name(), Type::TEXT),
            (&within, Type::FLOAT8),
            (&login, Type::TEXT),
        ];
        let rows = self.client.query_typed(query, &parameters).await;
        let rows = rows.map_err(refused)?;
        Ok(rows.first().map(|row| LastWrite {
            digest: row.get("digest"),
            is_recent: row.get("is_recent"),
            is_by_hand: row.get("is_by_hand"),
        }))
    }

    /// Statements that create the role and its login if they do not exist.
    async fn missing_roles(&self, role: Role, login: &str) -> Result<Vec<String>, Error> {
        let group = self.facts.group(role);
        let mut statements = Vec::new();
        if !self.exists(&group).await? {
            statements.push(format!("create role {} nologin;\n", quoted(&group)));
        }
        if !self.exists(login).await? {
            let (login, group) = (quoted(login), quoted(&group));
            statements.push(format!("create role {login} login in role {group};\n"));
        }
        Ok(statements)
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

    fn parsed(&self, document: &Secret) -> Option<DatabaseUrl> {
        DatabaseUrl::parse(document.expose(), &self.config.address).ok()
    }

    /// The login of the role that a document names.
    fn login_in(&self, role: Role, document: &Secret) -> Option<String> {
        let url = self.parsed(document)?;
        let mut logins = self.facts.logins(role).into_iter();
        logins.find(|login| url.config.get_user() == Some(login))
    }

    /// Whether the address in a document is the one that a new document would have.
    fn has_current_address(&self, document: &Secret, login: &str) -> Result<bool, Error> {
        let address = |document: &Secret| self.parsed(document).map(|url| url.address());
        let new = self.document(login, &Secret::new("unused"))?;
        Ok(address(document) == address(&new))
    }

    fn password_of(&self, document: &Secret) -> Result<Secret, Error> {
        let url = self.parsed(document);
        let password = url.as_ref().and_then(|url| url.config.get_password());
        let text = password.and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.map(Secret::new)
            .ok_or_else(|| Error::Internal("the secret of a role has no password".to_owned()))
    }

    /// The owner's document with this login instead.
    fn document(&self, login: &str, password: &Secret) -> Result<Secret, Error> {
        DatabaseUrl::with_login(
            self.owner.expose(),
            &self.config.address,
            self.config.roles.host.as_deref(),
            (login, password.expose()),
        )
        .map(Secret::new)
        .map_err(|invalid| Error::Internal(invalid.to_string()))
    }
}

fn digest_of(document: &Secret) -> String {
    hex(&Sha256::digest(document.expose()))
}
