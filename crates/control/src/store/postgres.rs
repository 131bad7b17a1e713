//! The store that several control planes share: PostgreSQL.
//!
//! Whoever changes something holds the one row of `rhumb_state` until it is committed: revisions and moves of workloads have
//! numbers without gaps, and nobody sees a number before what belongs to it. Documents are sealed; their names are not.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use rhumb_database::postgres::{Client, Error as PgError, GenericClient, IsolationLevel, Row, Transaction};
use rhumb_database::{Database, Seal, Work};

use super::{Action, Difference, Error, Loaded, MAX_DOCUMENTS, MAX_REVISIONS, Revision, is_known};
use crate::document::Key;
use crate::members::GRACE;
use crate::virtuals::Virtuals;

/// The form of the tables that this code reads and writes.
const FORM: i32 = 1;

/// Tables. Statements may be repeated.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS rhumb_state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    form integer NOT NULL, revision bigint NOT NULL, moves bigint NOT NULL);
INSERT INTO rhumb_state (form, revision, moves) VALUES (1, 0, 0) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS rhumb_documents (
    name text PRIMARY KEY, revision bigint NOT NULL, content bytea NOT NULL);
CREATE TABLE IF NOT EXISTS rhumb_states (
    name text NOT NULL, revision bigint NOT NULL, content bytea, PRIMARY KEY (name, revision));
