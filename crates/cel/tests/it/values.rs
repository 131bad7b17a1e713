use rhumb_cel::{EvalError, Program};

use crate::{Context, SCHEMA};

#[test]
fn expressions_have_the_values_of_the_specification() {
    let cases = [
        // Numbers.
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("-7 % 3", "-1"),
        ("7u / 2u", "3u"),
        ("1.5 + 1.5", "3.0"),
        ("0x1F", "31"),
        ("-0x8000000000000000", "-9223372036854775808"),
        ("1e3", "1000.0"),
        (".5", "0.5"),
        ("- -1", "1"),
        ("1 == 1.0", "true"),
        ("1u == 1", "true"),
        ("2.5 > 2", "true"),
        ("9007199254740993 > 9007199254740992.0", "true"),
        ("-1 < 1u", "true"),
        ("0.0 / 0.0 == 0.0 / 0.0", "false"),
        ("0.0 / 0.0 < 1.0", "false"),
        // Strings and bytes.
        ("'a' + \"b\"", "\"ab\""),
        ("size('grün')", "4"),
        ("'grün'.size()", "4"),
        ("size(b'grün')", "5"),
        ("b'\\xff'", "b\"\\xff\""),
        ("r'\\n'", "\"\\\\n\""),
        ("'\\u00fc\\x41\\101'", "\"üAA\""),
        ("'''a'b'''", "\"a'b\""),
        ("'abc' < 'abd'", "true"),
        ("'abc'.startsWith('ab') && 'abc'.endsWith('bc') && 'abc'.contains('b')", "true"),
        ("'abc'.matches('^a.c$')", "true"),
        ("matches('abc', 'b')", "true"),
        ("'AbC'.lowerAscii() + 'AbC'.upperAscii()", "\"abcABC\""),
        ("' a '.trim()", "\"a\""),
        ("'a,b,c'.split(',')", "[\"a\", \"b\", \"c\"]"),
        ("'a,b,c'.split(',', 2)", "[\"a\", \"b,c\"]"),
        ("'grün'.substring(2)", "\"ün\""),
        ("'grün'.substring(1, 3)", "\"rü\""),
        ("'grün'.indexOf('n')", "3"),
        ("'a'.indexOf('x')", "-1"),
        ("'aba'.lastIndexOf('a')", "2"),
        ("'grün'.charAt(2)", "\"ü\""),
        ("'aXbX'.replace('X', '-')", "\"a-b-\""),
        ("['a', 'b'].join('/')", "\"a/b\""),
        // Conversions.
        ("int('12') + int(3u) + int(4.9)", "19"),
        ("uint(7)", "7u"),
        ("double('2.5')", "2.5"),
        ("string(1) + string(true) + string(1.5) + string(b'x')", "\"1true1.5x\""),
        ("bool('true')", "true"),
        ("bytes('a')", "b\"a\""),
        // Logic, and errors that do not matter.
        ("true && false || true", "true"),
        ("!false", "true"),
        ("claims.missing == 1 || true", "true"),
        ("true || claims.missing == 1", "true"),
        ("claims.missing == 1 && false", "false"),
        ("true ? 1 : 2", "1"),
        ("false ? 1 : true ? 2 : 3", "2"),
        // Lists and maps.
        ("[1, 2] + [3]", "[1, 2, 3]"),
        ("[1, 2][1]", "2"),
        ("2 in [1, 2]", "true"),
        ("'x' in {'x': 1}", "true"),
        ("{'a': 1, 'b': 2}['b']", "2"),
        ("{'a': 1}.a", "1"),
        ("{1: 'x'}[1]", "\"x\""),
        ("{'a': [1]} == {'a': [1.0]}", "true"),
        ("size({'a': 1})", "1"),
        ("[] == []", "true"),
        // Attributes.
        ("request.method", "\"GET\""),
        ("request['method']", "\"GET\""),
        ("request.headers['X-A']", "\"one\""),
        ("'x-a' in request.headers", "true"),
        ("'x-z' in request.headers", "false"),
        ("request.headers['x-bad']", "\"\u{fffd}\""),
        ("size(request.headers)", "3"),
        ("has(request.headers.x)", "false"),
        ("claims.sub", "\"ada\""),
        ("claims.nested.a.b[2]", "3"),
        ("claims.big", "18446744073709551615u"),
        ("claims.none == null", "true"),
        ("has(claims.sub) && !has(claims.nope)", "true"),
        ("'admin' in claims.groups", "true"),
        ("claims.age >= 18 && claims.yes", "true"),
        (".claims.sub", "\"ada\""),
        // Macros.
        ("claims.groups.exists(g, g.startsWith('ad'))", "true"),
        ("claims.groups.all(g, size(g) > 2)", "true"),
        ("[1, 2, 3].exists_one(x, x > 2)", "true"),
        ("[1, 2, 3].filter(x, x > 1)", "[2, 3]"),
        ("[1, 2, 3].map(x, x * 2)", "[2, 4, 6]"),
        ("[1, 2, 3].map(x, x > 1, x * 2)", "[4, 6]"),
        ("[[1, 2], [3]].map(l, l.map(x, x + size(l)))", "[[3, 4], [4]]"),
        ("request.headers.exists(name, name == 'x-b')", "true"),
        ("{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])", "true"),
        ("[1, 0].exists(x, 1 / x == 1)", "true"),
        ("[0, 1].exists(x, 1 / x == 1)", "true"),
        // Time.
        ("duration('1h30m').getMinutes()", "90"),
        ("duration('90s') == duration('1m30s')", "true"),
        ("timestamp('2030-01-01T00:00:00Z') - timestamp('2029-12-31T23:00:00Z') == duration('1h')", "true"),
        ("timestamp('2030-01-01T00:00:00Z') + duration('1s')", "2030-01-01T00:00:01Z"),
        ("request.time.getHours() == 23 && request.time.getHours('+01:00') == 0", "true"),
        ("request.time < timestamp('2030-01-01T00:00:00Z')", "true"),
        ("int(request.time)", "1234567890"),
        // Networks.
        ("cidr('10.0.0.0/8').containsIP(source)", "true"),
        ("cidr('10.0.0.0/8').containsIP('11.0.0.1')", "false"),
        ("source == ip('10.1.2.3')", "true"),
        ("source in [ip('10.1.2.3')]", "true"),
        ("isIP('::1') && !isIP('x')", "true"),
        ("string(source)", "\"10.1.2.3\""),
        // Comments.
        ("1 // one\n + 1", "2"),
    ];
    let context = Context::new();
    for (text, expected) in cases {
        let program =
            Program::compile(text, &SCHEMA).unwrap_or_else(|error| panic!("{text}: {}", error.tell(text)));
        let value = program.eval(&context).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(format!("{value:?}"), expected, "{text}");
    }
}

