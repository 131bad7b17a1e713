//! Login of people with a browser: OpenID Connect by authorization code with PKCE (OpenID Connect Core §3.1, RFC 7636).
//!
//! The browser holds a random number; tokens stay here, so nothing grows with them and no login loops because of a cookie
//! that is too large. What a login needs travels sealed in its `state`, so that tabs do not disturb each other and nothing
//! is held for visitors who never come back; a second cookie ties it to the browser, so that nobody can be logged in by
//! another's link. Tokens are fetched anew before they expire, once for all requests of a session. The provider can end
//! sessions itself (OpenID Connect Back-Channel Logout).
//!
//! Sees the client's request. While the provider is away, who is logged in stays so; new logins are answered with 503.
//! Bounded: sessions, sealed text, answers of the provider, time. Never logged: codes, tokens, cookies, secrets.

pub(crate) mod login;
pub(crate) mod provider;
mod seal;
mod sessions;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rhumb_base::failure::Cause;
use rhumb_codec::field::{FieldValue, Known};
use rhumb_codec::head::{Method, RequestHead, Scheme};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cache::Key;
use crate::call::Out;
use crate::claims::{ClaimFieldSpec, ClaimFields, principal};
use crate::consumers::Consumers;
use crate::context::{Context, Origin, SecretValue, URL_MAX};
use crate::credential::{self, Challenge, Place};
use crate::exchange::{Exchange, Reply};
use crate::fetched::{Fetch, Fetched, Look};
use crate::oauth::{self, Authentication, Client, TokenError, Tokens};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Outcome, Verdict};
use crate::principal::Principal;
use crate::quantity::positive;

use self::login::{Login, NoLogin, Pending, Query, fingerprint, is_number, number};
use self::provider::{Metadata, Provider};
use self::sessions::{Life, Session, Sessions};

/// How long somebody may take to log in.
pub const LOGIN_TIME: Duration = Duration::from_secs(600);

/// Default of [`SessionSpec::idle`].
pub const DEFAULT_IDLE: Duration = Duration::from_secs(3600);

/// Default of [`SessionSpec::lifetime`].
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// How long an access token is used that does not say how long it is good.
pub const DEFAULT_TOKEN_LIFE: Duration = Duration::from_secs(300);

/// Longest logout notice of the provider, in bytes.
pub const NOTICE_MAX: usize = 64 << 10;

/// Longest ID token that is shown to the provider at a logout, in bytes. The hint is not needed (RP-Initiated Logout §2),
/// and a URL that is too long would be refused.
pub const HINT_MAX: usize = 4 << 10;

/// Logs people in.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// The provider, as its tokens name it. Its endpoints are found by discovery.
    pub issuer: String,
    /// The Backend that says how to connect to the provider. Default: the host of each URL.
    #[serde(default)]
    pub backend: Option<String>,
    /// Endpoints of the provider, instead of what it says itself. Those for tokens and keys have to be written when they are
    /// not where the issuer is.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// Who the gateway is to the provider.
    pub client_id: String,
    /// What proves it. Default: nothing, a public client.
    #[serde(default)]
    pub client_secret: Option<SecretValue>,
    /// How it is proven: `Basic` (default) or `Post`.
    #[serde(default)]
    pub authentication: Authentication,
    /// Scopes to ask for, beside `openid`. With `offline_access` some providers give a refresh token. Default: none.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Further parameters of the login: `prompt`, `acr_values`, `audience`.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Where the provider sends the browser back to: a path, on whatever host it was, or a whole URL. The provider has to
    /// know it. Default: `/oauth2/callback`.
    #[serde(default)]
    pub redirect_uri: Option<String>,
    /// A request for this path logs out. Default: `/oauth2/logout`.
    #[serde(default)]
    pub logout_path: Option<String>,
    /// Where the browser goes after a logout: a path or a whole URL. Default: `/`.
    #[serde(default)]
    pub after_logout: Option<String>,
    /// Where the provider tells of logouts (OpenID Connect Back-Channel Logout). Default: `/oauth2/backchannel-logout`.
    #[serde(default)]
    pub backchannel_logout_path: Option<String>,
    /// Sessions.
    #[serde(default)]
    pub session: SessionSpec,
    /// Request fields to set to claims of the ID token. What a client sends under these names is removed.
    #[serde(default)]
    pub claims_to_fields: Vec<ClaimFieldSpec>,
    /// Give the backend the access token, in `authorization` behind `Bearer`. Default: false.
    #[serde(default)]
    pub forward_access_token: bool,
    /// What becomes of who is not logged in: `Redirect` (default) sends browsers that open a page to the login and refuses
    /// everything else with 401, `Refuse` refuses all, `Continue` lets them pass.
    #[serde(default)]
    pub logged_out: LoggedOut,
    /// How long the provider may take. Default: 5s.
    #[serde(default)]
    pub timeout: Option<String>,
}

