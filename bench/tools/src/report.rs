//! What a load generator tells its caller: marks around the measured window, then one line of JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use crate::histogram::Histogram;

/// Writes a mark on a line of its own and flushes it: the caller samples CPU time when it reads it.
pub fn mark(word: &str) {
    let mut out = std::io::stdout().lock();
    // Without a reader there is nobody to tell.
    let _ = writeln!(out, "{word}").and_then(|()| out.flush());
}

/// What happened inside the measured window.
#[derive(Default)]
pub struct Report {
    /// From sending (closed loop) or the intended time of sending (fixed rate) to the last byte.
    /// Unit: nanoseconds.
    pub latency: Histogram,
    /// Exchanges that failed: connection lost, status other than 2xx, content of the wrong length.
    pub errors: u64,
    /// The first error, in words.
    pub first_error: Option<String>,
    /// Connections or handshakes that resumed a TLS session.
    pub resumed: u64,
    /// Requests due at the end of the window that no connection was free to send.
    pub overdue: u64,
}

impl Report {
    /// Counts an error and keeps the first one's words.
    pub fn error(&mut self, words: impl FnOnce() -> String) {
        self.errors += 1;
        self.first_error.get_or_insert_with(words);
    }

    /// One line of JSON.
    pub fn json(&self, window: Duration) -> String {
        let us = |part| self.latency.quantile(part) as f64 / 1e3;
        let seconds = window.as_secs_f64();
        let mut line = format!(
            r#"{{"requests":{},"errors":{},"seconds":{seconds:.4},"rps":{:.1},"resumed":{},"overdue":{}"#,
            self.latency.total(),
            self.errors,
            self.latency.total() as f64 / seconds.max(f64::MIN_POSITIVE),
            self.resumed,
            self.overdue,
        );
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];
        for (name, part) in quantiles {
            let _ = write!(line, r#","{name}_us":{:.1}"#, us(part));
        }
        let _ = write!(line, r#","max_us":{:.1}"#, self.latency.max() as f64 / 1e3);
        if let Some(words) = &self.first_error {
            // Debug escapes quotes and control characters; what else it writes is valid in JSON for ASCII.
            let ascii: String = words.chars().filter(|c| (' '..='~').contains(c)).collect();
            let _ = write!(line, r#","first_error":{ascii:?}"#);
        }
        line.push('}');
        line
    }
}
