//! What the store tells about itself.

/// Takes the store's measurements. Methods are called on hot paths: they return at once.
pub trait StoreObserver: Send + Sync + 'static {
    /// A batch of this many changes is given to the database.
    fn batch(&self, size: usize);

    /// An operation ended: its summary (such as `commit payment`), how long it took, whether it worked.
    fn operation(&self, summary: &'static str, seconds: f64, ok: bool);

    /// How long ago the oldest entry that was just given a position was committed, about, in seconds.
    fn sequencer_lag(&self, seconds: f64);

    /// So many journal entries were read whose MAC does not verify: somebody wrote to the database past
    /// us. Worth an alert. Nothing is done about it by default: the log has it, too.
    fn unverified_entries(&self, _count: usize) {}
}

/// Takes nothing down.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl StoreObserver for Unobserved {
    fn batch(&self, _size: usize) {}
    fn operation(&self, _summary: &'static str, _seconds: f64, _ok: bool) {}
    fn sequencer_lag(&self, _seconds: f64) {}
}
