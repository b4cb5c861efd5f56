//! Memory that others take beside queries, charged to the session's pool.

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};

use crate::session::Session;

/// Memory in the pool of a session that no query gets while this lives.
#[derive(Debug)]
pub struct Reservation {
    inner: MemoryReservation,
}

impl Reservation {
    /// Bytes of it.
    pub fn bytes(&self) -> u64 {
        self.inner.size() as u64
    }
}

impl Session {
    /// Reserves up to `most` bytes of the pool under a name that errors about a full pool will show: of `most`, its half, its quarter
    /// and so on the first that is free, if that is `least` bytes or more. None where not even `least` is free: nothing fails, and nothing
    /// that queries have is taken from them.
    pub fn reserve(&self, name: &str, most: u64, least: u64) -> Option<Reservation> {
        let runtime = self.context().runtime_env();
        let inner = MemoryConsumer::new(name).register(&runtime.memory_pool);
        let mut bytes = most;
        while bytes >= least.max(1) {
            if usize::try_from(bytes).is_ok_and(|bytes| inner.try_grow(bytes).is_ok()) {
                return Some(Reservation { inner });
            }
            bytes /= 2;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MIN_MEMORY_LIMIT;
    use crate::session::SessionConfig;

    #[test]
    fn what_is_reserved_is_charged_until_it_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let config = SessionConfig {
            memory_limit: Some(MIN_MEMORY_LIMIT),
            spill_dir: folder.path().to_owned(),
            ..SessionConfig::default()
        };
        let session = Session::new(config).unwrap();
        let (limit, least) = (MIN_MEMORY_LIMIT, 1 << 20);
        let reserved = session.reserve("cache", limit / 4, least).unwrap();
        assert_eq!((reserved.bytes(), session.memory().reserved), (limit / 4, limit / 4));

        // Too much gets as much of it as there is room for, in halves.
        let second = session.reserve("cache", 2 * limit, least).unwrap();
        assert_eq!((second.bytes(), session.memory().reserved), (limit / 2, limit / 4 * 3));
        let third = session.reserve("cache", limit / 4, least).unwrap();
        assert_eq!(third.bytes(), limit / 4);
        assert!(session.reserve("cache", limit, least).is_none(), "the pool is full");
        assert!(session.reserve("cache", least - 1, least).is_none());
        assert!(session.reserve("cache", 0, 0).is_none());
        drop((reserved, second, third));
        assert_eq!(session.memory().reserved, 0);
        assert_eq!(session.reserve("cache", limit, least).unwrap().bytes(), limit);
    }

    #[test]
    fn queries_are_refused_what_is_reserved_and_errors_name_it() {
        let session = Session::new(SessionConfig { memory_limit: Some(MIN_MEMORY_LIMIT), ..SessionConfig::default() });
        let session = session.unwrap();
        let reserved = session.reserve("history cache", MIN_MEMORY_LIMIT / 4 * 3, 1).unwrap();
        let query = MemoryConsumer::new("query").register(&session.context().runtime_env().memory_pool);
        let half = usize::try_from(MIN_MEMORY_LIMIT / 2).unwrap();
        let refused = query.try_grow(half).unwrap_err().to_string();
        assert!(refused.contains("history cache"), "{refused}");
        drop(reserved);
        query.try_grow(half).unwrap();
    }
}
