//! How long work tells how far it is.

/// Receives progress; a terminal draws bars from it.
pub trait Progress: Sync {
    /// A stage of `total` steps begins.
    fn start(&self, stage: &str, total: usize);
    /// One step of the current stage is done.
    fn step(&self);
    /// The current stage is over.
    fn finish(&self);
    /// One line worth keeping, such as what an attempt of the search gained.
    fn note(&self, line: &str);
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _: &str, _: usize) {}
    fn step(&self) {}
    fn finish(&self) {}
    fn note(&self, _: &str) {}
}
