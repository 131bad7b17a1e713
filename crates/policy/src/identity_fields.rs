//! Tells the backend who asks, in request fields that are ours alone: what a client sends under their names is removed,
//! whether or not there is something to tell.

use rhumb_cel::value::{List, Value};
use rhumb_cel::{Kind, Program};
use rhumb_codec::field::{FieldName, FieldValue};
use rhumb_codec::head::RequestHead;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::attributes::{Attributes, SCHEMA};
use crate::context::Context;
use crate::credential::remove_forged;
use crate::exchange::Exchange;
use crate::header_modifier::read_name;
use crate::policy::{Attach, Hooks, HttpPolicy, Invalid, Merge, Verdict};

/// Most fields of one policy.
pub const FIELDS_LIMIT: usize = 32;

/// Sets request fields to what is known of who asks.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Fields and their values. At most 32.
    pub fields: Vec<FieldSpec>,
}

/// A field.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FieldSpec {
    /// Its name.
    pub name: String,
    /// An expression (CEL) for its value: `principal.subject`, `jwt.email`, `consumer.groups`. A list is joined by `,`. An
    /// empty value, or none, leaves the field out.
    pub value: String,
}

/// A compiled policy.
pub struct IdentityFields(Box<[(FieldName, Program)]>);

impl HttpPolicy for IdentityFields {
    const KIND: &'static str = "identityFields";
    const HOOKS: Hooks = Hooks::REQUEST;
    const ATTACH: Attach = Attach::FRONT.or(Attach::CONSUMER);
    const MERGE: Merge = Merge::Union;
    type Spec = Spec;
    type State = ();

    fn compile(spec: Spec, _: &mut Context<'_>) -> Result<Self, Invalid> {
        if spec.fields.is_empty() || spec.fields.len() > FIELDS_LIMIT {
            let why = format!("has {} items, not from 1 to {FIELDS_LIMIT}", spec.fields.len());
            return Err(Invalid::new("fields", why, "write `- { name: x-user, value: principal.subject }`"));
        }
        let read = |(at, spec): (usize, &FieldSpec)| {
            let name = read_name(&format!("fields[{at}].name"), &spec.name)?;
            let field = format!("fields[{at}].value");
            let value = Program::compile(&spec.value, &SCHEMA)
                .map_err(|error| Invalid::new(&*field, error.tell(&spec.value), error.fix))?;
            match value.kind() {
                Kind::Dyn | Kind::Text | Kind::Int | Kind::Uint | Kind::Bool | Kind::Ip | Kind::List(_) => {}
                kind => {
                    let why = format!("is {}, which is no value of a field", kind.tell());
                    return Err(Invalid::new(field, why, "choose a text, a number or a list of them"));
                }
            }
            Ok((name, value))
        };
        spec.fields.iter().enumerate().map(read).collect::<Result<_, _>>().map(Self)
    }

    fn on_request(&self, req: &mut RequestHead, _: &mut (), cx: &mut Exchange<'_>) -> Verdict {
        let values: Vec<Option<FieldValue>> = {
            let attributes = Attributes::new(req, cx);
            let value = |(_, program): &(FieldName, Program)| {
                let text = written(&program.eval(&attributes).ok()?)?;
                FieldValue::parse(text.as_bytes()).ok().filter(|_| !text.is_empty())
            };
            self.0.iter().map(value).collect()
        };
        for ((name, _), value) in self.0.iter().zip(values) {
            remove_forged(&mut req.fields, name);
            if let Some(value) = value {
                req.fields.append_named(name, &value);
            }
        }
        Verdict::Continue
    }
}

fn written(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Text(text) => text.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Bool(is) => is.to_string(),
        Value::Ip(address) => address.to_string(),
        Value::List(list) => texts(list).join(","),
        _ => return None,
    })
}

fn texts(list: &List<'_>) -> Vec<String> {
    (0..list.len()).filter_map(|at| written(&list.get(at)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::compile_alone;
    use crate::principal::Principal;
    use rhumb_codec::field::Known;
    use rhumb_codec::head::Scheme;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn fields_are_ours_alone() {
        let policy = compile_alone::<IdentityFields>(
            serde_json::from_value(json!({ "fields": [
                { "name": "x-user", "value": "principal.subject" },
                { "name": "x-scopes", "value": "principal.scopes" },
                { "name": "x-plan", "value": "consumer.plan" },
                { "name": "x-mail", "value": "jwt.email" },
            ]}))
            .unwrap(),
        )
        .unwrap();
        let fields = |principal: Option<Principal>| {
            let mut req = RequestHead::new();
            for name in ["x-user", "X-Plan", "x-mail", "X_User"] {
                req.fields.append_raw(Known::Other, name.as_bytes(), b"forged");
            }
            let mut cx = Exchange::new([127, 0, 0, 1].into(), Scheme::Http, 80);
            principal.into_iter().for_each(|principal| cx.prove(Arc::new(principal)));
            assert!(matches!(policy.on_request(&mut req, &mut (), &mut cx), Verdict::Continue));
            let line = |line: rhumb_codec::field::FieldLine<'_>| {
                String::from_utf8([line.name, b"=", line.value].concat()).unwrap()
            };
            req.fields.iter().map(line).collect::<Vec<_>>()
        };
        assert_eq!(fields(None), Vec::<String>::new());
        let ann = Principal {
            method: "jwt",
            subject: "ann".into(),
            scopes: ["a".into(), "b".into()].into(),
            ..Principal::default()
        };
        assert_eq!(fields(Some(ann)), ["x-user=ann", "x-scopes=a,b"]);
        let evil = Principal { method: "jwt", subject: "a\r\nx: y".into(), ..Principal::default() };
        assert_eq!(fields(Some(evil)), Vec::<String>::new());
    }

    #[test]
    fn mistakes_are_named() {
        for (spec, field) in [
            (json!({ "fields": [] }), "fields"),
            (json!({ "fields": [{ "name": "host", "value": "''" }] }), "fields[0].name"),
            (json!({ "fields": [{ "name": "x", "value": "principal.nmae" }] }), "fields[0].value"),
            (json!({ "fields": [{ "name": "x", "value": "principal.claims" }] }), "fields[0].value"),
        ] {
            let compiled = compile_alone::<IdentityFields>(serde_json::from_value(spec).unwrap());
            assert_eq!(compiled.err().unwrap().field, field);
        }
    }
}
