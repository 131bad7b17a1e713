//! The short form to documents, as value trees whose spans point into the short form.

use super::items::{Frame, Names};
use super::{
    ClientAuthMode, PROCESS_KEYS, RESPOND_POLICY, ShortCertificate, ShortForm, ShortHeaders, ShortListener,
    ShortMatch, ShortPath, ShortRedirect, ShortRewrite, ShortRoute, ShortTarget, ShortTls, looks_short,
    neither,
};
use crate::decode::{Decode, Decoder, Table};
use crate::diag::{Diag, Rule};
use crate::expand::{self, Lookup, escape};
use crate::kind::gateway::{OPTION_MIN_TLS_VERSION, Protocol};
use crate::kind::refs::{GATEWAY_GROUP, RHUMB_GROUP};
use crate::span::{Source, Span, Spanned};
use crate::value::{Entry, Node, Raw, Value};
use std::sync::Arc;

/// The name of the GatewayClass that is built in.
pub const CLASS: &str = "rhumb";

/// The name of the listener that there is when none is written.
const DEFAULT_LISTENER: &str = "http";

/// The port of that listener.
const DEFAULT_PORT: i64 = 8080;

/// The names of the listeners of a short form that see requests: a route that names none is not meant for others.
pub(crate) fn listeners(node: &Node) -> Vec<Box<str>> {
    let entries = node.get("listeners").and_then(Node::as_map).unwrap_or(&[]);
    let has_requests = |listener: &Node| {
        let protocol = listener.get("protocol").and_then(Node::as_str);
        protocol.is_none_or(|word| {
            ![Protocol::Tcp, Protocol::Tls, Protocol::Udp].map(Protocol::word).contains(&word)
        })
    };
    entries.iter().filter(|entry| has_requests(&entry.value)).map(|entry| entry.key.clone()).collect()
}

/// The documents that a short form stands for. One without listeners uses `others`, those of other short forms of the
/// same configuration; when there are none either, there is one on port 8080.
pub fn adapt(
    node: &Node,
    source: &Arc<Source>,
    lookup: Option<&mut dyn Lookup>,
    others: &[Box<str>],
    diags: &mut Vec<Diag>,
) -> Vec<Node> {
    let mut cx = Decoder::new(source, None, diags);
    if !looks_short(node) && node.as_map().is_some_and(|entries| !entries.is_empty()) {
        let diag = neither(node, &cx);
        cx.push(diag);
        return Vec::new();
    }
    let Some(form) = ShortForm::decode(node, &mut cx) else { return Vec::new() };
    let mut names = Names::default();
    let mut adapter = Adapter { cx, lookup, docs: Vec::new(), names: &mut names };
    adapter.form(node, &form, others);
    adapter.docs
}

pub(super) struct Adapter<'a, 'l, 'n> {
    cx: Decoder<'a>,
    lookup: Option<&'l mut dyn Lookup>,
    docs: Vec<Node>,
    names: &'n mut Names,
}

impl<'a, 'l, 'n> Adapter<'a, 'l, 'n> {
    pub(super) fn new(
        source: &'a Arc<Source>,
        lookup: Option<&'l mut dyn Lookup>,
        names: &'n mut Names,
        diags: &'a mut Vec<Diag>,
    ) -> Self {
        Self { cx: Decoder::new(source, None, diags), lookup, docs: Vec::new(), names }
    }

    /// The documents of one route.
    pub(super) fn one_route(mut self, route: &ShortRoute, frame: &Frame) -> Vec<Node> {
        self.any_route(route, &frame.http, &frame.carries);
        self.docs
    }

