//! The part of structured fields (RFC 9651) that signatures are written in: dictionaries of inner lists of strings, and of
//! byte sequences, each with parameters.
//!
//! What is read keeps its own text: a signature is made over that text, so that nothing has to be written anew.

use rhumb_base::base64;

/// Most members of one dictionary.
pub const MEMBERS_LIMIT: usize = 16;

/// Most items of one inner list, and most parameters of one item.
pub const ITEMS_LIMIT: usize = 64;

/// A string, a number, a token, octets or a truth value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bare {
    /// A string or token.
    Text(String),
    /// An integer.
    Integer(i64),
    /// Octets.
    Octets(Vec<u8>),
    /// True or false.
    Boolean(bool),
}

/// Parameters, in their order.
pub type Parameters = Vec<(String, Bare)>;

/// An item of an inner list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'t> {
    /// The string.
    pub name: String,
    /// Its parameters.
    pub parameters: Parameters,
    /// How it is written, parameters included.
    pub text: &'t str,
}

/// A member of a dictionary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<'t, T> {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: T,
    /// Parameters of the value.
    pub parameters: Parameters,
    /// How the value is written, parameters included.
    pub text: &'t str,
}

/// Reads a dictionary of inner lists of strings. `None` when it is malformed, or has a key twice.
pub fn lists(text: &str) -> Option<Vec<Member<'_, Vec<Item<'_>>>>> {
    dictionary(text, Reader::list)
}

/// Reads a dictionary of byte sequences. `None` when it is malformed, or has a key twice.
pub fn octets(text: &str) -> Option<Vec<Member<'_, Vec<u8>>>> {
    dictionary(text, |reader| match reader.bare()? {
        Bare::Octets(octets) => Some(octets),
        _ => None,
    })
}

/// A parameter.
pub fn parameter<'p>(parameters: &'p Parameters, name: &str) -> Option<&'p Bare> {
    parameters.iter().find(|(own, _)| own == name).map(|(_, value)| value)
}

