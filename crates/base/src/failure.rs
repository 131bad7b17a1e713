//! Why an exchange failed, whose doing it was, and whether it may be tried again.
//!
//! [`Cause`] names follow RFC 9209 §2.3 where it has one. Status code, gRPC status, machine code and sentence of
//! each cause stand in one table, [`Cause::facts`]: nothing else maps a failure to an answer.

use std::fmt;

/// A failed exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub cause: Cause,
    /// Whether the request may be sent again.
    pub retry: Retry,
}

/// Who failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The downstream client: its request, or its going away.
    Client,
    /// This proxy: its configuration, its limits, its policies.
    Gateway,
    /// The backend or the way to it.
    Backend,
}

impl Side {
    /// The word for logs, metrics and error bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Backend => "backend",
        }
    }
}

/// Whether a failed request may be sent again (RFC 9110 §9.2.2, RFC 9113 §8.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It may have been acted on, or the client already has part of an answer.
    Never,
    /// A reused connection died before any answer byte: safe for idempotent requests whose content is at hand.
    IfConnectionWasReused,
    /// The backend cannot have seen it: safe for every request whose content is at hand.
    IfNotProcessed,
}

/// What an answer to a failure needs: one row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// HTTP status code; 499 never goes on the wire, it says in logs that the client left.
    pub status: u16,
    /// gRPC status code.
    pub grpc: u8,
    /// Stable machine code, the `code` member of problem+json and the access log's `failure_code`.
    pub code: &'static str,
    /// RFC 9209 `error` token of Proxy-Status.
    pub proxy_status: &'static str,
    /// Who failed.
    pub side: Side,
    /// One sentence for people; never names backend addresses.
    pub detail: &'static str,
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $grpc:literal, $side:ident, $code:literal, $token:literal, $detail:literal;)*) => {
        /// What went wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Cause { $($(#[$doc])* $name,)* }

        impl Cause {
            /// Every cause, in table order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Status, codes and sentence of this cause.
            pub fn facts(self) -> Facts {
                match self {
                    $(Self::$name => Facts {
                        status: $status, grpc: $grpc, code: $code, proxy_status: $token, side: Side::$side, detail: $detail,
                    },)*
                }
            }
        }
    };
}