CREATE INDEX IF NOT EXISTS rhumb_states_revision ON rhumb_states (revision);
CREATE TABLE IF NOT EXISTS rhumb_revisions (number bigint PRIMARY KEY, about text NOT NULL);
CREATE TABLE IF NOT EXISTS rhumb_virtuals (service text PRIMARY KEY, number integer NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS rhumb_planes (name text PRIMARY KEY, seen timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS rhumb_workloads (
    name text PRIMARY KEY, move bigint NOT NULL, plane text NOT NULL, instance text NOT NULL,
    content bytea, lost timestamptz);
CREATE INDEX IF NOT EXISTS rhumb_workloads_move ON rhumb_workloads (move);
CREATE TABLE IF NOT EXISTS rhumb_questions (
    id bigserial PRIMARY KEY, plane text NOT NULL, about text NOT NULL, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS rhumb_answers (
    question bigint NOT NULL, plane text NOT NULL, content text NOT NULL, PRIMARY KEY (question, plane));
";

/// A control plane that has said nothing for so long is not asked, and its workloads count as lost. Unit: seconds.
const LEASE: f64 = 5.0;

/// How long questions and what is gone are remembered. Unit: seconds.
const REMEMBERED: f64 = 600.0;

/// Revisions that are caught up with one by one; from more on everything is loaded.
const MAX_BEHIND: u64 = 256;

/// Documents and their history, for several control planes.
#[derive(Debug)]
pub struct Postgres {
    database: Database,
    seal: Arc<Seal>,
    keeps: u64,
}

/// A revision, with its documents; nothing for those that it removed.
pub type Changed = (u64, Vec<(Key, Option<Bytes>)>);

/// Answers by control plane, and which control planes are there to answer.
pub type Answers = (Vec<(String, String)>, BTreeSet<String>);

/// What others have changed.
#[derive(Debug)]
pub enum Since {
    /// Nothing.
    Nothing,
    /// These revisions, in order.
    Revisions {
        /// What each changed.
        revisions: Vec<Changed>,
        /// Virtual addresses that came with them.
        virtuals: Vec<(String, u16)>,
    },
    /// Too much to tell one by one.
    All(Loaded),
}

/// Something to write about a workload.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// It is here.
    Here {
        /// Which process of it.
        instance: String,
        /// What it says of itself.
        content: Vec<u8>,
    },
    /// Its stream broke.
    Lost {
        /// Which process of it.
        instance: String,
    },
    /// It withdrew.
    Gone {
        /// Which process of it.
        instance: String,
    },
}

/// What a control plane tells the others in one turn, and what it knows already.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// Who it is.
    pub plane: String,
    /// What has happened to its workloads.
    pub moves: Vec<(Arc<str>, Move)>,
    /// The last move that it knows.
    pub seen: u64,
    /// The last question that it knows.
    pub asked: i64,
}

/// What a control plane is told in one turn.
#[derive(Debug, Default)]
pub struct Turned {
    /// The revision in force.
    pub revision: u64,
    /// What has happened to workloads, in order.
    pub moves: Vec<Written>,
    /// The numbers of the moves that were told, in their order.
    pub told: Vec<(Arc<str>, u64)>,
    /// Questions of others.
    pub questions: Vec<Question>,
}

/// A workload, as it is written.
#[derive(Debug)]
pub struct Written {
    /// The number of the move.
    pub number: u64,
    /// Which workload.
    pub workload: String,
    /// Which control plane it is connected to, or was.
    pub plane: String,
    /// What it says of itself; nothing when it is gone.
    pub content: Option<Vec<u8>>,
    /// Its stream broke.
    pub is_lost: bool,
}

/// A question of another control plane.
#[derive(Debug)]
pub struct Question {
    /// Its number.
    pub id: i64,
    /// What is asked, as JSON.
    pub about: String,
}

impl Postgres {
    /// Opens the store of a database, whose texts are sealed with a key.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open(database: Database, seal: Arc<Seal>) -> Result<Self, Error> {
        Self::open_keeping(database, seal, MAX_REVISIONS)
    }

    fn open_keeping(database: Database, seal: Arc<Seal>, keeps: u64) -> Result<Self, Error> {
        database.make(SCHEMA).map_err(Error::Shared)?;
        let form = database.call(|client| {
            Box::pin(async move {
                Ok(client.query_one("SELECT form FROM rhumb_state", &[]).await?.get::<_, i32>(0))
            })
        });
        let form = form.map_err(Error::Shared)?;
        if form != FORM {
            return Err(Error::Form(form));
        }
        Ok(Self { database, seal, keeps })
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Does something that may fail in our words.
    fn call<T: Send + 'static>(
        &self,
        work: impl for<'a> FnOnce(&'a mut Client, Arc<Seal>) -> Work<'a, Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let seal = Arc::clone(&self.seal);
        self.database.call(move |client| work(client, seal)).map_err(Error::Shared)?
    }

    pub(super) fn load(&self) -> Result<Loaded, Error> {
        self.call(|client, seal| {
            Box::pin(async move {
                let snapshot = snapshot(client).await?;
                load(&snapshot, &seal).await
            })
        })
    }

    /// What has changed since a revision.
    ///
    /// # Errors
    /// [`Error`].
    pub fn since(&self, known: u64) -> Result<Since, Error> {
        self.call(move |client, seal| {
            Box::pin(async move {
                let snapshot = snapshot(client).await?;
                let (first, last) = ends(&snapshot).await?;
                if last == known {
                    return Ok(Ok(Since::Nothing));
                }
                // A database that was put back to an earlier state is behind us.
                if last < known || first > known + 1 || last - known > MAX_BEHIND {
                    return Ok(load(&snapshot, &seal).await?.map(Since::All));
                }
                let rows = snapshot
                    .query(
                        "SELECT revision, name, content FROM rhumb_states WHERE revision > $1 ORDER BY revision",
                        &[&signed(known)],
                    )
                    .await?;
                let mut revisions: Vec<(u64, Vec<_>)> = (known + 1..=last).map(|number| (number, Vec::new())).collect();
                let mut services = Vec::new();
                for row in rows {
                    let (revision, name) = (unsigned(row.get(0)), row.get::<_, String>(1));
                    let content = match row.get::<_, Option<Vec<u8>>>(2).map(|content| seal.open(&name, &content)) {
                        None => None,
                        Some(Ok(content)) => Some(Bytes::from(content)),
                        Some(Err(_)) => return Ok(Err(Error::Sealed)),
                    };
                    let Some(key) = Key::parse(&name) else { continue };
                    if &*key.kind == "Service" {
                        services.push(key.path());
                    }
                    let entry = revisions.iter_mut().find(|(number, _)| *number == revision);
                    if let Some((_, changes)) = entry {
                        changes.push((key, content));
                    }
                }
                let rows = snapshot
                    .query("SELECT service, number FROM rhumb_virtuals WHERE service = ANY($1)", &[&services])
                    .await?;
                Ok(Ok(Since::Revisions { revisions, virtuals: rows.iter().filter_map(virtual_of).collect() }))
            })
        })
    }

    pub(super) fn commit(
        &self,
        author: &str,
        message: &str,
        at_ms: u64,
        changes: &[(Key, Option<Bytes>)],
        expected: Option<u64>,
    ) -> Result<Option<Revision>, Error> {
        let (author, message, changes) = (author.to_owned(), message.to_owned(), changes.to_vec());
        let keeps = self.keeps;
        self.call(move |client, seal| {
            Box::pin(async move {
                // What is not committed is rolled back when it is dropped.
                let transaction = client.transaction().await?;
                let row = transaction.query_one("SELECT revision FROM rhumb_state FOR UPDATE", &[]).await?;
                let actual = unsigned(row.get(0));
                if let Some(expected) = expected.filter(|expected| *expected != actual) {
                    return Ok(Err(Error::Conflict { expected, actual }));
                }
                let number = actual + 1;
                let done = match write(&transaction, &seal, number, &changes).await? {
                    Ok(done) if done.is_empty() => return Ok(Ok(None)),
                    Ok(done) => done,
                    Err(error) => return Ok(Err(error)),
                };
                let count = transaction.query_one("SELECT count(*) FROM rhumb_documents", &[]).await?;
                if usize::try_from(count.get::<_, i64>(0)).unwrap_or(usize::MAX) > MAX_DOCUMENTS {
                    return Ok(Err(Error::TooMany));
                }
                let revision = Revision { number, author, at_ms, message, changes: done };
                let about = revision.to_json().to_string();
                transaction
                    .execute(
                        "INSERT INTO rhumb_revisions (number, about) VALUES ($1, $2)",
                        &[&signed(number), &about],
                    )
                    .await?;
                transaction.execute("UPDATE rhumb_state SET revision = $1", &[&signed(number)]).await?;
                give_addresses(&transaction, &revision).await?;
                prune(&transaction, number.saturating_sub(keeps)).await?;
                announce(&transaction).await?;
                transaction.commit().await?;
                Ok(Ok(Some(revision)))
            })
        })
    }

    pub(super) fn history(&self, before: u64, most: usize) -> Result<Vec<Revision>, Error> {
        let (before, most) = (signed(before), i64::try_from(most).unwrap_or(i64::MAX));
        self.call(move |client, _| {
            Box::pin(async move {
                let rows = client
                    .query(
                        "SELECT number, about FROM rhumb_revisions WHERE number < $1 ORDER BY number DESC LIMIT $2",
                        &[&before, &most],
                    )
                    .await?;
                Ok(Ok(rows.iter().filter_map(revision_of).collect()))
            })
        })
    }

    pub(super) fn difference(&self, from: u64, to: u64) -> Result<Vec<Difference>, Error> {
        self.call(move |client, seal| {
            Box::pin(async move {
                let snapshot = snapshot(client).await?;
                let (first, last) = ends(&snapshot).await?;
                for number in [from, to] {
                    if !is_known(number, first, last) {
                        return Ok(Err(Error::NoRevision(number, first, last)));
                    }
                }
                let rows = snapshot
                    .query(
                        "SELECT DISTINCT name FROM rhumb_states WHERE revision > $1 AND revision <= $2 ORDER BY name",
                        &[&signed(from.min(to)), &signed(from.max(to))],
                    )
                    .await?;
                let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                let mut sides = Vec::new();
                for number in [from, to] {
                    match said(&snapshot, &seal, &names, number).await? {
                        Ok(states) => sides.push(states),
                        Err(error) => return Ok(Err(error)),
                    }
                }
                let (after, before) = (sides.pop().unwrap_or_default(), sides.pop().unwrap_or_default());
                let both = names.iter().zip(before.into_iter().zip(after));
                let differing = both.filter(|(_, (before, after))| before != after);
                let difference =
                    |(name, (before, after)): (&String, _)| Some(Difference { key: Key::parse(name)?, before, after });
                Ok(Ok(differing.filter_map(difference).collect()))
            })
        })
    }

    /// Says that this control plane lives and what has happened to its workloads, and hears of the others.
    ///
    /// # Errors
    /// [`Error`]; what was to be told may have been told.
    pub fn turn(&self, turn: Turn) -> Result<Turned, Error> {
        self.call(move |client, _| {
            Box::pin(async move {
                let transaction = client.transaction().await?;
                let told = tell(&transaction, &turn).await?;
                let mut is_changed = !told.is_empty();
                is_changed |= forget(&transaction).await?;
                let row = transaction.query_one("SELECT revision FROM rhumb_state", &[]).await?;
                let revision = unsigned(row.get(0));
                let rows = transaction
                    .query(
                        "SELECT move, name, plane, content, lost IS NOT NULL FROM rhumb_workloads \
                         WHERE move > $1 ORDER BY move",
                        &[&signed(turn.seen)],
                    )
                    .await?;
                let written = |row: &Row| Written {
                    number: unsigned(row.get(0)),
                    workload: row.get(1),
                    plane: row.get(2),
                    content: row.get(3),
                    is_lost: row.get(4),
                };
                let moves = rows.iter().map(written).collect();
                let rows = transaction
                    .query(
                        "SELECT id, about FROM rhumb_questions WHERE id > $1 AND plane <> $2 \
                         AND at > now() - interval '60 seconds' ORDER BY id",
                        &[&turn.asked, &turn.plane],
                    )
                    .await?;
                let questions =
                    rows.iter().map(|row| Question { id: row.get(0), about: row.get(1) }).collect();
                if is_changed {
                    announce(&transaction).await?;
                }
                transaction.commit().await?;
                Ok(Ok(Turned { revision, moves, told, questions }))
            })
        })
    }

    /// Asks the other control planes something, and says which are there to answer.
    ///
    /// # Errors
    /// [`Error`].
    pub fn ask(&self, plane: String, about: String) -> Result<(i64, BTreeSet<String>), Error> {
        self.call(move |client, _| {
            Box::pin(async move {
                let there = others(client, &plane).await?;
                if there.is_empty() {
                    return Ok(Ok((0, there)));
                }
                let transaction = client.transaction().await?;
                let row = transaction
                    .query_one(
                        "INSERT INTO rhumb_questions (plane, about) VALUES ($1, $2) RETURNING id",
                        &[&plane, &about],
                    )
                    .await?;
                announce(&transaction).await?;
                transaction.commit().await?;
                Ok(Ok((row.get(0), there)))
            })
        })
    }

    /// Answers a question.
    ///
    /// # Errors
    /// [`Error`].
    pub fn answer(&self, question: i64, plane: String, content: String) -> Result<(), Error> {
        self.call(move |client, _| {
            Box::pin(async move {
                let transaction = client.transaction().await?;
                transaction
                    .execute(
                        "INSERT INTO rhumb_answers (question, plane, content) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                        &[&question, &plane, &content],
                    )
                    .await?;
                announce(&transaction).await?;
                transaction.commit().await?;
                Ok(Ok(()))
            })
        })
    }

    /// The answers to a question, by control plane, and which are there to answer.
    ///
    /// # Errors
    /// [`Error`].
    pub fn answers(&self, question: i64, plane: String) -> Result<Answers, Error> {
        self.call(move |client, _| {
            Box::pin(async move {
                let rows = client
                    .query("SELECT plane, content FROM rhumb_answers WHERE question = $1", &[&question])
                    .await?;
                let answers = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
                Ok(Ok((answers, others(client, &plane).await?)))
            })
        })
    }

    /// This control plane ends: nobody waits for it any more.
    ///
    /// # Errors
    /// [`Error`].
    pub fn leave(&self, plane: String) -> Result<(), Error> {
        self.call(move |client, _| {
            Box::pin(async move {
                client.execute("DELETE FROM rhumb_planes WHERE name = $1", &[&plane]).await?;
                Ok(Ok(()))
            })
        })
    }
}

