//! Which database several control planes share, on the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rhumb_database::{Address, Database, Seal};
use rhumb_identity::{Place, Shared};

/// Where the key is where nobody says.
const SEAL_KEY: &str = "/var/lib/rhumb/seal.key";

/// A database that several control planes share.
#[derive(clap::Args, Debug)]
pub(crate) struct StoreArgs {
    /// Database that several control planes share: postgres://USER:PASSWORD@HOST/NAME. It has documents, their history and
    /// the certificate authority
    #[arg(
        long,
        value_name = "URL",
        env = "RHUMB_STORE",
        hide_env_values = true,
        conflicts_with = "store_file"
    )]
    store: Option<String>,
    /// File with the URL of that database, so that the password is in no list of processes
    #[arg(long, value_name = "FILE", env = "RHUMB_STORE_FILE")]
    store_file: Option<PathBuf>,
    /// Key with which everything in that database is sealed: the same file for each control plane. The first one makes it
    #[arg(long, value_name = "FILE", env = "RHUMB_SEAL_KEY_FILE", default_value = SEAL_KEY)]
    seal_key_file: PathBuf,
}

/// A database that several control planes share, and the key to it.
#[derive(Clone, Debug)]
pub(crate) struct SharedStore {
    pub(crate) database: Database,
    pub(crate) seal: Arc<Seal>,
}

impl StoreArgs {
    /// Connects, if a database is asked for. The key is made when it is not there, `makes_key` says so, and nothing was
    /// sealed with another one.
    ///
    /// # Errors
    /// When it cannot be reached, or there is no key.
    pub(crate) fn open(&self, makes_key: bool) -> anyhow::Result<Option<SharedStore>> {
        let Some(database) = self.database()? else { return Ok(None) };
        database.check().with_context(|| database.shown().to_owned())?;
        self.unseal(database, makes_key).map(Some)
    }

    /// The database that is asked for, if one is. It may be away.
    ///
    /// # Errors
    /// When what was written is no address of a database.
    pub(crate) fn database(&self) -> anyhow::Result<Option<Database>> {
        let url = match (&self.store, &self.store_file) {
            (Some(url), _) => url.clone(),
            (None, Some(file)) => {
                std::fs::read_to_string(file).with_context(|| file.display().to_string())?
            }
            (None, None) => return Ok(None),
        };
        let address: Address = url.parse().context("the store")?;
        Ok(Some(Database::new(address).context("the store")?))
    }

    /// With the key to a database that is there.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn unseal(&self, database: Database, makes_key: bool) -> anyhow::Result<SharedStore> {
        let shown = database.shown().to_owned();
        let seal = match Seal::load(&self.seal_key_file)? {
            Some(seal) => seal,
            None if makes_key && Shared::is_empty(&database).with_context(|| shown.clone())? => {
                Seal::make(&self.seal_key_file)?
            }
            None => anyhow::bail!(
                "{}: no such file; what is in {shown} was sealed with the key of another control plane: copy that file here",
                self.seal_key_file.display()
            ),
        };
        Ok(SharedStore { database, seal: Arc::new(seal) })
    }

    /// Where the certificate authority is: in that database, or else in a directory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn place(&self, directory: &Path, makes_key: bool) -> anyhow::Result<Place> {
        Ok(match self.open(makes_key)? {
            Some(shared) => shared.place()?,
            None => Place::Directory(directory.to_owned()),
        })
    }
}

impl SharedStore {
    /// Where the certificate authority is.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn place(&self) -> anyhow::Result<Place> {
        Ok(Place::Database(Shared::open(self.database.clone(), Arc::clone(&self.seal))?))
    }
}
