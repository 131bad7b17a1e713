//! The swap cell: one place that holds the plan in force.

use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;

use crate::snapshot::Plan;

/// The plan in force. One per process.
#[derive(Clone, Default)]
pub struct Current(Arc<ArcSwap<Plan>>);

/// A worker's view of the current plan: reading it costs one relaxed load while nothing changes.
pub struct Reader(Cache<Arc<ArcSwap<Plan>>, Arc<Plan>>);

impl Current {
    /// Puts a plan into force. Requests that are under way finish with the one they began with.
    pub fn swap(&self, plan: Arc<Plan>) {
        self.0.store(plan);
    }

    /// The plan in force.
    pub fn load(&self) -> Arc<Plan> {
        self.0.load_full()
    }

    /// A view for one worker.
    pub fn reader(&self) -> Reader {
        Reader(Cache::new(Arc::clone(&self.0)))
    }
}

impl Reader {
    /// The plan in force.
    #[inline]
    pub fn load(&mut self) -> &Arc<Plan> {
        self.0.load()
    }
}