causes! {
    /// Syntax or framing of the request is wrong or ambiguous (RFC 9112).
    RequestMalformed = 400, 3, Client, "request_malformed", "http_request_error", "The request is malformed or ambiguous.";
    /// The path cannot be normalised safely.
    PathInvalid = 400, 3, Client, "path_invalid", "http_request_error", "The request path is not valid.";
    /// Host or :authority is missing, duplicated or not a valid authority (RFC 9112 §3.2).
    AuthorityInvalid = 400, 3, Client, "authority_invalid", "http_request_error", "The Host field or :authority is missing or not valid.";
    /// No route matches.
    RouteNotFound = 404, 12, Client, "route_not_found", "destination_not_found", "No route matches this request.";
    /// The path is known, the method is not (RFC 9110 §15.5.6).
    MethodNotAllowed = 405, 12, Client, "method_not_allowed", "http_request_denied", "The path exists, but not for this method.";
    /// The client was too slow sending its request (RFC 9110 §15.5.9).
    RequestTimeout = 408, 4, Client, "request_timeout", "http_request_error", "The request did not arrive in time.";
    /// Content whose length is not announced, where it has to be (RFC 9110 §15.5.12).
    LengthRequired = 411, 3, Client, "length_required", "http_request_error", "The length of the content has to be announced.";
    /// Content beyond the limit (RFC 9110 §15.5.14).
    ContentTooLarge = 413, 8, Client, "content_too_large", "http_request_error", "The request content is larger than allowed.";
    /// Request target beyond the limit (RFC 9110 §15.5.15).
    UriTooLong = 414, 3, Client, "uri_too_long", "http_request_error", "The request target is longer than allowed.";
    /// An expectation other than 100-continue (RFC 9110 §15.5.18).
    ExpectationFailed = 417, 3, Client, "expectation_failed", "http_request_error", "The Expect field asks for something unknown.";
    /// This connection does not serve that authority (RFC 9110 §15.5.20).
    MisdirectedRequest = 421, 3, Client, "misdirected_request", "http_request_error", "This connection does not serve the requested authority.";
    /// Field section beyond the limit (RFC 6585 §5).
    FieldsTooLarge = 431, 8, Client, "fields_too_large", "http_request_error", "The header fields are larger than allowed.";
    /// The client closed or reset before the answer was complete. Logs only.
    ClientClosed = 499, 1, Client, "client_closed", "connection_terminated", "The client went away.";
    /// A policy refused the request.
    Denied = 403, 7, Gateway, "denied", "http_request_denied", "A policy refused this request.";
    /// No rule of an authorization policy allows the request, or one refuses it.
    AccessDenied = 403, 7, Client, "access_denied", "http_request_denied", "This request is not allowed.";
    /// Nobody is logged in, and the request is none by which a browser opens a page.
    LoginRequired = 401, 16, Client, "login_required", "http_request_denied", "This needs a login: open the page in a browser.";
    /// A login came to nothing.
    LoginFailed = 400, 3, Client, "login_failed", "http_request_denied", "The login failed.";
    /// The identity provider could not be asked.
    LoginUnavailable = 503, 14, Gateway, "login_unavailable", "proxy_internal_response", "Nobody can log in: the identity provider does not answer; try again later.";
    /// The authorization server could not be asked about a token.
    IntrospectionUnavailable = 503, 14, Gateway, "introspection_unavailable", "proxy_internal_response", "Whether the token is good could not be found out; try again later.";
    /// The gateway's own token for a backend is not to be had.
    TokenUnavailable = 503, 14, Gateway, "token_unavailable", "proxy_internal_response", "The gateway has no token for the backend; try again later.";
    /// The service that decides who may pass could not be asked.
    AuthorizationUnavailable = 503, 14, Gateway, "authorization_unavailable", "proxy_internal_response", "Whether this request is allowed could not be found out; try again later.";
    /// The client's address is not among those that may ask.
    AddressDenied = 403, 7, Client, "address_denied", "http_request_denied", "Requests from this address are not allowed.";
    /// A page of another origin made a browser send it.
    CrossSiteRequest = 403, 7, Client, "cross_site_request", "http_request_denied", "The request was caused by a page of another site.";
    /// More than a rate limit allows (RFC 6585 §4).
    RateLimited = 429, 8, Client, "rate_limited", "http_request_denied", "Too many requests; try again later.";
    /// More than a quota allows.
    QuotaExceeded = 429, 8, Client, "quota_exceeded", "http_request_denied", "The quota is used up.";
    /// As many requests as may be under way at a time.
    ConcurrencyLimited = 429, 8, Client, "concurrency_limited", "http_request_denied", "Too many requests are under way; try again later.";
    /// The backend failed too often, and is left alone for a while.
    CircuitOpen = 503, 14, Backend, "circuit_open", "destination_unavailable", "The backend fails too often; try again later.";
    /// The backend has as much to do as it can, and other requests are dearer.
    LoadShed = 503, 14, Gateway, "load_shed", "destination_unavailable", "The service is at its limit; try again later.";
    /// The store of a limit cannot be asked, and nothing may pass without it.
    StoreAway = 503, 14, Gateway, "store_away", "proxy_internal_response", "The gateway cannot count this request; try again later.";
    /// The route wants to know who asks, and the request does not say.
    CredentialsMissing = 401, 16, Client, "credentials_missing", "http_request_denied", "The request has no credentials.";
    /// Several credentials of one kind: it would not be clear whose request it is (RFC 6750 §2).
    CredentialsAmbiguous = 400, 3, Client, "credentials_ambiguous", "http_request_denied", "The request has more than one credential of a kind.";
    /// A user name or password that is not right.
    PasswordInvalid = 401, 16, Client, "password_invalid", "http_request_denied", "The user name or password is not right.";
    /// A key that nobody has, or whose time is over.
    KeyInvalid = 401, 16, Client, "key_invalid", "http_request_denied", "The API key is not valid.";
    /// A token that is malformed, not signed by whom it must be, or for others (RFC 6750 §3.1).
    TokenInvalid = 401, 16, Client, "token_invalid", "http_request_denied", "The token is not valid.";
    /// A token whose time is over.
    TokenExpired = 401, 16, Client, "token_expired", "http_request_denied", "The token has expired.";
    /// A token that does not give the right to this (RFC 6750 §3.1).
    ScopeInsufficient = 403, 7, Client, "scope_insufficient", "http_request_denied", "The token does not allow this.";
    /// A signature over the request that does not verify.
    SignatureInvalid = 401, 16, Client, "signature_invalid", "http_request_denied", "The signature of the request is not valid.";
    /// No client certificate, where one is asked for.
    CertificateMissing = 403, 16, Client, "certificate_missing", "http_request_denied", "The request needs a client certificate.";
    /// A client certificate that is not among those that may ask.
    CertificateDenied = 403, 7, Client, "certificate_denied", "http_request_denied", "Requests with this client certificate are not allowed.";
    /// The keys that would tell whether a token is right cannot be had.
    KeysUnavailable = 503, 14, Gateway, "keys_unavailable", "proxy_internal_response", "The keys to check the token with cannot be had; try again later.";
    /// A fault that a policy was told to inject.
    FaultInjected = 503, 14, Gateway, "fault_injected", "proxy_internal_response", "A policy injected a fault into this request.";
    /// A method or transfer coding that this proxy does not implement (RFC 9110 §15.6.2).
    NotImplemented = 501, 12, Client, "not_implemented", "http_request_error", "The request uses a method or transfer coding that is not supported.";
    /// HTTP version other than 1.0, 1.1 and 2 (RFC 9110 §15.6.6).
    VersionNotSupported = 505, 12, Client, "version_not_supported", "http_request_error", "The HTTP version is not supported.";
    /// A bug or exhausted resource of ours.
    InternalError = 500, 13, Gateway, "internal_error", "proxy_internal_error", "The gateway could not handle the request.";
    /// The route's backendRef or its protection is invalid: refuse rather than guess.
    ConfigurationInvalid = 500, 13, Gateway, "configuration_invalid", "proxy_configuration_error", "The route's configuration is not valid.";
    /// A loop of proxies was found.
    ProxyLoop = 508, 13, Gateway, "proxy_loop", "proxy_loop_detected", "The request passes this gateway in a loop.";
    /// The proxy is at a limit of its own.
    Overloaded = 503, 14, Gateway, "overloaded", "connection_limit_reached", "The gateway is at its limit; try again later.";
    /// The proxy is shutting down.
    ShuttingDown = 503, 14, Gateway, "shutting_down", "proxy_internal_response", "The gateway is shutting down.";
    /// The backend has no endpoint that may be used.
    NoEndpoint = 503, 14, Backend, "no_endpoint", "destination_unavailable", "The backend has no endpoint available.";
    /// The backend's name does not resolve.
    DnsError = 503, 14, Backend, "dns_error", "dns_error", "The backend's name could not be resolved.";
    /// The backend is at a limit set for it.
    BackendLimit = 503, 14, Backend, "backend_limit", "connection_limit_reached", "The backend is at its connection or request limit.";
    /// Connection refused.
    ConnectRefused = 502, 14, Backend, "connect_refused", "connection_refused", "The backend refused the connection.";
    /// No connection within the connect timeout.
    ConnectTimeout = 504, 14, Backend, "connect_timeout", "connection_timeout", "Connecting to the backend took too long.";
    /// Any other failure to connect.
    ConnectFailed = 502, 14, Backend, "connect_failed", "destination_ip_unroutable", "The backend could not be reached.";
    /// TLS to the backend failed.
    BackendTls = 502, 14, Backend, "backend_tls", "tls_protocol_error", "The TLS connection to the backend failed.";
    /// The backend's certificate is not trusted.
    BackendCertificate = 502, 14, Backend, "backend_certificate", "tls_certificate_error", "The backend's certificate is not trusted.";
    /// The connection ended before the answer did.
    BackendReset = 502, 14, Backend, "backend_reset", "connection_terminated", "The backend closed the connection before its response was complete.";
    /// The answer is not HTTP, or ambiguous.
    ResponseMalformed = 502, 13, Backend, "response_malformed", "http_protocol_error", "The backend's response is not valid.";
    /// The answer's field section exceeds the limit.
    ResponseFieldsTooLarge = 502, 13, Backend, "response_fields_too_large", "http_response_header_section_size", "The backend's response fields are larger than allowed.";
    /// The answer ended early.
    ResponseIncomplete = 502, 13, Backend, "response_incomplete", "http_response_incomplete", "The backend's response ended early.";
    /// An upgrade that the backend did not accept properly.
    UpgradeFailed = 502, 13, Backend, "upgrade_failed", "http_upgrade_failed", "The backend's protocol upgrade failed.";
    /// No complete answer within the request timeout.
    BackendTimeout = 504, 4, Backend, "backend_timeout", "http_response_timeout", "The backend did not answer in time.";
    /// The caller's deadline passed (grpc-timeout, x-request-deadline).
    DeadlineExceeded = 504, 4, Client, "deadline_exceeded", "http_response_timeout", "The deadline of the request passed before it was answered.";
    /// A tunnel or stream has lived as long as it may.
    LifetimeOver = 504, 4, Gateway, "lifetime_over", "http_response_timeout", "The stream has lived as long as it may.";
    /// An established stream was idle for too long.
    IdleTimeout = 504, 4, Backend, "idle_timeout", "connection_timeout", "The stream was idle for too long.";
}