/// Endpoints of a provider.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoints {
    /// Where browsers log in.
    #[serde(default)]
    pub authorization: Option<String>,
    /// Where tokens are had.
    #[serde(default)]
    pub token: Option<String>,
    /// Where the keys are.
    #[serde(default)]
    pub jwks: Option<String>,
    /// Where browsers log out.
    #[serde(default)]
    pub end_session: Option<String>,
}

/// Sessions.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionSpec {
    /// It ends so long after the last request. Default: 1h.
    #[serde(default)]
    pub idle: Option<String>,
    /// It ends so long after the login. Default: 12h.
    #[serde(default)]
    pub lifetime: Option<String>,
    /// Name of the cookie. Default: one of the policy's own, with the prefix `__Host-` over https (RFC 6265bis §4.1.3).
    #[serde(default)]
    pub cookie_name: Option<String>,
}

/// What becomes of who is not logged in.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
pub enum LoggedOut {
    /// Browsers that open a page go to the login, everything else gets 401.
    #[default]
    Redirect,
    /// 401.
    Refuse,
    /// The request passes.
    Continue,
}

/// A compiled policy.
pub struct Oidc(Arc<Inner>);

struct Inner {
    login: Login,
    redirect: Redirect,
    logout_path: Box<str>,
    after_logout: Box<str>,
    backchannel_path: Box<str>,
    life: Life,
    cookie: Cookies,
    fields: ClaimFields,
    forward_access_token: bool,
    logged_out: LoggedOut,
    sessions: Arc<Sessions>,
    challenge: Challenge,
    consumers: Arc<Consumers>,
}

/// Where the browser comes back.
struct Redirect {
    path: Box<str>,
    /// The scheme and host that browsers see, when they do not follow from the request.
    origin: Option<Box<str>>,
}

/// Names of the cookies.
struct Cookies {
    plain: CookieNames,
    over_tls: CookieNames,
}

struct CookieNames {
    session: Box<str>,
    login: Box<str>,
    /// Both: the backend does not see them.
    hidden: [Place; 2],
}

