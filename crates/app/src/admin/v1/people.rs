//! Who asks: sessions of browsers, named tokens, and what was done by whom.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;

use super::describe::{Answer, read_body};
use super::shapes as shape;
use super::{Call, Problem, done, json_page};
use crate::admin::credentials::{COOKIE, NotMade, Refused, Who, is_name};

/// How one can say who one is.
pub(super) async fn ways(call: Call) -> Answer {
    let access = call.desk.access();
    let oidc = access.as_ref().and_then(|access| access.oidc.as_ref());
    let known = call.who.is_some();
    done(&shape::Ways {
        token: true,
        known,
        oidc: oidc.map(|oidc| shape::Provider { name: oidc.name.to_string() }),
    })
}

/// Begins a session with a token.
pub(super) async fn login(call: Call) -> Answer {
    let login: shape::Login = read_body(&call.body)?;
    let credentials = &call.desk.credentials;
    let who = credentials.of_token(login.token.trim(), call.peer.address.ip()).map_err(refusal)?;
    let cookie = credentials.begin(&who).map_err(unavailable)?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    put_cookie(&mut response, &session_cookie(&call.fields, &cookie, call.peer.is_tls));
    Ok(response)
}

/// Ends the session.
pub(super) async fn logout(call: Call) -> Answer {
    if let Some(cookie) = cookie_of(&call.fields) {
        call.desk.credentials.end(cookie);
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let name = cookie_name(COOKIE, &call.fields);
    put_cookie(&mut response, &format!("{name}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"));
    Ok(response)
}

/// The cookie of a session: out of reach of scripts and of other sites.
pub(super) fn session_cookie(fields: &HeaderMap, cookie: &str, is_secure: bool) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{}={cookie}; Path=/; HttpOnly; SameSite=Strict{secure}", cookie_name(COOKIE, fields))
}

pub(super) fn put_cookie(response: &mut axum::response::Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}

/// What a cookie is called at the port that was asked. Browsers do not tell cookies apart by port (RFC 6265
/// §8.5), and several processes of one machine have a dashboard each.
pub(super) fn cookie_name(cookie: &str, fields: &HeaderMap) -> String {
    let host = fields.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match host.rsplit_once(':') {
        Some((_, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{cookie}_{port}")
        }
        _ => cookie.to_owned(),
    }
}

/// The cookie of a session among those of a request.
pub(in crate::admin) fn cookie_of(fields: &HeaderMap) -> Option<&str> {
    cookie_named(fields, &cookie_name(COOKIE, fields))
}

/// The cookie of a name among those of a request.
pub(super) fn cookie_named<'f>(fields: &'f HeaderMap, own: &str) -> Option<&'f str> {
    let cookies = fields.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| name.trim() == own).map(|(_, value)| value.trim())
}

/// The refusal of wrong credentials.
pub(in crate::admin) fn refusal(refused: Refused) -> Problem {
    match refused {
        Refused::Wrong => Problem::credentials_invalid("this token opens nothing here"),
        Refused::Limited(seconds) => Problem::login_limited(seconds),
    }
}

/// Who asks.
pub(super) async fn session(call: Call) -> Answer {
    let Some(Who { name, role, via, expires_at, .. }) = call.who else {
        return Err(Problem::credentials_missing("nobody asks"));
    };
    done(&shape::Session { name: name.to_string(), role, via, expires_at })
}

/// Named tokens.
pub(super) async fn tokens(call: Call) -> Answer {
    done(&shape::Tokens { tokens: call.desk.credentials.tokens() })
}

/// Makes one.
pub(super) async fn create(call: Call) -> Answer {
    let shape::NewToken { name, role, expires_in_seconds } = read_body(&call.body)?;
    if !is_name(&name) {
        return Err(Problem::request_invalid(
            "`name` is 1 to 63 letters, digits, `-` and `.`, and not `admin`",
        ));
    }
    match call.desk.credentials.create(&name, role, expires_in_seconds) {
        Ok(token) => Ok(json_page(StatusCode::CREATED, &shape::CreatedToken { name, role, token })),
        Err(NotMade::Exists) => {
            Err(Problem::token_exists(format!("there is a token `{name}`: revoke it first")))
        }
        Err(NotMade::TooMany) => Err(Problem::tokens_too_many("there are as many tokens as there may be")),
        Err(NotMade::Io(error)) => Err(unavailable(error)),
    }
}

/// Takes one back.
pub(super) async fn revoke(call: Call) -> Answer {
    let name = call.given.text("name").unwrap_or_default();
    match call.desk.credentials.revoke(name) {
        Ok(true) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(false) => Err(Problem::token_not_found("there is no token of this name")),
        Err(error) => Err(unavailable(error)),
    }
}

pub(super) fn unavailable(error: std::io::Error) -> Problem {
    Problem::store_unavailable(format!("tokens cannot be kept: {error}"))
}

/// What was done.
pub(super) async fn audit(call: Call) -> Answer {
    let before = call.given.number("before").unwrap_or(u64::MAX);
    done(&shape::AuditPage {
        entries: call.desk.audit.entries(before, call.given.count("limit", super::PAGE)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_one_machine_have_cookies_of_their_own() {
        for (host, cookies, expected) in [
            ("127.0.0.1:9901", "rhumb_session_9902=b; rhumb_session_9901=a", Some("a")),
            ("127.0.0.1:9902", "rhumb_session_9902=b; rhumb_session_9901=a", Some("b")),
            ("127.0.0.1:9903", "rhumb_session_9902=b; rhumb_session=c", None),
            ("localhost", "rhumb_session_9902=b; rhumb_session=c", Some("c")),
            ("[::1]", "rhumb_session=c", Some("c")),
            ("[::1]:9901", "x=y; rhumb_session_9901=a", Some("a")),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(header::HOST, HeaderValue::from_static(host));
            fields.insert(header::COOKIE, HeaderValue::from_static(cookies));
            assert_eq!(cookie_of(&fields), expected, "{host} {cookies}");
        }
    }
}
