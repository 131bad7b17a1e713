//! The connection to the control plane, and what goes on over it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use rhumb_ads::registry::{REGISTER_PATH, Registered, Registration, WITHDRAW_PATH, Withdrawal, Withdrawn};
use rhumb_ads::wire::{DELTA_PATH, DeltaRequest, DeltaResponse, Node};
use rhumb_ads::{Ack, Change, Follower, Item, Kind, Version};
use rhumb_base::rng::Rng;
use rhumb_grpc::{Connect, causes};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::backoff::Backoff;
use crate::cache;
use crate::durable::is_saved_first;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What calls name as their origin, whichever control plane answers.
const ORIGIN: &str = "http://control.rhumb.internal";

/// The largest message of the control plane. Unit: bytes.
const MAX_MESSAGE: usize = 64 << 20;

/// Changes that were not taken over yet; the control plane sends one of each type at a time.
const MAX_EVENTS: usize = 16;

/// How long to wait after a change before the set is saved: more may come.
const SAVE_AFTER: Duration = Duration::from_millis(500);

/// How long a withdrawal may take longer than it is allowed to, for the network.
const WITHDRAW_GRACE: Duration = Duration::from_secs(2);

/// What an agent needs.
pub struct Options {
    /// Control planes as `HOST:PORT`, at least one.
    pub servers: Vec<String>,
    /// How they are reached.
    pub connect: Connect,
    /// Who this is.
    pub node: Node,
    /// Where the last set is kept; nothing to keep none.
    pub directory: Option<PathBuf>,
    /// For waits and the order of servers.
    pub rng: Rng,
}

/// What comes from the control plane.
#[derive(Debug)]
pub enum Event {
    /// Resources have come, changed or gone. It is to be [accepted](Agent::accept) or [refused](Agent::refuse).
    Change(Change),
    /// The connection came or went.
    State(State),
}

/// How it stands with the control plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The control plane that this is connected to.
    pub server: Option<String>,
    /// Why it is not connected, or what was wrong the last time.
    pub trouble: Option<String>,
    /// The last one that was asked says that it is no control plane, only an issuer of certificates for instance.
    pub is_absent: bool,
    /// Streams that were begun.
    pub streams: u64,
    /// Services that this says to be an endpoint of, and that nobody has a document of.
    pub unknown_services: Vec<String>,
}

/// The control plane is away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no control plane is connected")]
pub struct Away;

/// The connection to the control plane. It ends when this is dropped.
pub struct Agent {
    shared: Arc<Shared>,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

struct Shared {
    follower: Mutex<Follower>,
    /// Something is to be sent.
    wake: Notify,
    /// What was accepted is not on disk yet.
    unsaved: Notify,
    /// Where the last set is kept; nothing to keep none.
    directory: Option<PathBuf>,
    /// To be given when what they are for is on disk. At most one of each type, as the control plane waits for it.
    acks: Mutex<Vec<Ack>>,
    registration: watch::Sender<Option<Registration>>,
    channel: watch::Sender<Option<Channel>>,
}

impl Agent {
    /// Begins with what is on disk and connects. Events have to be taken as they come. Must be called on a runtime.
    pub fn start(options: Options) -> (Self, mpsc::Receiver<Event>) {
        let mut follower = Follower::new(options.node.clone());
        if let Some(directory) = &options.directory {
            let (items, revision) = cache::load(directory);
            follower.resume(revision);
            for (kind, item) in items {
                follower.restore(kind, item);
            }
        }
        let shared = Arc::new(Shared {
            follower: Mutex::new(follower),
            wake: Notify::new(),
            unsaved: Notify::new(),
            directory: options.directory.clone(),
            acks: Mutex::default(),
            registration: watch::Sender::new(None),
            channel: watch::Sender::new(None),
        });
        let (events, receiver) = mpsc::channel(MAX_EVENTS);
        let (states, state) = watch::channel(State::default());
        let task = tokio::spawn(run(options, Arc::clone(&shared), events, states));
        (Self { shared, state, task }, receiver)
    }

    /// Wants a resource.
    pub fn want(&self, kind: Kind, name: &str) {
        if self.shared.follower().want(kind, name) {
            self.shared.wake.notify_one();
        }
    }

    /// Does not want a resource any more.
    pub fn leave(&self, kind: Kind, name: &str) {
        self.shared.follower().leave(kind, name);
        self.shared.wake.notify_one();
    }

    /// A change is in use. What forbids something is acknowledged when it is on disk, everything else at once.
    pub fn accept(&self, change: Change) {
        let mut follower = self.shared.follower();
        let is_kept_first = self.shared.directory.is_some() && is_saved_first(&follower, &change);
        let ack = follower.take_over(change);
        if is_kept_first {
            self.shared.acks().push(ack);
        } else {
            follower.acknowledge(ack);
            self.shared.wake.notify_one();
        }
        drop(follower);
        self.shared.unsaved.notify_one();
    }

    /// A change cannot be used, and why: people see it at the control plane.
    pub fn refuse(&self, change: Change, why: String) {
        self.shared.follower().refuse(change, why);
        self.shared.wake.notify_one();
    }