impl HttpPolicy for Oidc {
    const KIND: &'static str = "oidc";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let timeout = positive("timeout", spec.timeout.as_deref())?.unwrap_or(oauth::DEFAULT_TIMEOUT);
        let backend = spec.backend.as_deref();
        let provider = Provider::read(&spec.issuer, &spec.endpoints, backend, timeout, cx)?;
        let client = Client::read(&spec.client_id, spec.client_secret.as_ref(), spec.authentication, cx)?;
        const OWN: [&str; 8] = [
            "response_type",
            "client_id",
            "redirect_uri",
            "scope",
            "state",
            "nonce",
            "code_challenge",
            "code_challenge_method",
        ];
        if let Some(name) = spec.parameters.keys().find(|name| OWN.contains(&name.as_str())) {
            return Err(Invalid::new(
                format!("parameters.{name}"),
                "is set by the policy itself",
                "remove it",
            ));
        }
        let redirect = redirect(spec.redirect_uri.as_deref().unwrap_or("/oauth2/callback"))?;
        let logout_path = own_path("logoutPath", spec.logout_path, "/oauth2/logout")?;
        let backchannel_path =
            own_path("backchannelLogoutPath", spec.backchannel_logout_path, "/oauth2/backchannel-logout")?;
        let after_logout = spec.after_logout.unwrap_or_else(|| "/".to_owned());
        if !after_logout.starts_with('/') && Origin::parse(&after_logout).is_err() {
            let fix = "write a path, or https://HOST/PATH";
            return Err(Invalid::new("afterLogout", "is neither a path nor a URL", fix));
        }
        let life = Life {
            idle: positive("session.idle", spec.session.idle.as_deref())?.unwrap_or(DEFAULT_IDLE),
            whole: positive("session.lifetime", spec.session.lifetime.as_deref())?
                .unwrap_or(DEFAULT_LIFETIME),
        };
        let purpose = format!("rhumb login\0{}\0{}", spec.issuer, spec.client_id);
        let clients = (provider, client);
        let Some(login) = Login::new(clients, spec.scopes, spec.parameters, timeout, &purpose) else {
            return Err(Invalid::new("", "the system gives no random numbers", ""));
        };
        let inner = Inner {
            login,
            redirect,
            logout_path,
            after_logout: after_logout.into(),
            backchannel_path,
            life,
            cookie: Cookies::named(spec.session.cookie_name, &purpose)?,
            fields: ClaimFields::read(&spec.claims_to_fields, None)?,
            forward_access_token: spec.forward_access_token,
            logged_out: spec.logged_out,
            // Routes with the same client share their sessions: who logged in is logged in.
            sessions: cx.share(&format!("sessions\0{}\0{purpose}", cx.namespace()), Sessions::default),
            challenge: credential::challenge("Bearer", None)?,
            consumers: cx.consumers(),
        };
        Ok(Self(Arc::new(inner)))
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let inner = &self.0;
        inner.fields.remove(req);
        let path = req.path();
        if path == inner.redirect.path.as_bytes() {
            return inner.come_back(req, cx);
        }
        if path == inner.logout_path.as_bytes() {
            return inner.log_out(req, cx);
        }
        if path == inner.backchannel_path.as_bytes() {
            return inner.notice(req, cx);
        }
        inner.enter(req, cx, true)
    }
}

impl Inner {
    /// A request for something else than the policy's own paths.
    fn enter(self: &Arc<Self>, req: &mut RequestHead, cx: &mut Exchange<'_>, may_wait: bool) -> Verdict {
        let Some(session) = self.session(req, cx) else { return self.stranger(req, cx) };
        let now = cx.unix_nanos;
        let last = session.tokens.last();
        let can_renew = last.as_ref().is_some_and(|last| last.value.refresh.is_some());
        if can_renew {
            let (inner, held) = (Arc::clone(self), Arc::clone(&session));
            if let Look::Wait = session.tokens.look(now, cx.out, may_wait, |out| inner.renew(held, out)) {
                let (inner, tokens) = (Arc::clone(self), Arc::clone(&session.tokens));
                return Verdict::Wait(Box::pin(async move {
                    tokens.wait().await;
                    Outcome::Apply(Box::new(move |req, cx| inner.enter(req, cx, false)))
                }));
            }
        }
        if self.forward_access_token {
            let token = session.tokens.last().filter(|last| last.is_good(now));
            let Some(token) = token else {
                if can_renew {
                    return Verdict::Respond(Reply::refuse(Cause::LoginUnavailable));
                }
                // Only a login brings another one.
                session.end();
                return self.stranger(req, cx);
            };
            req.fields.set(Known::Authorization, format!("Bearer {}", token.value.access).as_bytes());
        }
        self.hide_cookies(req, cx);
        self.fields.set(req, &session.fields);
        cx.prove(Arc::clone(&session.principal));
        Verdict::Continue
    }

    /// The session that the request belongs to.
    fn session(&self, req: &RequestHead, cx: &Exchange<'_>) -> Option<Arc<Session>> {
        let name = &*self.cookie.names(cx.scheme).session;
        // Somebody on a neighbouring host may have set one of the same name: that one leads to no session.
        cookies_named(req, name).find_map(|value| {
            let key = Key::of([value]);
            self.sessions.get(&key, self.life, cx.unix_nanos)
        })
    }

    fn hide_cookies(&self, req: &mut RequestHead, cx: &Exchange<'_>) {
        self.cookie.names(cx.scheme).hidden.iter().for_each(|place| place.remove(req));
    }