fn dictionary<'t, T>(
    text: &'t str,
    mut value: impl FnMut(&mut Reader<'t>) -> Option<T>,
) -> Option<Vec<Member<'t, T>>> {
    let mut reader = Reader { text, at: 0 };
    let mut members: Vec<Member<'t, T>> = Vec::new();
    reader.blanks(b" ");
    loop {
        let key = reader.key()?;
        if members.len() == MEMBERS_LIMIT || members.iter().any(|member| member.key == key) {
            return None;
        }
        reader.take(b'=')?;
        let from = reader.at;
        let value = value(&mut reader)?;
        let parameters = reader.parameters()?;
        members.push(Member { key, value, parameters, text: text.get(from..reader.at)? });
        reader.blanks(b" \t");
        if reader.at == text.len() {
            return Some(members);
        }
        reader.take(b',')?;
        reader.blanks(b" \t");
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn blanks(&mut self, which: &[u8]) {
        while self.peek().is_some_and(|byte| which.contains(&byte)) {
            self.at += 1;
        }
    }

    fn while_in(&mut self, is_in: impl Fn(u8) -> bool) -> &'t str {
        let from = self.at;
        while self.peek().is_some_and(&is_in) {
            self.at += 1;
        }
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// RFC 9651 §4.2.3.3.
    fn key(&mut self) -> Option<String> {
        let begins = |byte: u8| byte.is_ascii_lowercase() || byte == b'*';
        self.peek().filter(|byte| begins(*byte))?;
        let key = self.while_in(|byte| begins(byte) || byte.is_ascii_digit() || b"_-.".contains(&byte));
        Some(key.to_owned())
    }

    /// RFC 9651 §4.2.1.2.
    fn list(&mut self) -> Option<Vec<Item<'t>>> {
        self.take(b'(')?;
        let mut items = Vec::new();
        loop {
            self.blanks(b" ");
            if self.take(b')').is_some() {
                return Some(items);
            }
            let from = self.at;
            let name = self.string()?;
            let parameters = self.parameters()?;
            let ends = matches!(self.peek(), Some(b' ' | b')'));
            if !ends || items.len() == ITEMS_LIMIT {
                return None;
            }
            items.push(Item { name, parameters, text: self.text.get(from..self.at)? });
        }
    }

    /// RFC 9651 §4.2.3.2.
    fn parameters(&mut self) -> Option<Parameters> {
        let mut parameters = Parameters::new();
        while self.take(b';').is_some() {
            self.blanks(b" ");
            let key = self.key()?;
            let value = match self.take(b'=') {
                Some(()) => self.bare()?,
                None => Bare::Boolean(true),
            };
            if parameters.len() == ITEMS_LIMIT || parameters.iter().any(|(other, _)| *other == key) {
                return None;
            }
            parameters.push((key, value));
        }
        Some(parameters)
    }

    fn bare(&mut self) -> Option<Bare> {
        match self.peek()? {
            b'"' => self.string().map(Bare::Text),
            b':' => {
                self.at += 1;
                let text = self.while_in(|byte| byte != b':');
                self.take(b':')?;
                base64::decode(text.as_bytes()).map(Bare::Octets)
            }
            b'?' => {
                self.at += 1;
                let is = self.take(b'1').is_some();
                (is || self.take(b'0').is_some()).then_some(Bare::Boolean(is))
            }
            b'-' | b'0'..=b'9' => {
                let from = self.at;
                let _ = self.take(b'-');
                let digits = self.while_in(|byte| byte.is_ascii_digit());
                // RFC 9651 §4.2.4: at most 15 digits, which an i64 holds. Decimals have no use here.
                let is_sized = (1..=15).contains(&digits.len());
                let number = self.text.get(from..self.at).filter(|_| is_sized)?;
                number.parse().ok().map(Bare::Integer)
            }
            byte if byte.is_ascii_alphabetic() || byte == b'*' => {
                let is_token =
                    |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
                Some(Bare::Text(self.while_in(is_token).to_owned()))
            }
            _ => None,
        }
    }

    /// RFC 9651 §4.2.5.
    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut string = String::new();
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(string),
                b'\\' => {
                    let escaped = self.peek().filter(|byte| matches!(byte, b'"' | b'\\'))?;
                    self.at += 1;
                    string.push(escaped.into());
                }
                b' '..=b'~' => string.push(byte.into()),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictionaries_are_read_with_their_text() {
        let text =
            r#"sig1=("@method" "a";key="b";bs);created=1618884473;keyid="k\"1";alg="x", b=();x;y=?0;z=tok"#;
        let members = lists(text).unwrap();
        assert_eq!(members[0].text, r#"("@method" "a";key="b";bs);created=1618884473;keyid="k\"1";alg="x""#);
        assert_eq!((members[0].value.len(), members[0].value[1].text), (2, r#""a";key="b";bs"#));
        assert_eq!(parameter(&members[0].parameters, "created"), Some(&Bare::Integer(1_618_884_473)));
        assert_eq!(parameter(&members[0].parameters, "keyid"), Some(&Bare::Text("k\"1".into())));
        assert_eq!((members[1].key.as_str(), members[1].parameters.len()), ("b", 3));
        assert_eq!(octets("a=:Zm9v:, b=:AA==:").unwrap()[0].value, b"foo");
    }

    #[test]
    fn what_is_malformed_is_not_read() {
        for text in [
            "",
            "a",
            "a=",
            "a=(",
            "a=(\"x\"",
            "a=(x)",
            "a=(\"x\"\"y\")",
            "a=(\"x\");",
            "a=(\"x\");b=",
            "a=(\"x\"),",
            "a=(\"x\"), a=(\"x\")",
            "a=(\"x\");b=1;b=2",
            "A=()",
            "a=(\"\u{e9}\")",
            "a=(\"\\x\")",
            "a=();b=1234567890123456",
            "a=() x",
        ] {
            assert!(lists(text).is_none(), "{text}");
        }
        for text in ["a=:Zm9v", "a=:Zm9:", "a=\"x\"", "a=Zm9v", "a=?1"] {
            assert!(octets(text).is_none(), "{text}");
        }
    }
}
