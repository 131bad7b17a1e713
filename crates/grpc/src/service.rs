//! What answers calls.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use prost::Message;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::PING;

/// A service: it looks at the path of a call and has the call answered by one of its methods.
pub trait Service: Clone + Send + Sync + 'static {
    /// Its name, with its package.
    const NAME: &'static str;

    /// Answers a call. **Cancel**: when the client goes away.
    fn answer(self, call: Call) -> impl Future<Output = http::Response<Body>> + Send;
}

/// A service as a server takes it.
#[derive(Clone, Debug)]
pub struct Served<S>(pub S);

impl<S: Service> NamedService for Served<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service> tower_service::Service<http::Request<Body>> for Served<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.0.clone().answer(Call { request, max_message: None });
        Box::pin(async move { Ok(answer.await) })
    }
}

/// A call that is to be answered.
#[derive(Debug)]
pub struct Call {
    request: http::Request<Body>,
    max_message: Option<usize>,
}

impl Call {
    /// Which method it is for, with the service's name.
    pub fn path(&self) -> &str {
        self.request.uri().path()
    }

    /// Its metadata.
    pub fn headers(&self) -> &http::HeaderMap {
        self.request.headers()
    }

    /// What its server has put beside it.
    pub fn extensions(&self) -> &http::Extensions {
        self.request.extensions()
    }

    /// The same with messages of its client that have at most so many bytes. Default: 4 MiB.
    #[must_use]
    pub fn up_to(self, max_message: usize) -> Self {
        Self { max_message: Some(max_message), ..self }
    }

    /// One message, and one for an answer.
    pub async fn unary<S, Q, A, M, F>(self, service: S, method: M) -> http::Response<Body>
    where
        S: Clone,
        Q: Message + Default + 'static,
        A: Message + 'static,
        M: FnMut(S, Request<Q>) -> F,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.grpc::<A, Q>().unary(Method { service, method }, self.request).await
    }

    /// One message, and a stream for an answer.
    pub async fn server_streaming<S, Q, A, M, F, T>(self, service: S, method: M) -> http::Response<Body>
    where
        S: Clone,
        Q: Message + Default + 'static,
        A: Message + 'static,
        M: FnMut(S, Request<Q>) -> F,
        F: Future<Output = Result<Response<T>, Status>>,
        T: Stream<Item = Result<A, Status>> + Send + 'static,
    {
        self.grpc::<A, Q>().server_streaming(Method { service, method }, self.request).await
    }

    /// A stream each way.
    pub async fn streaming<S, Q, A, M, F, T>(self, service: S, method: M) -> http::Response<Body>
    where
        S: Clone + Send,
        Q: Message + Default + 'static,
        A: Message + 'static,
        M: FnMut(S, Request<Streaming<Q>>) -> F + Send,
        F: Future<Output = Result<Response<T>, Status>>,
        T: Stream<Item = Result<A, Status>> + Send + 'static,
    {
        self.grpc::<A, Q>().streaming(Method { service, method }, self.request).await
    }

    fn grpc<A, Q>(&self) -> Grpc<ProstCodec<A, Q>>
    where
        A: Message + 'static,
        Q: Message + Default + 'static,
    {
        let grpc = Grpc::new(ProstCodec::default());
        match self.max_message {
            Some(max) => grpc.max_decoding_message_size(max),
            None => grpc,
        }
    }
}

/// A method of a service, as tonic wants it.
struct Method<S, M> {
    service: S,
    method: M,
}

impl<S, M, R, A, F> tower_service::Service<R> for Method<S, M>
where
    S: Clone,
    M: FnMut(S, R) -> F,
    F: Future<Output = Result<A, Status>>,
{
    type Response = A;
    type Error = Status;
    type Future = F;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> F {
        (self.method)(self.service.clone(), request)
    }
}

/// The answer to a call of a method that there is not.
pub fn no_such_method() -> http::Response<Body> {
    Status::unimplemented("there is no such method").into_http()
}

/// A server that asks quiet connections whether they live, and lets each have so many streams.
pub fn server(max_streams: u32) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(PING.0))
        .http2_keepalive_timeout(Some(PING.1))
        .max_concurrent_streams(max_streams)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Connect, Io, connect};
    use http::uri::PathAndQuery;
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tokio::io::DuplexStream;
    use tokio_stream::StreamExt;
    use tonic::Code;

    #[derive(Clone)]
    struct Echo;

    impl Service for Echo {
        const NAME: &'static str = "test.Echo";

        async fn answer(self, call: Call) -> http::Response<Body> {
            match call.path() {
                "/test.Echo/Say" => call.up_to(16).unary(self, Self::say).await,
                "/test.Echo/Count" => call.server_streaming(self, Self::count).await,
                _ => no_such_method(),
            }
        }
    }

    impl Echo {
        async fn say(self, said: Request<String>) -> Result<Response<String>, Status> {
            Ok(Response::new(said.into_inner()))
        }

        async fn count(
            self,
            to: Request<u32>,
        ) -> Result<Response<impl Stream<Item = Result<u32, Status>> + use<>>, Status> {
            Ok(Response::new(tokio_stream::iter((0..to.into_inner()).map(Ok))))
        }
    }

    /// A client of a server over a connection in memory.
    async fn client() -> tonic::client::Grpc<tonic::transport::Channel> {
        let (ours, theirs) = tokio::io::duplex(4096);
        let incoming = tokio_stream::once(Ok::<_, io::Error>(theirs)).chain(tokio_stream::pending());
        tokio::spawn(server(4).add_service(Served(Echo)).serve_with_incoming(incoming));
        let ours: Arc<Mutex<Option<DuplexStream>>> = Arc::new(Mutex::new(Some(ours)));
        let way: Connect = Arc::new(move |_| {
            let taken = ours.lock().unwrap().take();
            Box::pin(async move { Ok(Box::new(taken.ok_or(io::ErrorKind::NotFound)?) as Box<dyn Io>) })
        });
        let channel = connect(&way, "", "http://echo.test", Duration::from_secs(60)).await.unwrap();
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.unwrap();
        client
    }

    async fn say(path: &'static str, text: &str) -> Result<String, Code> {
        let codec = ProstCodec::<String, String>::default();
        let request = Request::new(text.to_owned());
        let answer = client().await.unary(request, PathAndQuery::from_static(path), codec).await;
        answer.map(Response::into_inner).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn a_call_is_for_the_method_of_its_path_and_no_larger_than_it_may_be() {
        assert_eq!(say("/test.Echo/Say", "hello").await, Ok("hello".to_owned()));
        assert_eq!(say("/test.Echo/Shout", "hello").await, Err(Code::Unimplemented));
        assert_eq!(say("/test.Other/Say", "hello").await, Err(Code::Unimplemented));
        assert_eq!(say("/test.Echo/Say", "longer than it may be").await, Err(Code::OutOfRange));
    }

    #[tokio::test]
    async fn an_answer_may_be_many_messages() {
        let codec = ProstCodec::<u32, u32>::default();
        let path = PathAndQuery::from_static("/test.Echo/Count");
        let answer = client().await.server_streaming(Request::new(3), path, codec).await.unwrap();
        let numbers: Vec<u32> = answer.into_inner().map(|number| number.unwrap()).collect().await;
        assert_eq!(numbers, [0, 1, 2]);
    }
}