    /// Nobody is logged in.
    fn stranger(self: &Arc<Self>, req: &mut RequestHead, cx: &mut Exchange<'_>) -> Verdict {
        // Who proved something otherwise needs no login.
        if cx.principal().is_some() || self.logged_out == LoggedOut::Continue {
            self.hide_cookies(req, cx);
            return Verdict::Continue;
        }
        if self.logged_out == LoggedOut::Refuse || !opens_a_page(req) {
            return Verdict::Respond(credential::refuse(Cause::LoginRequired, &self.challenge));
        }
        if let Some(metadata) = self.login.provider.known_metadata(cx.unix_nanos, cx.out) {
            return self.log_in(&metadata, req, cx);
        }
        let Some(out) = cx.out.map(Rc::clone) else { return Verdict::Wait(Box::pin(std::future::pending())) };
        let inner = Arc::clone(self);
        Verdict::Wait(Box::pin(async move {
            match inner.login.provider.metadata(&out).await {
                None => Outcome::Respond(Reply::refuse(Cause::LoginUnavailable)),
                Some(metadata) => Outcome::Apply(Box::new(move |req, cx| inner.log_in(&metadata, req, cx))),
            }
        }))
    }

    /// Sends the browser to the provider.
    fn log_in(&self, metadata: &Metadata, req: &mut RequestHead, cx: &mut Exchange<'_>) -> Verdict {
        let made = self.redirection(metadata, req, cx);
        Verdict::Respond(made.unwrap_or_else(|| Reply::refuse(Cause::InternalError)))
    }

    fn redirection(&self, metadata: &Metadata, req: &RequestHead, cx: &Exchange<'_>) -> Option<Box<Reply>> {
        let name = &*self.cookie.names(cx.scheme).login;
        // Tabs of a browser share what ties logins to it.
        let known = cookies_named(req, name).find(|value| is_number(value)).map(<[u8]>::to_vec);
        let browser = match &known {
            Some(known) => known.clone(),
            None => number()?.into_bytes(),
        };
        let mut target = Vec::new();
        req.write_target(&mut target);
        let target = std::str::from_utf8(&target).ok().filter(|target| target.len() <= URL_MAX);
        // Whole, so that a path of two slashes leads to no other host.
        let url = format!("{}{}", self.origin(req, cx), target.unwrap_or("/"));
        let redirect_uri = self.redirect_uri(req, cx);
        let now = cx.unix_nanos / 1_000_000_000;
        let location = self.login.begin(metadata, (url, &browser), &redirect_uri, now)?;
        let mut reply = redirect_to(&location)?;
        if known.is_none() {
            let value = std::str::from_utf8(&browser).ok()?;
            set_cookie(&mut reply, name, value, LOGIN_TIME.as_secs() * 6, cx.scheme);
        }
        Some(reply)
    }

    /// Scheme and host that the browser sees.
    fn origin(&self, req: &RequestHead, cx: &Exchange<'_>) -> String {
        match &self.redirect.origin {
            Some(origin) => origin.to_string(),
            None => format!("{}://{}", cx.scheme.as_str(), String::from_utf8_lossy(req.authority())),
        }
    }

    fn redirect_uri(&self, req: &RequestHead, cx: &Exchange<'_>) -> String {
        format!("{}{}", self.origin(req, cx), self.redirect.path)
    }

    /// The browser comes back from the provider.
    fn come_back(self: &Arc<Self>, req: &mut RequestHead, cx: &mut Exchange<'_>) -> Verdict {
        let query = Query::of(req);
        let Some(pending) = self.login.pending(&query) else {
            return failed("The login was not begun here. Go back to the page that you wanted to see.");
        };
        // Another tab was faster, or somebody loads the page again: the code is used up, and nothing is missing.
        if self.session(req, cx).is_some() {
            return redirect_to(&pending.url).map_or_else(internal, Verdict::Respond);
        }
        if pending.is_over(cx.unix_nanos / 1_000_000_000) {
            return failed("The login took too long. Go back to the page that you wanted to see.");
        }
        let name = &*self.cookie.names(cx.scheme).login;
        if !cookies_named(req, name).any(|value| pending.is_of(value)) {
            return failed("The login was begun in another browser, or the browser keeps no cookies.");
        }
        let code = match self.login.code(&query) {
            Ok(code) => code,
            Err(why) => return failed(&why),
        };
        let Some(out) = cx.out.map(Rc::clone) else { return Verdict::Wait(Box::pin(std::future::pending())) };
        let redirect_uri = self.redirect_uri(req, cx);
        let inner = Arc::clone(self);
        Verdict::Wait(Box::pin(async move {
            match inner.exchange(&code, &redirect_uri, &pending, &out).await {
                Ok(session) => {
                    Outcome::Apply(Box::new(move |_, cx| inner.welcome(session, &pending.url, cx)))
                }
                Err(NoLogin::Away(why)) => {
                    tracing::warn!(issuer = &*inner.login.provider.issuer, "login: {why}");
                    Outcome::Respond(Reply::refuse(Cause::LoginUnavailable))
                }
                Err(NoLogin::Refused(why)) => {
                    tracing::warn!(issuer = &*inner.login.provider.issuer, "login: {why}");
                    Outcome::Apply(Box::new(|_, _| {
                        failed("The identity provider's answer was not accepted.")
                    }))
                }
            }
        }))
    }