async fn load(client: &impl GenericClient, seal: &Seal) -> Result<Result<Loaded, Error>, PgError> {
    let (_, revision) = ends(client).await?;
    let mut loaded = Loaded { revision, ..Loaded::default() };
    for row in client.query("SELECT name, revision, content FROM rhumb_documents ORDER BY name", &[]).await? {
        let Ok(content) = seal.open(row.get(0), row.get(2)) else { return Ok(Err(Error::Sealed)) };
        loaded.documents.push((content.into(), unsigned(row.get(1))));
    }
    let rows = client.query("SELECT service, number FROM rhumb_virtuals", &[]).await?;
    loaded.virtuals = rows.iter().filter_map(virtual_of).collect();
    Ok(Ok(loaded))
}

/// A transaction in which nothing changes under whoever reads.
async fn snapshot(client: &mut Client) -> Result<Transaction<'_>, PgError> {
    client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await
}

/// The oldest revision that is kept, and the one in force.
async fn ends(client: &impl GenericClient) -> Result<(u64, u64), PgError> {
    let row = client
        .query_one("SELECT revision, (SELECT min(number) FROM rhumb_revisions) FROM rhumb_state", &[])
        .await?;
    Ok((unsigned(row.get::<_, Option<i64>>(1).unwrap_or(0)), unsigned(row.get(0))))
}

