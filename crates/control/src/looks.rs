//! Single requests of many proxies: whoever looks asks all of them, and each tells what it sees.
//!
//! A look is asked of every proxy that is connected or comes meanwhile, and ends with whoever looks. Of a trace the first
//! part that fits says which request it is; then all proxies are asked for their parts of it ([`Looking::find`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rhumb_ads::report::{Find, Look, Question, Told};
use tokio::sync::mpsc;
use tonic::Status;

/// Looks at a time.
pub const MAX_LOOKS: usize = 16;

/// What waits for one who looks; more is counted as missed.
const BACKLOG: usize = 512;

/// Where questions to a proxy go.
pub(crate) type Ask = mpsc::Sender<Result<Question, Status>>;

/// Who looks, and who can be asked.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    open: BTreeMap<u64, Open>,
    proxies: BTreeMap<u64, Ask>,
}

#[derive(Debug)]
struct Open {
    look: Look,
    tx: mpsc::Sender<Seen>,
    missed: u64,
}

/// Something that a proxy has seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The proxy.
    pub proxy: Arc<str>,
    /// What it tells.
    pub told: Told,
}

/// Somebody who looks; proxies stop telling when this is dropped.
#[derive(Debug)]
pub struct Looking {
    looks: Arc<Looks>,
    id: u64,
    rx: mpsc::Receiver<Seen>,
}

impl Looks {
    /// Asks every proxy. Nothing when as many look as may.
    pub(crate) fn open(self: &Arc<Self>, look: Look) -> Option<Looking> {
        let (tx, rx) = mpsc::channel(BACKLOG);
        let mut inner = self.lock();
        if inner.open.len() >= MAX_LOOKS {
            return None;
        }
        inner.next += 1;
        let id = inner.next;
        let look = Look { id, ..look };
        inner.ask(&Question { look: Some(look.clone()), ..Question::default() });
        inner.open.insert(id, Open { look, tx, missed: 0 });
        Some(Looking { looks: Arc::clone(self), id, rx })
    }

    /// A proxy can be asked: it is told of those who look.
    pub(crate) fn join(&self, proxy: u64, ask: Ask) {
        let mut inner = self.lock();
        for open in inner.open.values() {
            // One that cannot take so much at its beginning is asked nothing.
            let _ = ask.try_send(Ok(Question { look: Some(open.look.clone()), ..Question::default() }));
        }
        inner.proxies.insert(proxy, ask);
    }

    /// A proxy is gone.
    pub(crate) fn leave(&self, proxy: u64) {
        self.lock().proxies.remove(&proxy);
    }

    /// Hands on what a proxy has seen. False when nobody looks for it any more.
    pub(crate) fn tell(&self, proxy: &Arc<str>, told: Told) -> bool {
        let mut inner = self.lock();
        let Some(open) = inner.open.get_mut(&told.look) else { return false };
        open.missed += told.missed;
        if !told.json.is_empty() || !told.refused.is_empty() {
            let seen = Seen { proxy: Arc::clone(proxy), told };
            open.missed += u64::from(open.tx.try_send(seen).is_err());
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Asks every proxy; one that does not read its questions is not waited for.
    fn ask(&self, question: &Question) {
        for ask in self.proxies.values() {
            let _ = ask.try_send(Ok(question.clone()));
        }
    }
}

impl Looking {
    /// The next that is seen. **Cancel**: nothing is lost.
    pub async fn next(&mut self) -> Option<Seen> {
        self.rx.recv().await
    }

    /// Asks for every part of a request.
    pub fn find(&self, request_id: &str, trace_id: &str) {
        let find = Find { look: self.id, request_id: request_id.to_owned(), trace_id: trace_id.to_owned() };
        self.looks.lock().ask(&Question { find: Some(find), ..Question::default() });
    }

    /// How many were seen and not told since this was last asked.
    pub fn take_missed(&self) -> u64 {
        self.looks.lock().open.get_mut(&self.id).map_or(0, |open| std::mem::take(&mut open.missed))
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        let mut inner = self.looks.lock();
        inner.open.remove(&self.id);
        inner.ask(&Question { end: self.id, ..Question::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(look: u64, json: &str) -> Told {
        Told { look, json: json.as_bytes().to_vec().into(), ..Told::default() }
    }

    #[test]
    fn everybody_is_asked_and_told_when_nobody_looks_any_more() {
        let looks = Arc::<Looks>::default();
        let (early, mut first) = mpsc::channel(4);
        looks.join(1, early);
        let mut looking = looks.open(Look { filter: "x".to_owned(), ..Look::default() }).unwrap();
        let (late, mut second) = mpsc::channel(4);
        looks.join(2, late);
        for asked in [&mut first, &mut second] {
            assert_eq!(asked.try_recv().unwrap().unwrap().look.unwrap().filter, "x");
        }
        let proxy: Arc<str> = "edge".into();
        assert!(looks.tell(&proxy, told(1, "{}")) && !looks.tell(&proxy, told(7, "{}")));
        assert_eq!(&*looking.rx.try_recv().unwrap().proxy, "edge");
        for _ in 0..BACKLOG + 3 {
            looks.tell(&proxy, told(1, "{}"));
        }
        assert_eq!((looking.take_missed(), looking.take_missed()), (3, 0));
        looking.find("r", "t");
        assert_eq!(first.try_recv().unwrap().unwrap().find.unwrap().request_id, "r");
        drop(looking);
        assert_eq!(first.try_recv().unwrap().unwrap().end, 1);
        let all: Vec<_> = (0..MAX_LOOKS).map(|_| looks.open(Look::default()).unwrap()).collect();
        assert!(looks.open(Look::default()).is_none());
        drop(all);
    }
}
