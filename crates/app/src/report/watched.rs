//! What a control plane looks at in this proxy: requests as they end, and single ones with every step.
//!
//! Whoever looks at steps wants those of one request wherever it goes, and only the first proxy knows which one fits. So while
//! somebody looks, the latest requests are kept here for a while, and told when they are asked for by their ids.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rhumb_agent::ads::report::{Find, Look, MAX_REPORT, Question, Told};
use rhumb_policy::Filter;
use rhumb_proxy::tap::{Look as Kind, Opened, Taps};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

/// Looks of a control plane at a time.
const MAX_LOOKS: usize = 4;

/// The longest look, and the most requests in a second. Seconds, and requests.
const MOST: (u32, u32) = (600, 1_000);

/// What waits to be sent; more is counted as missed.
const BACKLOG: usize = 256;

/// The largest that is told of one request. Unit: bytes.
const MAX_TOLD: usize = 128 << 10;

/// Requests that are kept for a trace, and what they take. Requests, and bytes.
const KEPT: (usize, usize) = (256, 2 << 20);

/// Requests of a trace that are asked for at a time.
const SOUGHT: usize = 16;

/// How often it is told how many were missed.
const TURN: Duration = Duration::from_secs(1);

/// Looks that are open.
pub(super) struct Watched {
    taps: Option<Arc<Taps>>,
    open: HashMap<u64, Open>,
    tx: mpsc::Sender<Told>,
    rx: mpsc::Receiver<Told>,
}

struct Open {
    finds: mpsc::Sender<Find>,
    task: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    pub(super) fn new(taps: Option<Arc<Taps>>) -> Self {
        let (tx, rx) = mpsc::channel(BACKLOG);
        Self { taps, open: HashMap::new(), tx, rx }
    }

    /// Does what is asked. Must be called on a local runtime.
    pub(super) fn take(&mut self, question: Question) {
        self.open.remove(&question.end);
        if let Some(find) = question.find
            && let Some(open) = self.open.get(&find.look)
        {
            // One that finds no room is not found here.
            let _ = open.finds.try_send(find);
        }
        let Some(look) = question.look else { return };
        self.open.retain(|_, open| !open.task.is_finished());
        let id = look.id;
        if let Err(why) = self.begin(look) {
            // Nobody who looks waits for this.
            let _ = self.tx.try_send(Told { look: id, refused: why, ..Told::default() });
        }
    }

    fn begin(&mut self, look: Look) -> Result<(), String> {
        let taps = self.taps.as_ref().ok_or("this process carries no requests")?;
        if self.open.len() >= MAX_LOOKS {
            return Err(format!("{MAX_LOOKS} look already"));
        }
        let rate = look.rate.clamp(1, MOST.1);
        let end = Instant::now() + Duration::from_secs(look.seconds.clamp(1, MOST.0).into());
        let full = || "as many look as may".to_owned();
        let (finds, sought) = mpsc::channel(SOUGHT);
        let teller = Teller { look: look.id, left: look.limit.max(1), tx: self.tx.clone() };
        let task = if look.steps {
            let wanted = Filter::of_begun(&look.filter).map_err(|error| error.to_string())?;
            let every = Filter::of_begun("").map_err(|error| error.to_string())?;
            let fitting = taps.open(Kind::Steps, wanted, rate).ok_or_else(full)?;
            let all = taps.open(Kind::Steps, every, MOST.1).ok_or_else(full)?;
            tokio::task::spawn_local(steps(teller, fitting, all, sought, end))
        } else {
            let wanted = Filter::of_ended(&look.filter).map_err(|error| error.to_string())?;
            let opened = taps.open(Kind::Ended, wanted, rate).ok_or_else(full)?;
            tokio::task::spawn_local(ended(teller, opened, end))
        };
        self.open.insert(look.id, Open { finds, task });
        Ok(())
    }

    /// What there is to tell: at least one, and what else is there, within a report. **Cancel**: nothing is lost.
    pub(super) async fn told(&mut self) -> Vec<Told> {
        // The sender lives as long as this.
        let Some(first) = self.rx.recv().await else { return std::future::pending().await };
        let mut size = first.json.len();
        let mut all = vec![first];
        while size < MAX_REPORT / 4
            && let Ok(next) = self.rx.try_recv()
        {
            size += next.json.len();
            all.push(next);
        }
        all
    }
}

/// Where what is seen goes.
struct Teller {
    look: u64,
    left: u32,
    tx: mpsc::Sender<Told>,
}