/// Writes what differs from what there is.
async fn write(
    client: &impl GenericClient,
    seal: &Seal,
    number: u64,
    changes: &[(Key, Option<Bytes>)],
) -> Result<Result<Vec<(Key, Action)>, Error>, PgError> {
    let names: Vec<String> = changes.iter().map(|(key, _)| key.to_string()).collect();
    let mut known = std::collections::HashMap::new();
    for row in
        client.query("SELECT name, content FROM rhumb_documents WHERE name = ANY($1)", &[&names]).await?
    {
        let name: String = row.get(0);
        let Ok(content) = seal.open(&name, row.get(1)) else { return Ok(Err(Error::Sealed)) };
        known.insert(name, content);
    }
    let (mut put, mut contents, mut gone, mut done) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for ((key, json), name) in changes.iter().zip(names) {
        let action = match (known.get(&name), json) {
            (None, Some(_)) => Action::Added,
            (Some(before), Some(after)) if *before != *after => Action::Changed,
            (Some(_), None) => Action::Removed,
            _ => continue,
        };
        done.push((key.clone(), action));
        match json {
            Some(json) => {
                let Ok(sealed) = seal.close(&name, json) else { return Ok(Err(Error::Sealed)) };
                contents.push(sealed);
                put.push(name);
            }
            None => gone.push(name),
        }
    }
    let number = signed(number);
    client
        .execute(
            "INSERT INTO rhumb_documents (name, revision, content) \
             SELECT name, $2, content FROM unnest($1::text[], $3::bytea[]) AS new (name, content) \
             ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, content = excluded.content",
            &[&put, &number, &contents],
        )
        .await?;
    client
        .execute(
            "INSERT INTO rhumb_states (name, revision, content) \
             SELECT name, $2, content FROM unnest($1::text[], $3::bytea[]) AS new (name, content)",
            &[&put, &number, &contents],
        )
        .await?;
    client.execute("DELETE FROM rhumb_documents WHERE name = ANY($1)", &[&gone]).await?;
    client
        .execute(
            "INSERT INTO rhumb_states (name, revision, content) SELECT name, $2, NULL FROM unnest($1::text[]) AS new (name)",
            &[&gone, &number],
        )
        .await?;
    Ok(Ok(done))
}

