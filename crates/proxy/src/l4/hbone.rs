//! Connections inside of streams of HTTP/2 between proxies of the mesh: CONNECT (RFC 9113 §8.5), as HBONE has it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rhumb_base::failure::{Cause, Failure, Retry};
use rhumb_codec::head::{Content, RequestHead, ResponseHead};
use rhumb_conn::io::Io;
use rhumb_conn::{Part, h2};
use rhumb_net::buffer::{Buffer, SIZE};
use rhumb_net::timer::Timer;
use rhumb_plan::Port;
use rhumb_plan::mesh::Place;
use rhumb_telemetry::{Metric, Protocol};
use rhumb_upstream::Target;
use tokio::net::TcpStream;

use crate::downstream::{self, Connection};
use crate::l4::egress;
use crate::l4::header::Ends;
use crate::l4::outside::Outside;
use crate::l4::record::Account;
use crate::l4::relay::{Carried, RelayEnd, RelayLimits};
use crate::l4::tcp;
use crate::mesh::MeshSide;
use crate::pace::Pace;
use crate::worker::Worker;

/// Content that a stream may have waiting before nothing more is read for it. **Unit**: bytes.
const BACKLOG: usize = 64 << 10;

/// Moves in one direction before the other one gets its turn.
const MOVES: usize = 16;

/// Opens a stream to `authority` through the proxy at `address`.
///
/// # Errors
/// Why not; nothing has been sent to the application then.
pub(crate) async fn open(
    worker: &Worker,
    target: &Target,
    address: SocketAddr,
    authority: &str,
) -> Result<Box<h2::Stream>, Failure> {
    let mut head = worker.take_request();
    head.clear();
    head.set_method(b"CONNECT");
    head.set_authority(authority.as_bytes());
    head.content = Content::Streamed;
    let opened = worker.pools.open_stream(target, address, &head).await;
    worker.give_request(head);
    let mut stream = Box::new(opened?.0);
    let mut rsp = worker.take_response();
    let mut timer = Timer::new();
    timer.set(Instant::now() + target.connect_timeout);
    let answered = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = stream.poll_response(cx, &mut rsp) {
                result?;
                if !rsp.is_interim() {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            return timer
                .poll(cx)
                .map(|()| Err(Failure::new(Cause::ConnectTimeout).retry(Retry::IfNotProcessed)));
        }
    })
    .await;
    let status = rsp.status;
    worker.give_response(rsp);
    answered?;
    match status {
        200..=299 => Ok(stream),
        401 | 403 => Err(Cause::AccessDenied.into()),
        _ => Err(Failure::new(Cause::ConnectFailed).retry(Retry::IfNotProcessed)),
    }
}

/// Serves a CONNECT of the proxy of a caller: a connection to the application.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    connection: &Connection,
    mut stream: h2::Stream,
    head: Box<RequestHead>,
) {
    let status = match admit(worker, connection, &head) {
        Ok(Leads::Outside(to, port)) => {
            worker.give_request(head);
            match egress::serve(worker, connection, &mut stream, to, &port).await {
                Ok(()) => return,
                Err(cause) => cause.facts().status,
            }
        }
        Ok(Leads::Requests(name, port)) => {
            worker.give_request(head);
            match serve_inside(worker, connection, &mut stream, name, &port).await {
                Ok(()) => return,
                Err(cause) => cause.facts().status,
            }
        }
        Ok(Leads::Connection(port)) => {
            worker.give_request(head);
            let mut account = Account::new(worker, &port, Protocol::Tcp, connection.peer);
            account.caller = connection.mesh.as_deref().map(|side| side.names().0.clone());
            match tcp::connect_inside(worker, &port, &mut account, connection).await {
                Ok((mut up, limits, held)) => {
                    if let Some(side) = &connection.mesh {
                        let (source, service) = side.edge();
                        worker.metrics.borrow_mut().add(Metric::MeshConnections, &[&source, service], 1);
                    }
                    respond(worker, &mut stream, 200, Content::Streamed).await;
                    account.begin();
                    let mut seen = worker.revision();
                    let may_go_on = || {
                        let revision = worker.revision();
                        revision == std::mem::replace(&mut seen, revision)
                            || tcp::may_go_on(worker, &port, connection)
                    };
                    let (reads, carried) = (Reads::Request, &mut account.carried);
                    let end = relay(&mut up, &mut stream, reads, limits, carried, &[], may_go_on).await;
                    drop(held);
                    account.finish(end);
                    return;
                }
                Err(failure) => {
                    account.fail(failure);
                    failure.cause.facts().status
                }
            }
        }
        Err(cause) => {
            worker.give_request(head);
            cause.facts().status
        }
    };
    respond(worker, &mut stream, status, Content::None).await;
}

