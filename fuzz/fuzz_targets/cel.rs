//! Any text is refused with a place inside of it, or evaluated to an end; the same text gives the same value twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_cel::{Field, Kind, Object, Program, Schema, Value};

static SCHEMA: Schema = Schema {
    fields: &[
        Field { name: "a", kind: Kind::Dyn, doc: "JSON" },
        Field { name: "s", kind: Kind::Text, doc: "a string" },
        Field { name: "n", kind: Kind::Int, doc: "a number" },
        Field { name: "m", kind: Kind::Map(&Kind::Text), doc: "strings" },
    ],
};

struct Context(serde_json::Value);

impl Object for Context {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "a" => Value::json(&self.0),
            "s" => Value::text(b"gr\xc3\xbcn\xff"),
            "n" => Value::Int(i64::MIN),
            "m" => Value::json(self.0.get("m")?),
            _ => return None,
        })
    }

    fn names(&self, each: &mut dyn FnMut(&str) -> bool) {
        let _ = ["a", "s", "n", "m"].into_iter().all(each);
    }
}

fuzz_target!(|text: &str| {
    let context = Context(serde_json::json!({ "m": { "k": "v" }, "l": [1, 2.5, "x", null, true], "o": { "p": [[]] } }));
    match Program::compile(text, &SCHEMA) {
        Err(error) => {
            assert!(text.get(error.at.clone()).is_some());
            let _ = error.tell(text);
        }
        Ok(program) => {
            let value = program.eval(&context).map(|value| format!("{value:?}"));
            assert_eq!(value, program.eval(&context).map(|value| format!("{value:?}")));
        }
    }
});
