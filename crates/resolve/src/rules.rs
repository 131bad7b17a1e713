//! Rules of routes: what becomes of the requests that they choose.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::HashMap;
use rhumb_base::name::RouteName;
use rhumb_model::kind::backend_ref::BackendTarget;
use rhumb_model::kind::backend_traffic::SessionPersistence;
use rhumb_model::kind::filter::{FilterAction, GrpcFilter, HttpFilter};
use rhumb_model::kind::grpc_route::GrpcRoute;
use rhumb_model::kind::http_route::{HttpRetry, HttpRoute, HttpTimeouts};
use rhumb_model::kind::refs::{GATEWAY_GROUP, ParentRef, RHUMB_GROUP};
use rhumb_model::scalar::{Group, Hostname, KindName, Name, Namespace, Port};
use rhumb_model::{Diag, Doc, Rule as Broken, Span, Spanned};
use rhumb_plan::{Mirror, Retry, Rule, Session, Timeouts, WeightedBackend};
use rhumb_policy::mesh::decides_who_may_call;
use rhumb_policy::{Attach, BackOff, Chain, Context, Keeper, NoDocuments, Share};
use rhumb_route::path::PathMatch;
use rhumb_route::{Host, RequestMatch};

use crate::attach::{Door, Doors, Route, host_of};
use crate::backends::Backends;
use crate::collect::{Docs, Entry, Key, created, key, namespace_or};
use crate::grant::{self, Grants};
use crate::matches::{self, Filter};
use crate::mesh;
use crate::policies::{self, Attached, Chains, Level, Policies, Settings, at_place, chains};
use crate::report::{Event, Report};
use crate::templates;
use crate::trace::{Changes, Read};

/// What rules are made with.
pub(crate) struct Maker<'a, 'm> {
    pub(crate) docs: &'a Docs<'a>,
    pub(crate) grants: &'m Grants<'a>,
    pub(crate) doors: &'m Doors<'a>,
    pub(crate) policies: &'m mut Policies<'a>,
    pub(crate) backends: &'m mut Backends<'a>,
    pub(crate) report: &'m mut Report,
    /// What routes came to, by document.
    pub(crate) kept: &'m mut HashMap<usize, Kept>,
    pub(crate) changes: &'m Changes,
}

/// A compiled rule and the door that it is for.
pub(crate) type Made = (usize, Arc<rhumb_route::Rule<Rule>>);

/// What a route has come to, kept while it and what it asks for stay the same.
pub(crate) struct Kept {
    made: Box<[Made]>,
    events: Box<[Event]>,
    reads: Box<[Read]>,
}

/// A rule of either kind of route.
struct Written<'a> {
    name: Option<&'a Spanned<Name>>,
    span: Span,
    /// Its matches; those that cannot be given are left out and break the rule.
    matches: Vec<RequestMatch>,
    filters: Filters<'a>,
    backends: Vec<Reference<'a>>,
    /// Time limits that the rule itself has; they overrule Policies.
    timeouts: Timeouts,
    /// Those that hold where neither says anything.
    default_timeouts: Timeouts,
    /// Retries that the rule itself asks for; what it says overrules Policies.
    retry: Option<&'a HttpRetry>,
    /// Sessions that the rule itself asks for.
    session: Option<&'a SessionPersistence>,
    /// A match could not be compiled.
    is_broken: bool,
}

impl Written<'_> {
    fn timeouts_with(&self, settings: &Settings) -> Timeouts {
        let mut timeouts = self.timeouts.or(settings.timeouts).or(self.default_timeouts);
        // One of them may be from the rule and the other from a Policy: the whole request is the limit of both.
        if let (Some(request), Some(attempt)) = (timeouts.request, timeouts.backend_request)
            && !request.is_zero()
        {
            timeouts.backend_request = Some(attempt.min(request));
        }
        timeouts
    }

    fn retry_with(&self, settings: &Settings) -> Arc<Retry> {
        let Some(written) = self.retry else {
            return settings.retry.clone().map(Arc::new).unwrap_or_default();
        };
        let mut retry = settings.retry.clone().unwrap_or_else(Retry::written);
        if let Some(attempts) = &written.attempts {
            retry.attempts = u16::try_from(attempts.get()).unwrap_or(u16::MAX);
        }
        if !written.codes.is_empty() {
            retry.set_statuses(written.codes.iter().filter_map(|code| u16::try_from(code.get()).ok()));
        }
        if let Some(least) = &written.backoff {
            retry.back_off = BackOff::at_least(least.get());
        }
        Arc::new(retry)
    }
}