/// Gives services that came virtual addresses.
async fn give_addresses(client: &impl GenericClient, revision: &Revision) -> Result<(), PgError> {
    let services =
        revision.changes.iter().filter(|(key, action)| &*key.kind == "Service" && *action == Action::Added);
    let services: Vec<String> = services.map(|(key, _)| key.path()).collect();
    if services.is_empty() {
        return Ok(());
    }
    let mut virtuals = Virtuals::default();
    for row in client.query("SELECT service, number FROM rhumb_virtuals", &[]).await? {
        if let Some((service, number)) = virtual_of(&row) {
            virtuals.restore(&service, number);
        }
    }
    for service in services {
        if let Some((number, true)) = virtuals.assign(&service) {
            client
                .execute(
                    "INSERT INTO rhumb_virtuals (service, number) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    &[&service, &i32::from(number)],
                )
                .await?;
        }
    }
    Ok(())
}

/// Drops revisions that are too old, and states of documents that only those had.
async fn prune(client: &impl GenericClient, floor: u64) -> Result<(), PgError> {
    let floor = signed(floor);
    let rows = client
        .query("DELETE FROM rhumb_revisions WHERE number <= $1 RETURNING number, about", &[&floor])
        .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let revisions = rows.iter().filter_map(revision_of);
    let names: BTreeSet<String> =
        revisions.flat_map(|revision| revision.changes).map(|(key, _)| key.to_string()).collect();
    let names: Vec<String> = names.into_iter().collect();
    // The state that the oldest kept revision has stays; those before it go.
    client
        .execute(
            "DELETE FROM rhumb_states AS old WHERE name = ANY($1) AND revision <= $2 AND (content IS NULL OR EXISTS \
             (SELECT 1 FROM rhumb_states AS new WHERE new.name = old.name AND new.revision > old.revision \
             AND new.revision <= $2))",
            &[&names, &floor],
        )
        .await?;
    Ok(())
}

