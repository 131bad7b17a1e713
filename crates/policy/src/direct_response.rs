//! Answer without a backend: a fixed status, content and fields.

use rhumb_codec::field::{FieldName, FieldValue, Known};
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::context::Context;
use crate::exchange::{Exchange, Reply};
use crate::header_modifier::{FieldSpec, read_fields};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// Longest content of a direct response, in bytes.
pub const MAX_CONTENT: usize = 64 << 10;

/// Answers every request with the same response.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Status code, 200 to 599.
    pub status: u16,
    /// Content, at most 64 KiB. Default: none.
    #[serde(default)]
    pub body: Option<String>,
    /// Media type of the content. Default: `text/plain; charset=utf-8`.
    #[serde(default)]
    pub content_type: Option<String>,
    /// More fields of the response.
    #[serde(default)]
    pub headers: Vec<FieldSpec>,
}

/// A compiled direct response.
pub struct DirectResponse {
    status: u16,
    content: Box<[u8]>,
    content_type: FieldValue,
    fields: Box<[(FieldName, FieldValue)]>,
}

impl HttpPolicy for DirectResponse {
    const KIND: &'static str = "directResponse";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        if !(200..=599).contains(&spec.status) {
            return Err(Invalid::new(
                "status",
                format!("{} is not a final status code", spec.status),
                "write 200 to 599",
            ));
        }
        let content = spec.body.unwrap_or_default().into_bytes();
        if content.len() > MAX_CONTENT {
            return Err(Invalid::new(
                "body",
                format!("is {} bytes, more than {MAX_CONTENT}", content.len()),
                "serve large content from a backend",
            ));
        }
        // RFC 9110 §15.3.5, §15.3.6, §15.4.5: these statuses have no content.
        if !content.is_empty() && matches!(spec.status, 204 | 205 | 304) {
            return Err(Invalid::new(
                "body",
                format!("status {} has no content", spec.status),
                "remove body or change the status",
            ));
        }
        let content_type = spec.content_type.unwrap_or_else(|| "text/plain; charset=utf-8".into());
        let content_type = FieldValue::parse(content_type.as_bytes())
            .map_err(|error| Invalid::new("contentType", error.to_string(), ""))?;
        let fields = read_fields("headers", spec.headers)?;
        Ok(Self { status: spec.status, content: content.into(), content_type, fields })
    }

    fn on_request(&self, _: &mut RequestHead, _: &mut (), _: &mut Exchange<'_>) -> Verdict {
        let mut reply = Reply::with_status(self.status);
        if !self.content.is_empty() {
            reply.fields().append(Known::ContentType, self.content_type.as_bytes());
        }
        for (name, value) in &self.fields {
            reply.fields().set_named(name, value);
        }
        reply.content = self.content.to_vec();
        Verdict::Respond(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::json;

    #[test]
    fn mistakes_are_refused() {
        for body in [
            json!({ "status": 101 }),
            json!({ "status": 204, "body": "x" }),
            json!({ "status": 200, "headers": [{ "name": "content-length", "value": "1" }] }),
            json!({ "status": 200, "contentType": "a\nb" }),
        ] {
            assert!(
                compile_alone::<DirectResponse>(serde_json::from_value(body.clone()).unwrap()).is_err(),
                "{body}"
            );
        }
    }
}
