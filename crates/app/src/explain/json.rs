//! An explanation for programs.

use rhumb_route::Verdict;
use serde_json::{Map, Value, json};

use super::{Answer, Choice, Ending, Outcome, Sent, Served, facts};

/// An explanation as JSON.
pub(crate) fn to_json(answer: &Answer<'_>) -> Value {
    let mut value = json!({
        "method": answer.question.method,
        "url": format!("{}://{}{}", answer.question.scheme.as_str(), answer.question.authority, answer.question.target),
        "port": { "name": answer.port.name.as_str(), "address": answer.port.address.to_string() },
        "listenerHost": answer.explanation.as_ref().and_then(|explanation| explanation.listener).map(ToString::to_string),
        "normalPath": answer.normal_path,
        "candidates": candidates(answer),
    });
    let ending = match &answer.ending {
        Ending::BadPath(why) => json!({ "status": 400, "why": why }),
        Ending::NotFound => json!({ "status": 404 }),
        Ending::MethodNotAllowed(allow) => json!({ "status": 405, "allow": allow }),
        Ending::Rule(served) => rule(served),
    };
    if let (Value::Object(value), Value::Object(ending)) = (&mut value, ending) {
        value.extend(ending);
    }
    value
}

fn rule(served: &Served<'_>) -> Value {
    let mut value = json!({ "rule": facts::rule(served.rule) });
    match &served.outcome {
        Outcome::Refuses(why) => value["refuses"] = why.as_str().into(),
        Outcome::Answered(sent) => value["answers"] = message(sent),
        Outcome::Resets => value["resets"] = true.into(),
        Outcome::Waits => value["waits"] = true.into(),
        Outcome::Forwarded(sent) => value["forwards"] = message(sent),
    }
    value["choices"] = served.choices.iter().map(choice).collect();
    if !served.rule.mirrors.is_empty() {
        let mirrors = served.rule.mirrors.iter();
        let mirrors = mirrors
            .map(|to| json!({ "backend": to.backend.name.as_str(), "percent": to.share.as_percent() }));
        value["mirrors"] = mirrors.collect();
    }
    value
}

fn message(sent: &Sent) -> Value {
    let lines = sent.fields.iter().map(|(name, value)| json!([name, value]));
    json!({ "first": sent.first, "fields": lines.collect::<Vec<_>>() })
}

fn choice(choice: &Choice<'_>) -> Value {
    json!({
        "weight": choice.weight,
        "share": choice.share,
        "backend": choice.backend.map(facts::backend),
        "policies": facts::policies(choice.policies),
        "timeouts": facts::timeouts(choice.timeouts),
        "retry": facts::retry(choice.retry),
        "session": choice.session.map(facts::session),
        "endpoint": choice.endpoint,
    })
}

fn candidates(answer: &Answer<'_>) -> Vec<Value> {
    let candidates = answer.explanation.iter().flat_map(|explanation| &explanation.candidates);
    let values = candidates.map(|candidate| {
        let mut value = Map::new();
        value.insert("route".to_owned(), candidate.rule.route.as_str().into());
        value.insert("rule".to_owned(), candidate.rule.index.into());
        value.insert("match".to_owned(), candidate.index.into());
        value.insert("wants".to_owned(), facts::request_match(candidate.matched));
        match &candidate.verdict {
            Verdict::Chosen => value.insert("chosen".to_owned(), true.into()),
            Verdict::LostBy(criterion) => value.insert("lostBy".to_owned(), criterion.to_string().into()),
            Verdict::Differs(difference) => value.insert(
                "differs".to_owned(),
                json!({
                    "condition": difference.condition.to_string(),
                    "wanted": difference.wanted,
                    "got": difference.got,
                }),
            ),
        };
        Value::Object(value)
    });
    values.collect()
}
