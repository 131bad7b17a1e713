//! ProxyConfig: settings of the process and of ports.

use foldhash::{HashMap, HashMapExt};
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::cidr::Cidr;
use rhumb_codec::h1;
use rhumb_model::Origin;
use rhumb_model::kind::proxy_config::{AccessLogFormat, EscapedSlashes, ProxyConfig};
use rhumb_model::kind::refs::ParametersRef;
use rhumb_model::{Diag, Doc, Rule, Span};
use rhumb_plan::PortSettings;
use rhumb_plan::process::{
    AccessLog, AccessLogFormat as Format, AccessLogQuery, DEFAULT_ADMIN, Overload, Process,
};
use rhumb_policy::Want;
use rhumb_route::normalize::{EncodedSlash, Options};

use crate::collect::{Docs, Entry, Key, key};
use crate::report::Report;

/// What resolving depends on beside documents.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// The time on the clock of endpoints ([`rhumb_balance::Nanos`]).
    pub now: rhumb_balance::Nanos,
    /// The time, for the validity of certificates. Unit: seconds since 1970.
    pub unix_seconds: i64,
    /// The machine speaks IPv6: Gateways without addresses then listen on `[::]`, which means both families.
    pub has_ipv6: bool,
    /// Worker threads when nothing is written: some limits of the process are split among them.
    pub workers: usize,
}

/// Settings that hold for every port whose Gateway names none, and those that Gateways name.
pub(crate) struct Settings<'a> {
    pub(crate) process: Process,
    /// Settings by ProxyConfig.
    by_config: HashMap<Key<'a>, PortSettings>,
    pub(crate) of_process: Option<Entry<'a, ProxyConfig>>,
    default: PortSettings,
    /// Backends that the process itself asks, and where they are named.
    pub(crate) wants: Vec<(Want, Origin)>,
}

impl<'a> Settings<'a> {
    /// Settings of the process, and of all ProxyConfigs. `named` are those that Gateways name.
    pub(crate) fn new(docs: &Docs<'a>, named: &[Key<'_>], report: &mut Report) -> Self {
        let mut of_process: Option<Entry<'a, ProxyConfig>> = None;
        for entry in docs.configs.all.iter().filter(|entry| !named.contains(&key(entry.doc))) {
            let Some(first) = of_process else {
                of_process = Some(*entry);
                continue;
            };
            let diag = Diag::error(Rule::Conflict, entry.doc.origin(entry.doc.span), "a second ProxyConfig")
                .why("one that no Gateway names holds for the whole process, and there can be one only")
                .fix("put them together, or name this one in `infrastructure.parametersRef` of a Gateway")
                .related(first.doc.origin(first.doc.span), "the first");
            report.push(diag);
        }
        let process = of_process.map_or_else(Process::default, |entry| process(entry, report));
        let mut by_config = HashMap::new();
        for entry in &docs.configs.all {
            let is_named = named.contains(&key(entry.doc));
            if is_named {
                refuse_process_settings(*entry, report);
            }
            if is_named || of_process.is_some_and(|of| key(of.doc) == key(entry.doc)) {
                by_config.insert(key(entry.doc), port_settings(*entry, report));
            }
        }
        let mut default: PortSettings =
            of_process.and_then(|entry| by_config.get(&key(entry.doc)).cloned()).unwrap_or_default();
        let (exporter, wants) =
            of_process.map(|entry| crate::exporter::of_process(docs, entry, report)).unwrap_or_default();
        for settings in by_config.values_mut().chain([&mut default]) {
            settings.exporter.clone_from(&exporter);
        }
        Self { process, by_config, of_process, default, wants }
    }

    /// The settings of a Gateway, and the document that they are from.
    pub(crate) fn of(&self, named: Option<Key<'a>>) -> (PortSettings, Option<Key<'a>>) {
        match named.and_then(|named| self.by_config.get_key_value(&named)) {
            Some((key, settings)) => (settings.clone(), Some(*key)),
            None => (self.default.clone(), self.of_process.map(|entry| key(entry.doc))),
        }
    }
}

/// The ProxyConfig that a Gateway names.
pub(crate) fn named<'a>(
    docs: &Docs<'a>,
    owner: &'a Doc,
    namespace: &'a str,
    parameters: &'a ParametersRef,
    report: &mut Report,
) -> Option<Key<'a>> {
    let namespace = parameters.namespace.as_ref().map_or(namespace, |namespace| namespace.as_str());
    let wanted = (namespace, parameters.name.as_str());
    if parameters.broken || docs.is_unreadable("ProxyConfig", wanted) {
        return None;
    }
    if docs.configs.get(wanted).is_none() {
        let what = format!("no ProxyConfig `{}` in namespace `{namespace}`", wanted.1);
        let at = owner.origin(parameters.name.span);
        let diag =
            report.unknown(at, what, wanted.1, docs.configs.names(namespace).collect::<Vec<_>>().into_iter());
        report.push(diag);
        return None;
    }
    Some(wanted)
}