/// What documents said in a revision, in the order of their names.
async fn said(
    client: &impl GenericClient,
    seal: &Seal,
    names: &[String],
    revision: u64,
) -> Result<Result<Vec<Option<Bytes>>, Error>, PgError> {
    let rows = client
        .query(
            "SELECT DISTINCT ON (name) name, content FROM rhumb_states WHERE name = ANY($1) AND revision <= $2 \
             ORDER BY name, revision DESC",
            &[&names, &signed(revision)],
        )
        .await?;
    let mut states = std::collections::HashMap::new();
    for row in rows {
        let name: String = row.get(0);
        if let Some(content) = row.get::<_, Option<Vec<u8>>>(1) {
            let Ok(content) = seal.open(&name, &content) else { return Ok(Err(Error::Sealed)) };
            states.insert(name, Bytes::from(content));
        }
    }
    Ok(Ok(names.iter().map(|name| states.remove(name)).collect()))
}

/// Writes that a control plane lives, and what has happened to its workloads.
async fn tell(client: &impl GenericClient, turn: &Turn) -> Result<Vec<(Arc<str>, u64)>, PgError> {
    client
        .execute(
            "INSERT INTO rhumb_planes (name, seen) VALUES ($1, now()) ON CONFLICT (name) DO UPDATE SET seen = now()",
            &[&turn.plane],
        )
        .await?;
    let mut told = Vec::new();
    for (workload, what) in &turn.moves {
        match what {
            Move::Here { instance, content } => {
                let number = next_move(client).await?;
                client
                    .execute(
                        "INSERT INTO rhumb_workloads (name, move, plane, instance, content, lost) \
                         VALUES ($1, $2, $3, $4, $5, NULL) ON CONFLICT (name) DO UPDATE SET move = excluded.move, \
                         plane = excluded.plane, instance = excluded.instance, content = excluded.content, lost = NULL",
                        &[&&**workload, &number, &turn.plane, instance, content],
                    )
                    .await?;
                told.push((Arc::clone(workload), unsigned(number)));
            }
            // Nothing changes for anybody yet.
            Move::Lost { instance } => {
                client
                    .execute(
                        "UPDATE rhumb_workloads SET lost = now() WHERE name = $1 AND instance = $2 AND plane = $3 \
                         AND lost IS NULL",
                        &[&&**workload, instance, &turn.plane],
                    )
                    .await?;
            }
            Move::Gone { instance } => {
                let number = next_move(client).await?;
                client
                    .execute(
                        "UPDATE rhumb_workloads SET move = $2, content = NULL, lost = now() \
                         WHERE name = $1 AND instance = $3 AND content IS NOT NULL",
                        &[&&**workload, &number, instance],
                    )
                    .await?;
                told.push((Arc::clone(workload), unsigned(number)));
            }
        }
    }
    Ok(told)
}

