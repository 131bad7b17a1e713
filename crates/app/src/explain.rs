//! What happens to a request and why, worked out from a plan without any traffic.
//!
//! The same code decides here as on the data path: the table finds the rule, the chain's own hooks run on the request,
//! the backend's own balancer chooses. Only that which needs traffic is left open: latencies, and a weighted choice.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rhumb_balance::Nanos;
use rhumb_base::rng::Rng;
use rhumb_codec::authority::{Authority, is_valid_authority};
use rhumb_codec::field::{FieldName, FieldValue, Fields, is_token_byte};
use rhumb_codec::head::{RequestHead, ResponseHead, Scheme, is_target_byte};
use rhumb_plan::{Backend, Plan, Port, Retry, Rule, Session, Timeouts};
use rhumb_policy::{Chain, ChainState, Exchange, Step};
use rhumb_route::{Candidate, Explanation, Lookup, normalize};

mod facts;
mod text;
mod json;

pub(crate) use json::to_json;
pub(crate) use text::to_text;

/// A request to explain.
#[derive(Debug)]
pub(crate) struct Question {
    method: String,
    scheme: Scheme,
    authority: String,
    port: Option<u16>,
    target: String,
    fields: Vec<(FieldName, FieldValue)>,
    client: IpAddr,
}

/// Why a request cannot be asked about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InvalidQuestion {
    /// The method is not a token.
    Method(String),
    /// The URL is not one of http or https with a host.
    Url(String),
    /// A header is not `Name: value`.
    Header(String),
    /// No listener could receive it.
    NoListener {
        /// What was asked for.
        wanted: String,
        /// What there is.
        listeners: Vec<String>,
    },
}

impl fmt::Display for InvalidQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(method) => write!(f, "`{method}` is not a method: write one such as GET"),
            Self::Url(url) => {
                write!(f, "`{url}` is not a URL: write one such as http://example.com:8080/path?query")
            }
            Self::Header(header) => {
                write!(f, "`{header}` is not a header: write one such as 'Accept: text/html'")
            }
            Self::NoListener { wanted, listeners } if listeners.is_empty() => {
                write!(f, "nothing listens for {wanted}: the configuration has no listener")
            }
            Self::NoListener { wanted, listeners } => {
                write!(f, "nothing listens for {wanted}: there is {}", listeners.join(", "))
            }
        }
    }
}

impl std::error::Error for InvalidQuestion {}

impl Question {
    /// Reads a question as it is typed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(
        method: &str,
        url: &str,
        headers: &[String],
        client: IpAddr,
    ) -> Result<Self, InvalidQuestion> {
        if method.is_empty() || !method.bytes().all(is_token_byte) {
            return Err(InvalidQuestion::Method(method.to_owned()));
        }
        let wrong = || InvalidQuestion::Url(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(wrong()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        if !is_valid_authority(authority.as_bytes()) || !target.bytes().all(is_target_byte) {
            return Err(wrong());
        }
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let fields = headers.iter().map(|header| field(header)).collect::<Result<_, _>>()?;
        Ok(Self {
            method: method.to_owned(),
            scheme,
            authority: authority.to_owned(),
            port,
            target,
            fields,
            client,
        })
    }

    /// The method.
    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Host and port of the URL.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The name of the host, without a port.
    pub(crate) fn host(&self) -> String {
        let host = Authority::parse(self.authority.as_bytes()).map(|authority| lossy(authority.host));
        host.unwrap_or_default().trim_matches(['[', ']']).to_owned()
    }

    /// Fields, as text.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.fields.iter().map(move |(name, value)| (text(name.as_bytes()), text(value.as_bytes())))
    }

    /// The port that gets it.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn listener<'p>(&self, plan: &'p Plan) -> Result<&'p Arc<Port>, InvalidQuestion> {
        let head = self.head();
        self.port(plan, head.host())
    }

    /// The request as it reaches the exchange. A Host header takes the place of the URL's authority, as with curl.
    fn head(&self) -> RequestHead {
        let mut head = RequestHead::new();
        head.scheme = self.scheme;
        head.set_method(self.method.as_bytes());
        head.set_target(self.target.as_bytes());
        let host = self.fields.iter().find(|(name, _)| name.as_bytes() == b"host");
        head.set_authority(host.map_or(self.authority.as_bytes(), |(_, value)| value.as_bytes()));
        for (name, value) in self.fields.iter().filter(|(name, _)| name.as_bytes() != b"host") {
            head.fields.append_named(name, value);
        }
        head
    }

    /// The port that gets it: the one that is named, or the first for the scheme, those that have a listener for the
    /// host before others.
    fn port<'p>(&self, plan: &'p Plan, host: &[u8]) -> Result<&'p Arc<Port>, InvalidQuestion> {
        let is_tls = self.scheme == Scheme::Https;
        let fits = |port: &&Arc<Port>| {
            port.l4.is_none()
                && port.tls.is_some() == is_tls
                && self.port.is_none_or(|wanted| port.address.port() == wanted)
        };
        let usual = if is_tls { 443 } else { 80 };
        let best = plan.ports.iter().filter(fits).min_by_key(|port| {
            (port.table.listener(host).is_none(), self.port.is_none() && port.address.port() != usual)
        });
        best.ok_or_else(|| InvalidQuestion::NoListener {
            wanted: match self.port {
                Some(port) => format!("{} on port {port}", self.scheme.as_str()),
                None => self.scheme.as_str().to_owned(),
            },
            listeners: plan.ports.iter().map(|port| described(port)).collect(),
        })
    }
}

