//! Names of documents and of the things compiled from them: cheap to clone, distinct by type.

use std::fmt;
use std::sync::Arc;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name as it stands.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The name's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The shared text itself, for holders that outlive this value.
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }
    )*};
}

names! {
    /// A listener: `namespace/gateway/listener`.
    ListenerName;
    /// A route document: `namespace/name`.
    RouteName;
    /// A backend: `namespace/name`.
    BackendName;
    /// A policy document or the field that wrote it: `namespace/name`.
    PolicyName;
}