/// How long the connection inside of a stream may rest: longer than anything inside of it may. What is there ends earlier by
/// its own limits.
const INSIDE_IDLE: Duration = Duration::from_secs(3600);

/// Serves the requests of a connection that came in a CONNECT stream, as proxies that are not ours bring them: with the policies of
/// requests, and the identity of the connection outside. The two ends of a pair of sockets stand for the connection, which costs
/// a copy; our own proxies send requests as they are.
async fn serve_inside(
    worker: &Rc<Worker>,
    connection: &Connection,
    stream: &mut h2::Stream,
    name: Arc<str>,
    port: &Arc<Port>,
) -> Result<(), Cause> {
    let (inner, outer) = pair().map_err(|_| Cause::Overloaded)?;
    let side = connection.mesh.as_deref().ok_or(Cause::NotImplemented)?;
    let inside = MeshSide::new(Some(Place::Inbound(name)), side.peer.clone(), side.generation());
    let ends = Ends { client: connection.peer, destination: None };
    let known = (Some(inside), connection.tls.clone());
    downstream::start_inside(worker, port, inner, ends, known, worker.join(None));
    respond(worker, stream, 200, Content::Streamed).await;
    let limits = RelayLimits { idle: Some(INSIDE_IDLE), ..RelayLimits::default() };
    // What it has carried is told by the records of the requests.
    let mut carried = Carried::default();
    relay(&mut Io::Plain(outer), stream, Reads::Request, limits, &mut carried, &[], || true).await;
    Ok(())
}

/// Two connected sockets.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let (inner, outer) = UnixStream::pair()?;
    let wrap = |socket: UnixStream| {
        socket.set_nonblocking(true)?;
        // Nothing here asks for what only TCP has.
        TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(socket)))
    };
    Ok((wrap(inner)?, wrap(outer)?))
}

/// What a CONNECT leads to.
enum Leads {
    /// To the application, as it is.
    Connection(Arc<Port>),
    /// To the requests of a service.
    Requests(Arc<str>, Arc<Port>),
    /// Out of the mesh.
    Outside(Outside, Arc<Port>),
}

/// What a CONNECT leads to: a port of the service that the connection is for, else by the authority's number.
fn admit(worker: &Worker, connection: &Connection, head: &RequestHead) -> Result<Leads, Cause> {
    let plan = worker.plan();
    let mesh = plan.mesh.as_ref().ok_or(Cause::NotImplemented)?;
    let side = connection.mesh.as_deref().filter(|side| side.is_inbound()).ok_or(Cause::NotImplemented)?;
    let gateway = mesh.egress_gateway.as_ref().filter(|_| mesh.is_egress_gateway);
    let service = match &side.place {
        Some(Place::Inbound(name)) => mesh.inbound.get_key_value(name),
        // Applications are asked for by address. An address out of the mesh takes the server name of the gateway.
        _ if let Some(gateway) = gateway
            && Outside::parse(head.authority()).is_some_and(|to| to.host.name().is_some()) =>
        {
            mesh.inbound.iter().find(|(_, service)| service.name == gateway.service)
        }
        _ => {
            let authority = std::str::from_utf8(head.authority()).ok();
            let number = authority.and_then(|authority| authority.rsplit_once(':')?.1.parse::<u16>().ok());
            number.and_then(|number| mesh.inbound.get_key_value(mesh.inbound_ports.get(&number)?))
        }
    };
    let (name, service) = service.ok_or(Cause::RouteNotFound)?;
    if gateway.is_some_and(|gateway| gateway.service == service.name) {
        let to = Outside::parse(head.authority()).ok_or(Cause::AuthorityInvalid)?;
        return service.tcp.clone().map(|port| Leads::Outside(to, port)).ok_or(Cause::RouteNotFound);
    }
    let carried = service.tcp.as_ref().filter(|port| tcp::carries(worker, port, connection));
    match (&service.http, carried) {
        (Some(http), _) if service.is_http => Ok(Leads::Requests(Arc::clone(name), Arc::clone(http))),
        // Nobody has said what is spoken there, and only requests can be decided about.
        (Some(http), None) => Ok(Leads::Requests(Arc::clone(name), Arc::clone(http))),
        _ => service.tcp.clone().map(Leads::Connection).ok_or(Cause::RouteNotFound),
    }
}