    fn form(&mut self, node: &Node, form: &ShortForm, others: &[Box<str>]) {
        self.process(node);
        for (name, listener) in &form.listeners.entries {
            self.listener(name, listener);
        }
        let listens_by_default =
            form.listeners.entries.is_empty() && form.routes.iter().any(|route| route.on.items.is_empty());
        let others = if node.get("listeners").is_none() { others } else { &[] };
        if listens_by_default && others.is_empty() && node.get("listeners").is_none() {
            let span = node.entry("routes").map_or(node.span, |entry| entry.key_span);
            let listener = Node::map(
                [
                    ("name", Node::text("http", span)),
                    ("port", Node::int(DEFAULT_PORT, span)),
                    ("protocol", Node::text("HTTP", span)),
                ],
                span,
            );
            self.gateway(&Spanned::new(DEFAULT_LISTENER.into(), span), span, listener, Vec::new());
        }
        for (name, backend) in &form.backends.entries {
            self.backend(name, &backend.0);
        }
        for (name, consumer) in &form.consumers.entries {
            let name_node = Node::text(name.value.clone(), name.span);
            let extent = name.span.to(consumer.node.span);
            self.push(RHUMB_GROUP, "Consumer", &name_node, extent, vec![("spec", consumer.node.clone())]);
        }
        let gateways: Vec<Node> = if !others.is_empty() {
            others.iter().map(|name| Node::text(name.clone(), node.span)).collect()
        } else if form.listeners.entries.is_empty() {
            vec![Node::text(DEFAULT_LISTENER, node.span)]
        } else {
            form.listeners.entries.iter().map(|(name, _)| Node::text(name.value.clone(), name.span)).collect()
        };
        for name in form.routes.iter().filter_map(|route| route.name.as_ref()?.node.as_str()) {
            self.names.take(name);
        }
        let carries: Vec<(Box<str>, Protocol)> = form
            .listeners
            .entries
            .iter()
            .map(|(name, listener)| (name.value.clone(), listener.carries()))
            .collect();
        let http: Vec<Box<str>> = gateways
            .iter()
            .filter_map(Node::as_str)
            .filter(|name| carried(&carries, name).is_none_or(Protocol::has_requests))
            .map(Into::into)
            .collect();
        for route in &form.routes {
            self.any_route(route, &http, &carries);
        }
        if let Some(policies) = &form.policies {
            let targets = gateways.iter().map(|name| target("Gateway", name)).collect();
            self.policy("global", policies.node.span, targets, policies.node.clone());
        }
    }

    fn any_route(&mut self, route: &ShortRoute, http: &[Box<str>], carries: &[(Box<str>, Protocol)]) {
        let mut on = route.on.items.iter().filter_map(|name| carried(carries, name.node.as_str()?));
        match on.find(|carries| !carries.has_requests()) {
            Some(carries) => self.l4_route(route, carries),
            None => self.route(route, http),
        }
    }

    /// Everything that is about the process or all of its clients.
    fn process(&mut self, node: &Node) {
        let spec: Vec<Entry> = node
            .as_map()
            .unwrap_or(&[])
            .iter()
            .filter(|entry| PROCESS_KEYS.contains(&&*entry.key))
            .cloned()
            .collect();
        if let Some(first) = spec.first() {
            let span = first.key_span;
            let extent = spec.iter().fold(span, |all, entry| all.to(entry.value.span));
            let spec = Node::new(Value::Map(spec), span);
            self.push(RHUMB_GROUP, "ProxyConfig", &Node::text("rhumb", span), extent, vec![("spec", spec)]);
        }
    }

