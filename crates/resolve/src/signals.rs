//! Golden signals: the field `signals` of a ProxyConfig.

use rhumb_model::Span;
use rhumb_model::kind::signals::Signals as Written;
use rhumb_plan::process::{History, Signals, Statsd};
use std::time::Duration;

/// How often a StatsD server is told.
const EVERY: Duration = Duration::from_secs(10);

/// What is counted; nothing when it is turned off.
pub(crate) fn signals(written: &Written) -> Option<Signals> {
    let mut signals = Signals::default();
    if let Some(memory) = written.memory.as_ref().and_then(|memory| usize::try_from(memory.get()).ok()) {
        signals.memory = memory;
    }
    if let Some(history) = &written.history {
        let is_on = history.enabled.as_ref().is_none_or(|enabled| enabled.value);
        signals.history = is_on.then(|| History {
            file: history.path.as_ref().map(|path| (&*path.value).into()),
            size: history.size.as_ref().map(|size| size.get()),
            is_asked: true,
        });
    }
    signals.finds_apis = written.apis.as_ref().is_none_or(|apis| apis.value);
    signals.endpoint_durations = written.endpoint_durations.as_ref().is_some_and(|told| told.value);
    signals.statsd = written.statsd.as_ref().map(|statsd| Statsd {
        address: statsd.address.get(),
        prefix: statsd.prefix.as_ref().map_or_else(Box::default, |prefix| prefix.value.clone()),
        every: statsd.every.as_ref().map_or(EVERY, |every| every.get()),
    });
    written.enabled.as_ref().is_none_or(|enabled| enabled.value).then_some(signals)
}

/// Where it is written.
pub(crate) fn span(written: &Written) -> Option<Span> {
    let history = written.history.as_ref();
    let spans = [
        written.enabled.as_ref().map(|enabled| enabled.span),
        written.memory.as_ref().map(|memory| memory.span),
        written.apis.as_ref().map(|apis| apis.span),
        written.otlp.as_ref().map(|otlp| otlp.url.span),
        written.endpoint_durations.as_ref().map(|told| told.span),
        written.statsd.as_ref().map(|statsd| statsd.address.span),
        history.and_then(|history| history.enabled.as_ref()).map(|enabled| enabled.span),
        history.and_then(|history| history.path.as_ref()).map(|path| path.span),
        history.and_then(|history| history.size.as_ref()).map(|size| size.span),
    ];
    spans.into_iter().flatten().next()
}