pub(crate) async fn respond(worker: &Worker, stream: &mut h2::Stream, status: u16, content: Content) {
    let mut rsp: Box<ResponseHead> = worker.take_response();
    rsp.clear();
    rsp.status = status;
    rsp.content = content;
    stream.send_response(&rsp);
    worker.give_response(rsp);
    let _ = poll_fn(|cx| stream.poll_flush(cx)).await;
}

/// Whose content is read from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// The stream is that of a caller.
    Request,
    /// The stream leads to a service.
    Response,
}

/// Carries bytes between a connection and a stream, as [`crate::l4::relay::relay`] does between two connections. `first`
/// came from the stream already.
pub(crate) async fn relay(
    io: &mut Io,
    stream: &mut h2::Stream,
    reads: Reads,
    limits: RelayLimits,
    carried: &mut Carried,
    first: &[u8],
    mut may_go_on: impl FnMut() -> bool,
) -> RelayEnd {
    let mut sent = Sent { pace: limits.pace(), ..Sent::default() };
    let mut received = Received { held: first.to_vec(), pace: limits.pace(), ..Received::default() };
    let mut timer = Timer::new();
    limits.set(&mut timer);
    let (of_io, of_stream) = match reads {
        Reads::Request => (RelayEnd::BackendReset, RelayEnd::ClientReset),
        Reads::Response => (RelayEnd::ClientReset, RelayEnd::BackendReset),
    };
    let end = poll_fn(|cx| {
        if !may_go_on() {
            return Poll::Ready(RelayEnd::Denied);
        }
        let mut has_moved = false;
        sent.left = limits.left(sent.moved + received.moved);
        let to_stream = sent.poll(cx, io, stream, &mut has_moved);
        received.left = limits.left(sent.moved + received.moved);
        let from_stream = received.poll(cx, io, stream, reads, &mut has_moved);
        let (bytes_in, bytes_out) = match reads {
            Reads::Request => (received.moved, sent.moved),
            Reads::Response => (sent.moved, received.moved),
        };
        carried.moved(bytes_in, bytes_out);
        match (to_stream, from_stream) {
            (Err(Broke::Io), _) | (_, Err(Broke::Io)) => return Poll::Ready(of_io),
            (Err(Broke::Stream), _) | (_, Err(Broke::Stream)) => return Poll::Ready(of_stream),
            (Ok(true), Ok(true)) => return Poll::Ready(RelayEnd::Closed),
            _ => {}
        }
        if limits.reset_after.is_some() && limits.left(sent.moved + received.moved) == 0 {
            // What has passed is on its way, or the peer is in no hurry to take it.
            let _ = stream.poll_flush(cx);
            return Poll::Ready(RelayEnd::Fault);
        }
        if has_moved {
            limits.set(&mut timer);
        }
        timer.poll(cx).map(|()| limits.over())
    })
    .await;
    match end {
        RelayEnd::Closed => {}
        RelayEnd::Denied | RelayEnd::Fault => {
            drop(rhumb_net::socket::reset_on_close(io.socket()));
            stream.abort();
        }
        _ if end == of_stream => drop(rhumb_net::socket::reset_on_close(io.socket())),
        // A stream that is dropped before its end is reset.
        _ => stream.abort(),
    }
    end
}

enum Broke {
    Io,
    Stream,
}

/// From the connection to the stream.
#[derive(Default)]
struct Sent {
    is_closing: bool,
    is_done: bool,
    moved: u64,
    pace: Option<Box<Pace>>,
    /// How much may still pass, in bytes.
    left: u64,
}

