//! Messages of the process itself, on standard error. Access logs are `telemetry`'s.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::{Args, ValueEnum};
use rhumb_model::{Diag, Paint, render_all};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::MakeWriterExt;

use crate::print;

/// Whether messages are JSON: then nothing else may be written to standard error.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// The level when nothing is asked for.
const DEFAULT_LEVEL: &str = "info";

/// The latest messages, for a bundle.
static KEPT: Mutex<VecDeque<u8>> = Mutex::new(VecDeque::new());

/// How much of them is kept. **Unit**: bytes.
const MAX_KEPT: usize = 256 << 10;

/// The latest messages, as they were written.
pub(crate) fn kept() -> Vec<u8> {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    // The first line has lost its beginning when others have pushed it out.
    let is_whole = kept.len() < MAX_KEPT;
    let first = if is_whole { 0 } else { kept.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1) };
    kept.iter().skip(first).copied().collect()
}

/// Keeps what is written.
#[derive(Default)]
struct Keeper;

impl io::Write for Keeper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = bytes.get(bytes.len().saturating_sub(MAX_KEPT)..).unwrap_or_default();
        let over = (kept.len() + latest.len()).saturating_sub(MAX_KEPT);
        kept.drain(..over);
        kept.extend(latest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a running process logs.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// What to log: error, warn, info, debug, trace, or per module, as in `info,rhumb_proxy=debug`
    #[arg(long, value_name = "LEVEL", env = "RUST_LOG", default_value = DEFAULT_LEVEL, hide_default_value = true)]
    log_level: String,
    /// How messages are written to standard error
    #[arg(long, value_name = "FORMAT", env = "RHUMB_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line of text.
    Text,
    /// One JSON object per line.
    Json,
}

/// The level is not one.
#[derive(Debug)]
pub(crate) struct InvalidLevel(String);

impl fmt::Display for InvalidLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "log level `{}`: write error, warn, info, debug or trace, or per module as in `info,rhumb_proxy=debug`",
            self.0
        )
    }
}

impl std::error::Error for InvalidLevel {}

/// Tells mistakes of a configuration on standard error: as text with snippets, or as messages when those are JSON.
pub(crate) fn report(diags: &[Diag], paint: Paint) {
    if !IS_JSON.load(Ordering::Relaxed) {
        return print::err(&render_all(diags, paint));
    }
    for diag in diags {
        let (at, rule) = (diag.at.to_string(), diag.rule.name());
        let (why, fix) = (diag.why.as_deref(), diag.fix.as_deref());
        if diag.is_error() {
            tracing::error!(at, rule, why, fix, "{}", diag.what);
        } else {
            tracing::warn!(at, rule, why, fix, "{}", diag.what);
        }
    }
}

impl LogArgs {
    /// Sends messages of this process to standard error from here on. An empty `RUST_LOG` is none.
    ///
    /// # Errors
    /// [`InvalidLevel`].
    pub(crate) fn start(&self) -> Result<(), InvalidLevel> {
        let level = if self.log_level.trim().is_empty() { DEFAULT_LEVEL } else { &self.log_level };
        let filter = EnvFilter::builder().parse(level).map_err(|_| InvalidLevel(level.to_owned()))?;
        let builder =
            tracing_subscriber::fmt().with_writer(io::stderr.and(Keeper::default)).with_env_filter(filter);
        IS_JSON.store(self.log_format == LogFormat::Json, Ordering::Relaxed);
        // A second start in one process (tests) keeps the first one.
        let _ = match self.log_format {
            LogFormat::Text => builder.with_ansi(false).with_target(false).try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
        Ok(())
    }
}