    /// Everything of a type that is in use: name, version, and content where there is such a resource.
    pub fn held(&self, kind: Kind) -> Vec<(Box<str>, Version, Option<Bytes>)> {
        let follower = self.shared.follower();
        follower.held(kind).map(|(name, version, content)| (name.into(), version, content.cloned())).collect()
    }

    /// What is known of one resource: nothing, that there is none, or its content.
    pub fn known(&self, kind: Kind, name: &str) -> Option<Option<Bytes>> {
        self.shared.follower().known(kind, name).map(|content| content.cloned())
    }

    /// True while a control plane is connected.
    pub fn is_connected(&self) -> bool {
        self.state.borrow().server.is_some()
    }

    /// The number of wanted resources of which nothing is known yet.
    pub fn unknown(&self) -> usize {
        self.shared.follower().unknown()
    }

    /// Says what the workload is, from here on and after each new connection.
    pub fn register(&self, registration: Registration) {
        self.shared.registration.send_replace(Some(registration));
    }

    /// Takes the workload out: returns when every proxy that is connected sends nothing there any more, or after the
    /// deadline, and says which do not. The registration ends whatever comes of it.
    ///
    /// # Errors
    /// [`Away`] when there is nobody to tell.
    pub async fn withdraw(&self, deadline: Duration) -> Result<Withdrawn, Away> {
        let Some(registration) = self.shared.registration.send_replace(None) else {
            return Ok(Withdrawn::default());
        };
        let Some(channel) = self.shared.channel.borrow().clone() else { return Err(Away) };
        let withdrawal = Withdrawal {
            workload: registration.workload,
            instance: registration.instance,
            deadline_ms: u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX),
        };
        let mut grpc = Grpc::new(channel);
        let asked = async {
            grpc.ready().await.map_err(|_| Away)?;
            let codec = ProstCodec::<Withdrawal, Withdrawn>::default();
            let path = PathAndQuery::from_static(WITHDRAW_PATH);
            let answer = grpc.unary(Request::new(withdrawal), path, codec).await;
            answer.map(tonic::Response::into_inner).map_err(|_| Away)
        };
        tokio::time::timeout(deadline + WITHDRAW_GRACE, asked).await.unwrap_or(Err(Away))
    }

    /// The connection, while there is one.
    pub(crate) fn channels(&self) -> watch::Receiver<Option<Channel>> {
        self.shared.channel.subscribe()
    }

