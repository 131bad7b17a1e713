//! What a service manager gives and wants to know: sockets that it has opened (sd_listen_fds(3)) and news of the state
//! (sd_notify(3)). Without one, nothing here does anything.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use listenfd::ListenFd;

/// Variables that are about this process and no child of it.
pub(crate) const OWN_VARIABLES: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// Sockets that the service manager has opened for this process, those of streams and of datagrams. Call it once, before
/// anything else is opened.
pub(crate) fn sockets() -> Vec<OwnedFd> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for at in 0..given.len() {
        // Asked for as the one, then as the other: each refuses what it is not.
        if let Ok(Some(socket)) = given.take_tcp_listener(at) {
            sockets.push(OwnedFd::from(socket));
        } else if let Ok(Some(socket)) = given.take_udp_socket(at) {
            sockets.push(OwnedFd::from(socket));
        } else {
            tracing::warn!(number = at, "a socket of the service manager is neither TCP nor UDP: not used");
        }
    }
    sockets
}

/// Where news goes.
pub(crate) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// As the environment says; nowhere when it says nothing.
    pub(crate) fn from_env() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").and_then(|path| match open(&path) {
            Ok(open) => Some(open),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "NOTIFY_SOCKET cannot be used");
                None
            }
        });
        let variable = |name| std::env::var(name).ok();
        let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid.parse() == Ok(std::process::id()));
        let interval = variable("WATCHDOG_USEC").and_then(|micros| micros.parse().ok());
        let watchdog = interval.filter(|&micros| is_ours && micros > 0).map(Duration::from_micros);
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket }
    }

    /// How often the service manager wants a sign of life: half of the time after which it would end the process.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|interval| interval / 2)
    }

    /// Ready, or ready again.
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// The configuration is read again; [`Notify::ready`] follows.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the configuration\n"));
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining\n");
    }

    /// Another process is the service from here on.
    pub(crate) fn main_process(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}\n"));
    }

    /// A sign of life.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1\n");
    }

    fn send(&self, news: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(news.as_bytes(), address) {
            tracing::debug!(%error, "the service manager does not take news");
        }
    }
}

fn open(path: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the process up.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_arrive_at_paths_and_abstract_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("rhumb-test-{}", std::process::id());
        let receivers = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
                format!("@{name}").into(),
            ),
        ];
        for (receiver, path) in receivers {
            let notify = Notify { socket: Some(open(&path).unwrap()), watchdog: None };
            let hear = || {
                let mut news = [0; 256];
                let length = receiver.recv(&mut news).unwrap();
                String::from_utf8_lossy(&news[..length]).into_owned()
            };
            notify.ready("well");
            assert_eq!(hear(), "READY=1\nSTATUS=well\n");
            notify.reloading();
            let news = hear();
            assert!(news.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{news}");
            notify.main_process(7);
            assert_eq!(hear(), "MAINPID=7\n");
        }
    }
}
