//! Any octets are refused, or read as a token whose signed part and signature are those that were sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rhumb_policy::jwt::key::Algorithm;
use rhumb_policy::claims::time;
use rhumb_policy::jwt::token::Token;

fuzz_target!(|text: &[u8]| {
    let Ok(token) = Token::read(text) else { return };
    assert!(Algorithm::ALL.contains(&token.algorithm));
    let rest = text.strip_prefix(token.signed).expect("the signed part stands in front");
    let signature = rest.strip_prefix(b".").expect("then a dot");
    // One text for each signature: what is read writes the same again.
    assert_eq!(rhumb_base::base64::encode_url(&token.signature).as_bytes(), signature);
    for name in ["exp", "nbf", "iat"] {
        let _ = time(&token.claims, name);
    }
});
