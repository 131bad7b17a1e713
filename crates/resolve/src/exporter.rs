//! The collector of a process: `signals.otlp` of its ProxyConfig.

use std::sync::Arc;

use rhumb_model::kind::consumer::SecretSource;
use rhumb_model::kind::proxy_config::ProxyConfig;
use rhumb_model::kind::signals::{Otlp, OtlpProtocol as Written};
use rhumb_policy::context::{SecretKeyRef, SecretValue};
use rhumb_policy::tracing::{Collector, OtlpHeader, OtlpProtocol, OtlpSpec, exporter};
use rhumb_policy::{Context, Documents, Keeper, Want};

use crate::collect::{Docs, Entry};
use crate::policies::{mistake, secret_of};
use crate::report::Report;

/// What a collector may ask for: Secrets.
struct Secrets<'d, 'a>(&'d Docs<'a>);

impl Documents for Secrets<'_, '_> {
    fn secret(&mut self, namespace: &str, name: &str, key: &str) -> Result<Box<[u8]>, String> {
        secret_of(self.0, namespace, name, key)
    }
}

/// The collector of the process, and the backends that it needs with where they are written.
pub(crate) fn of_process(
    docs: &Docs<'_>,
    entry: Entry<'_, ProxyConfig>,
    report: &mut Report,
) -> (Option<Arc<Collector>>, Vec<(Want, rhumb_model::Origin)>) {
    let Some(otlp) = entry.spec.signals.as_ref().and_then(|signals| signals.otlp.as_ref()) else {
        return (None, Vec::new());
    };
    if otlp.broken {
        return (None, Vec::new());
    }
    let (mut secrets, keeper) = (Secrets(docs), Keeper::default());
    let mut cx = Context::new(entry.doc.namespace(), "signals.otlp", &mut secrets, &keeper);
    let made = exporter(&spec(otlp), &mut cx);
    let at = entry.doc.origin(otlp.url.span);
    let wants = cx.take_wants().into_iter().map(|want| (want, at.clone())).collect();
    match made {
        Ok(collector) => (Some(Arc::new(collector)), wants),
        Err(invalid) => {
            let mut diag = mistake(&invalid, at, "signals");
            diag.secret = otlp.has_keys();
            report.push(diag);
            (None, Vec::new())
        }
    }
}

fn spec(otlp: &Otlp) -> OtlpSpec {
    let time = |time: std::time::Duration| format!("{}ms", time.as_millis());
    let headers = otlp.headers.iter().map(|header| OtlpHeader {
        name: header.name.to_string(),
        value: match &header.value.value {
            SecretSource::Text(text) => SecretValue::Plain(text.0.to_string()),
            SecretSource::Secret { name, key, .. } => {
                SecretValue::Of { secret_ref: SecretKeyRef { name: name.to_string(), key: key.to_string() } }
            }
        },
    });
    OtlpSpec {
        url: otlp.url.to_string(),
        backend: otlp.backend.as_ref().map(ToString::to_string),
        protocol: otlp.protocol.as_ref().map(|protocol| match protocol.value {
            Written::Http => OtlpProtocol::Http,
            Written::Grpc => OtlpProtocol::Grpc,
        }),
        headers: headers.collect(),
        timeout: otlp.timeout.as_ref().map(|limit| time(limit.get())),
        service: otlp.service.as_ref().map(ToString::to_string),
        logs: otlp.logs.as_ref().map(|logs| logs.value),
        metrics: otlp.metrics.as_ref().map(|every| time(every.get())),
    }
}
