//! Who asks: tokens of PyJWT, hashes of bcrypt and argon2-cffi, certificates, against the binary.

use crate::gate::{Gate, json, local, problem, seen};
use rhumb_testkit::backend::Backend;
use rhumb_testkit::cert::Authority;
use rhumb_testkit::client::Client;
use rhumb_testkit::config::Config;
use rhumb_testkit::message::Message;
use rhumb_testkit::process::{Program, Rhumb, finish, serve_script};
use rhumb_testkit::{port, wait};
use serde_json::{Value, json as value};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The identity provider. It keeps its keys when it ends and comes back.
struct Provider {
    dir: TempDir,
    port: u16,
    program: Option<Program>,
}

impl Provider {
    fn start() -> Self {
        let mut provider =
            Self { dir: tempfile::tempdir().expect("a directory"), port: port::free(), program: None };
        provider.come_back();
        provider
    }

    fn come_back(&mut self) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/identity_provider.py");
        let (dir, log) = (self.dir.path().display().to_string(), self.dir.path().join("log"));
        self.program = Some(serve_script(script.as_ref(), &[&dir], self.port, &log));
    }

    fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn ask(&self, path: &str, ask: &Value) -> String {
        let content = ask.to_string();
        let answer = Client::connect(local(self.port)).exchange(format!(
            "POST {path} HTTP/1.1\r\nHost: id.test\r\nContent-Length: {}\r\n\r\n{content}",
            content.len()
        ));
        assert_eq!(answer.status(), 200, "{path} {ask}");
        answer.text()
    }

    fn token(&self, algorithm: &str, claims: Value) -> String {
        self.ask("/token", &value!({ "alg": algorithm, "claims": claims }))
    }

    fn hits(&self) -> u32 {
        self.ask("/hits", &value!({})).parse().expect("a number")
    }

    fn hash(&self, kind: &str, password: &str) -> String {
        self.ask("/hash", &value!({ "kind": kind, "password": password }))
    }
}