fn field(header: &str) -> Result<(FieldName, FieldValue), InvalidQuestion> {
    let wrong = || InvalidQuestion::Header(header.to_owned());
    let (name, value) = header.split_once(':').ok_or_else(wrong)?;
    let name = FieldName::parse(name.trim().as_bytes()).map_err(|_| wrong())?;
    let value = FieldValue::parse(value.trim().as_bytes()).map_err(|_| wrong())?;
    Ok((name, value))
}

/// A port for people: `http on 0.0.0.0:8080`.
fn described(port: &Port) -> String {
    let protocol = match &port.l4 {
        Some(l4) => l4.carries.as_str(),
        None if port.tls.is_some() => "https",
        None => "http",
    };
    format!("{protocol} on {}", port.address)
}

/// What happens to a request.
pub(crate) struct Answer<'p> {
    question: &'p Question,
    port: &'p Port,
    /// The path in normal form, when it is another one.
    normal_path: Option<String>,
    explanation: Option<Explanation<'p, Rule>>,
    ending: Ending<'p>,
}

/// Where a request ends.
enum Ending<'p> {
    /// Its path has no normal form: 400.
    BadPath(String),
    /// No listener of the port has the host, or no rule matches: 404.
    NotFound,
    /// Rules match but for the method: 405.
    MethodNotAllowed(String),
    /// A rule gets it.
    Rule(Box<Served<'p>>),
}

/// What a rule does with the request.
struct Served<'p> {
    rule: &'p Rule,
    outcome: Outcome,
    choices: Vec<Choice<'p>>,
}

/// What the rule's policies make of the request.
enum Outcome {
    /// The rule refuses traffic because of its configuration.
    Refuses(String),
    /// A policy answers.
    Answered(Sent),
    /// A policy resets the stream or connection.
    Resets,
    /// A policy waits for another service, which cannot be asked from here.
    Waits,
    /// This is forwarded, when it differs from what was sent.
    Forwarded(Sent),
}

/// A message in a few lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sent {
    /// `GET /x` or `302`.
    first: String,
    fields: Vec<(String, String)>,
}

/// A backend that may be chosen.
struct Choice<'p> {
    weight: u32,
    /// Share of requests, in percent.
    share: f64,
    backend: Option<&'p Backend>,
    policies: &'p Chain,
    retry: &'p Retry,
    timeouts: &'p Timeouts,
    session: Option<&'p Session>,
    /// The endpoint, where the choice follows from the request alone.
    endpoint: Option<String>,
}

/// Works out what happens to a request.
///
/// # Errors
/// [`InvalidQuestion::NoListener`].
pub(crate) fn explain<'p>(plan: &'p Plan, question: &'p Question) -> Result<Answer<'p>, InvalidQuestion> {
    let mut head = question.head();
    let port: &Port = question.port(plan, head.host())?;
    let mut answer =
        Answer { question, port, normal_path: None, explanation: None, ending: Ending::NotFound };
    if let Some(options) = port.settings.path {
        let before = head.path().to_vec();
        if let Err(error) = normalize::normalize_head(&mut head, options, &mut Vec::new()) {
            answer.ending = Ending::BadPath(error.to_string());
            return Ok(answer);
        }
        answer.normal_path = (head.path() != before).then(|| lossy(head.path()));
    }
    answer.explanation = Some(port.table.explain(head.host(), &head));
    match port.table.find(head.host(), &head) {
        Lookup::Found(found) => {
            let prefix =
                found.matched.path().behind_prefix(head.path()).filter(|_| found.matched.path().is_prefix());
            let matched_prefix = prefix.map(|rest| head.path().len() - rest.len());
            let served = serve(&found.rule.value, question, port, head, matched_prefix);
            answer.ending = Ending::Rule(Box::new(served));
        }
        Lookup::MethodNotAllowed { allow } => {
            let mut names = Vec::new();
            allow.write_allow(&mut names);
            answer.ending = Ending::MethodNotAllowed(lossy(&names));
        }
        Lookup::NotFound(_) => {}
    }
    Ok(answer)
}

