//! From a path to a plan: where the configuration is, what it says, and how its mistakes are told.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rhumb_balance::Nanos;
use rhumb_model::{Diag, Doc, DocId, Paint, Spec, render_all};
use rhumb_plan::{Plan, process::Process};
use rhumb_resolve::{Advice, DnsBackend, Memory, Surroundings};
use rhumb_source::{Changed, Files, Input};

use crate::health::unix_now;
use crate::supervisor::default_workers;

/// Where a configuration is looked for when no path is given, in this order.
pub(crate) const DEFAULT_PATHS: [&str; 3] = ["rhumb.yaml", "rhumb", "/etc/rhumb"];

/// The option that names a configuration.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ConfigArg {
    /// Configuration: a file, or a directory of *.yaml, *.yml and *.json files. Default: rhumb.yaml, then the
    /// directory rhumb, then /etc/rhumb
    #[arg(short, long, value_name = "PATH", env = "RHUMB_CONFIG")]
    config: Option<PathBuf>,
}

/// No path was given and there is nothing at the usual ones.
#[derive(Debug)]
pub(crate) struct NotFound;

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [file, dir, system] = DEFAULT_PATHS;
        write!(
            f,
            "no configuration: there is no {file}, no directory {dir} and no {system}; name one with -c PATH, or see `rhumb demo`"
        )
    }
}

impl std::error::Error for NotFound {}

impl ConfigArg {
    /// The path that was given, or the first usual one that exists.
    ///
    /// # Errors
    /// [`NotFound`].
    pub(crate) fn path(&self) -> Result<PathBuf, NotFound> {
        self.config.clone().map_or_else(usual_path, Ok)
    }
}

/// The first usual path that exists.
///
/// # Errors
/// [`NotFound`].
pub(crate) fn usual_path() -> Result<PathBuf, NotFound> {
    let [file, dir, system] = DEFAULT_PATHS.map(Path::new);
    let found = [(file, file.is_file()), (dir, dir.is_dir()), (system, system.is_dir())];
    found.iter().find(|(_, exists)| *exists).map(|(path, _)| path.to_path_buf()).ok_or(NotFound)
}

/// A configuration that is read again and again.
pub(crate) struct Config {
    files: Files,
    memory: Memory,
    remote: Offered,
    /// The control plane has the same documents, and knows where their services are.
    is_shared: bool,
}

/// Documents that do not come from files.
#[derive(Clone, Default)]
pub(crate) struct Offered {
    /// The documents. What files say goes before them.
    pub(crate) docs: Vec<Arc<Doc>>,
    /// Mistakes in them.
    pub(crate) diags: Vec<Diag>,
    /// What is said beside them.
    pub(crate) advice: Advice,
    /// Another one for other documents.
    pub(crate) number: u64,
}

impl Offered {
    /// True when nothing comes of it that did not come of another one.
    pub(crate) fn is_the_same(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<Doc>, &Arc<Doc>)| Arc::ptr_eq(a, b);
        self.docs.len() == other.docs.len()
            && self.docs.iter().zip(&other.docs).all(same)
            && self.diags.len() == other.diags.len()
            && self.advice == other.advice
    }
}

/// What a configuration says.
pub(crate) struct Reading {
    /// Compiled; its revision is not set.
    pub(crate) plan: Plan,
    /// Settings of the process.
    pub(crate) process: Process,
    /// Every mistake.
    pub(crate) diags: Vec<Diag>,
    /// Everything that was read.
    pub(crate) inputs: Vec<Input>,
    /// Equal when nothing that was read has changed.
    pub(crate) digest: u64,
    /// Documents.
    pub(crate) docs: Vec<Arc<Doc>>,
    /// Backends whose endpoints are found by name.
    pub(crate) names: Vec<DnsBackend>,
    /// What this process is the proxy of.
    pub(crate) sidecar: Option<Arc<Doc>>,
}

