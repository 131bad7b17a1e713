//! Who is at the other end of a connection.

use std::net::SocketAddr;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// It proved an identity of the mesh.
    Proven {
        /// The namespace.
        namespace: Box<str>,
        /// The service account.
        account: Box<str>,
    },
    /// It may do what it likes: a process of this program, or of a test.
    Trusted,
    /// It proved nothing, and may only prove something.
    Unknown(Option<SocketAddr>),
}

impl Caller {
    /// Namespace and service account; nothing for who may do everything.
    pub(crate) fn identity(&self) -> Option<(&str, &str)> {
        match self {
            Self::Proven { namespace, account } => Some((namespace, account)),
            Self::Trusted => None,
            // Nobody's: owns nothing.
            Self::Unknown(_) => Some(("", "")),
        }
    }

    /// What a proxy is called: what it says of itself counts only together with what it proved.
    pub(crate) fn name(&self, node: &str, stream: u64) -> String {
        let node = node_name(node);
        let node = if node.is_empty() { format!("stream-{stream}") } else { node };
        match self {
            Self::Proven { namespace, account } => format!("{node} ({namespace}/{account})"),
            Self::Trusted | Self::Unknown(_) => node,
        }
    }
}

/// What is kept of the name that a node gives itself.
pub(crate) fn node_name(node: &str) -> String {
    node.chars().filter(|c| !c.is_control()).take(MAX_NODE_CHARS).collect()
}

/// The longest name of a node that is kept.
const MAX_NODE_CHARS: usize = 256;