impl Teller {
    /// False when enough was told.
    fn tell(&mut self, json: Vec<u8>, is_part: bool) -> bool {
        if json.len() > MAX_TOLD {
            self.miss(1);
            return true;
        }
        let told = Told { look: self.look, json: json.into(), is_part, ..Told::default() };
        if self.tx.try_send(told).is_err() {
            self.miss(1);
        } else if !is_part {
            self.left = self.left.saturating_sub(1);
        }
        self.left > 0
    }

    fn miss(&self, missed: u64) {
        if missed > 0 {
            // Where there is no room for this either, more is missed than is told.
            let _ = self.tx.try_send(Told { look: self.look, missed, ..Told::default() });
        }
    }
}

/// Requests as they end.
async fn ended(mut teller: Teller, mut opened: Opened, end: Instant) {
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            seen = opened.next() => {
                let Some(seen) = seen else { return };
                if !teller.tell(seen, false) {
                    return;
                }
            }
            _ = turns.tick() => teller.miss(opened.take_missed()),
            () = tokio::time::sleep_until(end) => return,
        }
    }
}

/// Requests with every step, and parts of those that others have seen.
async fn steps(
    mut teller: Teller,
    mut fitting: Opened,
    mut all: Opened,
    mut finds: mpsc::Receiver<Find>,
    end: Instant,
) {
    let mut kept = Kept::default();
    let mut sought: VecDeque<Find> = VecDeque::new();
    // Who has told enough still has parts of what others tell.
    let mut is_enough = false;
    loop {
        tokio::select! {
            seen = fitting.next(), if !is_enough => match seen {
                Some(seen) => is_enough = !teller.tell(seen, false),
                None => return,
            },
            seen = all.next() => {
                let Some(seen) = seen else { return };
                let part = Part::of(seen);
                if sought.iter().any(|find| part.is_of(find)) {
                    teller.tell(part.json, true);
                } else {
                    kept.put(part);
                }
            }
            find = finds.recv() => {
                let Some(find) = find else { return };
                for part in kept.take(&find) {
                    teller.tell(part.json, true);
                }
                if sought.len() >= SOUGHT {
                    sought.pop_front();
                }
                sought.push_back(find);
            }
            () = tokio::time::sleep_until(end) => return,
        }
    }
}

/// What this proxy knows of one request.
struct Part {
    request_id: String,
    trace_id: String,
    json: Vec<u8>,
}

impl Part {
    fn of(json: Vec<u8>) -> Self {
        let value: Value = serde_json::from_slice(&json).unwrap_or_default();
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        Self { request_id: text("requestId"), trace_id: text("traceId"), json }
    }

    fn is_of(&self, find: &Find) -> bool {
        let is = |one: &str, other: &str| !one.is_empty() && one == other;
        is(&self.request_id, &find.request_id) || is(&self.trace_id, &find.trace_id)
    }
}

/// The latest requests.
#[derive(Default)]
struct Kept {
    parts: VecDeque<Part>,
    bytes: usize,
}

impl Kept {
    fn put(&mut self, part: Part) {
        self.bytes += part.json.len();
        self.parts.push_back(part);
        while self.parts.len() > KEPT.0 || self.bytes > KEPT.1 {
            let Some(gone) = self.parts.pop_front() else { return };
            self.bytes -= gone.json.len();
        }
    }

    fn take(&mut self, find: &Find) -> Vec<Part> {
        let (found, left): (VecDeque<Part>, VecDeque<Part>) =
            std::mem::take(&mut self.parts).into_iter().partition(|part| part.is_of(find));
        self.parts = left;
        self.bytes = self.parts.iter().map(|part| part.json.len()).sum();
        found.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_requests_are_found_by_either_of_their_ids() {
        let mut kept = Kept::default();
        for number in 0..KEPT.0 + 10 {
            let id = format!(r#"{{"requestId":"r{number}","traceId":"t{}"}}"#, number / 2);
            kept.put(Part::of(id.into_bytes()));
        }
        let find = |request_id: &str, trace_id: &str| Find {
            request_id: request_id.to_owned(),
            trace_id: trace_id.to_owned(),
            ..Find::default()
        };
        assert_eq!(kept.take(&find("r3", "")).len(), 0, "it is too long ago");
        assert_eq!(kept.take(&find("r100", "t60")).len(), 3);
        assert_eq!(kept.take(&find("r100", "t60")).len(), 0);
        assert_eq!(kept.parts.len(), KEPT.0 - 3);
        kept.put(Part::of(vec![b' '; KEPT.1 + 1]));
        assert!(kept.bytes <= KEPT.1 && kept.parts.is_empty());
    }
}
