//! `--name value` arguments.

use std::collections::HashMap;
use std::str::FromStr;

/// The arguments of a tool: `--name value` pairs, and `--name` alone for a switch.
pub struct Args(HashMap<String, String>);

impl Args {
    /// Takes the arguments of the process. `known` lists every name the tool takes.
    ///
    /// # Errors
    /// Says which argument is not known.
    pub fn parse(known: &[&str]) -> Result<Self, String> {
        let mut all = HashMap::new();
        let mut words = std::env::args().skip(1).peekable();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").filter(|name| known.contains(name));
            let name =
                name.ok_or_else(|| format!("unknown argument {word:?}; known: {}", known.join(", ")))?;
            let value = words.next_if(|next| !next.starts_with("--")).unwrap_or_default();
            all.insert(name.to_owned(), value);
        }
        Ok(Self(all))
    }

    /// Whether the argument was given, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The value of an argument, or the default when it was not given.
    ///
    /// # Errors
    /// Says which argument cannot be read as a `T`.
    pub fn value<T: FromStr>(&self, name: &str, default: &str) -> Result<T, String> {
        let text = self.0.get(name).map_or(default, String::as_str);
        text.parse().map_err(|_| format!("--{name} {text:?} cannot be read"))
    }
}
