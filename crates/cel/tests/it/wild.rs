//! Texts that nobody wrote: an answer comes, whatever it is.

use proptest::prelude::*;
use rhumb_cel::Program;

use crate::{Context, SCHEMA};

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "request",
            "claims",
            "source",
            ".",
            "method",
            "size",
            "headers",
            "time",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ",",
            ":",
            "?",
            "+",
            "-",
            "*",
            "/",
            "%",
            "!",
            "==",
            "!=",
            "<",
            ">=",
            "&&",
            "||",
            "in",
            "has",
            "all",
            "exists",
            "map",
            "filter",
            "x",
            "'a'",
            "b'\\xff'",
            "1",
            "2u",
            "1.5",
            "true",
            "null",
            "int",
            "string",
            "duration",
            "timestamp",
            "ip",
            "cidr",
            "'10.0.0.0/8'",
            "containsIP",
            "matches",
            "split",
            "substring",
            "getHours",
            "9223372036854775807",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_row_of_words_is_refused_or_evaluated(words in prop::collection::vec(word(), 1..24)) {
        let text = words.join(" ");
        match Program::compile(&text, &SCHEMA) {
            Ok(program) => {
                let context = Context::new();
                let _ = program.eval(&context).map(|value| format!("{value:?}"));
            }
            Err(error) => {
                prop_assert!(text.get(error.at.clone()).is_some(), "{text:?}: {:?}", error.at);
                let _ = error.tell(&text);
            }
        }
    }

    #[test]
    fn integers_calculate_as_integers_do(a in any::<i64>(), b in any::<i64>()) {
        let context = Context::new();
        for (mark, expected) in [("+", a.checked_add(b)), ("-", a.checked_sub(b)), ("*", a.checked_mul(b)),
            ("/", a.checked_div(b)), ("%", a.checked_rem(b))] {
            let text = format!("({a}) {mark} ({b})");
            let program = Program::compile(&text, &SCHEMA).unwrap();
            let value = program.eval(&context).ok().map(|value| format!("{value:?}"));
            prop_assert_eq!(value, expected.map(|n| n.to_string()), "{}", text);
        }
    }
}
