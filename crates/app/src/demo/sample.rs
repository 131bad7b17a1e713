//! The configuration of the demo: written to a file, so that it can be edited while it runs.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The names of the sample backends.
pub(crate) const BACKENDS: [&str; 3] = ["users-1", "users-2", "orders"];

/// The configuration for sample backends that listen on `backends`, in the order of [`BACKENDS`].
pub(crate) fn text(port: u16, admin: SocketAddr, backends: &[SocketAddr]) -> String {
    let of = |name: &str| {
        let named = BACKENDS.iter().zip(backends).filter(|(backend, _)| backend.starts_with(name));
        named.map(|(_, address)| address.to_string()).collect::<Vec<_>>().join(", ")
    };
    format!(
        "# The configuration of `rhumb demo`. Edit it while the demo runs: a change is live as soon as it is saved.
admin: {{ address: '{admin}' }}
accessLog: {{ format: combined }}

listeners:
  web: {{ port: {port}, address: 127.0.0.1 }}

backends:
  users:  {{ endpoints: [{users}] }}
  orders: {{ endpoints: [{orders}] }}

routes:
  - match: {{ path: /users/* }}
    to: users
    responseHeaders: {{ set: {{ x-served-by: rhumb }} }}
  - match: {{ path: /orders/* }}
    to: orders
  - match: {{ path: /old/* }}
    redirect: /users/
  - match: {{ path: / }}
    respond: {{ status: 200, body: \"rhumb works. Try /users/7, /orders/1 and /old/x\\n\" }}
",
        users = of("users"),
        orders = of("orders"),
    )
}

/// A directory of this process with `rhumb.yaml` in it; both go when it is dropped.
pub(crate) struct SampleFile {
    dir: PathBuf,
}

impl SampleFile {
    /// Writes the file.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn write(text: &str) -> io::Result<Self> {
        let dir = std::env::temp_dir().join(format!("rhumb-demo-{}", std::process::id()));
        // Fails when somebody else made it before us.
        DirBuilder::new().mode(0o700).create(&dir)?;
        let file = Self { dir };
        fs::write(file.path(), text)?;
        Ok(file)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("rhumb.yaml")
    }

    fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for SampleFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(self.dir()) {
            tracing::debug!(%error, "{} stays behind", self.dir().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_goes_with_its_handle() {
        let file = SampleFile::write("a: 1\n").unwrap();
        let path = file.path();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a: 1\n");
        drop(file);
        assert!(!path.exists());
    }
}
