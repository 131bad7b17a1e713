//! Words of the language (CEL specification, "Lexical Structure").

use std::ops::Range;

use crate::program::CompileError;

/// A word with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spanned {
    pub(crate) token: Token,
    pub(crate) at: Range<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Int(i64),
    /// A number beyond `i64`, which only a minus sign in front makes valid: 9223372036854775808.
    IntMinMagnitude,
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Name(String),
    True,
    False,
    Null,
    In,
    /// An operator or a bracket, as it is written.
    Mark(&'static str),
    End,
}

impl Token {
    /// How the word is told to people.
    pub(crate) fn tell(&self) -> String {
        match self {
            Self::Int(n) => format!("`{n}`"),
            Self::IntMinMagnitude => "a number".to_owned(),
            Self::Uint(n) => format!("`{n}u`"),
            Self::Double(n) => format!("`{n}`"),
            Self::Text(_) => "a string".to_owned(),
            Self::Bytes(_) => "bytes".to_owned(),
            Self::Name(name) => format!("`{name}`"),
            Self::True => "`true`".to_owned(),
            Self::False => "`false`".to_owned(),
            Self::Null => "`null`".to_owned(),
            Self::In => "`in`".to_owned(),
            Self::Mark(mark) => format!("`{mark}`"),
            Self::End => "the end of the expression".to_owned(),
        }
    }
}

/// The longest first, so that `<=` is not read as `<`.
const MARKS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "?.", "[?", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "+",
    "-", "*", "/", "%", "!", "<", ">",
];

/// Names that the specification keeps for later.
const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

