//! Edge-triggered readiness on epoll.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

/// What became ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The token given to [`Poller::watch`].
    pub token: u64,
    /// There are bytes to read, or the peer closed, or the socket failed.
    pub readable: bool,
    /// The peer closed or the socket failed: read to the end, no other edge will tell.
    pub hangup: bool,
    /// The socket takes bytes again.
    pub writable: bool,
}

/// An epoll instance with its event buffer.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    /// Opens an epoll instance.
    ///
    /// # Errors
    /// Those of `epoll_create1`.
    pub fn open() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_PER_WAIT) })
    }

    /// Reports every edge of `source` under `token`. Closing the source ends it.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn watch(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token), flags)?)
    }

    /// Waits for edges, at most `timeout`, and puts them into `ready` in place of what it held.
    ///
    /// # Errors
    /// Those of `epoll_pwait2`; an interrupted wait is an empty one.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let timeout = timeout.map(|t| Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            let hangup = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
            Ready {
                token: event.data.u64(),
                readable: flags.intersects(EventFlags::IN | hangup),
                hangup: flags.intersects(hangup),
                writable: flags.contains(EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

/// Opens a listener that does not block and does not drop connections when a proxy opens many at once
/// (the standard library's backlog is 128).
///
/// # Errors
/// The address is taken or not one of this machine.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(addr)?;
    rustix::net::listen(&listener, BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Lets the process open as many files as its hard limit allows.
pub fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // A refusal shows later, as a connection that cannot be opened, with its own message.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Events taken by one wait.
const EVENTS_PER_WAIT: usize = 512;
/// Connections that may wait to be accepted; the kernel's own bound is `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
