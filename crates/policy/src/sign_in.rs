//! Login of operators: what the admin listener asks of an OpenID Connect provider. The same login as that of
//! [`crate::oidc`], for people; for programs a bearer token of the same provider. Claims decide what somebody may do, and
//! who fits no rule may do nothing.
//!
//! No hook: the admin listener is no listener of the data path. Bounded: rules, answers of the provider, time. Never
//! logged: codes, tokens, secrets.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::call::Out;
use crate::claims::{is_met, path, time, written};
use crate::context::{Context, SecretValue};
use crate::json::Path;
use crate::oauth::{self, Authentication, Client};
use crate::oidc::Endpoints;
use crate::oidc::login::{LEEWAY, Login, NoLogin, Query, is_number, number};
use crate::oidc::provider::Provider;
use crate::policy::Invalid;

/// Longest name that a claim gives somebody, in characters.
const NAME_MAX: usize = 128;

/// Claims that name somebody, where no other is written: the first one that is there.
const NAMES: [&str; 3] = ["email", "preferred_username", "sub"];

/// What is written about the login.
pub struct Spec {
    /// The provider, as its tokens name it.
    pub issuer: String,
    /// The Backend that says how to connect to it.
    pub backend: Option<String>,
    /// Its endpoints, where they are written.
    pub endpoints: Endpoints,
    /// Who the process is to the provider.
    pub client_id: String,
    /// What proves it.
    pub client_secret: Option<SecretValue>,
    /// How it is proven.
    pub authentication: Authentication,
    /// Scopes beside `openid`.
    pub scopes: Vec<String>,
    /// For whom tokens of programs are; nobody but the client when it is empty.
    pub audiences: Vec<String>,
    /// The claim that names somebody in the audit log.
    pub name_claim: Option<String>,
    /// What claims have to say for a role; `R` is the caller's.
    pub roles: Vec<RoleSpec>,
}

/// Who has a role.
pub struct RoleSpec {
    /// A number of the caller's for the role; of several that somebody has, the highest counts.
    pub role: u8,
    /// The name of a claim, or a path that begins with `/`.
    pub claim: String,
    /// It is one of these, or a list that has one of them. Any value when there is none.
    pub values: Vec<String>,
}

/// A compiled login.
pub struct SignIn {
    login: Login,
    audiences: Box<[Box<str>]>,
    names: Box<[Path]>,
    roles: Box<[Rule]>,
}

struct Rule {
    role: u8,
    claim: Path,
    values: Box<[Box<str>]>,
}

/// Somebody whom the provider knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// What they are called.
    pub name: String,
    /// What they may do: [`RoleSpec::role`].
    pub role: u8,
    /// When what they have shown ends. **Unit**: seconds since 1970.
    pub until: u64,
}

/// A login that was begun.
pub struct Begun {
    /// Where the browser has to go.
    pub location: String,
    /// What its cookie has to say when it comes back.
    pub browser: String,
}

/// Why nobody is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The provider could not be asked; why, for the log.
    Away(String),
    /// It said no, or what it said is not to be believed; why, for people.
    Wrong(String),
    /// It is somebody, who fits no rule.
    NoRole(String),
}