/// The filters of one place.
pub(crate) enum Filters<'a> {
    Http(&'a [HttpFilter]),
    Grpc(&'a [GrpcFilter]),
}

impl<'a> Filters<'a> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Http(filters) => filters.is_empty(),
            Self::Grpc(filters) => filters.is_empty(),
        }
    }

    /// Each with its place, and what it does; nothing for one with mistakes.
    fn actions(&self) -> Vec<(Span, Option<FilterAction<'a>>)> {
        match self {
            Self::Http(filters) => {
                filters.iter().map(|f| (f.kind.span, f.action().filter(|_| !f.broken))).collect()
            }
            Self::Grpc(filters) => {
                filters.iter().map(|f| (f.kind.span, f.action().filter(|_| !f.broken))).collect()
            }
        }
    }
}

/// A backendRef of any kind of route.
pub(crate) struct Reference<'a> {
    pub(crate) group: &'a Spanned<Group>,
    pub(crate) kind: &'a Spanned<KindName>,
    pub(crate) namespace: Option<&'a Spanned<Namespace>>,
    pub(crate) name: &'a Spanned<Name>,
    pub(crate) port: Option<&'a Spanned<Port>>,
    pub(crate) weight: u32,
    pub(crate) filters: Filters<'a>,
    pub(crate) is_broken: bool,
}

/// A mirror with what it leads to.
struct FoundMirror {
    backend: usize,
    share: Share,
    /// Policies of the Backend.
    level: Level,
}

/// A backendRef with what it leads to.
struct Found {
    /// Its place among the Backends; nothing when it is not valid, which was said.
    backend: Option<usize>,
    weight: u32,
    /// Policies of the Backend and of the backendRef's filters.
    levels: [Level; 2],
    session: Option<Arc<Session>>,
}

impl<'a> Reference<'a> {
    pub(crate) fn new(target: BackendTarget<'a>, filters: Filters<'a>, is_broken: bool) -> Self {
        let BackendTarget { group, kind, namespace, name, port, weight } = target;
        Self { group, kind, namespace, name, port, weight, filters, is_broken }
    }

    fn is_service(&self) -> bool {
        (self.group.as_str(), self.kind.as_str()) == ("", "Service")
    }
}

