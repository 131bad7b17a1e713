//! Expressions over an exchange that has ended, and over one that begins: which ones `rhumb tap` and `rhumb trace` show.

use std::borrow::Cow;

use rhumb_cel::{CompileError, Field, Kind, Object, Program, Schema, Value};

use crate::attributes::{Attributes, CONSUMER, LISTENER, PRINCIPAL, REQUEST, SCHEMA, SOURCE};

/// Every attribute of an exchange that has ended: those of a request, and what became of it.
pub static ENDED: Schema = Schema {
    fields: &[
        Field { name: "request", kind: Kind::Object(&REQUEST), doc: "The request." },
        Field { name: "source", kind: Kind::Object(&SOURCE), doc: "Who asked." },
        Field {
            name: "principal",
            kind: Kind::Object(&PRINCIPAL),
            doc: "Who asked, as an authentication has proven.",
        },
        Field { name: "jwt", kind: Kind::Map(&Kind::Dyn), doc: "The claims of the token." },
        Field {
            name: "consumer",
            kind: Kind::Object(&CONSUMER),
            doc: "The Consumer that the credentials belong to.",
        },
        Field { name: "listener", kind: Kind::Object(&LISTENER), doc: "Where the request came in." },
        Field { name: "response", kind: Kind::Object(&RESPONSE), doc: "The response." },
        Field { name: "route", kind: Kind::Text, doc: "The route: `namespace/name`." },
        Field { name: "backend", kind: Kind::Text, doc: "The backend; empty when none was chosen." },
        Field { name: "endpoint", kind: Kind::Text, doc: "The endpoint that was used last." },
        Field { name: "tries", kind: Kind::Int, doc: "How many endpoints were tried." },
    ],
};

static RESPONSE: Schema = Schema {
    fields: &[
        Field { name: "status", kind: Kind::Int, doc: "The status that the client got." },
        Field { name: "failure", kind: Kind::Text, doc: "The code of a failure; empty when nobody failed." },
        Field { name: "duration", kind: Kind::Duration, doc: "How long it took: `duration(\"250ms\")`." },
        Field { name: "size", kind: Kind::Int, doc: "Content that was sent, in bytes." },
        Field { name: "grpcStatus", kind: Kind::Int, doc: "The status of gRPC; -1 when there was none." },
    ],
};

/// Which exchanges are wanted.
#[derive(Clone, Debug)]
pub struct Filter(Option<Program>);

impl Filter {
    /// Exchanges that have ended. An empty text wants all.
    ///
    /// # Errors
    /// The first mistake.
    pub fn of_ended(text: &str) -> Result<Self, CompileError> {
        Self::compile(text, &ENDED)
    }

    /// Exchanges that begin: only what the request says is known then.
    ///
    /// # Errors
    /// The first mistake.
    pub fn of_begun(text: &str) -> Result<Self, CompileError> {
        Self::compile(text, &SCHEMA)
    }

    fn compile(text: &str, schema: &'static Schema) -> Result<Self, CompileError> {
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        Program::condition(text, schema).map(Some).map(Self)
    }

    /// Whether an exchange is wanted. What cannot be worked out is not.
    pub fn wants(&self, attributes: &dyn Object) -> bool {
        self.0.as_ref().is_none_or(|program| program.holds(attributes).unwrap_or(false))
    }
}

/// An exchange that has ended.
pub struct Ended<'a> {
    /// What the request says.
    pub request: Attributes<'a>,
    /// The route.
    pub route: &'a str,
    /// The backend.
    pub backend: &'a str,
    /// The endpoint.
    pub endpoint: &'a str,
    /// Endpoints that were tried.
    pub tries: u16,
    /// The response.
    pub response: Response<'a>,
}

/// How an exchange ended.
pub struct Response<'a> {
    /// The status.
    pub status: u16,
    /// The code of a failure.
    pub failure: &'a str,
    /// How long it took. **Unit**: nanoseconds.
    pub nanos: u64,
    /// Content that was sent. **Unit**: bytes.
    pub size: u64,
    /// The status of gRPC.
    pub grpc_status: Option<u32>,
}

fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Object for Ended<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        let text = |text| Some(Value::Text(Cow::Borrowed(text)));
        match name {
            "response" => Some(Value::Map(rhumb_cel::value::Map::Object(&self.response))),
            "route" => text(self.route),
            "backend" => text(self.backend),
            "endpoint" => text(self.endpoint),
            "tries" => Some(Value::Int(self.tries.into())),
            _ => self.request.field(name),
        }
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let _ = ENDED.fields.iter().all(|field| each(field.name));
    }
}

impl Object for Response<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "status" => Value::Int(self.status.into()),
            "failure" => Value::Text(Cow::Borrowed(self.failure)),
            "duration" => Value::Duration(int(self.nanos)),
            "size" => Value::Int(int(self.size)),
            "grpcStatus" => Value::Int(self.grpc_status.map_or(-1, i64::from)),
            _ => return None,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let _ = RESPONSE.fields.iter().all(|field| each(field.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Exchange;
    use rhumb_codec::head::{RequestHead, Scheme};

    #[test]
    fn a_filter_asks_for_the_request_and_for_what_became_of_it() {
        let mut head = RequestHead::new();
        head.set_method(b"GET");
        head.set_target(b"/users/7");
        let cx = Exchange::new(std::net::Ipv4Addr::LOCALHOST.into(), Scheme::Http, 80);
        let ended = Ended {
            request: Attributes::new(&head, &cx),
            route: "default/users",
            backend: "",
            endpoint: "",
            tries: 2,
            response: Response {
                status: 503,
                failure: "connect_refused",
                nanos: 5_000_000,
                size: 0,
                grpc_status: None,
            },
        };
        for (text, wanted) in [
            ("", true),
            ("response.status >= 500 && request.path.startsWith('/users')", true),
            ("response.duration > duration('4ms') && tries == 2", true),
            ("route == 'default/other'", false),
            ("request.headers['x-none'] == 'y'", false),
        ] {
            assert_eq!(Filter::of_ended(text).unwrap().wants(&ended), wanted, "{text}");
        }
        assert!(Filter::of_ended("response.stat == 1").is_err());
        assert!(Filter::of_begun("response.status == 1").is_err(), "nothing is known of it at the beginning");
        assert!(Filter::of_begun("request.method == 'GET'").unwrap().wants(&Attributes::new(&head, &cx)));
    }
}