impl Sent {
    /// True when its end was sent.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        stream: &mut h2::Stream,
        has_moved: &mut bool,
    ) -> Result<bool, Broke> {
        if self.is_done {
            return Ok(true);
        }
        for _ in 0..MOVES {
            if stream.backlog() >= BACKLOG || self.is_closing {
                match stream.poll_flush(cx) {
                    Poll::Pending => return Ok(false),
                    Poll::Ready(Err(_)) => return Err(Broke::Stream),
                    Poll::Ready(Ok(())) if self.is_closing => {
                        self.is_done = true;
                        *has_moved = true;
                        return Ok(true);
                    }
                    Poll::Ready(Ok(())) => {}
                }
            }
            let mut step = usize::try_from(self.left).unwrap_or(SIZE).min(SIZE);
            if let Some(pace) = &mut self.pace {
                match pace.poll_step(cx) {
                    Poll::Ready(few) => step = step.min(few),
                    Poll::Pending => step = 0,
                }
            }
            let mut buffer = Buffer::take();
            let read = match buffer.get_mut(..step).filter(|room| !room.is_empty()) {
                Some(room) => io.poll_read(cx, room),
                None => Poll::Pending,
            };
            if let (Some(pace), Poll::Ready(Ok(len))) = (&mut self.pace, &read) {
                pace.pay(*len);
            }
            match read {
                Poll::Pending => {
                    drop(buffer);
                    // What windows had no room for goes on when they open.
                    if stream.backlog() > 0 && matches!(stream.poll_flush(cx), Poll::Ready(Err(_))) {
                        return Err(Broke::Stream);
                    }
                    return Ok(false);
                }
                Poll::Ready(Ok(0)) => {
                    stream.send_end(None);
                    self.is_closing = true;
                }
                Poll::Ready(Ok(len)) => {
                    let bytes = buffer.get(..len).unwrap_or_default();
                    stream.send_data(cx, bytes).map_err(|_| Broke::Stream)?;
                    self.moved += len as u64;
                    self.left = self.left.saturating_sub(len as u64);
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    stream.send_end(None);
                    self.is_closing = true;
                }
                Poll::Ready(Err(_)) => return Err(Broke::Io),
            }
            *has_moved = true;
        }
        cx.waker().wake_by_ref();
        Ok(false)
    }
}

/// From the stream to the connection.
#[derive(Default)]
struct Received {
    /// Bytes that the connection has not taken: `held[at..]`.
    held: Vec<u8>,
    at: usize,
    is_closing: bool,
    is_done: bool,
    moved: u64,
    pace: Option<Box<Pace>>,
    /// How much may still pass, in bytes.
    left: u64,
}

impl Received {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        stream: &mut h2::Stream,
        reads: Reads,
        has_moved: &mut bool,
    ) -> Result<bool, Broke> {
        if self.is_done {
            return Ok(true);
        }
        for _ in 0..MOVES {
            if !self.held.is_empty() {
                match self.write_held(cx, io) {
                    Poll::Pending => return Ok(false),
                    Poll::Ready(Err(_)) => return Err(Broke::Io),
                    Poll::Ready(Ok(())) => *has_moved = true,
                }
            }
            if self.is_closing {
                return match io.poll_shutdown(cx) {
                    Poll::Pending => Ok(false),
                    Poll::Ready(_) => {
                        (self.is_done, *has_moved) = (true, true);
                        Ok(true)
                    }
                };
            }
            let part = match reads {
                Reads::Request => stream.poll_request_body(cx),
                Reads::Response => stream.poll_response_body(cx),
            };
            match part {
                Poll::Pending => {
                    return match io.poll_flush(cx) {
                        Poll::Ready(Err(_)) => Err(Broke::Io),
                        _ => Ok(false),
                    };
                }
                Poll::Ready(Err(_)) => return Err(Broke::Stream),
                Poll::Ready(Ok(Part::End(_))) => self.is_closing = true,
                Poll::Ready(Ok(Part::Data(data))) if self.is_held_back() => self.held.extend_from_slice(data),
                Poll::Ready(Ok(Part::Data(data))) => {
                    let written = match io.poll_write(cx, data) {
                        Poll::Pending => 0,
                        Poll::Ready(Ok(0) | Err(_)) => return Err(Broke::Io),
                        Poll::Ready(Ok(written)) => written,
                    };
                    self.moved += written as u64;
                    // The window is given back with the next read, so no more than one part is ever held.
                    self.held.extend_from_slice(data.get(written..).unwrap_or_default());
                    *has_moved = true;
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok(false)
    }

    /// True when not all that comes may pass at once.
    fn is_held_back(&self) -> bool {
        self.pace.is_some() || self.left != u64::MAX
    }

    fn write_held(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<io::Result<()>> {
        while let Some(rest) = self.held.get(self.at..).filter(|rest| !rest.is_empty()) {
            let mut step = usize::try_from(self.left).unwrap_or(usize::MAX);
            if let Some(pace) = &mut self.pace {
                step = step.min(ready!(pace.poll_step(cx)));
            }
            if step == 0 {
                return Poll::Pending;
            }
            let written = ready!(io.poll_write(cx, rest.get(..step).unwrap_or(rest)))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.at += written;
            self.moved += written as u64;
            self.left = self.left.saturating_sub(written as u64);
            if let Some(pace) = &mut self.pace {
                pace.pay(written);
            }
        }
        (self.held, self.at) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}
