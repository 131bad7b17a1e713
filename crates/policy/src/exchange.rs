//! What a policy sees of the exchange around the message, and the replies it can make.

use std::net::IpAddr;

use rhumb_base::failure::Cause;
use rhumb_codec::field::Fields;
use rhumb_codec::head::{ResponseHead, Scheme};

/// The exchange as policies see it.
pub struct Exchange<'a> {
    /// The client's address: the peer's, or what a trusted proxy said.
    pub client: IpAddr,
    /// Scheme the client used.
    pub scheme: Scheme,
    /// Port of the listener.
    pub port: u16,
    /// Length of the path prefix that the route matched; `None` when it matched otherwise.
    pub matched_prefix: Option<usize>,
    /// The request's id.
    pub request_id: &'a str,
}

/// A response that a policy makes instead of a backend.
#[derive(Debug, Default)]
pub struct Reply {
    /// Status and fields; content framing is set by the engine.
    pub head: ResponseHead,
    /// Content. With a `cause` and no content, the engine writes a problem document (RFC 9457).
    pub content: Vec<u8>,
    /// Why, when the reply is a refusal.
    pub cause: Option<Cause>,
}

impl Reply {
    /// A reply with a status and nothing else.
    pub fn with_status(status: u16) -> Box<Self> {
        Box::new(Self { head: ResponseHead::with_status(status), ..Self::default() })
    }

    /// A refusal: status and problem document follow from the cause.
    pub fn refuse(cause: Cause) -> Box<Self> {
        Box::new(Self {
            head: ResponseHead::with_status(cause.facts().status),
            cause: Some(cause),
            ..Self::default()
        })
    }

    /// The reply's fields.
    pub fn fields(&mut self) -> &mut Fields {
        &mut self.head.fields
    }
}
