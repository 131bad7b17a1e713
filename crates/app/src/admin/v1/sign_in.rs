//! Login of people at the identity provider that `admin.oidc` names (OpenID Connect Core §3.1). What a login needs is in
//! its browser, sealed: nothing is held for who never comes back.

use std::sync::Arc;

use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use rhumb_model::kind::admin::CALLBACK;
use rhumb_plan::admin::{Access, Oidc};
use rhumb_policy::sign_in::{Operator, Refused};

use super::describe::Answer;
use super::people::{cookie_name, cookie_named, put_cookie, refusal, session_cookie};
use super::{Call, Problem};
use crate::admin::Desk;
use crate::admin::credentials::Who;
use crate::admin::door::Peer;
use crate::admin::role::Role;

/// The cookie that ties a login to its browser.
const COOKIE: &str = "rhumb_login";

/// How long a browser keeps it: as long as somebody may take, for several logins.
const COOKIE_SECONDS: u64 = 3_600;

/// Where a browser goes when nothing else was said.
const HOME: &str = "/ui/";

/// The longest place to go on to.
pub(super) const MAX_RETURN: usize = 1_024;

/// Sends a browser to the provider.
pub(super) async fn begin(call: Call) -> Answer {
    let after = call.given.text("return").unwrap_or(HOME);
    // A path of this listener: `//host` and `/\host` lead elsewhere.
    let is_path = after.starts_with('/')
        && !after.starts_with("//")
        && after.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if !is_path {
        return Err(Problem::parameter_invalid("`return` is a path of this listener: /ui/"));
    }
    let access = call.desk.access();
    let oidc = provider(access.as_deref())?;
    let redirect_uri = redirect_uri(oidc, &call.fields, call.peer.is_tls);
    let browser = cookie_named(&call.fields, &cookie_name(COOKIE, &call.fields)).map(str::to_owned);
    let (sign_in, after) = (Arc::clone(&oidc.sign_in), after.to_owned());
    let is_secure = redirect_uri.starts_with("https:");
    let begun = call.desk.admin.errands.run(move |out| {
        Box::pin(async move { sign_in.begin(after, &redirect_uri, browser.as_deref(), &out).await })
    });
    let begun = begun.await.unwrap_or_else(|| Err(Refused::Away("this process has no way out".to_owned())));
    let begun = begun.map_err(|refused| told(&refused))?;
    let mut response = redirect(&begun.location)?;
    let name = cookie_name(COOKIE, &call.fields);
    let secure = if is_secure { "; Secure" } else { "" };
    // Lax: the browser comes back by a link of the provider's.
    let attributes = format!("Path=/api/v1/login; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax{secure}");
    put_cookie(&mut response, &format!("{name}={}; {attributes}", begun.browser));
    Ok(response)
}

/// A browser comes back: it gets its session, or is told at the sign-in page why not.
pub(in crate::admin) async fn come_back(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    RawQuery(query): RawQuery,
    fields: HeaderMap,
) -> Response {
    let ended = finish(&desk, &peer, query.unwrap_or_default(), &fields).await;
    let (who, status, code) = match &ended {
        Ok((who, _)) => (Some(who), StatusCode::FOUND, None),
        Err(problem) => (None, problem.status, Some(problem.code)),
    };
    desk.note(who, peer.address, &Method::GET, CALLBACK, status, code);
    match ended {
        Ok((_, response)) => response,
        Err(problem) => match crate::admin::ui::lead(&fields) {
            Some(_) => redirect(&format!("{HOME}?refused={}", problem.code))
                .unwrap_or_else(IntoResponse::into_response),
            None => problem.into_response(),
        },
    }
}

async fn finish(
    desk: &Arc<Desk>,
    peer: &Peer,
    query: String,
    fields: &HeaderMap,
) -> Result<(Who, Response), Problem> {
    let access = desk.access();
    let oidc = provider(access.as_deref())?;
    let from = peer.address.ip();
    desk.credentials.look(from, None).map_err(refusal)?;
    let redirect_uri = redirect_uri(oidc, fields, peer.is_tls);
    let browser = cookie_named(fields, &cookie_name(COOKIE, fields)).map(str::to_owned);
    let sign_in = Arc::clone(&oidc.sign_in);
    let is_secure = redirect_uri.starts_with("https:");
    let finished = desk.admin.errands.run(move |out| {
        Box::pin(async move { sign_in.finish(&query, &redirect_uri, browser.as_deref(), &out).await })
    });
    let away = || Err(Refused::Away("this process has no way out".to_owned()));
    let (operator, after) = match finished.await.unwrap_or_else(away) {
        Ok(found) => found,
        Err(refused) => {
            if matches!(refused, Refused::Wrong(_)) {
                // Counted; that it is refused is said otherwise.
                let _: Result<(), _> = desk.credentials.wrong(from, None);
            }
            return Err(told(&refused));
        }
    };
    let who = who_of(operator)?;
    let cookie = desk.credentials.begin(&who).map_err(super::people::unavailable)?;
    let mut response = redirect(&after)?;
    put_cookie(&mut response, &session_cookie(fields, &cookie, is_secure));
    Ok((who, response))
}

