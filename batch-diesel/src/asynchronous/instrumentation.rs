//! The instrumentation, which diesel-async's connection and ours both tell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use diesel::connection::{DebugQuery, DynInstrumentation, Instrumentation, InstrumentationEvent};
use diesel::result::Error;

/// The connection's instrumentation, shared with the inner connection: a future that borrows that may have something to
/// tell as well.
#[derive(Clone)]
pub(super) struct Shared(Arc<Mutex<DynInstrumentation>>);

impl Shared {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(DynInstrumentation::default_instrumentation())))
    }

    pub(super) fn set(&self, instrumentation: impl Instrumentation) {
        *self.lock() = instrumentation.into();
    }

    pub(super) fn started(&self, query: &dyn DebugQuery) {
        self.lock().on_connection_event(InstrumentationEvent::start_query(query));
    }

    pub(super) fn finished(&self, query: &dyn DebugQuery, error: Option<&Error>) {
        self.lock().on_connection_event(InstrumentationEvent::finish_query(query, error));
    }

    // As diesel-async, which goes on after a panic as well.
    fn lock(&self) -> MutexGuard<'_, DynInstrumentation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instrumentation for Shared {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        self.lock().on_connection_event(event);
    }
}
