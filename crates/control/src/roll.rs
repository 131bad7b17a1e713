//! Registered workloads on disk: a control plane that starts again knows who was there.
//!
//! Without it the first proxies to come back would be told that services have no endpoints, because their workloads have not
//! come back yet. Whoever was there stays for [`GRACE`](crate::members::GRACE), in which it registers again, or is given up.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rhumb_ads::registry::Registration;

use crate::hub::Hub;

/// How often it is looked whether there is something to save.
const LOOK: Duration = Duration::from_millis(500);

/// The largest file that is read. Unit: bytes.
const MAX_BYTES: u64 = 512 << 20;

/// Content of the file.
#[derive(Clone, PartialEq, prost::Message)]
struct Saved {
    #[prost(message, repeated, tag = "1")]
    workloads: Vec<Registration>,
}

/// The file.
#[derive(Debug)]
pub struct Roll {
    path: PathBuf,
}

impl Roll {
    /// At a path; the file need not exist.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Puts back who was there; nobody is asked for it, and a file that cannot be read is told and left out. Call it before
    /// proxies are served.
    pub fn restore(&self, hub: &Hub, now: Instant) {
        let saved = match read(&self.path) {
            Ok(saved) => saved,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "who was registered cannot be read");
                return;
            }
        };
        hub.with(|core| {
            for registration in saved.workloads {
                let (workload, instance) = (registration.workload.clone(), registration.instance.clone());
                match core.register(registration) {
                    Ok(_) => core.lose(&workload, &instance, now),
                    Err(refused) => {
                        tracing::warn!(workload, %refused, "a workload that was registered is left out")
                    }
                }
            }
        });
    }

    /// Saves who is there some time after that has changed, until the process ends.
    pub async fn keep(self, hub: &Hub) {
        let mut saved = None;
        let mut is_told = false;
        loop {
            tokio::time::sleep(LOOK).await;
            let latest = hub.with(|core| core.members().generation());
            if saved == Some(latest) {
                continue;
            }
            let workloads = hub.with(|core| {
                let all = core.members().registrations().map(|(registration, _)| registration.clone());
                all.collect::<Vec<_>>()
            });
            let path = self.path.clone();
            let saving = move || save(&path, &Saved { workloads }.encode_to_vec());
            match tokio::task::spawn_blocking(saving).await {
                Ok(Ok(())) => (saved, is_told) = (Some(latest), false),
                Ok(Err(error)) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(path = %self.path.display(), %error, "who is registered cannot be saved");
                    }
                }
                Err(_) => return,
            }
        }
    }
}

fn read(path: &Path) -> io::Result<Saved> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is too large"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(error) => return Err(error),
    }
    let saved = Saved::decode(Bytes::from(fs::read(path)?));
    saved.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes it, as a whole or not at all.
fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Core;
    use crate::members::GRACE;
    use std::sync::Arc;

    fn registration(name: &str) -> Registration {
        Registration {
            workload: format!("shop/{name}"),
            address: "10.0.0.1".to_owned(),
            services: vec!["orders".to_owned()],
            instance: "1".to_owned(),
            ..Registration::default()
        }
    }

    fn names(hub: &Hub) -> Vec<String> {
        hub.with(|core| core.members().registrations().map(|(known, _)| known.workload.clone()).collect())
    }

    #[tokio::test]
    async fn who_was_registered_is_there_again_until_its_time_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("workloads");
        let hub = Arc::new(Hub::new(Core::new(1)));
        hub.with(|core| core.register(registration("a")).unwrap());
        let keeping = tokio::spawn({
            let hub = Arc::clone(&hub);
            let roll = Roll::at(path.clone());
            async move { roll.keep(&hub).await }
        });
        while read(&path).unwrap().workloads.len() != 1 {
            tokio::time::sleep(LOOK).await;
        }
        hub.with(|core| core.register(registration("b")).unwrap());
        while read(&path).unwrap().workloads.len() != 2 {
            tokio::time::sleep(LOOK).await;
        }
        keeping.abort();

        let again = Hub::new(Core::new(2));
        let now = Instant::now();
        Roll::at(path.clone()).restore(&again, now);
        assert_eq!(names(&again), ["shop/a", "shop/b"]);
        again.with(|core| core.register(registration("b")).unwrap());
        again.with(|core| core.expire(now + GRACE));
        assert_eq!(names(&again), ["shop/b"], "who has not come back is given up");
        fs::write(&path, b"\xff\xff").unwrap();
        let damaged = Hub::new(Core::new(3));
        Roll::at(path).restore(&damaged, now);
        assert!(names(&damaged).is_empty());
    }
}
