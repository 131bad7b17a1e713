//! Messages of `rhumb.control.v1alpha1.Reports`: what a proxy tells of itself and of what it carries, and what it is asked for.
//!
//! Reports may be lost, and nobody waits for them: what does not find room is dropped and counted.

/// The name of the service.
pub const SERVICE: &str = "rhumb.control.v1alpha1.Reports";

/// The path of `Report`: a stream of reports one way, of questions the other. The proxy is gone when it ends.
pub const REPORT_PATH: &str = "/rhumb.control.v1alpha1.Reports/Report";

/// How long what is told of at once takes. Unit: seconds.
pub const SPAN: u64 = 10;

/// The largest report. Unit: bytes.
pub const MAX_REPORT: usize = 1 << 20;

/// The most that one report tells of each: checks, certificates, events.
pub const MAX_ITEMS: usize = 64;

/// The most kinds of requests that one report tells of.
pub const MAX_SEEN: usize = 256;

/// Something to tell.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Report {
    /// How the proxy stands, when that has changed and in the first report.
    #[prost(message, optional, tag = "1")]
    pub standing: Option<Standing>,
    /// What was counted.
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
    /// What happened.
    #[prost(message, repeated, tag = "3")]
    pub events: Vec<Event>,
    /// What was asked for.
    #[prost(message, repeated, tag = "4")]
    pub told: Vec<Told>,
    /// Requests by which it is found out which APIs there are, each kind as `rhumb-signals` writes it; in reports of their own.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub seen: Vec<bytes::Bytes>,
}

/// How a proxy stands.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Standing {
    /// What it is called, as in its stream of documents.
    #[prost(string, tag = "1")]
    pub node: String,
    /// `gateway` or `sidecar`.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// Version of its binary.
    #[prost(string, tag = "3")]
    pub version: String,
    /// `starting`, `ready` or `draining`.
    #[prost(string, tag = "4")]
    pub state: String,
    /// When it began. Unit: seconds since 1970.
    #[prost(uint64, tag = "5")]
    pub started_at: u64,
    /// What is wrong, the worst first.
    #[prost(message, repeated, tag = "6")]
    pub checks: Vec<Check>,
    /// Certificates in use, those that end first before others.
    #[prost(message, repeated, tag = "7")]
    pub certificates: Vec<Certificate>,
}

/// Something that is wrong.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Check {
    /// What it is, for programs.
    #[prost(string, tag = "1")]
    pub code: String,
    /// Something does not work.
    #[prost(bool, tag = "2")]
    pub is_critical: bool,
    /// In a few words.
    #[prost(string, tag = "3")]
    pub title: String,
    /// What it is about: `backend`, `route`, …
    #[prost(string, tag = "4")]
    pub about_kind: String,
    /// The name of that.
    #[prost(string, tag = "5")]
    pub about_name: String,
    /// What was found.
    #[prost(string, tag = "6")]
    pub detail: String,
    /// What to do.
    #[prost(string, tag = "7")]
    pub fix: String,
    /// The page of the documentation.
    #[prost(string, tag = "8")]
    pub docs: String,
}

/// A certificate in use.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Certificate {
    /// `listener` or `svid`.
    #[prost(string, tag = "1")]
    pub purpose: String,
    /// Whose it is.
    #[prost(string, tag = "2")]
    pub name: String,
    /// When it begins. Unit: seconds since 1970.
    #[prost(int64, tag = "3")]
    pub not_before: i64,
    /// When it ends. Unit: seconds since 1970.
    #[prost(int64, tag = "4")]
    pub not_after: i64,
    /// Where it is from.
    #[prost(string, tag = "5")]
    pub origin: String,
}

/// What was counted in [`SPAN`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    /// How long ago it ended. Unit: milliseconds. Not a time: clocks of machines differ.
    #[prost(uint32, tag = "1")]
    pub age_ms: u32,
    /// Series that had something, as `rhumb-signals` writes them.
    #[prost(bytes = "bytes", tag = "2")]
    pub series: bytes::Bytes,
}

/// Something that happened.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// When. Unit: seconds since 1970.
    #[prost(double, tag = "1")]
    pub at: f64,
    /// What, as a word.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// `info`, `warning` or `error`.
    #[prost(string, tag = "3")]
    pub level: String,
    /// What it is about.
    #[prost(string, tag = "4")]
    pub about: String,
    /// One sentence.
    #[prost(string, tag = "5")]
    pub text: String,
}

/// Something to ask of a proxy.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Question {
    /// To tell of requests from here on.
    #[prost(message, optional, tag = "1")]
    pub look: Option<Look>,
    /// The look that ends; 0: none.
    #[prost(uint64, tag = "2")]
    pub end: u64,
    /// To tell every part of one request.
    #[prost(message, optional, tag = "3")]
    pub find: Option<Find>,
}

/// Requests that somebody wants to be told of.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Look {
    /// Which look.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Each with every step, not as it ends.
    #[prost(bool, tag = "2")]
    pub steps: bool,
    /// Which requests: an expression.
    #[prost(string, tag = "3")]
    pub filter: String,
    /// How many in a second.
    #[prost(uint32, tag = "4")]
    pub rate: u32,
    /// How many at most.
    #[prost(uint32, tag = "5")]
    pub limit: u32,
    /// For how long. Unit: seconds.
    #[prost(uint32, tag = "6")]
    pub seconds: u32,
}

/// A request, by the names that it has on its way.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Find {
    /// The look that it is of.
    #[prost(uint64, tag = "1")]
    pub look: u64,
    /// Its id.
    #[prost(string, tag = "2")]
    pub request_id: String,
    /// The id of its trace.
    #[prost(string, tag = "3")]
    pub trace_id: String,
}

/// What a proxy tells of one request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Told {
    /// The look that it is for.
    #[prost(uint64, tag = "1")]
    pub look: u64,
    /// The request as JSON, redacted as everywhere; empty where there is something else to tell.
    #[prost(bytes = "bytes", tag = "2")]
    pub json: bytes::Bytes,
    /// It was asked for by its names.
    #[prost(bool, tag = "3")]
    pub is_part: bool,
    /// How many were not told.
    #[prost(uint64, tag = "4")]
    pub missed: u64,
    /// Why nothing is told; empty otherwise.
    #[prost(string, tag = "5")]
    pub refused: String,
}