    /// How it stands, and a way to wait until that changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn follower(&self) -> MutexGuard<'_, Follower> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acks(&self) -> MutexGuard<'_, Vec<Ack>> {
        self.acks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects again and again.
async fn run(
    options: Options,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    states: watch::Sender<State>,
) {
    let mut backoff = Backoff::new(options.servers.len(), options.rng);
    let keeping = keep(Arc::clone(&shared));
    let connecting = async {
        loop {
            let Some(server) = options.servers.get(backoff.server()) else { return };
            let began = now();
            let trouble = match rhumb_grpc::connect(&options.connect, server, ORIGIN, CONNECT_TIMEOUT).await {
                Ok(channel) => {
                    shared.channel.send_replace(Some(channel.clone()));
                    let why = serve(&shared, channel, server, &events, &states).await;
                    shared.channel.send_replace(None);
                    why
                }
                Err(error) => error,
            };
            let wait = backoff.failed(began.elapsed());
            tracing::warn!(server, wait_ms = wait.as_millis(), "no control plane: {trouble}");
            states.send_modify(|state| (state.server, state.trouble) = (None, Some(trouble)));
            let state = states.borrow().clone();
            if events.send(Event::State(state)).await.is_err() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    };
    tokio::select! {
        () = connecting => {}
        () = keeping => {}
    }
}

/// Everything over one connection. Gives the reason of its end.
async fn serve(
    shared: &Arc<Shared>,
    channel: Channel,
    server: &str,
    events: &mpsc::Sender<Event>,
    states: &watch::Sender<State>,
) -> String {
    let registering = register(Arc::clone(shared), channel.clone(), states.clone());
    let following = follow(shared, channel, server, events, states);
    tokio::select! {
        ended = following => ended,
        ended = registering => ended,
    }
}

async fn follow(
    shared: &Arc<Shared>,
    channel: Channel,
    server: &str,
    events: &mpsc::Sender<Event>,
    states: &watch::Sender<State>,
) -> String {
    let (tx, rx) = mpsc::channel::<DeltaRequest>(1);
    let mut grpc =
        Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    if let Err(error) = grpc.ready().await {
        return causes(&error);
    }
    let codec = ProstCodec::<DeltaRequest, DeltaResponse>::default();
    let path = PathAndQuery::from_static(DELTA_PATH);
    let opening = grpc.streaming(Request::new(ReceiverStream::new(rx)), path, codec);
    let mut responses = match opening.await {
        Ok(response) => response.into_inner(),
        Err(status) => {
            let is_absent = status.code() == tonic::Code::Unimplemented;
            states.send_modify(|state| state.is_absent = is_absent);
            return told(&status);
        }
    };
    shared.follower().begin();
    let mut is_told = false;
    loop {
        loop {
            let Some(request) = shared.follower().request() else { break };
            if tx.send(request).await.is_err() {
                break;
            }
        }
        let response = tokio::select! {
            response = responses.message() => response,
            () = shared.wake.notified() => continue,
            () = events.closed() => return "this process ends".to_owned(),
        };
        let response = match response {
            Ok(Some(response)) => response,
            Ok(None) => return "it ended the stream".to_owned(),
            Err(status) => {
                let is_absent = status.code() == tonic::Code::Unimplemented;
                states.send_modify(|state| state.is_absent = is_absent);
                return told(&status);
            }
        };
        if !std::mem::replace(&mut is_told, true) {
            // Only an answer says that there is a control plane.
            tracing::info!(server, "connected to the control plane");
            states.send_modify(|state| {
                (state.server, state.trouble) = (Some(server.to_owned()), None);
                state.streams += 1;
                state.is_absent = false;
            });
            let state = states.borrow().clone();
            let _ = events.send(Event::State(state)).await;
        }
        let change = shared.follower().response(response);
        let change = match change {
            Ok(change) => change,
            Err(error) => return error.to_string(),
        };
        if events.send(Event::Change(change)).await.is_err() {
            return "this process ends".to_owned();
        }
    }
}

/// Keeps the workload registered over a connection. Ends only with it.
async fn register(shared: Arc<Shared>, channel: Channel, states: watch::Sender<State>) -> String {
    let mut wanted = shared.registration.subscribe();
    loop {
        let first = wanted.wait_for(Option::is_some).await.ok().and_then(|registration| registration.clone());
        let Some(first) = first else { return std::future::pending().await };
        let (tx, rx) = mpsc::channel::<Registration>(1);
        if tx.try_send(first).is_err() {
            continue;
        }
        let mut grpc = Grpc::new(channel.clone());
        if let Err(error) = grpc.ready().await {
            return causes(&error);
        }
        let codec = ProstCodec::<Registration, Registered>::default();
        let path = PathAndQuery::from_static(REGISTER_PATH);
        let opening = grpc.streaming(Request::new(ReceiverStream::new(rx)), path, codec);
        let mut answers = match opening.await {
            Ok(response) => response.into_inner(),
            Err(status) => return told(&status),
        };
        let mut is_told = false;
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        if !std::mem::replace(&mut is_told, true) {
                            tracing::info!("registered at the control plane: callers are sent here");
                        }
                        if !answer.unknown_services.is_empty() {
                            tracing::warn!(services = ?answer.unknown_services, "there are no documents of these services");
                        }
                        states.send_modify(|state| state.unknown_services = answer.unknown_services);
                    }
                    Ok(None) => return "it ended the registration".to_owned(),
                    Err(status) => return told(&status),
                },
                changed = wanted.changed() => {
                    let latest = wanted.borrow_and_update().clone();
                    match (changed, latest) {
                        (Ok(()), Some(registration)) => {
                            if tx.send(registration).await.is_err() {
                                return "it ended the registration".to_owned();
                            }
                        }
                        // Withdrawn: the stream goes, and another registration may come.
                        _ => break,
                    }
                }
            }
        }
    }
}

/// Saves what is in use: at once where somebody waits for it, otherwise some time after it changed.
async fn keep(shared: Arc<Shared>) {
    let Some(directory) = shared.directory.clone() else { return std::future::pending().await };
    let mut is_told = false;
    loop {
        shared.unsaved.notified().await;
        let until = now() + SAVE_AFTER;
        while shared.acks().is_empty()
            && tokio::time::timeout_at(until.into(), shared.unsaved.notified()).await.is_ok()
        {}
        let (items, revision, acks) = {
            let follower = shared.follower();
            let of = |kind| {
                let item = move |(name, version, content): (&str, Version, Option<&Bytes>)| {
                    (kind, Item { name: name.into(), version, content: content.cloned() })
                };
                follower.held(kind).map(item)
            };
            let items: Vec<(Kind, Item)> = Kind::ALL.into_iter().flat_map(of).collect();
            (items, follower.revision(), std::mem::take(&mut *shared.acks()))
        };
        let to = directory.clone();
        let saving = move || cache::save(&to, &cache::encode(items.into_iter(), revision));
        let saved = tokio::task::spawn_blocking(saving).await;
        // What cannot be saved is in use all the same: nobody is to wait for a disk that is full.
        acks.into_iter().for_each(|ack| shared.follower().acknowledge(ack));
        shared.wake.notify_one();
        match saved {
            Ok(Ok(())) => is_told = false,
            Ok(Err(error)) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(directory = %directory.display(), %error, "what is in use cannot be saved");
                }
            }
            Err(_) => return,
        }
    }
}

pub(crate) fn told(status: &Status) -> String {
    format!("{} ({})", status.message(), status.code())
}

fn now() -> Instant {
    Instant::now()
}
