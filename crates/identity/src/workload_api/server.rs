//! The Workload API for the app beside a proxy: it gets the same SVID, and each new one.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::KeyPair;
use rhumb_grpc::{Call, Served, Service};
use rhumb_tls::mesh::Membership;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::{BundlesResponse, Empty, FETCH_BUNDLES, FETCH_SVIDS, HEADER, SERVICE, SvidResponse, X509Svid};

/// How soon an app is told of a new SVID.
const TURN: Duration = Duration::from_secs(1);

/// Connections that wait to be served.
const BACKLOG: usize = 16;

/// Streams of one connection.
const MAX_STREAMS: u32 = 16;

/// The Workload API on a Unix socket.
#[derive(Debug)]
pub struct WorkloadServer {
    listener: UnixListener,
    path: PathBuf,
    users: Vec<u32>,
}

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = .path.display())]
pub struct NotServed {
    path: PathBuf,
    source: io::Error,
}

impl WorkloadServer {
    /// Binds the socket, in place of one that an earlier process has left. Whoever asks must be one of `users`, this process's
    /// own user, or root: the answer has a private key.
    ///
    /// **Errors**: those of the socket and its directory.
    pub fn bind(path: &Path, users: Vec<u32>) -> Result<Self, NotServed> {
        let bind = || {
            if let Some(directory) = path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            // Everybody may connect; who it is, the kernel says.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
            Ok(listener)
        };
        let listener = bind().map_err(|source| NotServed { path: path.to_owned(), source })?;
        Ok(Self { listener, path: path.to_owned(), users })
    }

    /// Serves a membership for as long as it is polled. **Cancel**: at any time; ends the streams.
    ///
    /// **Errors**: those of the socket.
    pub async fn serve(self, membership: Membership) -> Result<(), NotServed> {
        let Self { listener, path, users } = self;
        let own = std::fs::metadata(&path).map(|facts| std::os::unix::fs::MetadataExt::uid(&facts)).ok();
        let (tx, rx) = mpsc::channel::<io::Result<UnixStream>>(BACKLOG);
        let accept = async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let user = stream.peer_cred().map(|peer| peer.uid());
                        let may = user
                            .as_ref()
                            .is_ok_and(|user| *user == 0 || Some(*user) == own || users.contains(user));
                        if !may {
                            tracing::warn!(?user, "the Workload API is not for this user");
                        } else if tx.send(Ok(stream)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the Workload API was not accepted");
                        tokio::time::sleep(TURN).await;
                    }
                }
            }
        };
        let server = Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .add_service(Served(Api { membership }))
            .serve_with_incoming(ReceiverStream::new(rx));
        tokio::select! {
            () = accept => Ok(()),
            served = server => served.map_err(|error| NotServed { path, source: io::Error::other(error) }),
        }
    }
}

#[derive(Clone, Debug)]
struct Api {
    membership: Membership,
}

impl Service for Api {
    const NAME: &'static str = SERVICE;

    async fn answer(self, call: Call) -> http::Response<Body> {
        if call.headers().get(HEADER).is_none_or(|value| value.as_bytes() != b"true") {
            return Status::invalid_argument("security header missing from request").into_http();
        }
        match call.path() {
            FETCH_SVIDS => {
                call.server_streaming(self.membership, |of, _: Request<Empty>| fetch(of, svids)).await
            }
            FETCH_BUNDLES => {
                call.server_streaming(self.membership, |of, _: Request<Empty>| fetch(of, bundles)).await
            }
            _ => Status::unimplemented("only X.509-SVIDs are served").into_http(),
        }
    }
}

/// A stream of what a membership is, whenever it is something else.
async fn fetch<T: PartialEq + Clone + Send + 'static>(
    membership: Membership,
    make: fn(&Membership) -> Option<T>,
) -> Result<Response<ReceiverStream<Result<T, Status>>>, Status> {
    // Workload API §4: without an identity the call is denied, and the client comes again.
    let mut last = make(&membership).ok_or_else(|| Status::permission_denied("no identity issued"))?;
    let (tx, rx) = mpsc::channel(1);
    tokio::spawn(async move {
        if tx.send(Ok(last.clone())).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(TURN) => {}
                () = tx.closed() => return,
            }
            match make(&membership) {
                Some(next) if next != last => {
                    last = next.clone();
                    if tx.send(Ok(next)).await.is_err() {
                        return;
                    }
                }
                _ => {}
            }
        }
    });
    Ok(Response::new(ReceiverStream::new(rx)))
}

fn svids(membership: &Membership) -> Option<SvidResponse> {
    let (svid, bundle) = (membership.svid()?, membership.bundle()?);
    // Whatever the form of the file was: the API has PKCS #8.
    let key = KeyPair::try_from(svid.private_key()).ok()?.serialize_der();
    let own = X509Svid {
        spiffe_id: svid.id().to_string(),
        x509_svid: svid.chain().iter().flat_map(|der| der.iter().copied()).collect(),
        x509_svid_key: key,
        bundle: bundle.roots().iter().flat_map(|der| der.iter().copied()).collect(),
        hint: String::new(),
    };
    Some(SvidResponse { svids: vec![own], ..SvidResponse::default() })
}

fn bundles(membership: &Membership) -> Option<BundlesResponse> {
    let bundle = membership.bundle()?;
    let roots = bundle.roots().iter().flat_map(|der| der.iter().copied()).collect();
    let id = format!("spiffe://{}", membership.trust_domain());
    Some(BundlesResponse { bundles: [(id, roots)].into(), ..BundlesResponse::default() })
}