    fn listener(&mut self, name: &Spanned<Box<str>>, listener: &ShortListener) {
        let span = listener.span;
        let extent = name.span.to(span);
        let mut secrets = Vec::new();
        let has_tls = listener.tls.is_some();
        let protocol = listener.carries();
        let section = protocol.word().to_ascii_lowercase();
        let span_of_protocol = listener.protocol.as_ref().map_or(name.span, |protocol| protocol.span);
        let mut fields = vec![
            ("name", Node::text(section, name.span)),
            ("port", listener.port.node.clone()),
            ("protocol", Node::text(protocol.word(), span_of_protocol)),
        ];
        if protocol == Protocol::Tls && !has_tls {
            let mode = Node::map([("mode", Node::text("Passthrough", span_of_protocol))], span_of_protocol);
            fields.push(("tls", mode));
        }
        if let Some(host) = &listener.host {
            fields.push(("hostname", host.node.clone()));
        }
        let mut spec = Vec::new();
        if let Some(address) = &listener.address {
            let item = Node::map(
                [("type", Node::text("IPAddress", address.node.span)), ("value", address.node.clone())],
                address.node.span,
            );
            spec.push(("addresses", Node::seq(vec![item], address.node.span)));
        }
        if let Some(tls) = &listener.tls {
            fields.push(("tls", self.listener_tls(name, tls, &mut secrets)));
            if let Some(auth) = &tls.client_auth {
                let span = auth.span;
                let ca_name = format!("{}-client-ca", name.value);
                let reference = Node::map(
                    [
                        ("group", Node::text("", span)),
                        ("kind", Node::text("ConfigMap", span)),
                        ("name", Node::text(&*ca_name, span)),
                    ],
                    span,
                );
                let mode = match *auth.mode {
                    ClientAuthMode::Required => "AllowValidOnly",
                    ClientAuthMode::Optional => "AllowInsecureFallback",
                };
                let validation = Node::map(
                    [
                        ("caCertificateRefs", Node::seq(vec![reference], span)),
                        ("mode", Node::text(mode, auth.mode.span)),
                    ],
                    span,
                );
                let default = Node::map([("validation", validation)], span);
                let frontend = Node::map([("default", default)], span);
                spec.push(("tls", Node::map([("frontend", frontend)], span)));
                let pem = self.pem(&auth.ca.node);
                let data = Node::map([("ca.crt", pem)], span);
                secrets.push(("ConfigMap", ca_name, vec![("data", data)], span));
            }
        }
        self.gateway(name, extent, Node::map(fields, span), spec);
        for (kind, name, body, span) in secrets {
            self.push("", kind, &Node::text(name, span), span, body);
        }
        if let Some(policies) = &listener.policies {
            let targets = vec![target("Gateway", &Node::text(name.value.clone(), name.span))];
            self.policy(&format!("listener-{}", name.value), extent, targets, policies.node.clone());
        }
    }

    fn listener_tls(&mut self, name: &str, tls: &ShortTls, secrets: &mut Vec<Extra>) -> Node {
        let mut refs = Vec::new();
        for (index, certificate) in tls.certificates.iter().enumerate() {
            let span = certificate.span;
            if let Some(secret) = &certificate.secret {
                refs.push(Node::map([("name", secret.node.clone())], span));
            }
            let ShortCertificate { cert: Some(cert), key: Some(key), .. } = certificate else { continue };
            let secret_name = format!("{name}-tls-{}", index + 1);
            refs.push(Node::map([("name", Node::text(&*secret_name, span))], span));
            let data = Node::map([("tls.crt", self.pem(&cert.node)), ("tls.key", self.pem(&key.node))], span);
            let body = vec![("type", Node::text("kubernetes.io/tls", span)), ("stringData", data)];
            secrets.push(("Secret", secret_name, body, span));
        }
        let refs = match &*refs {
            // Why there are none was said.
            [] => Node::new(Value::Mistake, tls.certificates.span),
            _ => Node::seq(refs, tls.certificates.span),
        };
        let mut fields = vec![("certificateRefs", refs)];
        if let Some(version) = &tls.min_version {
            let option = Node::text(version.value.word(), version.span);
            fields.push(("options", Node::map([(OPTION_MIN_TLS_VERSION, option)], version.span)));
        }
        Node::map(fields, tls.span)
    }