pub(crate) fn read(text: &str) -> Result<Vec<Spanned>, CompileError> {
    let mut reader = Reader { text, at: 0, is_selector: false };
    let mut tokens = Vec::new();
    loop {
        reader.skip_blank();
        let start = reader.at;
        let token = reader.next()?;
        let is_end = token == Token::End;
        reader.is_selector = matches!(token, Token::Mark("." | "?."));
        tokens.push(Spanned { token, at: start..reader.at });
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// Behind a dot: the specification keeps no names of fields for itself.
    is_selector: bool,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn next(&mut self) -> Result<Token, CompileError> {
        let Some(first) = self.peek() else { return Ok(Token::End) };
        let rest = self.rest();
        let starts_number = first.is_ascii_digit()
            || (first == '.' && rest.chars().nth(1).is_some_and(|next| next.is_ascii_digit()));
        if starts_number {
            return self.number();
        }
        if let Some(text) = self.string()? {
            return Ok(text);
        }
        if first == '_' || first.is_ascii_alphabetic() {
            return self.name();
        }
        for mark in MARKS {
            if rest.starts_with(mark) {
                self.at += mark.len();
                return Ok(Token::Mark(mark));
            }
        }
        let fix = match first {
            '=' => "compare with `==`",
            '&' => "combine with `&&`",
            '|' => "combine with `||`",
            '`' => "quote with ' or \"",
            _ => "",
        };
        Err(CompileError::new(
            self.at..self.at + first.len_utf8(),
            format!("`{first}` has no meaning here"),
            fix,
        ))
    }

    fn name(&mut self) -> Result<Token, CompileError> {
        let rest = self.rest();
        let len = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let name = rest.get(..len).unwrap_or_default();
        let start = self.at;
        self.at += len;
        Ok(match name {
            "true" => Token::True,
            "false" => Token::False,
            "null" => Token::Null,
            "in" => Token::In,
            "and" | "or" | "not" => {
                let mark = match name {
                    "and" => "&&",
                    "or" => "||",
                    _ => "!",
                };
                return Err(CompileError::new(
                    start..self.at,
                    format!("`{name}` is no operator"),
                    format!("write `{mark}`"),
                ));
            }
            _ if !self.is_selector && RESERVED.contains(&name) => {
                return Err(CompileError::new(start..self.at, format!("`{name}` is a reserved word"), ""));
            }
            _ => Token::Name(name.to_owned()),
        })
    }

    fn number(&mut self) -> Result<Token, CompileError> {
        let (rest, start) = (self.rest(), self.at);
        let wrong = |end: usize, why: &str| CompileError::new(start..end, why.to_owned(), "");
        if let Some(digits) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let len = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
            self.at += 2 + len;
            let digits = digits.get(..len).unwrap_or_default();
            if self.rest().starts_with(['u', 'U']) {
                self.at += 1;
                return u64::from_str_radix(digits, 16)
                    .map(Token::Uint)
                    .map_err(|_| wrong(self.at, "no unsigned integer of 64 bits"));
            }
            return match u64::from_str_radix(digits, 16) {
                Ok(n) if n == 1 << 63 => Ok(Token::IntMinMagnitude),
                Ok(n) => {
                    i64::try_from(n).map(Token::Int).map_err(|_| wrong(self.at, "no integer of 64 bits"))
                }
                Err(_) => Err(wrong(self.at, "no integer of 64 bits")),
            };
        }
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let mut len = digits(rest);
        let mut is_double = false;
        let fraction = rest.get(len..).and_then(|rest| rest.strip_prefix('.')).map(digits);
        if let Some(count) = fraction.filter(|count| *count > 0) {
            is_double = true;
            len += 1 + count;
        }
        let exponent = rest.get(len..).and_then(|rest| rest.strip_prefix(['e', 'E'])).and_then(|rest| {
            let sign = usize::from(rest.starts_with(['+', '-']));
            let count = digits(rest.get(sign..).unwrap_or_default());
            (count > 0).then_some(1 + sign + count)
        });
        if let Some(count) = exponent {
            is_double = true;
            len += count;
        }
        let text = rest.get(..len).unwrap_or_default();
        self.at += len;
        if is_double {
            return text.parse().map(Token::Double).map_err(|_| wrong(self.at, "no number"));
        }
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
            return text
                .parse()
                .map(Token::Uint)
                .map_err(|_| wrong(self.at, "no unsigned integer of 64 bits"));
        }
        match text.parse::<u64>() {
            Ok(n) if n == 1 << 63 => Ok(Token::IntMinMagnitude),
            Ok(n) => i64::try_from(n).map(Token::Int).map_err(|_| wrong(self.at, "no integer of 64 bits")),
            Err(_) => Err(wrong(self.at, "no integer of 64 bits")),
        }
    }

    /// A string or bytes, with the prefixes `r` (no escapes) and `b` (bytes).
    fn string(&mut self) -> Result<Option<Token>, CompileError> {
        let rest = self.rest();
        let prefix = rest.find(['"', '\'']).filter(|len| *len <= 2).and_then(|len| rest.get(..len));
        let Some(prefix) = prefix else { return Ok(None) };
        let lower = prefix.to_ascii_lowercase();
        let (is_raw, is_bytes) = match lower.as_str() {
            "" => (false, false),
            "r" => (true, false),
            "b" => (false, true),
            "rb" | "br" => (true, true),
            _ => return Ok(None),
        };
        let start = self.at;
        self.at += prefix.len();
        let rest = self.rest();
        let quote =
            ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| rest.starts_with(quote)).unwrap_or("\"");
        self.at += quote.len();
        let mut bytes = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                break;
            }
            let Some(next) = rest.chars().next() else {
                return Err(CompileError::new(
                    start..self.at,
                    "the string has no end",
                    format!("close it with {quote}"),
                ));
            };
            if quote.len() == 1 && (next == '\n' || next == '\r') {
                return Err(CompileError::new(
                    start..self.at,
                    "the string has no end on its line",
                    format!("close it with {quote}"),
                ));
            }
            if next == '\\' && !is_raw {
                self.escape(is_bytes, &mut bytes)?;
                continue;
            }
            self.at += next.len_utf8();
            let mut utf8 = [0; 4];
            bytes.extend_from_slice(next.encode_utf8(&mut utf8).as_bytes());
        }
        if is_bytes {
            return Ok(Some(Token::Bytes(bytes)));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Token::Text(text))),
            Err(_) => {
                Err(CompileError::new(start..self.at, "the string is no UTF-8", "write bytes with b\"…\""))
            }
        }
    }

    fn escape(&mut self, is_bytes: bool, out: &mut Vec<u8>) -> Result<(), CompileError> {
        let (rest, start) = (self.rest(), self.at);
        let mut chars = rest.chars();
        chars.next();
        let code = chars.next().unwrap_or(' ');
        let wrong = |len: usize| {
            CompileError::new(
                start..start + len,
                "an escape that does not exist",
                "write \\\\ for a backslash, or r\"…\" for a string without escapes",
            )
        };
        let plain = match code {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            '\\' => b'\\',
            '?' => b'?',
            '"' => b'"',
            '\'' => b'\'',
            '`' => b'`',
            'x' | 'X' | 'u' | 'U' | '0'..='3' => {
                let (from, len, radix) = match code {
                    'x' | 'X' => (2, 2, 16),
                    'u' => (2, 4, 16),
                    'U' => (2, 8, 16),
                    _ => (1, 3, 8),
                };
                let digits = rest.get(from..from + len).unwrap_or_default();
                let all_digits = digits.len() == len && digits.chars().all(|c| c.is_digit(radix));
                let value =
                    u32::from_str_radix(digits, radix).ok().filter(|_| all_digits).ok_or_else(|| wrong(2))?;
                self.at += from + len;
                if is_bytes {
                    // In bytes an escape is an octet; code points have no place there.
                    let octet = u8::try_from(value).ok().filter(|_| !matches!(code, 'u' | 'U'));
                    out.push(octet.ok_or_else(|| wrong(from + len))?);
                } else {
                    let c = char::from_u32(value).ok_or_else(|| wrong(from + len))?;
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                return Ok(());
            }
            _ => return Err(wrong(1 + code.len_utf8())),
        };
        self.at += 2;
        out.push(plain);
        Ok(())
    }
}
