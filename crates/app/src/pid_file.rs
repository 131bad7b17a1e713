//! The file that tells which process serves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A written file; removed with this value, unless another process has written its own id there meanwhile.
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes the id of this process, in one step: nobody reads half of it.
    ///
    /// # Errors
    /// What the operating system says, with the path.
    pub(crate) fn write(path: &Path) -> io::Result<Self> {
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}", std::process::id()));
        let written =
            fs::write(&fresh, format!("{}\n", std::process::id())).and_then(|()| fs::rename(&fresh, path));
        match written {
            Ok(()) => Ok(Self(path.to_owned())),
            Err(error) => {
                // Whatever was left behind is of no use to anybody.
                let _ = fs::remove_file(&fresh);
                Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let ours = std::process::id().to_string();
        if fs::read_to_string(&self.0).is_ok_and(|text| text.trim() == ours) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_goes_with_its_process_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rhumb.pid");
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
        assert!(PidFile::write(&dir.path().join("none/x")).is_err());
    }
}
