//! Connections over loopback sockets, against peers that are written here or by others.

use std::future::Future;

use rhumb_conn::io::Io;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;

mod buffers;
mod h1;
mod h2;

/// Runs `test` on a runtime like a worker's: everything on one thread, timers driven.
fn run<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        tokio::task::spawn_local(rhumb_net::timer::drive());
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, test()).await.expect("the test ends")
    })
}

/// Two ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    (client, server)
}

/// One end of ours, one of the test's.
async fn ours() -> (Io, TcpStream) {
    let (theirs, ours) = pair().await;
    (Io::Plain(ours), theirs)
}