    fn gateway(
        &mut self,
        name: &Spanned<Box<str>>,
        extent: Span,
        listener: Node,
        more: Vec<(&'static str, Node)>,
    ) {
        let span = name.span;
        let listeners = Node::seq(vec![listener], extent);
        let mut spec = vec![("gatewayClassName", Node::text(CLASS, span)), ("listeners", listeners)];
        spec.extend(more);
        let spec = Node::map(spec, extent);
        self.push(
            GATEWAY_GROUP,
            "Gateway",
            &Node::text(name.value.clone(), span),
            extent,
            vec![("spec", spec)],
        );
    }

    fn backend(&mut self, name: &Spanned<Box<str>>, node: &Node) {
        let extent = name.span.to(node.span);
        let name_node = Node::text(name.value.clone(), name.span);
        let mut policies = None;
        let spec = match &node.value {
            Value::String(_) => {
                Node::map([("endpoints", Node::seq(vec![node.clone()], node.span))], node.span)
            }
            Value::Seq(_) => Node::map([("endpoints", node.clone())], node.span),
            _ => {
                let mut entries = Vec::new();
                for entry in node.as_map().unwrap_or(&[]) {
                    match &*entry.key {
                        "policies" => policies = Some(entry.value.clone()),
                        "tls" => {
                            entries.push(Entry { value: self.backend_tls(&entry.value), ..entry.clone() })
                        }
                        _ => entries.push(entry.clone()),
                    }
                }
                Node::new(Value::Map(entries), node.span)
            }
        };
        self.push(RHUMB_GROUP, "Backend", &name_node, extent, vec![("spec", spec)]);
        if let Some(policies) = policies {
            let targets = vec![target("Backend", &name_node)];
            self.policy(&format!("backend-{}", name.value), extent, targets, policies);
        }
    }

    /// Files of certificates by their path alone, as everywhere in the short form.
    fn backend_tls(&mut self, node: &Node) -> Node {
        let mut tls = node.clone();
        let Value::Map(entries) = &mut tls.value else { return tls };
        for entry in entries {
            match (&*entry.key, &mut entry.value.value) {
                ("ca", Value::String(_)) => entry.value = self.pem(&entry.value),
                ("clientCertificate", Value::Map(parts)) => {
                    for part in parts.iter_mut().filter(|part| matches!(&*part.key, "cert" | "key")) {
                        if part.value.as_str().is_some() {
                            part.value = self.pem(&part.value);
                        }
                    }
                }
                _ => {}
            }
        }
        tls
    }

    /// The PEM text of a value that is one, or the path of a file that has it.
    fn pem(&mut self, node: &Node) -> Node {
        let Some(text) = node.as_str() else { return node.clone() };
        if text.contains("-----BEGIN ") || text.is_empty() {
            return node.clone();
        }
        let written = node.raw.as_ref().map_or_else(|| escape(text), |raw| raw.text.to_string());
        if written.starts_with("file:") {
            return node.clone();
        }
        let reference = format!("file:{written}");
        let raw = Some(Box::new(Raw { text: reference.as_str().into(), plain: false }));
        let Some(lookup) = self.lookup.as_deref_mut() else {
            return Node::text(reference, node.span);
        };
        match expand::expand(&reference, lookup) {
            Ok(content) => Node { value: Value::String(content.into()), span: node.span, raw },
            Err(mistake) => {
                let mut diag = mistake.into_diag(self.cx.origin(node.span));
                diag.why =
                    Some("certificates and keys are named by their files (relative to this one)".into());
                diag.fix = Some("correct the path".into());
                self.cx.push(diag);
                Node { value: Value::Mistake, span: node.span, raw }
            }
        }
    }

    fn route(&mut self, route: &ShortRoute, gateways: &[Box<str>]) {
        let base = match route.name.as_ref() {
            Some(name) => name.node.clone(),
            None => Node::text(self.names.free_name(&slug(route)), route.span),
        };
        let parents: Vec<Node> = if route.on.items.is_empty() {
            gateways.iter().map(|name| Node::text(name.clone(), route.on.span)).collect()
        } else {
            route.on.items.iter().map(|name| name.node.clone()).collect()
        };
        let parent_refs = parents.iter().map(|name| Node::map([("name", name.clone())], name.span)).collect();
        let parent_refs = Node::seq(parent_refs, route.on.span);

        // Hostnames belong to the whole HTTPRoute: matches with others make another one.
        let mut groups: Vec<(Vec<&Node>, Vec<&ShortMatch>)> = Vec::new();
        for item in &route.matches.items {
            let hosts: Vec<&Node> = item.host.items.iter().map(|host| &host.node).collect();
            let texts = |hosts: &[&Node]| hosts.iter().map(|host| host.shown()).collect::<Vec<_>>();
            match groups.iter_mut().find(|(other, _)| texts(other) == texts(&hosts)) {
                Some((_, matches)) => matches.push(item),
                None => groups.push((hosts, vec![item])),
            }
        }
        if groups.is_empty() {
            groups.push((Vec::new(), Vec::new()));
        }
        let mut targets = Vec::new();
        for (index, (hosts, matches)) in groups.iter().enumerate() {
            let name = match (index, base.as_str()) {
                (1.., Some(text)) => Node::text(self.names.free_name(text), base.span),
                _ => base.clone(),
            };
            let mut spec = vec![("parentRefs", parent_refs.clone())];
            if !hosts.is_empty() {
                spec.push((
                    "hostnames",
                    Node::seq(hosts.iter().map(|host| (*host).clone()).collect(), route.span),
                ));
            }
            let rules = self.rules(route, matches);
            spec.push(("rules", Node::seq(rules, route.span)));
            let spec = Node::map(spec, route.span);
            self.push(GATEWAY_GROUP, "HTTPRoute", &name, route.span, vec![("spec", spec)]);
            targets.push(target("HTTPRoute", &name));
        }
        let mut policies =
            route.policies.as_ref().map_or_else(Vec::new, |policies| match &policies.node.value {
                Value::Map(entries) => entries.clone(),
                _ => Vec::new(),
            });
        if let Some(respond) = &route.respond {
            policies.push(Entry {
                key: RESPOND_POLICY.into(),
                key_span: respond.span,
                value: respond.clone(),
            });
        }
        let wrong_type =
            route.policies.as_ref().map(|policies| &policies.node).filter(|node| node.as_map().is_none());
        let name = base.as_str().unwrap_or("").to_owned();
        if let Some(node) = wrong_type {
            self.policy(&format!("route-{name}"), route.span, targets, node.clone());
        } else if !policies.is_empty() {
            let span = policies.iter().fold(policies[0].key_span, |all, entry| all.to(entry.value.span));
            let body = Node::new(Value::Map(policies), span);
            self.policy(&format!("route-{name}"), route.span, targets, body);
        }
    }

    /// A route of listeners that see no requests.
    fn l4_route(&mut self, route: &ShortRoute, carries: Protocol) {
        let meaningless = [
            ("respond", route.respond.as_ref().map(|respond| respond.span)),
            ("redirect", route.redirect.as_ref().map(|redirect| redirect.span)),
            ("rewrite", route.rewrite.as_ref().map(|rewrite| rewrite.span)),
            ("requestHeaders", route.request_headers.as_ref().map(|headers| headers.span)),
            ("responseHeaders", route.response_headers.as_ref().map(|headers| headers.span)),
            ("timeout", route.timeout.as_ref().map(|timeout| timeout.node.span)),
            ("timeouts", route.timeouts.as_ref().map(|timeouts| timeouts.node.span)),
            ("retry", route.retry.as_ref().map(|retry| retry.node.span)),
        ];
        let mut mistakes: Vec<(&str, Span)> =
            meaningless.into_iter().filter_map(|(name, span)| Some((name, span?))).collect();
        let mut hostnames = Vec::new();
        for item in &route.matches.items {
            let is_only_host = item.path.items.is_empty()
                && item.method.items.is_empty()
                && item.headers.entries.is_empty()
                && item.query.entries.is_empty();
            if carries == Protocol::Tls && is_only_host {
                hostnames.extend(item.host.items.iter().map(|host| host.node.clone()));
            } else {
                mistakes.push(("match", item.span));
            }
        }
        for (name, span) in mistakes {
            let mut diag = self
                .cx
                .error(
                    Rule::Conflict,
                    span,
                    format!("`{name}` in a route on a listener of protocol {}", carries.word()),
                )
                .why("there are no requests to look at");
            if name == "match" && carries == Protocol::Tls {
                diag = diag.why("only the server name is seen: `match: {host: NAME}`");
            }
            self.cx.push(diag.fix("remove it"));
        }
        let kind = match carries {
            Protocol::Tls => "TLSRoute",
            Protocol::Udp => "UDPRoute",
            _ => "TCPRoute",
        };
        let on = route.on.items.first().and_then(|name| name.node.as_str()).unwrap_or("");
        let name = match route.name.as_ref() {
            Some(name) => name.node.clone(),
            None => Node::text(
                self.names.free_name(
                    hostnames.first().and_then(Node::as_str).map_or_else(|| on.to_owned(), tidy).as_str(),
                ),
                route.span,
            ),
        };
        let parents = route.on.items.iter();
        let parents = parents.map(|name| Node::map([("name", name.node.clone())], name.node.span)).collect();
        let refs = route.to.items.iter().map(|target| self.backend_ref(target)).collect();
        let rule = Node::map([("backendRefs", Node::seq(refs, route.to.span))], route.span);
        let mut spec = vec![("parentRefs", Node::seq(parents, route.on.span))];
        if !hostnames.is_empty() {
            spec.push(("hostnames", Node::seq(hostnames, route.span)));
        }
        spec.push(("rules", Node::seq(vec![rule], route.span)));
        let spec = Node::map(spec, route.span);
        self.push(GATEWAY_GROUP, kind, &name, route.span, vec![("spec", spec)]);
        if let Some(policies) = &route.policies {
            let label = format!("route-{}", name.as_str().unwrap_or(""));
            self.policy(&label, route.span, vec![target(kind, &name)], policies.node.clone());
        }
    }

    /// One rule with all matches; one for each where a prefix is replaced, because a rule then has one match only.
    fn rules(&mut self, route: &ShortRoute, matches: &[&ShortMatch]) -> Vec<Node> {
        let replaces_prefix = route.rewrite.as_ref().is_some_and(|rewrite| rewrite.prefix.is_some())
            || route.redirect.as_ref().is_some_and(|redirect| redirect.prefix.is_some());
        let matches: Vec<Node> = matches.iter().flat_map(|item| match_nodes(item)).collect();
        let actions = self.actions(route);
        let rule = |matches: Vec<Node>| {
            let matches = (!matches.is_empty()).then(|| ("matches", Node::seq(matches, route.matches.span)));
            Node::map(matches.into_iter().chain(actions.clone()), route.span)
        };
        if replaces_prefix && matches.len() > 1 {
            matches.into_iter().map(|one| rule(vec![one])).collect()
        } else {
            vec![rule(matches)]
        }
    }

    /// What happens to the requests of a route.
    fn actions(&mut self, route: &ShortRoute) -> Vec<(&'static str, Node)> {
        let span = route.span;
        let mut rule = Vec::new();
        let mut filters = Vec::new();
        if let Some(headers) = &route.request_headers {
            filters.push(filter("RequestHeaderModifier", "requestHeaderModifier", header_modifier(headers)));
        }
        if let Some(headers) = &route.response_headers {
            filters.push(filter(
                "ResponseHeaderModifier",
                "responseHeaderModifier",
                header_modifier(headers),
            ));
        }
        if let Some(redirect) = &route.redirect {
            filters.push(filter("RequestRedirect", "requestRedirect", redirect_node(redirect)));
        }
        if let Some(rewrite) = &route.rewrite {
            filters.push(filter("URLRewrite", "urlRewrite", rewrite_node(rewrite)));
        }
        for mirror in &route.mirror.items {
            let mut body = vec![("backendRef", Node::map(self.backend_name(&mirror.backend), mirror.span))];
            body.extend(mirror.percent.clone().map(|percent| ("percent", percent)));
            body.extend(mirror.fraction.clone().map(|fraction| ("fraction", fraction)));
            filters.push(filter("RequestMirror", "requestMirror", Node::map(body, mirror.span)));
        }
        if !filters.is_empty() {
            rule.push(("filters", Node::seq(filters, span)));
        }
        if !route.to.items.is_empty() {
            let refs = route.to.items.iter().map(|target| self.backend_ref(target)).collect();
            rule.push(("backendRefs", Node::seq(refs, route.to.span)));
        }
        if let Some(timeouts) = &route.timeouts {
            rule.push(("timeouts", timeouts.node.clone()));
        } else if let Some(timeout) = &route.timeout {
            let timeouts = Node::map([("request", timeout.node.clone())], timeout.node.span);
            rule.push(("timeouts", timeouts));
        }
        if let Some(retry) = &route.retry {
            rule.push(("retry", retry.node.clone()));
        }
        if let Some(session) = &route.session_persistence {
            rule.push(("sessionPersistence", session.node.clone()));
        }
        rule
    }

    fn backend_ref(&mut self, target: &ShortTarget) -> Node {
        let mut fields = self.backend_name(&target.backend);
        if let Some(weight) = &target.weight {
            fields.push(("weight", weight.clone()));
        }
        Node::map(fields, target.span)
    }

    /// What refers to a backend that is written as its name or address.
    fn backend_name(&mut self, backend: &Node) -> Vec<(&'static str, Node)> {
        let span = backend.span;
        let text = backend.as_str().unwrap_or("");
        // The name of a backend has no colon: this is an address, and the backend is made for it.
        let name = if text.contains(':') {
            let name = tidy(text);
            if self.names.is_new_backend(&name) {
                let endpoints = Node::seq(vec![backend.clone()], span);
                let spec = Node::map([("endpoints", endpoints)], span);
                self.push(RHUMB_GROUP, "Backend", &Node::text(&*name, span), span, vec![("spec", spec)]);
            }
            Node::text(name, span)
        } else {
            backend.clone()
        };
        vec![("group", Node::text(RHUMB_GROUP, span)), ("kind", Node::text("Backend", span)), ("name", name)]
    }

    fn policy(&mut self, name: &str, extent: Span, targets: Vec<Node>, body: Node) {
        let span = body.span;
        let spec = Node::map([("targetRefs", Node::seq(targets, span)), ("policies", body)], span);
        self.push(RHUMB_GROUP, "Policy", &Node::text(name, span), extent, vec![("spec", spec)]);
    }

    /// A document; `extent` is what was written for it.
    fn push(
        &mut self,
        group: &str,
        kind: &'static str,
        name: &Node,
        extent: Span,
        body: Vec<(&'static str, Node)>,
    ) {
        let api_version = match group {
            "" => "v1".to_owned(),
            RHUMB_GROUP => format!("{group}/v1alpha1"),
            _ => format!("{group}/v1"),
        };
        let span = name.span;
        let metadata = Node::map([("name", name.clone())], span);
        let mut fields = vec![
            ("apiVersion", Node::text(api_version, span)),
            ("kind", Node::text(kind, span)),
            ("metadata", metadata),
        ];
        fields.extend(body);
        self.docs.push(Node::map(fields, extent));
    }
}

fn carried(carries: &[(Box<str>, Protocol)], listener: &str) -> Option<Protocol> {
    carries.iter().find(|(name, _)| **name == *listener).map(|(_, carries)| *carries)
}

/// A document beside a Gateway: kind, name, body, and where it comes from.
type Extra = (&'static str, String, Vec<(&'static str, Node)>, Span);

fn target(kind: &str, name: &Node) -> Node {
    Node::map([("kind", Node::text(kind, name.span)), ("name", name.clone())], name.span)
}

fn filter(kind: &str, field: &'static str, body: Node) -> Node {
    let span = body.span;
    Node::map([("type", Node::text(kind, span)), (field, body)], span)
}

/// Every combination of path and method; the other conditions hold for each.
fn match_nodes(item: &ShortMatch) -> Vec<Node> {
    let paths: Vec<Option<Node>> = match &*item.path.items {
        [] => vec![None],
        paths => paths.iter().map(|path| Some(path_node(path))).collect(),
    };
    let methods: Vec<Option<Node>> = match &*item.method.items {
        [] => vec![None],
        methods => methods.iter().map(|method| Some(Node::text(method.word(), method.span))).collect(),
    };
    let mut nodes = Vec::new();
    for path in &paths {
        for method in &methods {
            let mut fields = Vec::new();
            if let Some(path) = path {
                fields.push(("path", path.clone()));
            }
            if !item.headers.entries.is_empty() {
                fields.push(("headers", text_matches(&item.headers, item.span)));
            }
            if !item.cookies.entries.is_empty() {
                fields.push(("cookies", text_matches(&item.cookies, item.span)));
            }
            if !item.query.entries.is_empty() {
                fields.push(("queryParams", text_matches(&item.query, item.span)));
            }
            if let Some(method) = method {
                fields.push(("method", method.clone()));
            }
            if !fields.is_empty() {
                nodes.push(Node::map(fields, item.span));
            }
        }
    }
    nodes
}

fn path_node(path: &Spanned<ShortPath>) -> Node {
    let (kind, value) = match &path.value {
        ShortPath::Exact(text) => ("Exact", text),
        ShortPath::Prefix(text) => ("PathPrefix", text),
        ShortPath::Regex(text) => ("RegularExpression", text),
    };
    let span = path.span;
    Node::map([("type", Node::text(kind, span)), ("value", Node::text(value.clone(), span))], span)
}

fn text_matches(table: &Table<Spanned<Box<str>>, 16>, span: Span) -> Node {
    let items = table
        .entries
        .iter()
        .map(|(name, value)| {
            let (kind, text) = match value.value.strip_prefix('~') {
                Some(regex) => ("RegularExpression", regex),
                None => ("Exact", &*value.value),
            };
            Node::map(
                [
                    ("name", Node::text(name.value.clone(), name.span)),
                    ("type", Node::text(kind, value.span)),
                    ("value", Node::text(text, value.span)),
                ],
                name.span.to(value.span),
            )
        })
        .collect();
    Node::seq(items, span)
}

fn header_modifier(headers: &ShortHeaders) -> Node {
    let mut fields = Vec::new();
    for (key, table) in [("set", &headers.set), ("add", &headers.add)] {
        if table.entries.is_empty() {
            continue;
        }
        let items = table
            .entries
            .iter()
            .map(|(name, value)| {
                let fields = [("name", Node::text(name.value.clone(), name.span)), ("value", value.clone())];
                Node::map(fields, name.span.to(value.span))
            })
            .collect();
        fields.push((key, Node::seq(items, headers.span)));
    }
    if !headers.remove.items.is_empty() {
        let names = headers.remove.items.iter().map(|name| name.node.clone()).collect();
        fields.push(("remove", Node::seq(names, headers.remove.span)));
    }
    Node::map(fields, headers.span)
}

fn path_modifier(path: Option<&Node>, prefix: Option<&Node>) -> Option<Node> {
    let (kind, field, node) = match (path, prefix) {
        (Some(path), _) => ("ReplaceFullPath", "replaceFullPath", path),
        (None, Some(prefix)) => ("ReplacePrefixMatch", "replacePrefixMatch", prefix),
        (None, None) => return None,
    };
    Some(Node::map([("type", Node::text(kind, node.span)), (field, node.clone())], node.span))
}

fn redirect_node(redirect: &ShortRedirect) -> Node {
    let mut fields = Vec::new();
    let parts = [("scheme", &redirect.scheme), ("hostname", &redirect.host), ("port", &redirect.port)];
    for (key, node) in parts {
        if let Some(node) = node {
            fields.push((key, node.clone()));
        }
    }
    if let Some(path) = path_modifier(redirect.path.as_ref(), redirect.prefix.as_ref()) {
        fields.push(("path", path));
    }
    if let Some(status) = &redirect.status {
        fields.push(("statusCode", status.clone()));
    }
    Node::map(fields, redirect.span)
}

fn rewrite_node(rewrite: &ShortRewrite) -> Node {
    let mut fields = Vec::new();
    if let Some(host) = &rewrite.host {
        fields.push(("hostname", host.node.clone()));
    }
    let path = rewrite.path.as_ref().map(|path| &path.node);
    if let Some(path) = path_modifier(path, rewrite.prefix.as_ref().map(|prefix| &prefix.node)) {
        fields.push(("path", path));
    }
    Node::map(fields, rewrite.span)
}

/// A name for a route that has none: host and path of its first match. It stays when other routes come and go.
fn slug(route: &ShortRoute) -> String {
    let Some(first) = route.matches.items.first() else { return "root".to_owned() };
    let host = first.host.items.first().and_then(|host| host.node.as_str()).unwrap_or("");
    let path = first.path.items.first().map_or("", |path| match &path.value {
        ShortPath::Exact(text) | ShortPath::Prefix(text) | ShortPath::Regex(text) => text,
    });
    let method = first.method.items.first().map_or("", |method| method.word());
    let name = tidy(&format!("{host}-{path}-{method}"));
    if name.is_empty() { "root".to_owned() } else { name }
}

/// Text as a name: lower case, other characters as single dashes, at most as long as a name may be with a number.
fn tidy(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut name = String::new();
    for c in text.chars().take(LONGEST) {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => name.push(c),
            '.' if name.ends_with(|last: char| last.is_ascii_alphanumeric()) => name.push('.'),
            _ if name.ends_with(|last: char| last.is_ascii_alphanumeric()) => name.push('-'),
            _ => {}
        }
    }
    name.trim_end_matches(['-', '.']).to_owned()
}