/// The number of the next move; others wait with theirs until this one is committed.
async fn next_move(client: &impl GenericClient) -> Result<i64, PgError> {
    let row = client.query_one("UPDATE rhumb_state SET moves = moves + 1 RETURNING moves", &[]).await?;
    Ok(row.get(0))
}

/// Takes out whom time has run out for. True when somebody's endpoints are others than before.
async fn forget(client: &impl GenericClient) -> Result<bool, PgError> {
    // Who was with a control plane that is gone is lost as of now, not as of then: after the database was away, everybody
    // seems to have been.
    client
        .execute(
            "UPDATE rhumb_workloads SET lost = now() WHERE lost IS NULL AND content IS NOT NULL AND plane NOT IN \
             (SELECT name FROM rhumb_planes WHERE seen > now() - make_interval(secs => $1))",
            &[&LEASE],
        )
        .await?;
    let rows = client
        .query(
            "SELECT name FROM rhumb_workloads WHERE content IS NOT NULL AND lost < now() - make_interval(secs => $1)",
            &[&GRACE.as_secs_f64()],
        )
        .await?;
    for row in &rows {
        let number = next_move(client).await?;
        // Somebody may have come back while we waited for the number.
        client
            .execute(
                "UPDATE rhumb_workloads SET move = $2, content = NULL WHERE name = $1 AND content IS NOT NULL \
                 AND lost < now() - make_interval(secs => $3)",
                &[&row.get::<_, String>(0), &number, &GRACE.as_secs_f64()],
            )
            .await?;
    }
    for old in [
        "DELETE FROM rhumb_workloads WHERE content IS NULL AND lost < now() - make_interval(secs => $1)",
        "DELETE FROM rhumb_planes WHERE seen < now() - make_interval(secs => $1)",
        "DELETE FROM rhumb_answers WHERE question IN \
         (SELECT id FROM rhumb_questions WHERE at < now() - make_interval(secs => $1))",
        "DELETE FROM rhumb_questions WHERE at < now() - make_interval(secs => $1)",
    ] {
        client.execute(old, &[&REMEMBERED]).await?;
    }
    Ok(!rows.is_empty())
}

/// The other control planes that are there.
async fn others(client: &impl GenericClient, plane: &str) -> Result<BTreeSet<String>, PgError> {
    let rows = client
        .query(
            "SELECT name FROM rhumb_planes WHERE name <> $1 AND seen > now() - make_interval(secs => $2)",
            &[&plane, &LEASE],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn announce(client: &impl GenericClient) -> Result<(), PgError> {
    client.execute("SELECT pg_notify('rhumb', '')", &[]).await.map(drop)
}

fn revision_of(row: &Row) -> Option<Revision> {
    Revision::from_json(unsigned(row.get(0)), row.get::<_, String>(1).as_bytes())
}

fn virtual_of(row: &Row) -> Option<(String, u16)> {
    Some((row.get(0), u16::try_from(row.get::<_, i32>(1)).ok()?))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
