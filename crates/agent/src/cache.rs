//! The last set on disk: what a proxy starts with when no control plane is there.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use rhumb_ads::{Item, Kind};

/// The name of the file.
const NAME: &str = "resources";

/// The largest file that is read. Unit: bytes.
const MAX_BYTES: u64 = 512 << 20;

/// Content of the file.
#[derive(Clone, PartialEq, prost::Message)]
struct Saved {
    #[prost(message, repeated, tag = "1")]
    items: Vec<SavedItem>,
    /// The revision that was in force where they came from.
    #[prost(uint64, tag = "2")]
    revision: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SavedItem {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(bytes = "bytes", tag = "4")]
    content: Bytes,
    /// There is no such resource, which is worth knowing too: nobody waits for it.
    #[prost(bool, tag = "5")]
    absent: bool,
}

/// What the last process used. Nothing when there is nothing that can be read: the control plane has it too.
pub(crate) fn load(directory: &Path) -> (Vec<(Kind, Item)>, u64) {
    let path = directory.join(NAME);
    let saved = match read(&path) {
        Ok(Some(saved)) => saved,
        Ok(None) => return Default::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "what the last process had cannot be read");
            return Default::default();
        }
    };
    let item = |saved: SavedItem| {
        let kind = Kind::of_url(&saved.type_url)?;
        let version = saved.version.parse().ok()?;
        let content = (!saved.absent).then_some(saved.content);
        Some((kind, Item { name: saved.name.into(), version, content }))
    };
    (saved.items.into_iter().filter_map(item).collect(), saved.revision)
}

fn read(path: &Path) -> io::Result<Option<Saved>> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
    }
    let saved = Saved::decode(Bytes::from(fs::read(path)?));
    saved.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What is to be written.
pub(crate) fn encode(items: impl Iterator<Item = (Kind, Item)>, revision: u64) -> Vec<u8> {
    let item = |(kind, item): (Kind, Item)| SavedItem {
        type_url: kind.url().to_owned(),
        name: item.name.into(),
        version: item.version.to_string(),
        absent: item.content.is_none(),
        content: item.content.unwrap_or_default(),
    };
    // Names that somebody asked for and that are none are asked for again.
    let is_kept = |(kind, item): &(Kind, Item)| *kind != Kind::Address || item.content.is_some();
    Saved { items: items.filter(is_kept).map(item).collect(), revision }.encode_to_vec()
}

/// Writes it, as a whole or not at all. There are secrets in it: it is for this user only.
///
/// # Errors
/// Those of the file system.
pub(crate) fn save(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let fresh: PathBuf = directory.join(format!(".{NAME}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, directory.join(NAME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_ads::Version;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_was_saved_is_there_again_and_for_this_user_only() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("state");
        assert_eq!(load(&directory), (Vec::new(), 0));
        let content = Bytes::from_static(b"x");
        let item = Item { name: "a".into(), version: Version::of(3, &content), content: Some(content) };
        let gone = Item { name: "b".into(), version: Version::absent(3), content: None };
        let items = [(Kind::Service, item.clone()), (Kind::Own, gone.clone()), (Kind::Address, gone.clone())];
        save(&directory, &encode(items.into_iter(), 7)).unwrap();
        assert_eq!(load(&directory), (vec![(Kind::Service, item), (Kind::Own, gone)], 7));
        let mode = fs::metadata(directory.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_no_obstacle() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(NAME), b"\xff\xff\xff").unwrap();
        assert!(load(directory.path()).0.is_empty());
    }
}