impl Failure {
    /// A failure that must not be retried.
    pub fn new(cause: Cause) -> Self {
        Self { cause, retry: Retry::Never }
    }

    /// The same failure with another answer to "may it be sent again".
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::new(cause)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.cause.facts().code)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_codes_are_unique_and_statuses_are_errors() {
        let mut codes: Vec<_> = Cause::ALL.iter().map(|c| c.facts().code).collect();
        codes.sort_unstable();
        let all = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), all);
        assert!(Cause::ALL.iter().all(|c| (400..600).contains(&c.facts().status) && c.facts().grpc <= 16));
    }

    /// `UPDATE=1` writes the page.
    #[test]
    fn the_page_of_error_codes_is_fresh() {
        let mut page = String::from(HEADER);
        for cause in Cause::ALL {
            let Facts { status, grpc, code, proxy_status, side, detail } = cause.facts();
            let side = side.as_str();
            page += &format!("| `{code}` | {status} | {grpc} | {side} | `{proxy_status}` | {detail} |\n");
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "docs/errors.md is stale: run this test with UPDATE=1");
    }

    const HEADER: &str = "# Error codes\n\n\
        Every response that Rhumb makes itself carries a problem document (RFC 9457) with a stable `code`; the access log\n\
        has the same in `failure_code`. gRPC clients get `grpc-status` and `grpc-message` instead, browsers a small page.\n\
        `side` says who failed: the client, this gateway, or the backend.\n\n\
        ```json\n\
        {\"type\":\"https://rhumb.dev/errors/connect_refused\",\"title\":\"Bad Gateway\",\"status\":502,\n\
        \x20\"detail\":\"The backend refused the connection.\",\"instance\":\"/orders/42\",\"code\":\"connect_refused\",\n\
        \x20\"side\":\"backend\",\"request_id\":\"01a1fe0c-f485-7990-8d16-47673fb67a67\"}\n\
        ```\n\n\
        Status 499 never goes on the wire: it says in the log that the client left first.\n\n\
        | code | status | gRPC status | side | Proxy-Status error | meaning |\n|---|---|---|---|---|---|\n";
}