impl<'a> Maker<'a, '_> {
    /// The rules of all routes for requests.
    pub(crate) fn rules(&mut self) -> Vec<Made> {
        let docs = self.docs;
        let mut made = Vec::with_capacity(docs.http_routes.all.len() + docs.grpc_routes.all.len());
        for entry in &docs.http_routes.all {
            self.kept_or_made(entry, &mut made, Self::http);
        }
        for entry in &docs.grpc_routes.all {
            self.kept_or_made(entry, &mut made, Self::grpc);
        }
        made
    }

    fn kept_or_made<T>(
        &mut self,
        entry: &Entry<'a, T>,
        made: &mut Vec<Made>,
        make: impl FnOnce(&mut Self, &'a Doc, &'a T, &mut Vec<Made>),
    ) {
        if let Some(kept) = self.kept.get(&entry.id())
            && !self.changes.touch(&kept.reads)
        {
            for event in &kept.events {
                match event {
                    Event::Told(diag) => self.report.push((**diag).clone()),
                    Event::Backend(at) => self.backends.take(*at, self.report),
                    Event::Policy(name) => self.policies.note_used((&name.0, &name.1)),
                }
            }
            made.extend_from_slice(&kept.made);
            return;
        }
        let before = made.len();
        self.report.begin(false);
        make(self, entry.doc, entry.spec, made);
        let (events, frame) = self.report.end();
        if frame.is_volatile {
            self.kept.remove(&entry.id());
            return;
        }
        let made = made.get(before..).unwrap_or_default().into();
        self.kept.insert(entry.id(), Kept { made, events, reads: frame.reads.into() });
    }

    /// The rules of an HTTPRoute.
    fn http(&mut self, doc: &'a Doc, spec: &'a HttpRoute, made: &mut Vec<Made>) {
        let rules = spec.rules.iter().map(|rule| {
            let matches: Vec<_> =
                rule.matches.iter().map(|one| matches::http(doc, one, self.report)).collect();
            let backends = rule.backend_refs.iter().map(|reference| {
                Reference::new(reference.target(), Filters::Http(&reference.filters), reference.broken)
            });
            Written {
                name: rule.name.as_ref(),
                span: rule.span,
                is_broken: matches.iter().any(Option::is_none),
                matches: or_default(&rule.matches, matches, RequestMatch::default),
                filters: Filters::Http(&rule.filters),
                backends: backends.collect(),
                timeouts: rule.timeouts.as_ref().map_or_else(Timeouts::default, timeouts),
                default_timeouts: Timeouts::default(),
                retry: rule.retry.as_ref().filter(|retry| !retry.broken),
                session: rule.session_persistence.as_ref(),
            }
        });
        let rules = rules.collect();
        self.route("HTTPRoute", doc, &spec.parent_refs, &spec.hostnames, rules, made);
    }

    /// The rules of a GRPCRoute.
    fn grpc(&mut self, doc: &'a Doc, spec: &'a GrpcRoute, made: &mut Vec<Made>) {
        let rules = spec.rules.iter().map(|rule| {
            let matches: Vec<_> =
                rule.matches.iter().map(|one| matches::grpc(doc, one, self.report)).collect();
            let backends = rule.backend_refs.iter().map(|reference| {
                Reference::new(reference.target(), Filters::Grpc(&reference.filters), reference.broken)
            });
            // Without matches: every call.
            let every =
                || RequestMatch::new(PathMatch::grpc_any(), None, Vec::new(), Vec::new()).unwrap_or_default();
            Written {
                name: rule.name.as_ref(),
                span: rule.span,
                is_broken: matches.iter().any(Option::is_none),
                matches: or_default(&rule.matches, matches, every),
                filters: Filters::Grpc(&rule.filters),
                backends: backends.collect(),
                // Calls have deadlines of their own, and the head of a stream may come as late as its first message.
                default_timeouts: Timeouts { request: Some(Duration::ZERO), ..Timeouts::default() },
                timeouts: Timeouts::default(),
                retry: None,
                session: rule.session_persistence.as_ref(),
            }
        });
        let rules = rules.collect();
        self.route("GRPCRoute", doc, &spec.parent_refs, &spec.hostnames, rules, made);
    }

    fn route(
        &mut self,
        kind: &'static str,
        doc: &'a Doc,
        parents: &'a [ParentRef],
        hostnames: &'a [Spanned<Hostname>],
        rules: Vec<Written<'a>>,
        made: &mut Vec<Made>,
    ) {
        self.policies.fill(kind, key(doc));
        let hosts: Box<[Host]> = hostnames.iter().map(|hostname| host_of(hostname)).collect();
        let route = Route { kind, doc, parents, hostnames, hosts: &hosts };
        let doors = self.doors.of_route(self.docs, &route, self.report);
        let name = RouteName::new(format!("{}/{}", doc.namespace(), doc.name()));
        // Hostnames or parts of rules that could not be read would widen what the others mean.
        let broken = doc.broken.then(|| self.broken(doc));
        let created = created(doc);
        let has_service = parents.iter().any(ParentRef::is_service) && !doc.name().starts_with(mesh::INBOUND);
        for (index, rule) in (0u32..).zip(rules) {
            let filters = self.filters(kind, doc, (index, rule.name), &rule.filters);
            let mirrors = self.mirrors(kind, doc, &rule.filters);
            let mut found: Vec<Found> = (0..)
                .zip(&rule.backends)
                .map(|(at, one)| self.backend(kind, doc, (index, at), one))
                .collect();
            if let Some(written) = rule.session {
                let owner = format!("{kind} {}/{} {index}", doc.namespace(), doc.name());
                let session = self.backends.traffic.make(doc, written, &owner, self.report);
                found.iter_mut().for_each(|found| found.session.clone_from(&session));
            }
            let template: Arc<str> = templates::template(&rule.matches).into();
            let matches: Box<[RequestMatch]> = rule.matches.clone().into();
            let invalid = match &broken {
                None if rule.is_broken => Some(self.broken(doc)),
                broken => broken.clone(),
            };
            let not_here = if has_service { self.who_may_call(kind, doc, &rule, &filters) } else { None };
            for (place, &at) in doors.iter().enumerate() {
                let Some(door) = self.doors.doors.get(at) else { continue };
                if door.ports.is_empty() || door.is_refused {
                    continue;
                }
                let mut value = self.value(kind, doc, door, &rule, &filters, &found, &mirrors, place == 0);
                let not_here = not_here.clone().filter(|_| door.mesh.is_some());
                value.invalid = invalid.clone().or(not_here).or(value.invalid);
                let value = Rule { route: name.clone(), index, template: Arc::clone(&template), ..value };
                let rule = rhumb_route::Rule {
                    route: name.clone(),
                    created,
                    index,
                    hosts: hosts.clone(),
                    matches: matches.clone(),
                    value,
                };
                made.push((at, Arc::new(rule)));
            }
        }
    }

    /// Why a route of a Service must refuse what it is asked to protect: it is obeyed by callers, and who may call is nothing
    /// that callers can decide.
    fn who_may_call(
        &mut self,
        kind: &'static str,
        doc: &'a Doc,
        rule: &Written<'a>,
        filters: &Level,
    ) -> Option<Arc<str>> {
        let name = rule.name.map(|name| name.as_str());
        let levels =
            [self.policies.of_route(kind, key(doc)), self.policies.of_rule(kind, key(doc), name), filters];
        let asked = |attached: &&Attached| !attached.is_shadow() && decides_who_may_call(attached.kind());
        let attached = levels.into_iter().flatten().find(asked)?;
        let what = format!("`{}` on {kind} `{}` of a Service", attached.kind(), doc.name());
        let diag = Diag::error(Broken::Policy, attached.at().clone(), &*what)
            .why("a route of a Service is obeyed by its callers, and who may call is decided by the proxy of the service, past which nobody gets")
            .fix("attach it to the Service; for a part of its requests write conditions such as `request.path`")
            .related(doc.origin(doc.span), "the route");
        self.report.push(diag);
        Some(what.into())
    }

    /// What a rule does when requests come through `door`. Mistakes are told at the first door only.
    #[expect(clippy::too_many_arguments, reason = "the parts of a rule, and the door")]
    fn value(
        &mut self,
        kind: &'static str,
        doc: &'a Doc,
        door: &Door<'a>,
        rule: &Written<'a>,
        filters: &Level,
        found: &[Found],
        mirrors: &[FoundMirror],
        is_first: bool,
    ) -> Rule {
        let name = rule.name.map(|name| name.as_str());
        let [gateway, listener] = &door.policies;
        let front = [
            gateway,
            listener,
            self.policies.of_route(kind, key(doc)),
            self.policies.of_rule(kind, key(doc), name),
            filters,
        ];
        let levels: Vec<[&Level; 2]> = found.iter().map(|found| found.levels.each_ref()).collect();
        let Chains {
            rule: chain,
            backends: behind,
            settings,
            backend_settings,
            mut invalid,
            replaces_prefix,
        } = chains(&front, &levels);
        if let Some(attached) = replaces_prefix
            && !matches!(&*rule.matches, [only] if only.path().is_prefix())
        {
            let reason = policies::prefix_conflict(&attached, doc, rule.span);
            if is_first {
                self.report.push(reason.clone());
            }
            invalid.get_or_insert_with(|| reason.what.into());
        }
        let identity = door.identity.and_then(|at| self.doors.identities.get(at));
        let mut backends = Vec::with_capacity(found.len());
        for ((found, behind), settings) in found.iter().zip(behind).zip(&backend_settings) {
            let backend = found.backend.and_then(|at| self.backends.get(at, identity, self.report));
            let (backend, chain) = match behind {
                Ok(chain) => (backend, chain),
                // Without its policies nothing goes there.
                Err(_) => (None, Chain::default()),
            };
            let (timeouts, retry) = (rule.timeouts_with(settings), rule.retry_with(settings));
            let session = found.session.clone();
            backends.push(WeightedBackend { weight: found.weight, backend, chain, timeouts, retry, session });
        }
        let mirrors = mirrors.iter().filter_map(|found| {
            let chain = chains(&[], &[[&found.level, &Level::new()]]).backends.pop()?.ok()?;
            let backend = self.backends.get(found.backend, identity, self.report)?;
            Some(Mirror { backend, share: found.share, chain })
        });
        let mirrors = mirrors.collect();
        let answers =
            chain.items().iter().any(|item| matches!(item.policy.kind(), "redirect" | "directResponse"));
        if backends.is_empty() && !answers && invalid.is_none() && !doc.broken && is_first {
            let diag = Diag::warning(Broken::NoEffect, doc.origin(rule.span), "the rule sends its requests nowhere")
                .why("it has no backendRefs, and no filter or policy answers: every request gets 500 (Gateway API)")
                .fix("add `backendRefs`, a redirect, or a Policy `directResponse`");
            self.report.push(diag);
        }
        Rule {
            route: "".into(),
            index: 0,
            template: "".into(),
            listener: Arc::clone(&door.label),
            chain,
            has_sessions: backends.iter().any(|backend| backend.session.is_some()),
            backends: backends.into(),
            mirrors,
            timeouts: rule.timeouts_with(&settings),
            priority: settings.priority,
            tracing: settings.tracing,
            invalid,
            metrics_id: OnceLock::new(),
        }
    }

    /// The filters of a rule as policies.
    fn filters(
        &mut self,
        kind: &'static str,
        doc: &'a Doc,
        (index, name): (u32, Option<&'a Spanned<Name>>),
        filters: &Filters<'a>,
    ) -> Level {
        if filters.is_empty() {
            return Level::new();
        }
        let level = self.compile(doc, filters, &format!("rules[{index}]"), Attach::RULE);
        let others = self.policies.of_rule(kind, key(doc), name.map(|name| name.as_str()));
        policies::filters(level, others, self.report)
    }

    /// Filters as policies; `path` says where in the document they are, for people.
    fn compile(&mut self, doc: &'a Doc, filters: &Filters<'a>, path: &str, place: Attach) -> Level {
        let what = if place == Attach::BACKEND { "a backendRef" } else { "a rule" };
        let mut level = Level::new();
        for (index, (span, action)) in filters.actions().into_iter().enumerate() {
            let at = doc.origin(span);
            let Some(action) = action else { continue };
            match Filter::of(action) {
                Filter::Policy { kind, body } => {
                    let line = self.report.place(doc, span);
                    let origin: Arc<str> = format!("{} {path}.filters[{index}] ({line})", doc.id).into();
                    // What filters can say needs no other documents, and keeps nothing.
                    let (mut documents, keeper) = (NoDocuments, Keeper::default());
                    let mut cx = Context::new(doc.namespace(), &origin, &mut documents, &keeper);
                    let policy = match rhumb_policy::parse(kind, &body, &mut cx) {
                        Some(Ok(parsed)) => Ok(parsed),
                        Some(Err(invalid)) => {
                            self.report.push(policies::mistake(&invalid, at.clone(), kind));
                            Err(format!("{origin} is wrong: {invalid}").into())
                        }
                        None => Err(format!("{origin} is not supported").into()),
                    };
                    let attached = Attached::new(kind, policy, origin, at, &body);
                    level.extend(attached.map(|attached| at_place(&attached, place, what, self.report)));
                }
                // Those of a rule are no policies: see `mirrors`.
                Filter::Mirror if place == Attach::RULE => {}
                Filter::Mirror => {
                    let what = "`RequestMirror` in the filters of a backendRef";
                    let diag = Diag::error(Broken::NotSupported, at.clone(), what)
                        .why("copies are made before a backend is chosen")
                        .fix("move it to the filters of the rule");
                    self.report.push(diag);
                    level.push(Attached::missing(what.into(), doc.id.to_string().into(), at));
                }
                Filter::Extension(reference) => {
                    let name = (doc.namespace(), reference.name.as_str());
                    match self.policies.extension(name, self.report) {
                        Some(bodies) => {
                            let bodies: Vec<Attached> = bodies.clone();
                            level.extend(bodies.iter().map(|body| at_place(body, place, what, self.report)));
                        }
                        None => {
                            let reason = format!("no Policy `{}` in namespace `{}`", name.1, name.0);
                            level.push(Attached::missing(reason.clone(), doc.id.to_string().into(), at));
                            if !self.docs.is_unreadable("Policy", name) {
                                let names: Vec<&str> = self.docs.policies.names(name.0).collect();
                                let at = doc.origin(reference.name.span);
                                let diag = self.report.unknown(at, reason, name.1, names.into_iter());
                                self.report.push(diag);
                            }
                        }
                    }
                }
            }
        }
        level
    }

    /// Where copies of the requests go. What cannot be mirrored is told; requests are served all the same.
    fn mirrors(&mut self, kind: &'static str, doc: &'a Doc, filters: &Filters<'a>) -> Vec<FoundMirror> {
        let mut found = Vec::new();
        for (_, action) in filters.actions() {
            let Some(FilterAction::Mirror(mirror)) = action else { continue };
            if mirror.broken || mirror.backend_ref.broken {
                continue;
            }
            let target = BackendTarget {
                group: &mirror.backend_ref.group,
                kind: &mirror.backend_ref.kind,
                namespace: mirror.backend_ref.namespace.as_ref(),
                name: &mirror.backend_ref.name,
                port: mirror.backend_ref.port.as_ref(),
                weight: 1,
            };
            let reference = Reference::new(target, Filters::Http(&[]), false);
            let name = (namespace_or(reference.namespace, doc), reference.name.as_str());
            let share = match (&mirror.percent, &mirror.fraction) {
                (Some(percent), _) => Share::of(weight(percent.get()), 100),
                (None, Some(of)) => Share::of(weight(of.numerator.get()), weight(of.denominator.get())),
                (None, None) => Some(Share::ALL),
            };
            if let (Some(backend), Some(share)) = (self.position(kind, doc, &reference, name), share) {
                let level = self.level_of(&reference, doc, name);
                found.push(FoundMirror { backend, share, level });
            }
        }
        found
    }

    /// Where a backendRef leads.
    fn backend(
        &mut self,
        kind: &'static str,
        doc: &'a Doc,
        (rule, index): (u32, usize),
        reference: &Reference<'a>,
    ) -> Found {
        let namespace = namespace_or(reference.namespace, doc);
        let name = (namespace, reference.name.as_str());
        let backend = match reference.is_broken {
            true => None,
            false => self.position(kind, doc, reference, name),
        };
        let of_backend = match backend {
            Some(_) => self.level_of(reference, doc, name),
            None => Level::new(),
        };
        let filters = match reference.filters.is_empty() {
            true => Level::new(),
            false => {
                let level = self.compile(
                    doc,
                    &reference.filters,
                    &format!("rules[{rule}].backendRefs[{index}]"),
                    Attach::BACKEND,
                );
                policies::filters(level, &of_backend, self.report)
            }
        };
        let session = backend.and_then(|_| self.backends.traffic.of_backend(name, self.report));
        Found { backend, weight: reference.weight, levels: [of_backend, filters], session }
    }

    pub(crate) fn position(
        &mut self,
        kind: &'static str,
        doc: &'a Doc,
        reference: &Reference<'a>,
        name: (&'a str, &'a str),
    ) -> Option<usize> {
        let at = doc.origin(reference.name.span);
        if reference.is_service() {
            return self.service(kind, doc, reference, name);
        }
        if (reference.group.as_str(), reference.kind.as_str()) != (RHUMB_GROUP, "Backend") {
            let what = format!("no {} `{}` in namespace `{}`", reference.kind.as_str(), name.1, name.0);
            let diag = Diag::error(Broken::UnknownReference, at, what)
                .why("requests go to Backends of group rhumb.dev and Services of the core group");
            let fix = match self.docs.backends.get(name) {
                Some(_) => "write `group: rhumb.dev` and `kind: Backend`, without `port`",
                None => "add a Backend, and refer to it by `group: rhumb.dev` and `kind: Backend`",
            };
            self.report.push(diag.fix(fix));
            return None;
        }
        let (from, to) = ((GATEWAY_GROUP, kind, doc.namespace()), (RHUMB_GROUP, "Backend", name.1));
        if !self.grants.allow(from, to, name.0) {
            self.report.push(grant::refused(at, from, to, name.0));
            return None;
        }
        let position = self.docs.backends.position(name);
        if position.is_none() && !self.docs.is_unreadable("Backend", name) {
            let what = format!("no Backend `{}` in namespace `{}`", name.1, name.0);
            let names: Vec<&str> = self.docs.backends.names(name.0).collect();
            let mut diag = self.report.unknown(at, what, name.1, names.into_iter());
            if let Some(other) = self.docs.backends.elsewhere(name.1) {
                diag.fix = Some(format!(
                    "add `namespace: {other}`, where there is one of this name, and a ReferenceGrant there"
                ));
            }
            self.report.push(diag);
        }
        position
    }

    /// What is attached to a Backend, or to a Service as one of whoever calls it.
    pub(crate) fn level_of(&mut self, reference: &Reference<'a>, doc: &Doc, name: Key<'a>) -> Level {
        if !reference.is_service() {
            self.policies.fill("Backend", name);
            return self.policies.of_backend(name).clone();
        }
        // On the way from the proxy of a service to its application nobody calls.
        if doc.name().starts_with(mesh::INBOUND) {
            return Level::new();
        }
        self.policies.fill("Service", name);
        let mut level = self.policies.of_service(name, None, policies::is_of_backend);
        let port = self.docs.services.get(name).and_then(|service| {
            let number = reference.port?.number();
            service.spec.ports.iter().find(|port| port.port.number() == number)?.name.as_ref()
        });
        if let Some(port) = port {
            let nearer = self.policies.of_service(name, Some(port.as_str()), policies::is_of_backend);
            level = policies::nearest(level, nearer);
        }
        level
    }

    /// Where a backendRef to a Service leads: to the Backend that stands for its port.
    fn service(
        &mut self,
        kind: &'static str,
        doc: &'a Doc,
        reference: &Reference<'a>,
        name: Key<'a>,
    ) -> Option<usize> {
        let at = doc.origin(reference.name.span);
        let (from, to) = ((GATEWAY_GROUP, kind, doc.namespace()), ("", "Service", name.1));
        if !self.grants.allow(from, to, name.0) {
            self.report.push(grant::refused(at, from, to, name.0));
            return None;
        }
        let port = reference.port?;
        let own = mesh::backend_name(name.1, port.number());
        let is_inbound = doc.name().starts_with(mesh::INBOUND);
        let own = if is_inbound { format!("{}{own}", mesh::INBOUND) } else { own };
        if let Some(position) = self.docs.backends.position((name.0, &own)) {
            return Some(position);
        }
        match self.docs.services.get(name) {
            Some(service) => {
                let ports: Vec<String> =
                    service.spec.ports.iter().map(|port| port.port.number().to_string()).collect();
                let what = format!("Service `{}` has no port {}", name.1, port.number());
                let diag = Diag::error(Broken::UnknownReference, doc.origin(port.span), what)
                    .why(format!("its ports: {}", ports.join(", ")));
                self.report.push(diag.related(service.doc.origin(service.doc.span), "the Service"));
            }
            None if self.docs.is_unreadable("Service", name) => {}
            None => {
                let what = format!("no Service `{}` in namespace `{}`", name.1, name.0);
                let diag = match self.docs.backends.get(name) {
                    Some(_) => Diag::error(Broken::UnknownReference, at, what)
                        .fix("write `group: rhumb.dev` and `kind: Backend`, without `port`"),
                    None => {
                        let names: Vec<&str> = self.docs.services.names(name.0).collect();
                        self.report.unknown(at, what, name.1, names.into_iter())
                    }
                };
                self.report.push(diag);
            }
        }
        None
    }

    /// Why a route with mistakes refuses traffic.
    pub(crate) fn broken(&mut self, doc: &Doc) -> Arc<str> {
        let place = self.report.place(doc, doc.span);
        format!("{} has mistakes ({place})", doc.id).into()
    }
}

/// The matches that could be compiled; `default` when none is written.
fn or_default<T>(
    written: &[T],
    compiled: Vec<Option<RequestMatch>>,
    default: impl Fn() -> RequestMatch,
) -> Vec<RequestMatch> {
    if written.is_empty() { vec![default()] } else { compiled.into_iter().flatten().collect() }
}

fn timeouts(written: &HttpTimeouts) -> Timeouts {
    Timeouts {
        request: written.request.as_ref().map(|limit| limit.get()),
        backend_request: written.backend_request.as_ref().map(|limit| limit.get()),
        ..Timeouts::default()
    }
}

fn weight(written: i64) -> u32 {
    u32::try_from(written).unwrap_or(0)
}
