//! Key services with a stopwatch: the core counts no calls, so that this crate wraps them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use atrest::kms::{
    Credential, Deadline, KeyUri, Kms, KmsError, KmsErrorKind, SlotKey, WrapContext, WrappedKey,
};

/// Upper bounds of the histogram's buckets, in milliseconds: from a module in the machine
/// to the deadline of an operation.
pub(crate) const BUCKETS_MS: [u64; 12] =
    [1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 15_000];

/// Counts the calls to key services, their time and their errors.
#[derive(Debug, Default)]
pub struct KmsMetrics {
    series: Mutex<BTreeMap<(String, &'static str), Series>>,
}

/// The calls of one operation to services of one scheme.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// Calls by their time; the last element counts those above all bounds.
    pub(crate) buckets: [u64; BUCKETS_MS.len() + 1],
    pub(crate) total: Duration,
    pub(crate) errors: BTreeMap<&'static str, u64>,
}

impl KmsMetrics {
    /// `kms`, its calls counted here. Give the result to the keyring.
    pub fn meter(self: &Arc<Self>, kms: Arc<dyn Kms>) -> Arc<dyn Kms> {
        Arc::new(Metered { kms, metrics: self.clone() })
    }

    /// By scheme and operation.
    pub(crate) fn series(&self) -> BTreeMap<(String, &'static str), Series> {
        self.lock().clone()
    }

    fn record(
        &self,
        key_uri: &KeyUri,
        operation: &'static str,
        took: Duration,
        error: Option<KmsErrorKind>,
    ) {
        let mut all = self.lock();
        let series = all.entry((key_uri.scheme().to_owned(), operation)).or_default();
        let slot = BUCKETS_MS.iter().position(|ms| took <= Duration::from_millis(*ms));
        series.buckets[slot.unwrap_or(BUCKETS_MS.len())] += 1;
        series.total = series.total.saturating_add(took);
        if let Some(kind) = error {
            *series.errors.entry(kind.as_str()).or_default() += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, &'static str), Series>> {
        // Counters are whole after every step.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Metered {
    kms: Arc<dyn Kms>,
    metrics: Arc<KmsMetrics>,
}

impl Metered {
    fn timed<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce() -> Result<T, KmsError>,
    ) -> Result<T, KmsError> {
        let start = Instant::now();
        let result = call();
        let error = result.as_ref().err().map(KmsError::kind);
        self.metrics.record(self.kms.key_uri(), operation, start.elapsed(), error);
        result
    }
}

// A method added to the trait must reach the service, not its default.
#[deny(clippy::missing_trait_methods)]
impl Kms for Metered {
    fn key_uri(&self) -> &KeyUri {
        self.kms.key_uri()
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.timed("wrap", || self.kms.wrap(key, context, deadline))
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        self.timed("unwrap", || self.kms.unwrap(wrapped, context, deadline))
    }

    fn rewrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.timed("rewrap", || self.kms.rewrap(wrapped, context, deadline))
    }

    fn credential(&self) -> Option<Credential> {
        self.kms.credential()
    }
}
