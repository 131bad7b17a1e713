//! What rules of routes are called where traffic is told of: by route and template of the path.

use std::sync::Arc;

use rhumb_model::{Doc, Spec};
use rhumb_route::RequestMatch;
use rhumb_route::path::PathMatch;

use crate::matches;
use crate::report::Report;

/// Route (`NAMESPACE/NAME`) and template of each rule of the routes among documents, as they are in the plans of proxies that
/// obey them. Whether a route is attached to anything is not looked at.
pub fn templates(docs: &[Arc<Doc>]) -> Vec<(String, String)> {
    // What is wrong with a match was told to whoever wrote it.
    let mut report = Report::default();
    let mut templates = Vec::new();
    for doc in docs {
        let rules: Vec<String> = match &doc.spec {
            Spec::HttpRoute(route) => (route.rules.iter())
                .map(|rule| match rule.matches.is_empty() {
                    true => template(&[RequestMatch::default()]),
                    false => first(rule.matches.iter().map(|one| matches::http(doc, one, &mut report))),
                })
                .collect(),
            Spec::GrpcRoute(route) => (route.rules.iter())
                .map(|rule| match rule.matches.is_empty() {
                    true => PathMatch::grpc_any().to_string(),
                    false => first(rule.matches.iter().map(|one| matches::grpc(doc, one, &mut report))),
                })
                .collect(),
            _ => continue,
        };
        let route = format!("{}/{}", doc.namespace(), doc.name());
        templates.extend(rules.into_iter().map(|template| (route.clone(), template)));
    }
    templates
}

/// The template of a rule, of its matches.
pub(crate) fn template(matches: &[RequestMatch]) -> String {
    matches.first().map_or_else(String::new, |first| first.path().to_string())
}

fn first(matches: impl Iterator<Item = Option<RequestMatch>>) -> String {
    template(matches.flatten().next().as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhumb_model::Source;

    const ROUTES: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: [{path: {type: Exact, value: /health}}, {path: {value: /never}}]
  - matches: [{path: {type: RegularExpression, value: '('}}, {path: {value: /old}}]
  - {}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules: [{matches: [{method: {service: shop.Cart, method: Add}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
";

    #[test]
    fn rules_are_called_by_their_first_path() {
        let docs: Vec<_> = rhumb_model::yaml::sources(&Arc::from("routes.yaml"), ROUTES)
            .iter()
            .flat_map(|source: &Arc<Source>| rhumb_model::read(source, None, &[]).docs)
            .collect();
        let found = templates(&docs);
        let found: Vec<_> = found.iter().map(|(route, template)| (&**route, &**template)).collect();
        assert_eq!(
            found,
            [
                ("shop/shop", "/health"),
                ("shop/shop", "/old/*"),
                ("shop/shop", "/*"),
                ("shop/calls", "/shop.Cart/Add"),
            ]
        );
    }
}
