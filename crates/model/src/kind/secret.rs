//! Secret and ConfigMap: certificates, keys and other content.

use crate::decode::{Decode, Decoder, Defs, Table, object};
use crate::diag::Rule;
use crate::doc::Skip;
use crate::span::Spanned;
use crate::value::Node;
use serde_json::json;
use std::fmt;

/// The type of Secrets that hold a certificate chain and its key.
pub const TYPE_TLS: &str = "kubernetes.io/tls";

/// The key of a certificate chain in PEM.
pub const TLS_CERTIFICATE: &str = "tls.crt";

/// The key of a private key in PEM.
pub const TLS_KEY: &str = "tls.key";

/// The key of CA certificates in PEM.
pub const CA_CERTIFICATE: &str = "ca.crt";

object! {
    /// Content that nobody else should see: a certificate with its key (type `kubernetes.io/tls`), or anything.
    pub struct Secret as "a Secret" {
        /// v1.
        "apiVersion" api_version: Skip,
        /// Secret.
        "kind" kind: Skip,
        /// Name and namespace.
        "metadata" metadata: Skip,
        /// `kubernetes.io/tls` or `Opaque` (default).
        "type" secret_type: Option<Spanned<Box<str>>>,
        /// Content in base64 (RFC 4648 §4).
        "data" data: Table<Spanned<Base64>, 256>,
        /// Content as text; wins over `data`. `file:PATH` is the content of a file.
        "stringData" string_data: Table<Spanned<SecretText>, 256>,
        /// Without effect.
        "immutable" immutable: Skip,
    }
    check Secret::check;
}

impl Secret {
    /// The content of a key.
    pub fn get(&self, key: &str) -> Option<Spanned<&[u8]>> {
        if let Some(text) = self.string_data.get(key) {
            return Some(Spanned::new(text.value.0.as_bytes(), text.span));
        }
        self.data.get(key).map(|bytes| Spanned::new(&*bytes.value.0, bytes.span))
    }

    /// The type, `Opaque` when it is not written.
    pub fn type_name(&self) -> &str {
        self.secret_type.as_ref().map_or("Opaque", |name| &name.value)
    }

    fn check(&self, cx: &mut Decoder<'_>) {
        if self.type_name() == TYPE_TLS && !self.broken {
            for key in [TLS_CERTIFICATE, TLS_KEY] {
                if self.get(key).is_none() {
                    let at = self.secret_type.as_ref().map_or(self.span, |name| name.span);
                    let diag = cx
                        .error(Rule::MissingField, at, format!("key `{key}` is missing"))
                        .label(format!(
                            "a Secret of type {TYPE_TLS} needs `{TLS_CERTIFICATE}` and `{TLS_KEY}`"
                        ))
                        .fix(format!("add `stringData: {{{key}: file:PATH}}`"));
                    cx.push(diag);
                }
            }
        }
    }
}

object! {
    /// Content that everybody may see, such as CA certificates under `ca.crt`.
    pub struct ConfigMap as "a ConfigMap" {
        /// v1.
        "apiVersion" api_version: Skip,
        /// ConfigMap.
        "kind" kind: Skip,
        /// Name and namespace.
        "metadata" metadata: Skip,
        /// Content as text. `file:PATH` is the content of a file.
        "data" data: Table<Spanned<Box<str>>, 256>,
        /// Content in base64 (RFC 4648 §4).
        "binaryData" binary_data: Table<Spanned<Base64>, 256>,
        /// Without effect.
        "immutable" immutable: Skip,
    }
}

impl ConfigMap {
    /// The content of a key.
    pub fn get(&self, key: &str) -> Option<Spanned<&[u8]>> {
        if let Some(text) = self.data.get(key) {
            return Some(Spanned::new(text.value.as_bytes(), text.span));
        }
        self.binary_data.get(key).map(|bytes| Spanned::new(&*bytes.value.0, bytes.span))
    }
}

object! {
    /// A namespace and its labels, for listeners that choose namespaces by label.
    pub struct NamespaceDoc as "a Namespace" {
        /// v1.
        "apiVersion" api_version: Skip,
        /// Namespace.
        "kind" kind: Skip,
        /// Name and labels.
        "metadata" metadata: Skip,
        /// Without effect.
        "spec" spec: Skip,
        /// Without effect.
        "status" status: Skip,
    }
}

/// Bytes written in base64. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Base64(pub Box<[u8]>);

impl fmt::Debug for Base64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

impl Decode for Base64 {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let text = cx.secretly(|cx| Box::<str>::decode(node, cx))?;
        let bytes = decode_base64(&text);
        if bytes.is_none() {
            let diag = cx
                .error(Rule::BadValue, node.span, "the value is not base64")
                .why("values of `data` are written in base64 (RFC 4648 §4)")
                .fix("encode it, or write plain text under `stringData`");
            cx.secretly(|cx| cx.push(diag));
        }
        bytes.map(|bytes| Self(bytes.into()))
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({ "type": "string", "contentEncoding": "base64" })
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(pub Box<str>);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} bytes]", self.0.len())
    }
}

impl Decode for SecretText {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        cx.secretly(|cx| match node.as_str() {
            Some(text) => Some(Self(text.into())),
            None => {
                cx.wrong_type(node, "text");
                None
            }
        })
    }
    fn schema(_: &mut Defs) -> serde_json::Value {
        json!({ "type": "string" })
    }
}

/// RFC 4648 §4; line breaks and blanks between are skipped, as in PEM and YAML blocks.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits: u32 = 0;
    let mut symbols = 0usize;
    let mut padding = 0usize;
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                continue;
            }
            b' ' | b'\n' | b'\r' | b'\t' => continue,
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = (bits << 6) | u32::from(value);
        symbols += 1;
        if symbols.is_multiple_of(4) {
            let [_, a, b, c] = bits.to_be_bytes();
            bytes.extend([a, b, c]);
            bits = 0;
        }
    }
    match (symbols % 4, padding) {
        (0, 0) => {}
        (2, 2) if bits & 0xf == 0 => bytes.push(u8::try_from(bits >> 4).ok()?),
        (3, 1) if bits & 0x3 == 0 => {
            let [_, _, a, b] = (bits >> 2).to_be_bytes();
            bytes.extend([a, b]);
        }
        _ => return None,
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_strict_about_length_and_padding() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9v\nYmFy\n", b"foobar"),
            ("AP8=", b"\x00\xff"),
        ] {
            assert_eq!(decode_base64(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zg", "Zg=", "Zh==", "Zm9=v", "Zm-v", "===="] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }
}
