//! User names and passwords (RFC 7617), checked against hashes that are slow by design.
//!
//! Checking runs on threads beside the workers ([`crate::password`]); a password that was right is known again by a keyed hash,
//! so only the first request of a user waits. An unknown user costs as much time as a wrong password.

use std::sync::Arc;

use foldhash::HashMap;
use rhumb_base::base64;
use rhumb_base::failure::Cause;
use rhumb_codec::field::Known;
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::consumers::{Consumers, keyed};
use crate::context::{Context, SecretValue};
use crate::credential::{self, Challenge, Found, Missing, Place, Places};
use crate::exchange::{Exchange, Reply};
use crate::memory::Memory;
use crate::password::{PASSWORD_MAX, PasswordHash};
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Outcome, Verdict};
use crate::principal::{Consumer, Principal};

/// Most users of one policy.
pub const USERS_LIMIT: usize = 10_000;

/// Most users that a worker knows again, for each policy.
pub const REMEMBERED: usize = 4096;

/// Requests need a user name and a password.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Users, besides those of Consumers. At most 10000.
    #[serde(default)]
    pub users: Vec<UserSpec>,
    /// The content of an htpasswd file with hashes of bcrypt or argon2: one `name:hash` per line.
    #[serde(default)]
    pub htpasswd: Option<SecretValue>,
    /// Users of the Consumers of this namespace may ask. Default: true.
    #[serde(default = "yes")]
    pub consumers: bool,
    /// Pass the credentials on to the backend. Default: false, they are taken out of the request.
    #[serde(default)]
    pub forward: bool,
    /// What to do without credentials: `Refuse`, or `Continue`. Default: refuse, unless `anonymous` or `authenticated` decide.
    #[serde(default)]
    pub missing: Option<Missing>,
    /// What browsers show to people who are asked for their password. Default: `restricted`.
    #[serde(default)]
    pub realm: Option<String>,
}

fn yes() -> bool {
    true
}

/// A user.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserSpec {
    /// The name; no `:` in it.
    pub username: String,
    /// Hash of the password: argon2 (`$argon2id$…`), or bcrypt (`$2y$…`) as `htpasswd -B` makes it.
    pub password_hash: SecretValue,
}

/// A compiled policy.
pub struct BasicAuth(Arc<Inner>);

struct Inner {
    from: Places,
    users: HashMap<Box<str>, PasswordHash>,
    consumers: Option<Arc<Consumers>>,
    /// Checked for users that are not there.
    decoy: PasswordHash,
    forward: bool,
    missing: Option<Missing>,
    challenge: Challenge,
    /// Passwords that were right.
    known: Memory<Arc<Principal>>,
}

