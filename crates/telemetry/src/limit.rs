//! Every bound that a client can reach, in one table: its name in metrics, where it is set, and what happens then.

macro_rules! limits {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $field:literal, $default:literal, $effect:literal;)*) => {
        /// A bound. Reaching it counts in `rhumb_limit_hits_total` under its [name](Limit::name).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Limit { $(#[doc = $effect] $variant),* }

        impl Limit {
            /// Every bound, in the order of the documentation.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Its name in metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Where it is set; empty when it is fixed.
            pub const fn field(self) -> &'static str {
                match self { $(Self::$variant => $field),* }
            }

            /// Its value when nothing is written.
            pub const fn default_value(self) -> &'static str {
                match self { $(Self::$variant => $default),* }
            }

            /// What happens when it is reached.
            pub const fn effect(self) -> &'static str {
                match self { $(Self::$variant => $effect),* }
            }
        }
    };
}

limits! {
    Connections = "connections", "limits.connections", "100000",
        "Connections of the process at a time. One more is closed at once.";
    ConnectionsPerAddress = "connections_per_address", "limits.connectionsPerAddress", "no limit",
        "Connections of one client address at a time; of IPv6 its /64 network. One more is closed at once. Trusted proxies have no such limit.";
    HeaderBytes = "header_bytes", "limits.headerBytes", "64Ki",
        "Request line and fields together. More is answered with 431.";
    Headers = "headers", "limits.headers", "100",
        "Fields of a request. More are answered with 431.";
    Baggage = "baggage", "", "8192 bytes, 180 members",
        "Field `baggage` of a request. Members beyond it are left out of what is passed on.";
    UriBytes = "uri_bytes", "limits.uriBytes", "16Ki",
        "Path and query. More is answered with 414.";
    BodyBytes = "body_bytes", "limits.bodyBytes", "no limit",
        "Content of a request. More is answered with 413, and never passed on.";
    HandshakeTime = "handshake_time", "timeouts.handshake", "10s",
        "A TLS handshake. Then the connection is closed.";
    HeaderTime = "header_time", "timeouts.requestHeader", "10s",
        "From the first byte of a request to the end of its fields. Then it is answered with 408.";
    BodyTime = "body_time", "timeouts.requestBody", "no limit",
        "From the first byte of a request to the end of its content. Then it is answered with 408. Without this limit, content that stands still is bounded by `stream_time`.";
    IdleTime = "idle_time", "timeouts.idle", "75s",
        "A connection without a request. Then it is closed, on HTTP/2 with GOAWAY.";
    StreamTime = "stream_time", "Policy timeouts: idle", "5m, tunnels 1h",
        "Content that stands still in both directions. Then the exchange is cut.";
    RequestsPerConnection = "requests_per_connection", "limits.requestsPerConnection", "no limit",
        "Requests on one connection. The last answer closes it, on HTTP/2 with GOAWAY.";
    ConcurrentStreams = "concurrent_streams", "limits.concurrentStreams", "100",
        "Streams of one HTTP/2 connection at a time. One more is refused (REFUSED_STREAM), which clients may repeat.";
    H2Resets = "h2_resets", "", "400, then 40/s and 1 per answered request",
        "Streams that a client resets before their response, or has us reset. Then GOAWAY with ENHANCE_YOUR_CALM.";
    H2Pings = "h2_pings", "", "100, then 10/s",
        "PING frames beyond what content explains. Then GOAWAY with ENHANCE_YOUR_CALM.";
    H2Settings = "h2_settings", "", "20, then 1/s",
        "SETTINGS frames. Then GOAWAY with ENHANCE_YOUR_CALM.";
    H2EmptyFrames = "h2_empty_frames", "", "100, then 10/s",
        "DATA frames without content. Then GOAWAY with ENHANCE_YOUR_CALM.";
    H2WindowUpdates = "h2_window_updates", "", "1000, then 100/s",
        "WINDOW_UPDATE frames beyond what content explains. Then GOAWAY with ENHANCE_YOUR_CALM.";
    H2Priorities = "h2_priorities", "", "400, then 20/s",
        "PRIORITY frames beyond what requests explain. Then GOAWAY with ENHANCE_YOUR_CALM.";
    H2UselessFrames = "h2_useless_frames", "", "1000, then 100/s",
        "Frames without effect. Then GOAWAY with ENHANCE_YOUR_CALM.";
    H2Continuations = "h2_continuations", "", "16",
        "CONTINUATION frames of one field block. Then GOAWAY with ENHANCE_YOUR_CALM.";
    H2FieldBlock = "h2_field_block", "", "128Ki",
        "Encoded bytes of one field block. Then GOAWAY with ENHANCE_YOUR_CALM.";
    H2FieldSection = "h2_field_section", "", "4 times limits.headerBytes",
        "Decoded bytes of one field section. Then GOAWAY with ENHANCE_YOUR_CALM.";
    H2Output = "h2_output", "", "512Ki",
        "Replies to control frames that a client does not read. Then GOAWAY with ENHANCE_YOUR_CALM.";
    H2SettingsTime = "h2_settings_time", "", "10s",
        "The acknowledgement of our SETTINGS. Then GOAWAY with SETTINGS_TIMEOUT.";
    H2StallTime = "h2_stall_time", "", "60s",
        "Content that waits because the client keeps a window shut. Then the stream is reset.";
    UdpSessions = "udp_sessions", "Policy udp: maxSessions", "16384",
        "Sessions of a UDP listener. One more ends the session that has rested longest.";
    DnsForwards = "dns_forwards", "", "512",
        "Captured questions for names that wait for name servers. One more is answered with SERVFAIL.";
    DnsConnections = "dns_connections", "", "64",
        "TCP connections with captured questions for names. One more is closed at once.";
    MeshQuestions = "mesh_questions", "", "256, 5s each",
        "Captured connections, or questions for names, that wait to be told where they lead. One more is taken for one that leads out of the mesh.";
    EgressLookups = "egress_lookups", "", "256 per worker",
        "Names out of the mesh that are looked up at a time, for connections that leave it here. One more connection is refused.";
    MeshLookups = "mesh_lookups", "", "4096 found, 1024 at a time",
        "Services that a captured workload has called and no document of it names. One more is not looked up.";
    ReplayTotal = "replay_total", "", "16Mi per worker",
        "Request content that is kept to be sent again, of all requests. One more is not kept, and not tried again.";
    PolicyKeys = "policy_keys", "Policies rateLimit, quota, concurrency: keys", "65536",
        "Keys that a limit counts for at a time. When all of them matter, further keys share one count.";
    Buffers = "buffers", "overload.buffers", "a quarter of overload.memory",
        "Memory in buffers of all connections. From nine tenths on requests are refused with 503, lowest priority first.";
    Memory = "memory", "overload.memory", "that of the cgroup, else of the machine",
        "Resident memory. From 85 % on connections are closed, from 92 % on requests are refused with 503, lowest priority first.";
    QueueDelay = "queue_delay", "overload.queueDelay", "250ms",
        "How long what is ready waits for its turn on a worker. Beyond it connections are closed and requests are refused with 503, lowest priority first.";
    Descriptors = "descriptors", "", "the hard limit of the process",
        "Open files. Connections that rest are closed, then new ones are closed at once.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Limit::ALL.iter().map(|limit| limit.name()).collect();
        assert_eq!(names.len(), Limit::ALL.len());
    }

    /// `UPDATE=1` writes the page.
    #[test]
    fn the_page_of_limits_is_fresh() {
        let mut page = String::from(HEADER);
        for limit in Limit::ALL {
            let field =
                if limit.field().is_empty() { "–".to_owned() } else { format!("`{}`", limit.field()) };
            page += &format!(
                "| `{}` | {field} | {} | {} |\n",
                limit.name(),
                limit.default_value(),
                limit.effect()
            );
        }
        page += FOOTER;
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/limits.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "docs/limits.md is stale: run this test with UPDATE=1");
    }

    const HEADER: &str = "# Limits and overload\n\n\
        Everything that a client can make grow has a bound. Reaching one counts in\n\
        `rhumb_limit_hits_total{limit=\"NAME\"}`; what is refused is in the access log too, with its code from\n\
        [errors.md](errors.md). Fields are those of a ProxyConfig, at the top of the short form; – is fixed.\n\n\
        ```yaml\n\
        listeners: {web: {port: 8080}}\n\
        limits: {connections: 20000, connectionsPerAddress: 200, headerBytes: 32Ki, bodyBytes: 10Mi}\n\
        timeouts: {requestHeader: 5s, requestBody: 60s, idle: 30s}\n\
        overload: {memory: 512Mi, buffers: 128Mi, queueDelay: 100ms}\n\
        backends: {app: 'localhost:3000'}\n\
        routes:\n\
        \x20 - {match: {path: /checkout/*}, to: app, policies: {priority: {level: high}}}\n\
        \x20 - {match: {path: /reports/*}, to: app, policies: {priority: {level: low}}}\n\
        \x20 - {to: app}\n\
        ```\n\n\
        | limit | field | default | what happens |\n|---|---|---|---|\n";

    const FOOTER: &str = "\n## Overload\n\n\
        Three things are weighed all the time: resident memory against `overload.memory`, buffers against\n\
        `overload.buffers`, and on each worker how long what is ready waits for its turn, against `overload.queueDelay`.\n\
        `overload: {enabled: false}` turns it off.\n\n\
        | state | begins | does | ends |\n|---|---|---|---|\n\
        | `normal` | | | |\n\
        | `closing` | memory 85 %, buffers 75 %, half of the queue delay | connections that rest for longer than a second are closed; one in 16 answers on HTTP/1 (one in 128 when the queue is the cause) says `Connection: close`, one in 256 requests on HTTP/2 is followed by GOAWAY: spread, so that clients do not all come back at once | memory below 82 %, buffers below 70 %, a quarter of the queue delay |\n\
        | `shedding` | memory 92 %, buffers 90 %, the queue delay in four looks one after the other | requests are answered with 503, `overloaded` and Retry-After; first those of `low` priority, then `normal`, at the very end `high` | memory below 90 %, buffers below 85 %, half of the queue delay for half a second |\n\n\
        With memory or buffers it is a share of the requests that grows with what is in use. With the queue it is those that\n\
        have waited for longer than the queue delay: half of it for `low`, twice for `high`, and none of a lower priority is\n\
        served while there is no room for a higher one. So a worker is never idle because too much was refused. Whoever is\n\
        served gets its answer within about three times the queue delay and the backend's time. Refusals are held back\n\
        for half a second to one, up to four times that when many are refused: clients that ask again at once would leave\n\
        the worker no time for the others.\n\n\
        Measured (`bench/overload.py`, one worker on one core, `queueDelay: 50ms`): an open loop of three times the capacity\n\
        with 2 000 slow readers beside it.\n\n\
        | clients | answered with 200, of capacity | p99 of them | refused per second | resident memory | state 2 s after |\n\
        |---|---|---|---|---|---|\n\
        | 1 000 | 88 to 92 % | 115 to 121 ms | 340 to 370 | 27 MiB | normal |\n\
        | 4 000 | 86 to 89 % | 125 to 138 ms | 1 520 to 1 560 | 56 MiB | normal |\n\n\
        A refusal costs about a fifth of a small request that is served: a connection that was not used for a second is in no\n\
        cache. The slow readers take 4 % of the capacity.\n\n\
        The priority of a route is the Policy `priority` (`level: low`, `normal` or `high`). The admin listener is never\n\
        refused anything. State and cause are in `rhumb status`, in the log at each change, and in\n\
        `rhumb_overload_workers`, `rhumb_overload_refused_total`, `rhumb_buffer_bytes` and `rhumb_memory_limit_bytes`.\n\n\
        ## Descriptors\n\n\
        The limit of open files is raised to the hard limit at start. When none is left, connections of clients that rest are\n\
        closed, those that rest longest first, and resting connections to backends. If that is not enough, one descriptor that\n\
        was kept for this is used to accept the connections that wait and close them: their clients hear it at once. A\n\
        message says so, at most every ten seconds, and `rhumb_accept_errors_total` counts.\n";
}