    /// Changes the code for tokens, and these for a session.
    async fn exchange(
        &self,
        code: &str,
        redirect_uri: &str,
        pending: &Pending,
        out: &Out,
    ) -> Result<Session, NoLogin> {
        let (tokens, id_token, claims) = self.login.redeem(code, redirect_uri, pending, out).await?;
        let now = out.unix_nanos();
        let sid = claims.get("sid").and_then(Value::as_str).map(Into::into);
        let fields = self.fields.values(&claims);
        let life = tokens.expires_in.unwrap_or(DEFAULT_TOKEN_LIFE);
        let tokens = Arc::new(Fetched::of(tokens, now, life));
        let consumer = self.consumers.of_claims(&claims).cloned();
        let principal = Principal { consumer, ..principal(Oidc::KIND, claims) };
        Ok(Session::new(Arc::new(principal), fields, (id_token, sid), tokens, now))
    }

    /// Gives the browser its session and the page that it wanted.
    fn welcome(&self, session: Session, url: &str, cx: &mut Exchange<'_>) -> Verdict {
        let (Some(value), Some(mut reply)) = (number(), redirect_to(url)) else {
            return Verdict::Respond(Reply::refuse(Cause::InternalError));
        };
        let name = &*self.cookie.names(cx.scheme).session;
        set_cookie(&mut reply, name, &value, self.life.whole.as_secs(), cx.scheme);
        cx.prove(Arc::clone(&session.principal));
        self.sessions.put(Key::of([value.as_bytes()]), Arc::new(session), self.life, cx.unix_nanos);
        Verdict::Respond(reply)
    }

    /// Fetches the tokens of a session anew.
    fn renew(self: Arc<Self>, session: Arc<Session>, out: Out) -> Fetch<Tokens> {
        Box::pin(async move {
            let last = session.tokens.last();
            let refresh = last.as_ref().and_then(|last| last.value.refresh.as_deref());
            let refresh = refresh.ok_or("there is no refresh token")?;
            let form = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
            match self.login.tokens(&form, &out).await {
                Ok(mut tokens) => {
                    if let Some(id) = &tokens.id {
                        let verified = self.login.verify(id.as_bytes(), &out).await;
                        // OpenID Connect Core §12.2: it is still the same person.
                        let subject = verified.as_ref().ok().and_then(|claims| claims.get("sub")?.as_str());
                        if subject != Some(&session.principal.subject) {
                            session.end();
                            return Err("the new ID token is not the same person's".to_owned());
                        }
                    }
                    tokens.refresh = tokens.refresh.or_else(|| Some(refresh.into()));
                    let life = tokens.expires_in.unwrap_or(DEFAULT_TOKEN_LIFE);
                    Ok((tokens, life))
                }
                Err(error) => {
                    // The provider does not know the session any more. One that is away may be back later.
                    if matches!(&error, TokenError::Refused(_)) {
                        session.end();
                    }
                    tracing::debug!(
                        issuer = &*self.login.provider.issuer,
                        "tokens of a session: {}",
                        error.tell()
                    );
                    Err(error.tell())
                }
            }
        })
    }