fn process(entry: Entry<'_, ProxyConfig>, report: &mut Report) -> Process {
    let spec = entry.spec;
    let workers = spec.workers.as_ref().and_then(|workers| usize::try_from(workers.get()).ok());
    let zone = spec.zone.as_ref().map(|zone| Arc::from(&*zone.value));
    let mut process = Process { workers, zone, ..Process::default() };
    if let Some(admin) = &spec.admin {
        let default = DEFAULT_ADMIN.parse().ok();
        let is_on = admin.enabled.as_ref().is_none_or(|enabled| enabled.value);
        let address = admin.address.as_ref().map_or(default, |address| Some(address.get()));
        process.admin = address.filter(|_| is_on);
        process.admin_directory = admin.directory.as_ref().map(|directory| (&*directory.value).into());
        if let Some(written) = &admin.address
            && is_on
            && !written.get().ip().is_loopback()
            && admin.tls.is_none()
        {
            let what = "the admin listener is reachable from other machines";
            let diag = Diag::warning(Rule::Conflict, entry.doc.origin(written.span), what)
                .why("it speaks plain text: its token and what it tells can be read on the way")
                .fix("add `admin.tls`, listen on 127.0.0.1, or keep others away by other means");
            report.push(diag);
        }
    }
    if let Some(log) = &spec.access_log {
        let is_on = log.enabled.as_ref().is_none_or(|enabled| enabled.value);
        let format = match log.format.as_ref().map(|format| format.value) {
            Some(AccessLogFormat::Combined) => Format::Combined,
            Some(AccessLogFormat::Json) | None => Format::Json,
        };
        let shows_query = log.query.as_ref().is_some_and(|query| query.value);
        let query = if shows_query { AccessLogQuery::Redact } else { AccessLogQuery::Omit };
        let file = log.path.as_ref().map(|path| (&*path.value).into());
        let log = AccessLog { format, file, query, ..AccessLog::default() };
        process.access_logs = if is_on { vec![log] } else { Vec::new() };
    }
    if let Some(timeouts) = &spec.timeouts {
        if let Some(drain) = &timeouts.drain {
            process.drain_timeout = drain.get();
        }
        if let Some(delay) = &timeouts.drain_delay {
            process.drain_delay = delay.get();
        }
    }
    if let Some(written) = &spec.overload {
        let is_on = written.enabled.as_ref().is_none_or(|enabled| enabled.value);
        let mut overload = Overload {
            memory: written.memory.as_ref().map(|bytes| bytes.get()),
            buffers: written.buffers.as_ref().map(|bytes| bytes.get()),
            ..Overload::default()
        };
        if let Some(delay) = &written.queue_delay {
            overload.queue_delay = positive(entry.doc, delay.get(), delay.span, overload.queue_delay, report);
        }
        process.overload = is_on.then_some(overload);
    }
    if let Some(written) = &spec.signals {
        process.signals = crate::signals::signals(written);
    }
    process
}

/// What a ProxyConfig of a Gateway cannot have: there may be several Gateways and there is one process.
fn refuse_process_settings(entry: Entry<'_, ProxyConfig>, report: &mut Report) {
    let spec = entry.spec;
    let written: [(&str, Option<Span>); 9] = [
        ("zone", spec.zone.as_ref().map(|zone| zone.span)),
        ("workers", spec.workers.as_ref().map(|workers| workers.span)),
        ("admin", spec.admin.as_ref().map(|admin| admin.span)),
        ("accessLog", spec.access_log.as_ref().map(|log| log.span)),
        ("overload", overload_span(spec)),
        ("signals", spec.signals.as_ref().and_then(crate::signals::span)),
        ("sessionKey", spec.session_key.as_ref().map(|key| key.span)),
        ("timeouts.drain", spec.timeouts.as_ref().and_then(|t| t.drain.as_ref()).map(|drain| drain.span)),
        (
            "timeouts.drainDelay",
            spec.timeouts.as_ref().and_then(|t| t.drain_delay.as_ref()).map(|delay| delay.span),
        ),
    ];
    for (field, span) in written {
        let Some(span) = span else { continue };
        let what = format!("`{field}` in a ProxyConfig that a Gateway names");
        let diag = Diag::error(Rule::Conflict, entry.doc.origin(span), what)
            .why("it is a setting of the whole process")
            .fix("move it to a ProxyConfig that no Gateway names");
        report.push(diag);
    }
}