impl Desk {
    /// Who shows a bearer token of the provider; nothing where there is no provider, or it is no such token.
    pub(in crate::admin) async fn of_provider(
        &self,
        value: &[u8],
        peer: &Peer,
    ) -> Option<Result<Who, Problem>> {
        let token = bearer(value)?;
        let access = self.access()?;
        let sign_in = Arc::clone(&access.oidc.as_ref()?.sign_in);
        let from = peer.address.ip();
        if let Err(limited) = self.credentials.look(from, None) {
            return Some(Err(refusal(limited)));
        }
        let found = self
            .admin
            .errands
            .run(move |out| Box::pin(async move { sign_in.bearer(&token, &out).await }))
            .await;
        let away = || Err(Refused::Away("this process has no way out".to_owned()));
        Some(match found.unwrap_or_else(away) {
            Ok(operator) => who_of(operator),
            Err(refused) => {
                if matches!(refused, Refused::Wrong(_)) {
                    // Counted; that it is refused is said otherwise.
                    let _: Result<(), _> = self.credentials.wrong(from, None);
                }
                Err(told(&refused))
            }
        })
    }
}

/// The JSON Web Token behind `Bearer`: three parts, of which the first begins as a JSON object does. No token of ours
/// looks so.
fn bearer(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let (scheme, token) = text.split_at_checked("Bearer ".len())?;
    let token = token.trim();
    let is_one = scheme.eq_ignore_ascii_case("Bearer ")
        && token.starts_with("eyJ")
        && token.bytes().filter(|&b| b == b'.').count() == 2;
    is_one.then(|| token.to_owned())
}

fn who_of(operator: Operator) -> Result<Who, Problem> {
    let role = Role::of_rank(operator.role);
    let role = role.ok_or_else(|| told(&Refused::NoRole(operator.name.clone())))?;
    Ok(Who::of_provider(&operator.name, role, operator.until))
}

fn provider(access: Option<&Access>) -> Result<&Oidc, Problem> {
    access.and_then(|access| access.oidc.as_ref()).ok_or_else(|| {
        Problem::not_in_this_process("no identity provider is configured: `admin.oidc` names one")
    })
}

/// Where a browser comes back to, as it sees it.
fn redirect_uri(oidc: &Oidc, fields: &HeaderMap, is_tls: bool) -> String {
    if let Some(written) = &oidc.redirect_uri {
        return written.to_string();
    }
    let host = fields.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("http{}://{host}{CALLBACK}", if is_tls { "s" } else { "" })
}

fn redirect(to: &str) -> Result<Response, Problem> {
    let location = HeaderValue::from_str(to);
    let location = location.map_err(|_| Problem::internal_error("the place to go to is no URL"))?;
    let fields =
        [(header::LOCATION, location), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::FOUND, fields).into_response())
}

/// The refusal of somebody whom the provider does not know, or we do not let in.
fn told(refused: &Refused) -> Problem {
    match refused {
        Refused::Away(why) => {
            tracing::warn!(why, "the identity provider of the admin listener cannot be asked");
            Problem::provider_unavailable("the identity provider cannot be asked: try again, or use a token")
        }
        Refused::Wrong(why) => Problem::credentials_invalid(why.clone()),
        Refused::NoRole(name) => Problem::role_missing(format!(
            "{name} is known to the identity provider and has no role here: `admin.oidc.roles` gives them"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_a_provider_are_told_from_ours() {
        assert_eq!(bearer(b"bearer eyJh.eyJi.c"), Some("eyJh.eyJi.c".to_owned()));
        for other in [
            &b"Bearer rhumb_ci_0123"[..],
            b"Bearer 0123456789abcdef",
            b"Bearer eyJh.eyJi",
            b"Basic eyJh.eyJi.c",
            b"Bearer",
            b"\xff",
        ] {
            assert_eq!(bearer(other), None);
        }
    }
}