    /// Logs out here and, where it can, at the provider (OpenID Connect RP-Initiated Logout).
    fn log_out(self: &Arc<Self>, req: &mut RequestHead, cx: &mut Exchange<'_>) -> Verdict {
        // A page of another site cannot log anybody out.
        if req.fields.get(Known::SecFetchSite) == Some(b"cross-site") {
            return Verdict::Respond(Reply::refuse(Cause::CrossSiteRequest));
        }
        let name = &*self.cookie.names(cx.scheme).session;
        let ended: Vec<_> =
            cookies_named(req, name).filter_map(|value| self.sessions.remove(&Key::of([value]))).collect();
        let after = match self.after_logout.starts_with('/') {
            true => format!("{}{}", self.origin(req, cx), self.after_logout),
            false => self.after_logout.to_string(),
        };
        let metadata = self.login.provider.known_metadata(cx.unix_nanos, cx.out);
        let target = match (ended.first(), metadata.and_then(|metadata| metadata.end_session)) {
            (Some(session), Some(endpoint)) => {
                let mut query = Vec::new();
                if session.id_token.len() <= HINT_MAX {
                    oauth::pair(&mut query, b"id_token_hint", session.id_token.as_bytes());
                }
                for (name, value) in
                    [("client_id", self.login.client.id()), ("post_logout_redirect_uri", &after)]
                {
                    oauth::pair(&mut query, name.as_bytes(), value.as_bytes());
                }
                let separator = if endpoint.contains('?') { '&' } else { '?' };
                format!("{endpoint}{separator}{}", String::from_utf8_lossy(&query))
            }
            _ => after,
        };
        let Some(mut reply) = redirect_to(&target) else { return internal() };
        set_cookie(&mut reply, name, "", 0, cx.scheme);
        Verdict::Respond(reply)
    }

    /// The provider tells of a logout (OpenID Connect Back-Channel Logout §2.5).
    fn notice(self: &Arc<Self>, req: &mut RequestHead, cx: &mut Exchange<'_>) -> Verdict {
        if req.method() != Method::Post {
            let mut reply = Reply::refuse(Cause::MethodNotAllowed);
            reply.fields().append(Known::Allow, b"POST");
            return Verdict::Respond(reply);
        }
        let content = match cx.content {
            None => return Verdict::Read(NOTICE_MAX),
            Some(ahead) if ahead.is_whole && ahead.bytes.len() <= NOTICE_MAX => ahead.bytes,
            Some(_) => return Verdict::Respond(Reply::refuse(Cause::ContentTooLarge)),
        };
        let token = Query(content).get("logout_token").map(|token| token.into_bytes());
        let (Some(token), Some(out)) = (token, cx.out.map(Rc::clone)) else { return notice_reply(400) };
        let inner = Arc::clone(self);
        Verdict::Wait(Box::pin(async move {
            let verified = inner.login.verify(&token, &out).await;
            let done = verified.and_then(|claims| inner.end_sessions(&claims));
            if let Err(why) = done {
                tracing::warn!(issuer = &*inner.login.provider.issuer, "a logout notice was refused: {why}");
            }
            Outcome::Apply(Box::new(move |_, _| notice_reply(if done.is_ok() { 200 } else { 400 })))
        }))
    }

    /// §2.6: what a logout token has to have beside a signature, and must not have.
    fn end_sessions(&self, claims: &Map<String, Value>) -> Result<usize, &'static str> {
        const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
        let is_event =
            claims.get("events").and_then(Value::as_object).is_some_and(|all| all.contains_key(EVENT));
        if !is_event || claims.contains_key("nonce") || !claims.contains_key("exp") {
            return Err("the token is no logout token");
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        match (text("sid"), text("sub")) {
            (None, None) => Err("the token names neither a session nor a subject"),
            (sid, subject) => Ok(self.sessions.log_out(sid, subject)),
        }
    }
}

impl Cookies {
    fn named(written: Option<String>, purpose: &str) -> Result<Self, Invalid> {
        if let Some(name) = written {
            let is_token = !name.is_empty() && name.bytes().all(rhumb_codec::field::is_token_byte);
            if !is_token {
                let why = format!("`{name}` is no name of a cookie");
                return Err(Invalid::new("session.cookieName", why, "use letters, digits, `-` and `_`"));
            }
            let names = || CookieNames::new(&name, &format!("{name}-login"));
            return Ok(Self { plain: names(), over_tls: names() });
        }
        let tag: String = fingerprint(purpose.as_bytes()).chars().take(8).collect();
        let names = |prefix: &str| {
            CookieNames::new(&format!("{prefix}rhumb-session-{tag}"), &format!("{prefix}rhumb-login-{tag}"))
        };
        Ok(Self { plain: names(""), over_tls: names("__Host-") })
    }