fn get(gate: &Gate, target: &str, fields: &str) -> Message {
    gate.connect().exchange(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n"))
}

fn bearer(gate: &Gate, target: &str, token: &str) -> Message {
    get(gate, target, &format!("Authorization: Bearer {token}\r\n"))
}

fn refused(answer: &Message) -> (u16, String) {
    (answer.status(), problem(answer))
}

fn no(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn tokens_of_every_algorithm_are_good() {
    let provider = Provider::start();
    let issuer = provider.issuer();
    let secret = "a-secret-of-at-least-sixty-four-octets-so-that-it-does-for-hs512-too";
    let gate = Gate::with(|config| {
        config
            .route(&format!(
                "match: {{path: '/found/*'}}, to: peer, rewrite: {{prefix: /}}, policies: {{jwt: {{issuer: '{issuer}', audiences: [api], \
                 claimsToFields: [{{claim: sub, name: x-user}}]}}}}"
            ))
            .route(&format!(
                "match: {{path: '/secret/*'}}, to: peer, rewrite: {{prefix: /}}, policies: {{jwt: {{issuer: '{issuer}', \
                 secret: {secret}, algorithms: [HS256, HS384, HS512]}}}}"
            ))
    });
    for algorithm in
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
    {
        let token = provider.token(algorithm, value!({}));
        let answer = get(&gate, "/found/echo", &format!("Authorization: Bearer {token}\r\nX-User: root\r\n"));
        assert_eq!(answer.status(), 200, "{algorithm}: {}", answer.text());
        assert_eq!(seen(&answer, "x-user").as_deref(), Some("ann"), "{algorithm}");
        assert_eq!(refused(&bearer(&gate, "/secret/echo", &token)), no(401, "token_invalid"), "{algorithm}");
    }
    for algorithm in ["HS256", "HS384", "HS512"] {
        let token = provider.ask("/token", &value!({ "alg": algorithm, "secret": secret }));
        assert_eq!(bearer(&gate, "/secret/echo", &token).status(), 200, "{algorithm}");
        assert_eq!(refused(&bearer(&gate, "/found/echo", &token)), no(401, "token_invalid"), "{algorithm}");
    }
    assert_eq!(provider.hits(), 1, "the keys were fetched once");
    let answer = get(&gate, "/found/echo", "X-User: root\r\n");
    assert_eq!(refused(&answer), no(401, "credentials_missing"));
    assert_eq!(answer.field("www-authenticate"), Some("Bearer"));
}

/// Every known way to make a verifier take a token that the issuer did not sign for us.
#[test]
fn public_attacks_on_tokens_fail() {
    let provider = Provider::start();
    let issuer = provider.issuer();
    let gate = Gate::with(|config| {
        config.route(&format!(
            "match: {{path: '/*'}}, to: peer, policies: {{jwt: {{issuer: '{issuer}', audiences: [api], leeway: 1s, scopes: [read], \
             jwks: {{uri: '{issuer}/keys'}}}}}}"
        ))
    });
    let good = r#"{"iss":"$ISSUER","aud":"api","sub":"ann","scope":"read","exp":"$EXP"}"#;
    let craft = |header: &str, claims: &str, sign: &str| {
        provider.ask("/craft", &value!({ "header": header, "claims": claims, "sign": sign }))
    };
    let header = r#"{"alg":"RS256","kid":"$KID"}"#;
    let honest = craft(header, good, "RS256");
    assert_eq!(bearer(&gate, "/echo", &honest).status(), 200);
    let attacks = [
        ("none", r#"{"alg":"none"}"#, good, "none"),
        ("None in capitals", r#"{"alg":"NONE","kid":"$KID"}"#, good, "none"),
        ("no algorithm", r#"{"kid":"$KID"}"#, good, "RS256"),
        ("the public key as a secret", r#"{"alg":"HS256","kid":"$KID"}"#, good, "public"),
        ("an empty secret", r#"{"alg":"HS256","kid":"$KID"}"#, good, "empty"),
        ("RS256 that is HMAC", header, good, "public"),
        ("no signature", header, good, "none"),
        ("a key id that is a path", r#"{"alg":"HS256","kid":"../../../../dev/null"}"#, good, "empty"),
        ("a key id that is SQL", r#"{"alg":"HS256","kid":"x' UNION SELECT ''--"}"#, good, "empty"),
        ("a key id that is no text", r#"{"alg":"RS256","kid":{"$ne":null}}"#, good, "RS256"),
        ("an unknown key", r#"{"alg":"RS256","kid":"mine"}"#, good, "RS256"),
        ("an embedded key", r#"{"alg":"HS256","jwk":{"kty":"oct","k":""}}"#, good, "empty"),
        ("a URL of keys", r#"{"alg":"HS256","jku":"http://evil.test/keys"}"#, good, "empty"),
        ("critical extensions", r#"{"alg":"RS256","kid":"$KID","crit":["b64"],"b64":false}"#, good, "RS256"),
        ("another algorithm of the key", r#"{"alg":"ES256","kid":"$KID"}"#, good, "RS256"),
        ("the algorithm twice", r#"{"alg":"RS256","alg":"none","kid":"$KID"}"#, good, "RS256"),
        (
            "a claim twice",
            header,
            r#"{"iss":"$ISSUER","aud":"api","scope":"read","exp":"$EXP","sub":"ann","sub":"root"}"#,
            "RS256",
        ),
        (
            "the wrong audience",
            header,
            r#"{"iss":"$ISSUER","aud":"other","scope":"read","exp":"$EXP"}"#,
            "RS256",
        ),
        ("no audience", header, r#"{"iss":"$ISSUER","scope":"read","exp":"$EXP"}"#, "RS256"),
        (
            "the wrong issuer",
            header,
            r#"{"iss":"https://evil.test","aud":"api","scope":"read","exp":"$EXP"}"#,
            "RS256",
        ),
        ("no issuer", header, r#"{"aud":"api","scope":"read","exp":"$EXP"}"#, "RS256"),
        (
            "from the future",
            header,
            r#"{"iss":"$ISSUER","aud":"api","scope":"read","nbf":9999999998,"exp":9999999999}"#,
            "RS256",
        ),
        ("without end", header, r#"{"iss":"$ISSUER","aud":"api","scope":"read"}"#, "RS256"),
        (
            "an end that is text",
            header,
            r#"{"iss":"$ISSUER","aud":"api","scope":"read","exp":"9999999999"}"#,
            "RS256",
        ),
        ("claims that are a list", header, "[]", "RS256"),
        ("data behind the claims", header, &format!("{good}{{}}"), "RS256"),
    ];
    for (name, header, claims, sign) in attacks {
        let answer = bearer(&gate, "/echo", &craft(header, claims, sign));
        assert_eq!(refused(&answer), no(401, "token_invalid"), "{name}");
        let challenge = answer.field("www-authenticate").unwrap_or_default();
        assert!(
            challenge.starts_with("Bearer error=\"invalid_token\", error_description=\""),
            "{name}: {challenge}"
        );
    }
    let expired = craft(header, r#"{"iss":"$ISSUER","aud":"api","scope":"read","exp":1000000000}"#, "RS256");
    assert_eq!(refused(&bearer(&gate, "/echo", &expired)), no(401, "token_expired"));
    let narrow = craft(header, r#"{"iss":"$ISSUER","aud":"api","scope":"write","exp":"$EXP"}"#, "RS256");
    let answer = bearer(&gate, "/echo", &narrow);
    assert_eq!(refused(&answer), no(403, "scope_insufficient"));
    assert!(answer.field("www-authenticate").unwrap_or_default().ends_with("scope=\"read\""));
    for changed in [
        honest.replace('.', ".."),
        format!("{honest}."),
        format!("{honest}A"),
        format!("{honest}="),
        honest.rsplit_once('.').expect("parts").0.to_owned(),
        "x".repeat(17 << 10),
    ] {
        assert_eq!(refused(&bearer(&gate, "/echo", &changed)), no(401, "token_invalid"), "{changed}");
    }
    let twice =
        get(&gate, "/echo", &format!("Authorization: Bearer {honest}\r\nAuthorization: Bearer {honest}\r\n"));
    assert_eq!(refused(&twice), no(400, "credentials_ambiguous"));
}

#[test]
fn keys_rotate_and_survive_that_the_provider_is_away() {
    let mut provider = Provider::start();
    let issuer = provider.issuer();
    let jwks = format!("jwks: {{uri: '{issuer}/keys', timeout: 2s}}");
    let gate = Gate::with(|config| {
        config.route(&format!(
            "match: {{path: '/*'}}, to: peer, policies: {{jwt: {{issuer: '{issuer}', {jwks}}}}}"
        ))
    });
    let old = provider.token("ES256", value!({}));
    assert_eq!(bearer(&gate, "/echo", &old).status(), 200);
    // A new key is found by the first token that names it, and the old one is gone with it.
    provider.ask("/rotate", &value!({}));
    let new = provider.token("ES256", value!({}));
    assert_eq!(bearer(&gate, "/echo", &new).status(), 200);
    assert_eq!(provider.hits(), 2);
    assert_eq!(refused(&bearer(&gate, "/echo", &old)), no(401, "token_invalid"));
    // Unknown keys do not make us ask at every request.
    for _ in 0..20 {
        assert_eq!(refused(&bearer(&gate, "/echo", &old)), no(401, "token_invalid"));
    }
    assert_eq!(provider.hits(), 2);
    let another = provider.token("ES384", value!({ "sub": "bob" }));
    provider.program = None;
    assert_eq!(bearer(&gate, "/echo", &another).status(), 200, "keys are known, the provider is not needed");

    // A gateway that starts while the provider is away lets nobody pass, and recovers alone.
    let late = Gate::with(|config| {
        config.route(&format!(
            "match: {{path: '/*'}}, to: peer, policies: {{jwt: {{issuer: '{issuer}', {jwks}}}}}"
        ))
    });
    assert_eq!(refused(&bearer(&late, "/echo", &new)), no(503, "keys_unavailable"));
    assert!(late.rhumb.metric("rhumb_jwks_fetches_total", &["result=\"failed\""]) >= 1.0);
    provider.come_back();
    wait::until("the keys are there", || (bearer(&late, "/echo", &new).status() == 200).then_some(()));
}

#[test]
fn what_is_known_of_who_asks_reaches_conditions_and_backends() {
    let provider = Provider::start();
    let issuer = provider.issuer();
    let gate = Gate::with(|config| {
        config
            .top(&format!(
                "consumers: {{acme: {{groups: [partners], plan: gold, attributes: {{region: eu}}, credentials: {{jwt: [{{issuer: '{issuer}', \
                 claim: /org/id, value: acme}}]}}}}}}"
            ))
            .route(&format!(
                "match: {{path: '/*'}}, to: peer, policies: {{jwt: {{issuer: '{issuer}', forward: false}}, \
                 authorization: {{rules: [{{when: '\"partners\" in consumer.groups && \"admin\" in jwt.roles'}}]}}, \
                 identityFields: {{fields: [{{name: x-consumer, value: consumer.name}}, {{name: x-roles, value: jwt.roles}}, \
                 {{name: x-region, value: consumer.attributes.region}}, {{name: x-none, value: jwt.none}}]}}}}"
            ))
    });
    let token = provider.token("EdDSA", value!({ "org": { "id": "acme" }, "roles": ["admin", "dev"] }));
    let answer = get(
        &gate,
        "/echo",
        &format!("Authorization: Bearer {token}\r\nX-Consumer: root\r\nX-None: forged\r\nX-Region: us\r\n"),
    );
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let fields =
        ["x-consumer", "x-roles", "x-region", "x-none", "authorization"].map(|name| seen(&answer, name));
    assert_eq!(
        fields.each_ref().map(Option::as_deref),
        [Some("acme"), Some("admin,dev"), Some("eu"), None, None]
    );
    let token = provider.token("EdDSA", value!({ "org": { "id": "other" }, "roles": ["admin"] }));
    assert_eq!(refused(&bearer(&gate, "/echo", &token)), no(403, "access_denied"));
}

#[test]
fn keys_and_passwords_are_good_until_they_are_replaced() {
    let provider = Provider::start();
    let (bcrypt, argon2) = (provider.hash("bcrypt", "hunter2"), provider.hash("argon2", "päss:word"));
    let config = |key: &str| {
        let (bcrypt, argon2, key) = (bcrypt.clone(), argon2.clone(), key.to_owned());
        move |config: Config| {
            config
                .top(&format!(
                    "consumers: {{acme: {{plan: gold, credentials: {{apiKeys: [{{key: {key}}}, {{key: second-key-of-acme, expires: 2020-01-01T00:00:00Z}}], \
                     basic: [{{username: bob, passwordHash: '{argon2}'}}]}}}}}}"
                ))
                .route("match: {path: '/key/*'}, to: peer, rewrite: {prefix: /}, policies: {apiKey: {from: [{header: x-api-key}, {query: key}]}, \
                        identityFields: {fields: [{name: x-who, value: principal.subject}, {name: x-plan, value: consumer.plan}]}}")
                .route(&format!(
                    "match: {{path: '/basic/*'}}, to: peer, rewrite: {{prefix: /}}, policies: {{basicAuth: {{realm: shop, htpasswd: \"ann:{bcrypt}\"}}, \
                     identityFields: {{fields: [{{name: x-who, value: principal.subject}}, {{name: x-plan, value: consumer.plan}}]}}}}"
                ))
        }
    };
    let gate = Gate::with(config("first-key-of-acme"));
    let answer = get(&gate, "/key/echo", "X-Api-Key: first-key-of-acme\r\n");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let fields = ["x-who", "x-plan", "x-api-key"].map(|name| seen(&answer, name));
    assert_eq!(fields.each_ref().map(Option::as_deref), [Some("acme"), Some("gold"), None]);
    let answer = get(&gate, "/key/echo?a=1&key=first-key-of-acme", "");
    assert_eq!(json(&answer)["target"], "/echo?a=1");
    for (fields, expected) in [
        ("X-Api-Key: second-key-of-acme\r\n", no(401, "key_invalid")),
        ("X-Api-Key: another-key-of-nobody\r\n", no(401, "key_invalid")),
        (
            "X-Api-Key: first-key-of-acme\r\nX-Api-Key: first-key-of-acme\r\n",
            no(400, "credentials_ambiguous"),
        ),
        ("", no(401, "credentials_missing")),
    ] {
        let answer = get(&gate, "/key/echo", fields);
        assert_eq!(refused(&answer), expected, "{fields}");
        assert_eq!(answer.field("www-authenticate"), Some("ApiKey"));
    }
    let log = gate.rhumb.log();
    assert!(!log.contains("first-key-of-acme") && !log.contains("another-key"), "a key is in the log");

    // ann:hunter2, bob:päss:word, ann:wrong, eve:hunter2
    for (credentials, expected) in [
        ("YW5uOmh1bnRlcjI=", Some(("ann", None))),
        ("YW5uOmh1bnRlcjI=", Some(("ann", None))),
        ("Ym9iOnDDpHNzOndvcmQ=", Some(("bob", Some("gold")))),
        ("YW5uOndyb25n", None),
        ("ZXZlOmh1bnRlcjI=", None),
        ("YW5uOmh1bnRlcjI", None),
        ("YW5u", None),
        ("", None),
    ] {
        let answer = get(&gate, "/basic/echo", &format!("Authorization: Basic {credentials}\r\n"));
        match expected {
            Some((who, plan)) => {
                assert_eq!(answer.status(), 200, "{credentials}: {}", answer.text());
                assert_eq!(seen(&answer, "x-who").as_deref(), Some(who));
                assert_eq!(
                    (seen(&answer, "x-plan").as_deref(), seen(&answer, "authorization")),
                    (plan, None)
                );
            }
            None => assert_eq!(refused(&answer), no(401, "password_invalid"), "{credentials}"),
        }
    }
    let answer = get(&gate, "/basic/echo", "");
    assert_eq!(refused(&answer), no(401, "credentials_missing"));
    assert_eq!(answer.field("www-authenticate"), Some("Basic realm=\"shop\", charset=\"UTF-8\""));
}

#[test]
fn one_of_several_is_enough_and_nobody_is_somebody() {
    let provider = Provider::start();
    let issuer = provider.issuer();
    let policies =
        format!("jwt: {{issuer: '{issuer}'}}, apiKey: {{keys: [{{name: ann, key: 0123456789abcdef}}]}}");
    let who =
        "identityFields: {fields: [{name: x-who, value: principal.method + \":\" + principal.subject}]}";
    let gate = Gate::with(|config| {
        config
            .route(&format!("match: {{path: '/both/*'}}, to: peer, rewrite: {{prefix: /}}, policies: {{{policies}, {who}}}"))
            .route(&format!(
                "match: {{path: '/either/*'}}, to: peer, rewrite: {{prefix: /}}, policies: {{{policies}, authenticated: {{}}, {who}}}"
            ))
            .route(&format!(
                "match: {{path: '/open/*'}}, to: peer, rewrite: {{prefix: /}}, policies: {{{policies}, anonymous: {{subject: guest}}, {who}}}"
            ))
    });
    let token = format!("Authorization: Bearer {}\r\n", provider.token("ES256", value!({})));
    let (key, wrong) = ("X-Api-Key: 0123456789abcdef\r\n", "X-Api-Key: 0123456789abcdeX\r\n");
    let both = format!("{token}{key}");
    for (path, fields, expected) in [
        ("/both", &*both, Ok("jwt:ann")),
        ("/both", &token, Err(no(401, "credentials_missing"))),
        ("/both", key, Err(no(401, "credentials_missing"))),
        ("/either", &token, Ok("jwt:ann")),
        ("/either", key, Ok("apiKey:ann")),
        ("/either", wrong, Err(no(401, "key_invalid"))),
        ("/either", "", Err(no(401, "credentials_missing"))),
        ("/open", "", Ok("anonymous:guest")),
        ("/open", key, Ok("apiKey:ann")),
        ("/open", wrong, Err(no(401, "key_invalid"))),
    ] {
        let answer = get(&gate, &format!("{path}/echo"), fields);
        match expected {
            Ok(who) => assert_eq!(seen(&answer, "x-who").as_deref(), Some(who), "{path} {fields}"),
            Err(expected) => assert_eq!(refused(&answer), expected, "{path} {fields}"),
        }
    }
    let answer = get(&gate, "/either/echo", "");
    assert_eq!(answer.values("www-authenticate").collect::<Vec<_>>(), ["Bearer", "ApiKey"]);
}

/// A CA `clients` and a certificate `client` of it, made by openssl.
fn client_certificate(dir: &Path) {
    let openssl = |args: &str| {
        let mut command = Command::new("openssl");
        command.args(args.split(' ')).current_dir(dir);
        let done = finish(command);
        assert_eq!(done.code, Some(0), "{args}: {}", done.output);
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN=clients -keyout clients.key -out clients.crt"));
    openssl(&format!("req -new {key} -subj /O=Acme/CN=api -keyout client.key -out client.csr"));
    let extensions =
        "subjectAltName=DNS:api.acme.test\nextendedKeyUsage=clientAuth\nbasicConstraints=CA:FALSE\n";
    std::fs::write(dir.join("client.ext"), extensions).expect("a file");
    openssl(
        "x509 -req -in client.csr -CA clients.crt -CAkey clients.key -CAcreateserial -days 2 -extfile client.ext -out client.crt",
    );
}

#[test]
fn a_client_certificate_is_who_asks() {
    let (ca, port, backend) = (Authority::new("servers"), port::free(), Backend::start());
    let config = Config::new()
        .top("consumers: {acme: {plan: gold, credentials: {certificates: [{san: api.acme.test}]}}}")
        .listener("web", port, "tls: {certificates: [{cert: web.crt, key: web.key}], clientAuth: {ca: clients.crt, mode: optional}}")
        .backend("peer", &format!("endpoints: ['{}']", backend.address()))
        .route(
            "match: {path: '/*'}, to: peer, policies: {clientCertificate: {}, identityFields: {fields: [\
             {name: x-who, value: principal.subject}, {name: x-plan, value: consumer.plan}, {name: x-serial, value: source.certificate.serial}]}}",
        )
        .route("match: {path: '/one/*'}, to: peer, policies: {clientCertificate: {allow: [{san: api.other.test}]}}");
    let rhumb = Rhumb::start_with(&config, |dir| {
        std::fs::write(dir.join("ca.crt"), ca.pem()).expect("a file");
        ca.server(&["a.test"]).write(dir, "web");
        client_certificate(dir);
    });
    let dir = rhumb.dir();
    let curl = |path: &str, with_certificate: bool| {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "--max-time",
            "20",
            "--noproxy",
            "*",
            "--resolve",
            &format!("a.test:{port}:127.0.0.1"),
        ]);
        command.arg("--cacert").arg(dir.join("ca.crt")).args(["-H", "X-Who: root"]);
        if with_certificate {
            command.arg("--cert").arg(dir.join("client.crt")).arg("--key").arg(dir.join("client.key"));
        }
        let output = finish({
            command.arg(format!("https://a.test:{port}{path}"));
            command
        });
        serde_json::from_str::<Value>(&output.output)
            .unwrap_or_else(|error| panic!("{error}: {}", output.output))
    };
    let echo = curl("/echo", true);
    let field = |name: &str| {
        let fields = echo["fields"].as_array().expect("an echo");
        let found =
            fields.iter().find(|field| field[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)));
        found.map(|field| field[1].clone())
    };
    assert_eq!((field("x-who"), field("x-plan")), (Some("api.acme.test".into()), Some("gold".into())));
    assert!(field("x-serial").is_some());
    assert_eq!(curl("/echo", false)["code"], "certificate_missing");
    assert_eq!(curl("/one/echo", true)["code"], "certificate_denied");
}

#[test]
fn requests_that_a_secret_signs_are_good() {
    let provider = Provider::start();
    let gate = Gate::with(|config| {
        config
            .top("consumers: {acme: {plan: gold, credentials: {hmac: [{keyId: acme-1, secret: hush}]}}}")
            .route("match: {path: '/*'}, to: peer, policies: {hmac: {requiredFields: [host]}, \
                    identityFields: {fields: [{name: x-who, value: principal.subject + \":\" + consumer.plan}]}}")
    });
    let date = {
        let answer = gate.get("/echo");
        assert_eq!(refused(&answer), no(401, "credentials_missing"));
        answer.field("date").expect("a date").to_owned()
    };
    let sign = |text: &str, hash: &str| {
        provider.ask("/hmac", &value!({ "secret": "hush", "text": text, "hash": hash }))
    };
    let text = format!("date: {date}\nGET /echo?a=1 HTTP/1.1\nhost: a.test");
    for (algorithm, hash) in [("hmac-sha256", "sha256"), ("hmac-sha384", "sha384"), ("hmac-sha512", "sha512")]
    {
        let signature = sign(&text, hash);
        let fields = |key: &str, signature: &str| {
            format!(
                "Date: {date}\r\nAuthorization: hmac username=\"{key}\", algorithm=\"{algorithm}\", \
                 headers=\"date request-line host\", signature=\"{signature}\"\r\n"
            )
        };
        let answer = get(&gate, "/echo?a=1", &fields("acme-1", &signature));
        assert_eq!(seen(&answer, "x-who").as_deref(), Some("acme-1:gold"), "{algorithm}");
        assert_eq!(seen(&answer, "authorization"), None);
        for (target, fields) in [
            ("/echo?a=2", fields("acme-1", &signature)),
            ("/echo?a=1", fields("acme-2", &signature)),
            ("/echo?a=1", fields("acme-1", &sign("", hash))),
        ] {
            assert_eq!(
                refused(&get(&gate, target, &fields)),
                no(401, "signature_invalid"),
                "{target} {fields}"
            );
        }
    }
}

#[test]
fn message_signatures_of_another_implementation_are_good() {
    let provider = Provider::start();
    let pem = |key: &str| provider.ask("/public", &value!({ "key": key })).replace('\n', "\\n");
    let algorithms = [
        ("ED25519", "ed25519", "Ed25519"),
        ("ECDSA_P256_SHA256", "ecdsa-p256-sha256", "P-256"),
        ("ECDSA_P384_SHA384", "ecdsa-p384-sha384", "P-384"),
        ("RSA_PSS_SHA512", "rsa-pss-sha512", "RSA"),
        ("RSA_V1_5_SHA256", "rsa-v1_5-sha256", "RSA"),
    ];
    let gate = Gate::with(|config| {
        let with = |config: Config, (_, name, key): &(&str, &str, &str)| {
            config.route(&format!(
                "match: {{path: '/{name}/*'}}, to: peer, rewrite: {{prefix: /}}, policies: {{messageSignatures: {{keys: [{{keyId: caller, algorithm: {name}, \
                 publicKey: \"{}\"}}]}}}}",
                pem(key)
            ))
        };
        algorithms.iter().fold(config, with).route(
            "match: {path: '/hmac-sha256/*'}, to: peer, rewrite: {prefix: /}, policies: {messageSignatures: {keys: [\
             {keyId: caller, algorithm: hmac-sha256, secret: hush}]}}",
        )
    });
    for (theirs, ours, _) in algorithms.into_iter().chain([("HMAC_SHA256", "hmac-sha256", "")]) {
        let target = format!("/{ours}/echo?a=1&b=%20");
        let fields = provider.ask(
            "/sign",
            &value!({
                "algorithm": theirs, "secret": "hush", "method": "GET", "url": format!("http://a.test{target}"),
                "headers": { "X-Order": "7" }, "components": ["@method", "@authority", "@path", "@query", "x-order"],
            }),
        );
        let answer = get(&gate, &target, &format!("X-Order: 7\r\n{fields}"));
        assert_eq!(answer.status(), 200, "{ours}: {}\n{fields}", answer.text());
        for (target, order) in [(target.as_str(), "8"), (&*format!("{target}1"), "7")] {
            let answer = get(&gate, target, &format!("X-Order: {order}\r\n{fields}"));
            assert_eq!(refused(&answer), no(401, "signature_invalid"), "{ours}");
        }
    }
}

#[test]
fn policies_of_a_consumer_hold_for_its_requests_and_no_others() {
    let (ours, theirs) = ("a-key-of-acme-0123", "a-key-of-guests-01");
    let gate = Gate::with(|config| {
        config
            .top(&format!(
                "consumers: {{acme: {{credentials: {{apiKeys: [{{key: {ours}}}]}}}}, guests: {{credentials: {{apiKeys: [{{key: {theirs}}}]}}}}}}"
            ))
            .route("match: {path: '/*'}, to: peer, policies: {apiKey: {}}")
    });
    let path = gate.rhumb.dir().join("rhumb.yaml");
    let text = std::fs::read_to_string(&path).expect("a file");
    gate.rhumb.write_text(&format!(
        "{text}\n---\napiVersion: rhumb.dev/v1alpha1\nkind: Policy\nmetadata: {{name: guests}}\nspec:\n  \
         targetRefs: [{{kind: Consumer, name: guests}}]\n  policies:\n    \
         rateLimit: {{limits: [{{limit: 2/h, per: consumer.name}}]}}\n    \
         headerModifier: {{request: {{set: [{{name: x-tier, value: low}}]}}, response: {{set: [{{name: x-seen, value: yes}}]}}}}\n"
    ));
    gate.rhumb.reload();
    wait::until("the policies", || {
        gate.rhumb.admin("/config").text().contains("\"consumers\"").then_some(())
    });
    let ask = |key: &str| {
        gate.connect().exchange(format!("GET /echo HTTP/1.1\r\nHost: a.test\r\nX-Api-Key: {key}\r\n\r\n"))
    };
    for _ in 0..2 {
        let guest = ask(theirs);
        assert_eq!((guest.status(), seen(&guest, "x-tier").as_deref()), (200, Some("low")));
        assert_eq!(guest.field("x-seen"), Some("yes"));
    }
    let refused = ask(theirs);
    assert_eq!((refused.status(), problem(&refused).as_str()), (429, "rate_limited"));
    for _ in 0..4 {
        let acme = ask(ours);
        assert_eq!((acme.status(), seen(&acme, "x-tier"), acme.field("x-seen")), (200, None, None));
    }
}
