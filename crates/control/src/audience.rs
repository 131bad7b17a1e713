//! Who uses a change, and who does not.

/// Those whom a change concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// Proxies that use it.
    pub live: usize,
    /// Proxies that do not, by name.
    pub waiting: Vec<Waiting>,
}

/// A proxy that does not use a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which.
    pub proxy: String,
    /// Why.
    pub why: Why,
}

/// Why a proxy does not use a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It has not answered.
    Pending,
    /// It is not connected.
    Disconnected,
    /// It cannot use it, and says this about it.
    Refused(String),
}

impl Audience {
    /// Nothing more will come without a change: nobody is waited for but those who refused it.
    pub fn is_settled(&self) -> bool {
        self.waiting.iter().all(|waiting| matches!(waiting.why, Why::Refused(_)))
    }

    /// Connected proxies that have not answered.
    pub fn pending(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(|waiting| waiting.why == Why::Pending)
    }

    /// Proxies that refused it.
    pub fn refused(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(|waiting| matches!(waiting.why, Why::Refused(_)))
    }
}
