//! What attributes an expression may use at a place, and what they hold: for the check when it is read, and for the docs.

/// What a value is, as far as it is known before evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Anything: claims, JSON.
    Dyn,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool,
    /// 64 bits with sign.
    Int,
    /// 64 bits without sign.
    Uint,
    /// IEEE 754, 64 bits.
    Double,
    /// A string.
    Text,
    /// Octets.
    Bytes,
    /// A span of time.
    Duration,
    /// A point in time.
    Timestamp,
    /// An IP address.
    Ip,
    /// An address block.
    Cidr,
    /// A list of one kind.
    List(&'static Self),
    /// Values of one kind by strings.
    Map(&'static Self),
    /// Named fields.
    Object(&'static Schema),
}

impl Kind {
    /// How the kind is told to people.
    pub fn tell(self) -> &'static str {
        match self {
            Self::Dyn => "any value",
            Self::Null => "null",
            Self::Bool => "a bool",
            Self::Int => "an int",
            Self::Uint => "a uint",
            Self::Double => "a double",
            Self::Text => "a string",
            Self::Bytes => "bytes",
            Self::Duration => "a duration",
            Self::Timestamp => "a timestamp",
            Self::Ip => "an IP address",
            Self::Cidr => "an address block",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Object(_) => "an object",
        }
    }

    /// A list of this kind; of what has no static name, a list of anything.
    pub(crate) fn list(self) -> Self {
        Self::List(match self {
            Self::Bool => &Self::Bool,
            Self::Int => &Self::Int,
            Self::Uint => &Self::Uint,
            Self::Double => &Self::Double,
            Self::Text => &Self::Text,
            Self::Bytes => &Self::Bytes,
            Self::Duration => &Self::Duration,
            Self::Timestamp => &Self::Timestamp,
            Self::Ip => &Self::Ip,
            Self::Cidr => &Self::Cidr,
            _ => &Self::Dyn,
        })
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }

    /// True when a value of this kind may be one of `other`.
    pub fn may_be(self, other: Self) -> bool {
        match (self, other) {
            (Self::Dyn, _) | (_, Self::Dyn) => true,
            (Self::List(_), Self::List(_)) => true,
            (Self::Map(_) | Self::Object(_), Self::Map(_) | Self::Object(_)) => true,
            (a, b) => a == b,
        }
    }
}

/// The fields of an object.
#[derive(Debug, PartialEq)]
pub struct Schema {
    /// Its fields, in the order in which they are documented.
    pub fields: &'static [Field],
}

/// A field of an object.
#[derive(Debug, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it means, in a sentence.
    pub doc: &'static str,
}

impl Schema {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Lists every attribute with its path: `request.method`.
    pub fn walk(&self, each: &mut dyn FnMut(&str, &Field)) {
        self.walk_under("", each);
    }

    fn walk_under(&self, prefix: &str, each: &mut dyn FnMut(&str, &Field)) {
        for field in self.fields {
            let path =
                if prefix.is_empty() { field.name.to_owned() } else { format!("{prefix}.{}", field.name) };
            each(&path, field);
            if let Kind::Object(schema) = field.kind {
                schema.walk_under(&path, each);
            }
        }
    }
}
