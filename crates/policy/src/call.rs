//! Asking other services: what a policy that waits can use.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use rhumb_base::failure::Failure;
use rhumb_codec::field::Fields;
use rhumb_codec::head::RequestHead;

use crate::context::Remote;

/// A future of one worker.
pub type Local<T> = Pin<Box<dyn Future<Output = T>>>;

/// A request to another service.
pub struct Call {
    /// Method, target and fields. Without an authority it gets that of the service.
    pub head: Box<RequestHead>,
    /// Content.
    pub content: Vec<u8>,
    /// How long it may take, connecting included.
    pub time: Duration,
    /// Content of the answer that is read at most; more fails the call. **Unit**: bytes.
    pub max_content: usize,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Fields.
    pub fields: Fields,
    /// Content.
    pub content: Vec<u8>,
    /// Trailer fields.
    pub trailers: Option<Fields>,
}

/// Something that is counted, and that no exchange is the cause of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Keys of an issuer were fetched.
    KeysFetched,
    /// Keys of an issuer could not be fetched.
    KeysFailed,
}

/// A worker's way out: calls take the connections, health and limits of the backends that are asked.
pub trait Caller {
    /// Asks. Dropped before its end, the call is given up.
    fn call(&self, to: &Remote, call: Call) -> Local<Result<Answer, Failure>>;

    /// Does something beside requests, on this worker.
    fn spawn(&self, task: Local<()>);

    /// Counts something.
    fn tell(&self, event: Event);

    /// Lets time pass.
    fn pause(&self, time: Duration) -> Local<()>;

    /// The time. **Unit**: nanoseconds since 1970.
    fn unix_nanos(&self) -> u64;
}

/// A worker's way out, shared by what runs on it.
pub type Out = Rc<dyn Caller>;