#[test]
fn what_has_no_value_says_why() {
    let cases = [
        ("claims.nope", EvalError::NotFound),
        ("request.headers['x-z'] == 'a'", EvalError::NotFound),
        ("[1][1]", EvalError::NotFound),
        ("1 / 0", EvalError::DivisionByZero),
        ("1 % 0", EvalError::DivisionByZero),
        ("9223372036854775807 + 1", EvalError::Overflow),
        ("-9223372036854775808 / -1", EvalError::Overflow),
        ("1u - 2u", EvalError::Overflow),
        ("uint(-1)", EvalError::Overflow),
        ("int(1e30)", EvalError::Overflow),
        ("int('x')", EvalError::Conversion("int")),
        ("string(b'\\xff')", EvalError::Conversion("string")),
        ("'abc'.substring(4)", EvalError::OutOfRange),
        ("claims.sub > 1", EvalError::NoOverload(">")),
        ("claims.sub && true", EvalError::NoOverload("&&")),
        ("true && claims.nope", EvalError::NotFound),
        ("[0].all(x, 1 / x == 1)", EvalError::DivisionByZero),
        ("claims.sub.nope", EvalError::NoOverload(".")),
    ];
    let context = Context::new();
    for (text, expected) in cases {
        let program =
            Program::compile(text, &SCHEMA).unwrap_or_else(|error| panic!("{text}: {}", error.tell(text)));
        assert_eq!(program.eval(&context).err(), Some(expected), "{text}");
    }
}

#[test]
fn evaluation_has_an_end() {
    let range = format!("[{}]", vec!["1"; 100].join(","));
    let nested = format!("{range}.all(a, {range}.all(b, {range}.all(c, a + b + c > 0)))");
    let program = Program::compile(&nested, &SCHEMA).unwrap();
    assert_eq!(program.eval(&Context::new()).err(), Some(EvalError::TooManySteps));
    let grown = "[1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, 'x')).map(l, l + l + l)";
    assert!(Program::compile(grown, &SCHEMA).unwrap().eval(&Context::new()).is_ok());
    let doubled = format!("'{}'{}", "x".repeat(4000), ".replace('x', 'xxxxxxxxxx')".repeat(3));
    let program = Program::compile(&doubled, &SCHEMA).unwrap();
    assert_eq!(program.eval(&Context::new()).err(), Some(EvalError::TooLarge));
}
