//! Any text of `Signature-Input` and `Signature` is refused, or read so that every part has its own text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_policy::message_signatures::structured::{lists, octets, parameter};

fuzz_target!(|text: &str| {
    if let Some(members) = lists(text) {
        for member in &members {
            assert!(member.text.starts_with('(') && text.contains(member.text));
            // A member alone reads the same.
            let alone = format!("{}={}", member.key, member.text);
            let again = lists(&alone).expect("a member is a dictionary");
            assert_eq!((again.len(), &again[0].value, &again[0].parameters), (1, &member.value, &member.parameters));
            for (name, value) in &member.parameters {
                assert_eq!(parameter(&member.parameters, name), Some(value));
            }
        }
    }
    if let Some(members) = octets(text) {
        for member in &members {
            let own = format!(":{}:", rhumb_base::base64::encode(&member.value));
            assert!(member.text.starts_with(&own), "one text for each sequence of octets");
        }
    }
});