fn serve<'p>(
    rule: &'p Rule,
    question: &Question,
    port: &Port,
    mut head: RequestHead,
    matched_prefix: Option<usize>,
) -> Served<'p> {
    if let Some(why) = &rule.invalid {
        return Served { rule, outcome: Outcome::Refuses(why.to_string()), choices: Vec::new() };
    }
    let mut exchange =
        Exchange { matched_prefix, ..Exchange::new(question.client, question.scheme, port.address.port()) };
    let mut state = ChainState::default();
    let mut step = rule.chain.on_request(&mut head, &mut state, &mut exchange);
    let outcome = loop {
        match step {
            Step::Respond(mut reply) => {
                rule.chain.on_response(&mut reply.head, &mut state, &mut exchange);
                let outcome = Outcome::Answered(response(&reply.head));
                return Served { rule, outcome, choices: Vec::new() };
            }
            Step::Reset => return Served { rule, outcome: Outcome::Resets, choices: Vec::new() },
            Step::Delay(_, then) => {
                step = rule.chain.resume(then, &mut head, &mut state, &mut exchange);
            }
            Step::Wait(_) | Step::Read(_) => break Outcome::Waits,
            Step::Done => break Outcome::Forwarded(request(&head)),
        }
    };
    let total: f64 = rule.backends.iter().map(|to| f64::from(to.weight)).sum();
    let choices = rule.backends.iter().map(|to| {
        let backend = to.backend.as_deref();
        Choice {
            weight: to.weight,
            share: if total > 0.0 { 100.0 * f64::from(to.weight) / total } else { 0.0 },
            backend,
            policies: &to.chain,
            retry: &to.retry,
            timeouts: &to.timeouts,
            session: to.session.as_deref(),
            endpoint: backend.and_then(|backend| fixed_endpoint(backend, &head, question.client)),
        }
    });
    let choices = choices.collect();
    Served { rule, outcome, choices }
}

/// The endpoint, when the algorithm chooses by a key that this request has: two different seeds agree.
fn fixed_endpoint(backend: &Backend, head: &RequestHead, client: IpAddr) -> Option<String> {
    let pick = |seed| {
        let load = backend.begin(head, client, Nanos::default(), &mut Rng::new(seed), &[]).ok()?;
        Some(Arc::clone(load.endpoint()))
    };
    let is_only = backend.endpoints.load().members().len() == 1;
    if !backend.needs_key && !is_only {
        return None;
    }
    const SEEDS: u64 = 8;
    let first = pick(0)?;
    (1..SEEDS)
        .all(|seed| pick(seed).is_some_and(|other| Arc::ptr_eq(&first, &other)))
        .then(|| first.label().to_owned())
}

fn request(head: &RequestHead) -> Sent {
    let mut target = Vec::new();
    head.write_target(&mut target);
    let mut fields = vec![("host".to_owned(), lossy(head.authority()))];
    fields.extend(lines(&head.fields));
    Sent { first: format!("{} {}", lossy(head.method_name()), lossy(&target)), fields }
}

fn response(head: &ResponseHead) -> Sent {
    Sent { first: head.status.to_string(), fields: lines(&head.fields).collect() }
}

fn lines(fields: &Fields) -> impl Iterator<Item = (String, String)> {
    fields.iter().map(|line| (lossy(line.name), lossy(line.value)))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The candidate's place: `default/users, rule 0, match 1`.
fn place(candidate: &Candidate<'_, Rule>) -> String {
    format!("{}, rule {}, match {}", candidate.rule.route, candidate.rule.index, candidate.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, url: &str, headers: &[&str]) -> Result<Question, InvalidQuestion> {
        let headers: Vec<_> = headers.iter().map(|&header| header.to_owned()).collect();
        Question::parse(method, url, &headers, "127.0.0.1".parse().unwrap())
    }

    #[test]
    fn a_url_becomes_a_request() {
        for (url, authority, port, target) in [
            ("http://a.example", "a.example", None, "/"),
            ("https://a.example:8443/x/y?z=1#f", "a.example:8443", Some(8443), "/x/y?z=1"),
            ("HTTP://[::1]:80?q", "[::1]:80", Some(80), "/?q"),
        ] {
            let question = parse("GET", url, &[]).unwrap();
            assert_eq!(
                (question.authority.as_str(), question.port, question.target.as_str()),
                (authority, port, target)
            );
        }
        for url in ["a.example/x", "ftp://a/", "http:///x", "http://a b/", "http://user@a/", "http://a/ b"] {
            assert_eq!(parse("GET", url, &[]).unwrap_err(), InvalidQuestion::Url(url.to_owned()));
        }
    }

    #[test]
    fn a_host_header_takes_the_place_of_the_urls() {
        let head = parse("GET", "http://localhost:8080/", &["Host: api.example", "X-A: 1"]).unwrap().head();
        assert_eq!((head.host(), head.fields.len()), (&b"api.example"[..], 1));
        assert!(parse("GET", "http://a/", &["no colon"]).is_err());
        assert!(parse("G T", "http://a/", &[]).is_err());
    }

    #[test]
    fn an_empty_plan_says_that_nothing_listens() {
        let question = parse("GET", "http://a/", &[]).unwrap();
        let error = explain(&Plan::default(), &question).err().unwrap().to_string();
        assert!(error.contains("no listener"), "{error}");
    }
}
