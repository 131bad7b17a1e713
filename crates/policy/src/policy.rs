//! The trait of a policy: everything the engine must know about one, nothing it must guess.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use rhumb_codec::field::{FieldName, FieldValue, Fields};
use rhumb_codec::head::{RequestHead, ResponseHead};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::exchange::{Exchange, Reply};

/// A policy of the HTTP request path.
pub trait HttpPolicy: Sized + Send + Sync + 'static {
    /// The key in documents, camel case.
    const KIND: &'static str;
    /// Which hooks it has: a chain never calls the others.
    const HOOKS: Hooks;
    /// What it may be attached to.
    const ATTACH: Attach;
    /// What happens when several attachments apply to one request.
    const MERGE: Merge;
    /// The document's shape.
    type Spec: DeserializeOwned + JsonSchema;
    /// What the request hook leaves for the response hook.
    type State: Default;

    /// Compiles a document. Everything that can be wrong with it is found here.
    ///
    /// # Errors
    /// [`Invalid`] names the field and says how to mend it.
    fn compile(spec: Self::Spec, cx: &mut Context<'_>) -> Result<Self, Invalid>;

    /// Runs after routing, before a backend is chosen.
    fn on_request(
        &self,
        _req: &mut RequestHead,
        _state: &mut Self::State,
        _cx: &mut Exchange<'_>,
    ) -> Verdict {
        Verdict::Continue
    }

    /// Runs on every final response, also on those the proxy makes itself, in reverse order of the list.
    fn on_response(&self, _rsp: &mut ResponseHead, _state: &mut Self::State, _cx: &mut Exchange<'_>) {}
}

/// What a request hook decided.
pub enum Verdict {
    /// Go on with the next policy.
    Continue,
    /// Answer now; the backend never sees the request.
    Respond(Box<Reply>),
    /// Reset the stream, or the connection where there are no streams. Nobody gets an answer.
    Reset,
    /// Let this time pass, then do this. The policy keeps no clock; the request's deadline is not moved.
    Delay(Duration, Outcome),
    /// Read so much of the request's content first, in bytes, and run this hook again with [`Exchange::content`]. What
    /// is read is held until the request is sent.
    Read(usize),
    /// Wait for something outside of this worker. The future owns what it needs and is dropped when the client leaves.
    Wait(Pin<Box<dyn Future<Output = Outcome>>>),
}

/// What a waiting policy came back with, applied by the chain.
pub enum Outcome {
    /// Change the request so, then go on.
    Continue(Vec<Edit>),
    /// Do this with the request and what is known of the exchange, and take its verdict.
    Apply(Resumed),
    /// Answer now.
    Respond(Box<Reply>),
    /// Reset the stream, or the connection where there are no streams.
    Reset,
}

/// What a policy does with what it waited for. Owns it.
pub type Resumed = Box<dyn FnOnce(&mut RequestHead, &mut Exchange<'_>) -> Verdict>;

/// A change of a message's fields.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Replace every line of that name.
    Set(FieldName, FieldValue),
    /// Add a line.
    Append(FieldName, FieldValue),
    /// Remove every line of that name.
    Remove(FieldName),
}

impl Edit {
    /// Changes fields so.
    pub fn apply(&self, fields: &mut Fields) {
        match self {
            Self::Set(name, value) => fields.set_named(name, value),
            Self::Append(name, value) => fields.append_named(name, value),
            Self::Remove(name) => {
                fields.remove_named(name);
            }
        }
    }
}

/// The hooks a policy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooks(u8);

impl Hooks {
    /// None: a setting, which the forwarding of requests obeys.
    pub const NONE: Self = Self(0);
    /// [`HttpPolicy::on_request`].
    pub const REQUEST: Self = Self(1);
    /// [`HttpPolicy::on_response`].
    pub const RESPONSE: Self = Self(2);

    /// Both sets together.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when every hook of `other` is in this set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a policy may be attached to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Attach(u8);

impl Attach {
    /// A whole Gateway.
    pub const GATEWAY: Self = Self(1);
    /// One listener of a Gateway.
    pub const LISTENER: Self = Self(2);
    /// A route document.
    pub const ROUTE: Self = Self(4);
    /// One rule of a route.
    pub const RULE: Self = Self(8);
    /// A backend, or one backendRef of a rule.
    pub const BACKEND: Self = Self(16);
    /// A Consumer: for its requests, wherever they go, once authentication has found it.
    pub const CONSUMER: Self = Self(32);
    /// Gateway, listener, route and rule.
    pub const FRONT: Self = Self(15);

    /// Both sets together.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True when every place of `other` is in this set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Debug for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = [
            (Self::GATEWAY, "gateway"),
            (Self::LISTENER, "listener"),
            (Self::ROUTE, "route"),
            (Self::RULE, "rule"),
            (Self::BACKEND, "backend"),
            (Self::CONSUMER, "consumer"),
        ];
        let names: Vec<_> =
            places.iter().filter(|(place, _)| self.has(*place)).map(|(_, name)| *name).collect();
        f.write_str(&names.join(", "))
    }
}

/// How several attachments of one kind combine. Worked out when configuration is compiled, never per request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The one nearest to the request wins: rule over route over listener over gateway (GEP-713 direct policies).
    MostSpecific,
    /// All of them run, the widest first.
    Union,
}

/// What is wrong with a policy's document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The field, as a path within the policy's body: `allowOrigins[1]`. Empty for the body itself.
    pub field: String,
    /// What is wrong with it.
    pub why: String,
    /// How to mend it; empty when `why` says all.
    pub fix: String,
}

impl Invalid {
    /// Says what is wrong with a field and how to mend it.
    pub fn new(field: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { field: field.into(), why: why.into(), fix: fix.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.why)?;
        if !self.fix.is_empty() {
            write!(f, "; {}", self.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// Compiles a policy that needs no other documents.
#[cfg(test)]
pub(crate) fn compile_alone<P: HttpPolicy>(spec: P::Spec) -> Result<P, Invalid> {
    let (mut documents, keeper) = (crate::context::NoDocuments, crate::context::Keeper::default());
    P::compile(spec, &mut Context::new("default", "test", &mut documents, &keeper))
}