    fn names(&self, scheme: Scheme) -> &CookieNames {
        match scheme {
            Scheme::Http => &self.plain,
            Scheme::Https => &self.over_tls,
        }
    }
}

impl CookieNames {
    fn new(session: &str, login: &str) -> Self {
        let hidden = [session, login].map(|name| Place::Cookie(name.as_bytes().into()));
        Self { session: session.into(), login: login.into(), hidden }
    }
}

/// Values of the cookies of a name.
fn cookies_named<'r>(req: &'r RequestHead, name: &str) -> impl Iterator<Item = &'r [u8]> {
    let lines = req.fields.get_all(Known::Cookie);
    lines.flat_map(|line| line.split(|&byte| byte == b';')).filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let (found, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
        (found == name.as_bytes()).then_some(value.get(1..)?)
    })
}

/// True for a request by which a browser opens a page: only those can be sent elsewhere to log in.
fn opens_a_page(req: &RequestHead) -> bool {
    if req.method() != Method::Get {
        return false;
    }
    match req.fields.get(Known::SecFetchMode) {
        Some(mode) => mode == b"navigate",
        None => req.fields.get(Known::Accept).is_some_and(|accept| {
            accept.windows(b"text/html".len()).any(|part| part.eq_ignore_ascii_case(b"text/html"))
        }),
    }
}

fn redirect(written: &str) -> Result<Redirect, Invalid> {
    if written.starts_with('/') {
        return Ok(Redirect { path: own_path("redirectUri", Some(written.to_owned()), "")?, origin: None });
    }
    let (origin, path) = Origin::parse(written).map_err(|why| {
        Invalid::new("redirectUri", format!("`{written}` {why}"), "write a path, or https://HOST/PATH")
    })?;
    let scheme = if origin.is_tls { "https" } else { "http" };
    Ok(Redirect { path, origin: Some(format!("{scheme}://{}", origin.authority()).into()) })
}

/// A path that the policy answers itself.
fn own_path(field: &str, written: Option<String>, usual: &str) -> Result<Box<str>, Invalid> {
    let path = written.unwrap_or_else(|| usual.to_owned());
    let is_path = path.starts_with('/') && path.len() > 1 && path.bytes().all(|b| b.is_ascii_graphic());
    if !is_path || path.contains(['?', '#']) {
        return Err(Invalid::new(
            field,
            format!("`{path}` is no path"),
            "write a path such as /oauth2/callback",
        ));
    }
    Ok(path.into())
}

fn redirect_to(url: &str) -> Option<Box<Reply>> {
    let mut reply = Reply::with_status(302);
    let location = FieldValue::parse(url.as_bytes()).ok()?;
    reply.fields().append(Known::Location, location.as_bytes());
    reply.fields().append(Known::CacheControl, b"no-store");
    Some(reply)
}

fn internal() -> Verdict {
    Verdict::Respond(Reply::refuse(Cause::InternalError))
}

fn failed(detail: &str) -> Verdict {
    let mut reply = Reply::refuse(Cause::LoginFailed);
    reply.detail = Some(detail.into());
    reply.fields().append(Known::CacheControl, b"no-store");
    Verdict::Respond(reply)
}

fn notice_reply(status: u16) -> Verdict {
    let mut reply = Reply::with_status(status);
    reply.fields().append(Known::CacheControl, b"no-store");
    if status != 200 {
        reply.fields().append(Known::ContentType, b"application/json");
        reply.content = br#"{"error":"invalid_request"}"#.to_vec();
    }
    Verdict::Respond(reply)
}

/// RFC 6265bis §4.1: only for this host, out of reach of scripts, sent along when a link from elsewhere leads here.
fn set_cookie(reply: &mut Reply, name: &str, value: &str, seconds: u64, scheme: Scheme) {
    let secure = if scheme == Scheme::Https { "; Secure" } else { "" };
    let line = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    reply.fields().append(Known::SetCookie, line.as_bytes());
}