impl HttpPolicy for BasicAuth {
    const KIND: &'static str = "basicAuth";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT;
    const MERGE: Merge = Merge::MostSpecific;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, cx: &mut Context<'_>) -> Result<Self, Invalid> {
        let mut users = HashMap::default();
        let mut add = |field: &str, name: &str, hash: &str| {
            // RFC 7617 §2: the first colon ends the name.
            if name.is_empty() || name.contains(':') {
                return Err(Invalid::new(field, "has no name, or one with a colon", "choose another name"));
            }
            let hash = PasswordHash::read(hash).map_err(|why| Invalid::new(field, why, ""))?;
            match users.insert(Box::from(name), hash) {
                Some(_) => Err(Invalid::new(field, format!("`{name}` is there twice"), "remove one of them")),
                None => Ok(()),
            }
        };
        for (at, user) in spec.users.iter().enumerate() {
            let field = format!("users[{at}].passwordHash");
            let hash = cx.secret(&field, &user.password_hash)?;
            add(&field, &user.username, &String::from_utf8_lossy(&hash))?;
        }
        if let Some(file) = &spec.htpasswd {
            let file = cx.secret("htpasswd", file)?;
            let text = std::str::from_utf8(&file).map_err(|_| Invalid::new("htpasswd", "is no text", ""))?;
            for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let Some((name, hash)) = line.split_once(':').filter(|_| !line.starts_with('#')) else {
                    if line.starts_with('#') {
                        continue;
                    }
                    let why = format!("line {} has no colon", number + 1);
                    return Err(Invalid::new("htpasswd", why, "write `name:hash`"));
                };
                add("htpasswd", name.trim(), hash).map_err(|invalid| Invalid {
                    why: format!("line {}: {}", number + 1, invalid.why),
                    ..invalid
                })?;
            }
        }
        if users.len() > USERS_LIMIT {
            let why = format!("there are {} users, more than {USERS_LIMIT}", users.len());
            return Err(Invalid::new("users", why, "write Consumers"));
        }
        let consumers = spec.consumers.then(|| cx.consumers()).filter(|consumers| consumers.has_users());
        let decoy =
            users.values().next().or_else(|| consumers.as_ref().and_then(|all| all.some_hash())).cloned();
        let Some(decoy) = decoy else {
            let why = format!(
                "nobody in namespace `{}` has a password: every request would be refused",
                cx.namespace()
            );
            return Err(Invalid::new("", why, "write `users`, or a Consumer with `credentials.basic`"));
        };
        // RFC 7617 §2: a realm is required; §2.1: names and passwords are UTF-8.
        let challenge = credential::challenge("Basic", Some(spec.realm.as_deref().unwrap_or("restricted")))?;
        let challenge = [&challenge[..], b", charset=\"UTF-8\""].concat().into();
        Ok(Self(Arc::new(Inner {
            from: Places::read(&[], Place::authorization("Basic"))?,
            users,
            consumers,
            decoy,
            forward: spec.forward,
            missing: spec.missing,
            challenge,
            known: Memory::new(REMEMBERED),
        })))
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let inner = &self.0;
        let shown = match inner.from.find(req) {
            Found::Nothing => return credential::missing(inner.missing, &inner.challenge, cx),
            Found::Several => return inner.refuse(Cause::CredentialsAmbiguous),
            Found::One(shown, _) => base64::decode(&shown),
        };
        let shown = shown.and_then(|shown| String::from_utf8(shown).ok());
        let Some((name, password)) = shown.as_deref().and_then(|shown| shown.split_once(':')) else {
            return inner.refuse(Cause::PasswordInvalid);
        };
        // bcrypt stops at a zero octet: what follows would not count.
        if password.len() > PASSWORD_MAX || password.contains('\0') {
            return inner.refuse(Cause::PasswordInvalid);
        }
        let (hash, consumer) = inner.user(name);
        // The hash is part of what is remembered: with another password the old one is forgotten.
        let id =
            keyed(&[name.as_bytes(), password.as_bytes(), hash.unwrap_or(&inner.decoy).text().as_bytes()]);
        if let Some(principal) = inner.known.get(&id) {
            inner.admit(principal, req, cx);
            return Verdict::Continue;
        }
        let is_known = hash.is_some();
        let Some(checking) = hash.unwrap_or(&inner.decoy).check(password.as_bytes()) else {
            return Verdict::Respond(Reply::refuse(Cause::Overloaded));
        };
        let principal = Principal {
            method: Self::KIND,
            subject: name.into(),
            consumer: consumer.cloned(),
            ..Principal::default()
        };
        let (principal, inner) = (Arc::new(principal), Arc::clone(inner));
        Verdict::Wait(Box::pin(async move {
            let fits = checking.await;
            Outcome::Apply(Box::new(move |req, cx| {
                if !fits || !is_known {
                    return inner.refuse(Cause::PasswordInvalid);
                }
                inner.known.insert(id, Arc::clone(&principal));
                inner.admit(principal, req, cx);
                Verdict::Continue
            }))
        }))
    }
}

impl Inner {
    fn user(&self, name: &str) -> (Option<&PasswordHash>, Option<&Arc<Consumer>>) {
        if let Some(hash) = self.users.get(name) {
            return (Some(hash), None);
        }
        match self.consumers.as_ref().and_then(|consumers| consumers.user(name)) {
            Some((hash, consumer)) => (Some(hash), Some(consumer)),
            None => (None, None),
        }
    }

    fn admit(&self, principal: Arc<Principal>, req: &mut RequestHead, cx: &mut Exchange<'_>) {
        if !self.forward {
            req.fields.remove(Known::Authorization);
        }
        cx.prove(principal);
    }

    fn refuse(&self, cause: Cause) -> Verdict {
        Verdict::Respond(credential::refuse(cause, &self.challenge))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use serde_json::json;

    fn hash() -> String {
        "$2b$04$G3eaL5v9Di.p2c2C7XHoduCRbpsdrZeDZzdAGJL7hHrPmOq8Fmh0i".to_owned()
    }

    #[test]
    fn mistakes_are_named() {
        let hash = hash();
        let user = |name: &str, hash: &str| json!({ "username": name, "passwordHash": hash });
        for (spec, field) in [
            (json!({}), ""),
            (json!({ "users": [user("a", "hunter2")] }), "users[0].passwordHash"),
            (json!({ "users": [user("a:b", &hash)] }), "users[0].passwordHash"),
            (json!({ "users": [user("a", &hash), user("a", &hash)] }), "users[1].passwordHash"),
            (json!({ "htpasswd": format!("a:{hash}\nb") }), "htpasswd"),
            (json!({ "htpasswd": "a:$apr1$x$y" }), "htpasswd"),
            (json!({ "htpasswd": format!("# users\n\na:{hash}\n"), "realm": "\u{e9}" }), "realm"),
        ] {
            let compiled = compile_alone::<BasicAuth>(serde_json::from_value(spec.clone()).unwrap());
            assert_eq!(compiled.err().map(|invalid| invalid.field).as_deref(), Some(field), "{spec}");
        }
    }
}