impl Config {
    /// The configuration at `path`.
    pub(crate) fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            files: Files::new(path),
            memory: Memory::default(),
            remote: Offered::default(),
            is_shared: false,
        }
    }

    /// The control plane has the same documents, and knows where their services are.
    pub(crate) fn share(&mut self) {
        self.is_shared = true;
    }

    /// Has documents beside those of files, from the next reading on.
    pub(crate) fn offer(&mut self, offered: Offered) {
        self.files.may_be_empty();
        self.remote = offered;
    }

    /// Adds documents that are in no file: what the command line asks for.
    pub(crate) fn with(self, name: &str, text: &str) -> Self {
        Self { files: self.files.with(name, text), ..self }
    }

    /// The same configuration, not read yet.
    pub(crate) fn anew(&self) -> Self {
        Self {
            files: self.files.anew(),
            memory: Memory::default(),
            remote: self.remote.clone(),
            is_shared: self.is_shared,
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.files.path()
    }

    /// Reads and compiles it for use here and now. `now` is the time on the balancer's clock; it does not matter to a plan
    /// that is only looked at. What did not change since `previous` is shared with it.
    pub(crate) fn read(&mut self, previous: Option<&Plan>, now: Nanos) -> Reading {
        self.read_changed(&Changed::Unknown, previous, now)
    }

    /// The same, when it is known which files can have changed since the last time.
    pub(crate) fn read_changed(&mut self, changed: &Changed, previous: Option<&Plan>, now: Nanos) -> Reading {
        let mut loaded = self.files.load_changed(changed);
        if self.remote.number > 0 {
            let mut advice = self.remote.advice.clone();
            // What is written here is all there is of it, and where it is, too.
            for doc in loaded.docs.iter().filter(|doc| matches!(doc.spec, Spec::Service(_))) {
                let service = format!("{}/{}", doc.namespace(), doc.name());
                if !self.is_shared {
                    advice.placed.remove(&service);
                }
                if let Some(called) = &mut advice.called {
                    called.insert(service);
                }
            }
            self.memory.advise(advice);
            let own: HashSet<&DocId> = loaded.docs.iter().map(|doc| &*doc.id).collect();
            let others: Vec<_> =
                self.remote.docs.iter().filter(|doc| !own.contains(&*doc.id)).cloned().collect();
            loaded.docs.extend(others);
        }
        loaded.diags.extend(self.remote.diags.iter().cloned());
        loaded.digest ^= self.remote.number;
        let around = surroundings(now);
        let resolved = self.memory.resolve(&loaded.docs, previous, &around);
        let mut diags = loaded.diags;
        diags.extend(resolved.diagnostics);
        Reading {
            plan: resolved.plan,
            process: resolved.process,
            diags,
            inputs: loaded.inputs,
            digest: loaded.digest,
            names: resolved.dns,
            sidecar: loaded.docs.iter().find(|doc| matches!(doc.spec, Spec::Sidecar(_))).cloned(),
            docs: loaded.docs,
        }
    }
}

impl Reading {
    /// Number of errors: with any, nothing of the configuration is taken over.
    pub(crate) fn errors(&self) -> usize {
        self.diags.iter().filter(|diag| diag.is_error()).count()
    }

    /// Number of warnings.
    pub(crate) fn warnings(&self) -> usize {
        self.diags.len() - self.errors()
    }

    /// What is in it, for people: `1 listener, 3 rules, 2 backends`.
    pub(crate) fn summary(&self) -> String {
        let rules = self.plan.all_ports().map(|port| port.rules()).sum();
        let counted =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        [
            counted(self.docs.len(), "document"),
            counted(self.plan.all_ports().count(), "port"),
            counted(rules, "rule"),
            counted(self.plan.backends.len(), "backend"),
        ]
        .join(", ")
    }

    /// Every mistake with its line, reason and fix; empty when there is none.
    pub(crate) fn report(&self, paint: Paint) -> String {
        render_all(&self.diags, paint)
    }
}

fn surroundings(now: Nanos) -> Surroundings {
    Surroundings {
        now,
        unix_seconds: i64::try_from(unix_now()).unwrap_or(i64::MAX),
        has_ipv6: has_ipv6(),
        workers: default_workers(),
    }
}

/// What is wrong with documents as a whole, wherever they come from.
pub(crate) fn judge(docs: &[Arc<Doc>]) -> Vec<Diag> {
    Memory::default().resolve(docs, None, &surroundings(Nanos::default())).diagnostics
}

/// True when this machine speaks IPv6.
fn has_ipv6() -> bool {
    std::net::UdpSocket::bind((std::net::Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

/// Colours, if a person looks at the stream and did not decline (no-color.org).
pub(crate) fn paint(stream: &impl std::io::IsTerminal) -> Paint {
    let declined = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if stream.is_terminal() && !declined { Paint::Coloured } else { Paint::Plain }
}
