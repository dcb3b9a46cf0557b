//! A map that does not grow for ever.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Keeps what was asked for lately.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    /// And when that was.
    entries: HashMap<K, (V, u64)>,
    now: u64,
    max: usize,
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn new(max: usize) -> Self {
        Self { entries: HashMap::new(), now: 0, max }
    }

    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.now += 1;
        let (value, used) = self.entries.get_mut(key)?;
        *used = self.now;
        Some(value)
    }

    /// Forgets others for it, if it is one too many: those that were not asked for longest, of which `may_go` says that
    /// they may be forgotten.
    pub(crate) fn insert(&mut self, key: K, value: V, may_go: impl Fn(&V) -> bool) {
        self.now += 1;
        let oldest = |entries: &HashMap<K, (V, u64)>| {
            let old = entries.iter().filter(|(_, (value, _))| may_go(value));
            old.min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone())
        };
        if !self.entries.contains_key(&key) {
            while self.entries.len() >= self.max
                && let Some(old) = oldest(&self.entries)
            {
                self.entries.remove(&old);
            }
        }
        self.entries.insert(key, (value, self.now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_longest_is_forgotten() {
        let mut recent = Recent::new(2);
        for key in ["a", "b"] {
            recent.insert(key, key, |_| true);
        }
        recent.get("a");
        recent.insert("c", "c", |_| true);
        assert_eq!(["a", "b", "c"].map(|key| recent.get(key).is_some()), [true, false, true]);
        recent.insert("c", "again", |_| true);
        assert!(recent.get("a").is_some());
    }

    #[test]
    fn what_is_in_use_is_kept() {
        let mut recent = Recent::new(2);
        for key in 0..9 {
            recent.insert(key, key, |key| key % 2 == 1);
        }
        assert_eq!((0..9).filter(|key| recent.get(key).is_some()).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
    }
}