impl SignIn {
    /// Reads what is written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let timeout = oauth::DEFAULT_TIMEOUT;
        let provider = Provider::read(&spec.issuer, &spec.endpoints, spec.backend.as_deref(), timeout, cx)?;
        let client = Client::read(&spec.client_id, spec.client_secret.as_ref(), spec.authentication, cx)?;
        let audiences = match spec.audiences.is_empty() {
            true => [spec.client_id.as_str().into()].into(),
            false => crate::claims::boxed(&spec.audiences),
        };
        let names = match &spec.name_claim {
            Some(claim) => [path("nameClaim", claim)?].into(),
            None => NAMES.iter().filter_map(|name| Path::parse(name)).collect(),
        };
        let rule = |(at, spec): (usize, &RoleSpec)| {
            let claim = path(&format!("roles[{at}].claim"), &spec.claim)?;
            Ok(Rule { role: spec.role, claim, values: crate::claims::boxed(&spec.values) })
        };
        let roles = spec.roles.iter().enumerate().map(rule).collect::<Result<_, Invalid>>()?;
        let purpose = format!("rhumb operators\0{}\0{}", spec.issuer, spec.client_id);
        let login = Login::new((provider, client), spec.scopes, BTreeMap::new(), timeout, &purpose);
        let login = login.ok_or_else(|| Invalid::new("", "the system gives no random numbers", ""))?;
        Ok(Self { login, audiences, names, roles })
    }

    /// The provider, as its tokens name it.
    pub fn issuer(&self) -> &str {
        &self.login.provider.issuer
    }

    /// Which claims give which role: [`RoleSpec`].
    pub fn rules(&self) -> impl Iterator<Item = (u8, &str, &[Box<str>])> {
        self.roles.iter().map(|rule| (rule.role, rule.claim.text(), &*rule.values))
    }

    /// Begins a login of a browser, which is to come back to `redirect_uri` and go on to `url`. `browser` is what its
    /// cookie says already: tabs of one browser share it.
    ///
    /// # Errors
    /// [`Refused::Away`].
    pub async fn begin(
        &self,
        url: String,
        redirect_uri: &str,
        browser: Option<&str>,
        out: &Out,
    ) -> Result<Begun, Refused> {
        let away = |why: &str| Refused::Away(why.to_owned());
        let metadata = self.login.provider.metadata(out).await;
        let metadata = metadata.ok_or_else(|| away("its endpoints cannot be had"))?;
        let known = browser.filter(|known| is_number(known.as_bytes())).map(str::to_owned);
        let browser = known.or_else(number).ok_or_else(|| away("there is no randomness"))?;
        let now = out.unix_nanos() / 1_000_000_000;
        let location = self.login.begin(&metadata, (url, browser.as_bytes()), redirect_uri, now);
        Ok(Begun { location: location.ok_or_else(|| away("it has no place to log in"))?, browser })
    }

    /// Ends a login: who came back with this query, and the URL to go on to.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn finish(
        &self,
        query: &str,
        redirect_uri: &str,
        browser: Option<&str>,
        out: &Out,
    ) -> Result<(Operator, String), Refused> {
        let wrong = |why: &str| Refused::Wrong(why.to_owned());
        let query = Query(query.as_bytes());
        let pending = self.login.pending(&query).ok_or_else(|| wrong("The login was not begun here."))?;
        if pending.is_over(out.unix_nanos() / 1_000_000_000) {
            return Err(wrong("The login took too long."));
        }
        if !browser.is_some_and(|browser| pending.is_of(browser.as_bytes())) {
            return Err(wrong("The login was begun in another browser, or the browser keeps no cookies."));
        }
        let code = self.login.code(&query).map_err(Refused::Wrong)?;
        match self.login.redeem(&code, redirect_uri, &pending, out).await {
            Ok((_, _, claims)) => Ok((self.operator(&claims)?, pending.url)),
            Err(NoLogin::Away(why)) => Err(Refused::Away(why)),
            Err(NoLogin::Refused(why)) => {
                tracing::warn!(issuer = &*self.login.provider.issuer, "login of an operator: {why}");
                Err(wrong("The identity provider's answer was not accepted."))
            }
        }
    }

    /// Whose bearer token this is.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn bearer(&self, token: &str, out: &Out) -> Result<Operator, Refused> {
        let is_audience = |audience: &str| self.audiences.iter().any(|own| **own == *audience);
        let verified = self.login.provider.verify_for(token.as_bytes(), &is_audience, LEEWAY, out).await;
        let claims = verified.map_err(|why| Refused::Wrong(why.to_owned()))?;
        if !claims.contains_key("exp") {
            return Err(Refused::Wrong("the token never expires".to_owned()));
        }
        self.operator(&claims)
    }

    fn operator(&self, claims: &Map<String, Value>) -> Result<Operator, Refused> {
        let name = self.names.iter().find_map(|path| path.find(claims).and_then(written));
        let name = name.unwrap_or_default();
        // It is shown to people, and stands in the audit log.
        let name: String = name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
        let fits = self.roles.iter().filter(|rule| is_met(rule.claim.find(claims), &rule.values));
        let Some(role) = fits.map(|rule| rule.role).max() else { return Err(Refused::NoRole(name)) };
        if name.is_empty() {
            return Err(Refused::Wrong("The token does not say who it is about.".to_owned()));
        }
        let until = time(claims, "exp").ok().flatten().unwrap_or_default() / 1_000_000_000;
        Ok(Operator { name, role, until: u64::try_from(until).unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{Keeper, NoDocuments};
    use serde_json::json;

    fn sign_in(roles: Vec<RoleSpec>) -> SignIn {
        let spec = Spec {
            issuer: "https://id.test".to_owned(),
            backend: None,
            endpoints: Endpoints::default(),
            client_id: "rhumb".to_owned(),
            client_secret: None,
            authentication: Authentication::default(),
            scopes: Vec::new(),
            audiences: Vec::new(),
            name_claim: None,
            roles,
        };
        let (mut documents, keeper) = (NoDocuments, Keeper::default());
        SignIn::compile(spec, &mut Context::new("default", "admin", &mut documents, &keeper)).ok().unwrap()
    }

    fn role(role: u8, claim: &str, values: &[&str]) -> RoleSpec {
        let values = values.iter().map(|&value| value.to_owned()).collect();
        RoleSpec { role, claim: claim.to_owned(), values }
    }

    #[test]
    fn claims_decide_and_who_fits_no_rule_may_do_nothing() {
        let sign_in = sign_in(vec![
            role(0, "groups", &["staff"]),
            role(2, "/realm/roles", &["ops"]),
            role(1, "groups", &["dev", "lead"]),
        ]);
        for (claims, expected) in [
            (json!({ "sub": "a", "exp": 7, "groups": ["staff", "dev"] }), Ok(1)),
            (json!({ "sub": "a", "exp": 7, "groups": "staff" }), Ok(0)),
            (json!({ "sub": "a", "groups": ["staff"], "realm": { "roles": ["ops"] } }), Ok(2)),
            (json!({ "sub": "a", "groups": ["Staff"] }), Err(Refused::NoRole("a".to_owned()))),
            (json!({ "sub": "a" }), Err(Refused::NoRole("a".to_owned()))),
            (json!({ "sub": "a", "groups": null }), Err(Refused::NoRole("a".to_owned()))),
        ] {
            let found = sign_in.operator(claims.as_object().unwrap()).map(|operator| operator.role);
            assert_eq!(found, expected, "{claims}");
        }
    }

    #[test]
    fn somebody_is_called_what_the_provider_says_and_nothing_that_a_log_could_mistake() {
        let sign_in = sign_in(vec![role(0, "sub", &[])]);
        let name = |claims: Value| sign_in.operator(claims.as_object().unwrap()).map(|found| found.name);
        assert_eq!(name(json!({ "sub": "7", "email": "a@x.test" })), Ok("a@x.test".to_owned()));
        assert_eq!(name(json!({ "sub": "a\nb" })), Ok("ab".to_owned()));
        assert!(matches!(name(json!({ "sub": "\n" })), Err(Refused::Wrong(_))));
    }
}
