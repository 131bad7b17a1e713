//! What the control plane has said of services: their documents and endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use rhumb_ads::Kind;
use rhumb_ads::resource::{Documents, EndpointSet};
use rhumb_model::{Doc, Source, Spec};

/// The documents that clients of a service need.
#[derive(Debug)]
pub struct Bundle {
    /// The documents.
    pub documents: Vec<Arc<Doc>>,
}

/// Why something about a service cannot be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not known yet: the control plane has to be asked for what [`Facts::take_missing`] names.
    Unknown,
    /// There is no such thing.
    Absent(String),
    /// There is, but a gRPC client could not do what its documents ask for.
    Refused(String),
}

/// What is known of services.
#[derive(Debug, Default)]
pub struct Facts {
    bundles: BTreeMap<Box<str>, Option<Arc<Bundle>>>,
    endpoints: BTreeMap<Box<str>, Option<Arc<EndpointSet>>>,
    missing: BTreeSet<(Kind, Box<str>)>,
    /// What was asked about since [`Facts::begin`].
    used: BTreeSet<Box<str>>,
}

impl Facts {
    /// Takes what the control plane says of a service. What cannot be read is as if it was not there.
    pub fn set(&mut self, kind: Kind, name: &str, content: Option<&Bytes>) {
        match kind {
            Kind::Service => {
                let bundle = content.and_then(|content| Documents::decode(content.clone()).ok());
                self.bundles.insert(name.into(), bundle.map(|documents| Arc::new(Bundle::of(&documents))));
            }
            Kind::Endpoints => {
                let set = content.and_then(|content| EndpointSet::decode(content.clone()).ok());
                self.endpoints.insert(name.into(), set.map(Arc::new));
            }
            Kind::Own | Kind::Gateway | Kind::Address => {}
        }
    }

    /// Forgets a service.
    pub fn forget(&mut self, name: &str) {
        self.bundles.remove(name);
        self.endpoints.remove(name);
    }

    /// From here on it is noted what is asked about.
    pub fn begin(&mut self) {
        self.used.clear();
        self.missing.clear();
    }

    /// What was asked about and is not known.
    pub fn take_missing(&mut self) -> BTreeSet<(Kind, Box<str>)> {
        std::mem::take(&mut self.missing)
    }

    /// The services that were asked about.
    pub fn used(&self) -> &BTreeSet<Box<str>> {
        &self.used
    }

    /// The services of which something is known.
    pub fn known(&self) -> BTreeSet<Box<str>> {
        self.bundles.keys().chain(self.endpoints.keys()).cloned().collect()
    }

    /// The documents of a service (`NAMESPACE/NAME`).
    pub(crate) fn bundle(&mut self, name: &str) -> Result<Arc<Bundle>, Why> {
        self.used.insert(name.into());
        let Some(known) = self.bundles.get(name) else {
            self.missing.insert((Kind::Service, name.into()));
            return Err(Why::Unknown);
        };
        known.clone().ok_or_else(|| Why::Absent(format!("there is no Service {name}")))
    }

    /// The endpoints of a service.
    pub(crate) fn endpoints(&mut self, name: &str) -> Result<Arc<EndpointSet>, Why> {
        self.used.insert(name.into());
        let Some(known) = self.endpoints.get(name) else {
            self.missing.insert((Kind::Endpoints, name.into()));
            return Err(Why::Unknown);
        };
        Ok(known.clone().unwrap_or_default())
    }
}

impl Bundle {
    fn of(documents: &Documents) -> Self {
        let read = documents.documents.iter().flat_map(|document| {
            let text = String::from_utf8_lossy(&document.json);
            let source = Source::new(format!("revision {}", document.revision), 1, &*text);
            rhumb_model::read(&Arc::new(source), None, &[]).docs
        });
        Self { documents: read.collect() }
    }

    /// The trust domain.
    pub(crate) fn trust_domain(&self) -> &str {
        let mesh = self.documents.iter().find_map(|doc| match &doc.spec {
            Spec::Mesh(mesh) => Some(mesh.trust_domain.as_str()),
            _ => None,
        });
        mesh.unwrap_or("cluster.local")
    }
}
