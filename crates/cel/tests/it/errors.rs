use rhumb_cel::Program;

use crate::SCHEMA;

/// Text, the marked part, a piece of the reason, a piece of the fix.
#[test]
fn mistakes_are_found_before_the_first_request() {
    let cases = [
        ("request.metod == 'GET'", "request.metod", "no field `metod`", "did you mean `method`?"),
        ("reqest.method", "reqest", "no attribute `reqest`", "did you mean `request`?"),
        ("foo == 1", "foo", "no attribute `foo`", "strings stand in quotes"),
        ("request.method = 'GET'", "=", "has no meaning", "compare with `==`"),
        ("request.method == 'GET", "'GET", "has no end", "close it"),
        ("request.method == 'GET' and true", "and", "no operator", "write `&&`"),
        ("request.size == '1'", "request.size == '1'", "between an int and a string", "without quotes"),
        ("request.method == 1", "request.method == 1", "between a string and an int", "in quotes"),
        ("source == '10.0.0.1'", "source == '10.0.0.1'", "an IP address and a string", "ip("),
        ("cidr('10.0.0.0/40')", "'10.0.0.0/40'", "no address block", "10.0.0.0/8"),
        ("duration('5 minutes')", "'5 minutes'", "no duration", "1h30m"),
        (
            "request.method.startswith('a')",
            "startswith",
            "no method `startswith`",
            "did you mean `startsWith`?",
        ),
        ("startsWith(request.method, 'a')", "startsWith", "no function", "write `value.startsWith(…)`"),
        ("request.method.startsWith()", "startsWith", "takes 1 argument, not 0", ""),
        ("request.method && true", "request.method", "`&&` takes a bool, this is a string", "compare it"),
        ("!request.size", "request.size", "`!` takes a bool", ""),
        ("request.method.matches('(')", "'('", "no regular expression", ""),
        ("request.method.matches(claims.p)", "claims.p", "written out", ""),
        ("1 + 'a'", "1 + 'a'", "between an int and a string", ""),
        ("1 + 1.0", "1 + 1.0", "between an int and a double", "double("),
        ("(1", "", "`)` of the parenthesis is expected", ""),
        ("1 2", "2", "where the expression should end", "&&"),
        ("", "", "a value is expected", "breaks off"),
        ("has(request)", "request", "asks for a field", "has(a.b)"),
        ("a?.b", "", "optional selection", "has("),
        ("Foo{a: 1}", "{", "messages are not supported", "map"),
        ("[1].all(1, true)", "1", "name of its variable", "list.all(x"),
        ("request.size.all(x, true)", "request.size", "an int has no elements", ""),
        ("'\\q'", "\\q", "an escape that does not exist", "backslash"),
        ("9223372036854775808", "9223372036854775808", "no integer of 64 bits", ""),
        ("request.time.getHours('Europe/Berlin')", "'Europe/Berlin'", "no zone", "+02:00"),
        ("if", "if", "reserved", ""),
        ("request.headers.exists(h)", "", "expected", ""),
    ];
    for (text, marked, why, fix) in cases {
        let error = match Program::compile(text, &SCHEMA) {
            Ok(program) => panic!("{text}: accepted as {:?}", program.kind()),
            Err(error) => error,
        };
        assert!(error.why.contains(why), "{text}: {}", error.why);
        assert!(error.fix.contains(fix), "{text}: {:?}", error.fix);
        if !marked.is_empty() {
            assert_eq!(&text[error.at.clone()], marked, "{text}: {}", error.why);
        }
    }
}

#[test]
fn a_condition_is_true_or_false() {
    assert!(Program::condition("request.method == 'GET'", &SCHEMA).is_ok());
    assert!(Program::condition("claims.yes", &SCHEMA).is_ok());
    let error = Program::condition("request.method", &SCHEMA).unwrap_err();
    assert_eq!(
        error.tell("request.method"),
        "at character 1: a condition is true or false, this is a string"
    );
}

#[test]
fn the_place_is_told_in_characters() {
    let text = "'ü' == 'ö' && request.metod == 'x'";
    let error = Program::compile(text, &SCHEMA).unwrap_err();
    assert_eq!(error.tell(text), "at character 15 (`request.metod`): no field `metod`");
}

#[test]
fn size_and_depth_are_bounded() {
    for text in [
        format!("{}1{}", "(".repeat(100), ")".repeat(100)),
        format!("{}true", "!".repeat(100)),
        format!("[{}1{}]", "[".repeat(100), "]".repeat(100)),
        vec!["1"; 100].join(" + "),
        format!("claims{}", ".a".repeat(100)),
        format!("[{}]", vec!["1"; 2_100].join(",")),
        format!("'{}'", "x".repeat(9_000)),
        format!("'a'{}", ".trim()".repeat(100)),
        format!("{}1{}", "true ? 1 : ".repeat(100), ""),
    ] {
        assert!(Program::compile(&text, &SCHEMA).is_err(), "{} bytes were accepted", text.len());
    }
    // A row of conditions is no depth.
    let row = vec!["request.size == 1"; 300].join(" || ");
    assert!(Program::compile(&row, &SCHEMA).is_ok());
}
