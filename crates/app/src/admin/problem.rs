//! Refusals of the admin listener (RFC 9457), each with a code that stays.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::v1::Diagnostic;

/// Why a request was not answered as it wished.
#[derive(Debug)]
pub(crate) struct Problem {
    /// The status.
    pub(crate) status: StatusCode,
    /// For programs.
    pub(crate) code: &'static str,
    /// For people.
    pub(crate) detail: String,
    /// What is wrong with documents, one text each.
    pub(crate) mistakes: Vec<String>,
    /// The same with places, where these are known.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// When it is worth to ask again. **Unit**: seconds.
    pub(crate) retry_after: Option<u64>,
}

/// The content of a refusal.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Shape {
    /// Always `about:blank`: the code tells more.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What happened, for programs: it does not change.
    code: &'static str,
    /// What happened, for people.
    detail: String,
    /// What is wrong with documents, one text each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    mistakes: Vec<String>,
    /// The same with places, where these are known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    diagnostics: Vec<Diagnostic>,
}

macro_rules! problems {
    ($($(#[doc = $doc:literal])+ $name:ident = $status:ident, $code:literal;)+) => {
        impl Problem {
            $(
                $(#[doc = $doc])+
                pub(crate) fn $name(detail: impl Into<String>) -> Self {
                    Self::new(StatusCode::$status, $code, detail)
                }
            )+
        }
    };
}

problems! {
    /// The content is not what it has to be.
    request_invalid = BAD_REQUEST, "request_invalid";
    /// A parameter has a wrong value.
    parameter_invalid = BAD_REQUEST, "parameter_invalid";
    /// There is no such parameter.
    parameter_unknown = BAD_REQUEST, "parameter_unknown";
    /// A filter is not an expression.
    filter_invalid = BAD_REQUEST, "filter_invalid";
    /// Nobody says who asks.
    credentials_missing = UNAUTHORIZED, "credentials_missing";
    /// These credentials open nothing.
    credentials_invalid = UNAUTHORIZED, "credentials_invalid";
    /// Who asks may not do this.
    role_insufficient = FORBIDDEN, "role_insufficient";
    /// Who asks is known elsewhere and may do nothing here.
    role_missing = FORBIDDEN, "role_missing";
    /// A page of another origin could have made a browser send this.
    request_header_missing = FORBIDDEN, "request_header_missing";
    /// There is no such page.
    no_such_page = NOT_FOUND, "no_such_page";
    /// There is no such document.
    document_not_found = NOT_FOUND, "document_not_found";
    /// There is no such token.
    token_not_found = NOT_FOUND, "token_not_found";
    /// Another process has this.
    not_in_this_process = NOT_FOUND, "not_in_this_process";
    /// The page takes other methods.
    method_not_allowed = METHOD_NOT_ALLOWED, "method_not_allowed";
    /// Documents are changed where their files are.
    owned_by_files = CONFLICT, "owned_by_files";
    /// A token with this name is there.
    token_exists = CONFLICT, "token_exists";
    /// There are as many tokens as there may be.
    tokens_too_many = CONFLICT, "tokens_too_many";
    /// There is more content than is read.
    content_too_large = PAYLOAD_TOO_LARGE, "content_too_large";
    /// The content is not JSON.
    content_type_unsupported = UNSUPPORTED_MEDIA_TYPE, "content_type_unsupported";
    /// The request is for another host.
    host_refused = MISDIRECTED_REQUEST, "host_refused";
    /// It cannot be written down.
    store_unavailable = SERVICE_UNAVAILABLE, "store_unavailable";
    /// The identity provider cannot be asked.
    provider_unavailable = SERVICE_UNAVAILABLE, "provider_unavailable";
    /// A bug of ours.
    internal_error = INTERNAL_SERVER_ERROR, "internal_error";
}

impl Problem {
    /// A refusal.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let (mistakes, diagnostics) = (Vec::new(), Vec::new());
        Self { status, code, detail: detail.into(), mistakes, diagnostics, retry_after: None }
    }

    /// Too many attempts: worth trying again after so many seconds.
    pub(crate) fn login_limited(seconds: u64) -> Self {
        let detail = format!("too many attempts with wrong credentials: try again in {seconds} s");
        let limited = Self::new(StatusCode::TOO_MANY_REQUESTS, "login_limited", detail);
        Self { retry_after: Some(seconds), ..limited }
    }

    /// As many look already as may at a time.
    pub(crate) fn watchers_too_many(most: usize) -> Self {
        let detail = format!("{most} others are looking already: try again later");
        let limited = Self::new(StatusCode::TOO_MANY_REQUESTS, "watchers_too_many", detail);
        Self { retry_after: Some(5), ..limited }
    }

    /// With what is wrong, one text each.
    pub(crate) fn with_mistakes(self, mistakes: &[String]) -> Self {
        Self { mistakes: mistakes.to_vec(), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let shape = Shape {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail,
            mistakes: self.mistakes,
            diagnostics: self.diagnostics,
        };
        // A struct of texts and numbers can always be written.
        let text = serde_json::to_string(&shape).unwrap_or_default();
        let fields = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, fields, format!("{text}\n")).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 6750 §3.
            let challenge = match self.code {
                "credentials_missing" => r#"Bearer realm="rhumb""#,
                _ => r#"Bearer realm="rhumb", error="invalid_token""#,
            };
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(Code(self.code));
        response
    }
}

/// The code of a refusal, for the audit log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code(pub(super) &'static str);