fn overload_span(spec: &ProxyConfig) -> Option<Span> {
    let overload = spec.overload.as_ref()?;
    let spans = [
        overload.enabled.as_ref().map(|enabled| enabled.span),
        overload.memory.as_ref().map(|memory| memory.span),
        overload.buffers.as_ref().map(|buffers| buffers.span),
        overload.queue_delay.as_ref().map(|delay| delay.span),
    ];
    spans.into_iter().flatten().next()
}

fn port_settings(entry: Entry<'_, ProxyConfig>, report: &mut Report) -> PortSettings {
    let spec = entry.spec;
    let doc = entry.doc;
    let trusted_proxies = spec.trusted_proxies.iter().filter_map(|range| cidr(&range.value)).collect();
    let mut settings = PortSettings { trusted_proxies, ..PortSettings::default() };
    let mut connections = u64::from(settings.max_connections);
    if let Some(limits) = &spec.limits {
        if let Some(written) = &limits.connections {
            connections = whole(written.get());
        }
        settings.max_connections_per_address =
            limits.connections_per_address.as_ref().map(|most| u32::try_from(most.get()).unwrap_or(u32::MAX));
        if let Some(bytes) = &limits.header_bytes {
            settings.limits.head_bytes = size(bytes.get());
        }
        if let Some(fields) = &limits.headers {
            settings.limits.fields = size(whole(fields.get()));
            if settings.limits.fields > h1::MAX_FIELDS {
                settings.limits.fields = h1::MAX_FIELDS;
                let what = format!("{} fields are more than a request can have", fields.get());
                let diag = Diag::error(Rule::OutOfRange, doc.origin(fields.span), what)
                    .why(format!("at most {} are read", h1::MAX_FIELDS))
                    .fix(format!("write `headers: {}` or less", h1::MAX_FIELDS));
                report.push(diag);
            }
        }
        if let Some(bytes) = &limits.uri_bytes {
            settings.limits.target_bytes = size(bytes.get());
        }
        settings.max_content = limits.body_bytes.as_ref().map(|bytes| bytes.get());
        if let Some(streams) = &limits.concurrent_streams {
            settings.max_concurrent_streams = u32::try_from(streams.get()).unwrap_or(u32::MAX);
        }
        if let Some(requests) = &limits.requests_per_connection {
            settings.max_requests = Some(u32::try_from(requests.get()).unwrap_or(u32::MAX));
        }
    }
    if let Some(timeouts) = &spec.timeouts {
        if let Some(header) = &timeouts.request_header {
            settings.header_timeout =
                positive(doc, header.get(), header.span, settings.header_timeout, report);
        }
        if let Some(body) = &timeouts.request_body {
            let limit = positive(doc, body.get(), body.span, Duration::MAX, report);
            settings.body_timeout = (limit != Duration::MAX).then_some(limit);
        }
        if let Some(idle) = &timeouts.idle {
            settings.idle_timeout = positive(doc, idle.get(), idle.span, settings.idle_timeout, report);
        }
        if let Some(handshake) = &timeouts.handshake {
            settings.handshake_timeout =
                positive(doc, handshake.get(), handshake.span, settings.handshake_timeout, report);
        }
    }
    settings.max_connections = u32::try_from(connections).unwrap_or(u32::MAX);
    settings.path = path_options(spec);
    settings
}

fn path_options(spec: &ProxyConfig) -> Option<Options> {
    let Some(paths) = &spec.paths else { return PortSettings::default().path };
    let normalizes = paths.normalize.as_ref().is_none_or(|normalize| normalize.value);
    let encoded_slash = match paths.escaped_slashes.as_ref().map(|slashes| slashes.value) {
        Some(EscapedSlashes::Reject) => EncodedSlash::Refuse,
        Some(EscapedSlashes::Keep) | None => EncodedSlash::Keep,
    };
    normalizes.then_some(Options { encoded_slash, ..Options::default() })
}

/// A time limit that cannot be zero.
pub(crate) fn positive(
    doc: &Doc,
    written: Duration,
    span: Span,
    default: Duration,
    report: &mut Report,
) -> Duration {
    if !written.is_zero() {
        return written;
    }
    let diag = Diag::error(Rule::OutOfRange, doc.origin(span), "a time limit of zero")
        .why("nothing could ever be in time")
        .fix(format!("leave it out for the default of {default:?}"));
    report.push(diag);
    default
}

pub(crate) fn cidr(range: &rhumb_model::scalar::Cidr) -> Option<Cidr> {
    format!("{}/{}", range.address(), range.prefix()).parse().ok()
}

fn whole(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
