//! The history as commands use it.

use std::path::Path;

use chrono::Utc;
use sparklet_core::Session;
use sparklet_history::{
    CanonicalTexts, History, HistoryError, HistoryOptions, Outcome, PrunePolicy, Remembered, RunFilter, RunId,
    RunRecord, RunSummary, Store, hash_values,
};

use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::settings::{Learning, Settings};
use crate::world::World;

/// Characters of a run id that are shown: unique among a million runs nearly always.
const SHORT: usize = 4;

/// Smallest cache of a store in bytes: so little is taken from a full pool too, for that moment.
const LEAST_CACHE: u64 = 1 << 20;

/// Of a session's memory, caches take one part of this many at most.
const CACHE_SHARE: u64 = 4;

/// Runs looked at for a comparison: some of them may not compare.
const LOOK_BACK: usize = 200;

/// The history of a state folder, where no session is alive.
pub fn history(settings: &Settings) -> History {
    History::new(&settings.state, HistoryOptions::default())
}

/// Uses the history while a session is alive. The cache of the store is charged to the session's pool for as long as that takes; in a
/// pool without room for it the cache is smaller, and the history is used all the same. What `work` opens must not outlive it.
pub fn with_history<T>(session: Option<&Session>, settings: &Settings, work: impl FnOnce(&History) -> T) -> T {
    let Some(session) = session else { return work(&history(settings)) };
    let usual = HistoryOptions::default();
    let most = (2 * usual.cache_bytes).min(session.memory().limit / CACHE_SHARE);
    let reserved = session.reserve("history cache", most, 2 * LEAST_CACHE);
    // A store that is written anew is open twice.
    let cache_bytes = reserved.as_ref().map_or(LEAST_CACHE, |reserved| reserved.bytes() / 2);
    work(&History::new(&settings.state, HistoryOptions { cache_bytes, ..usual }))
}

/// True if the state folder holds a history, or records that wait for one.
pub fn exists(settings: &Settings) -> bool {
    settings.state.is_dir()
}

/// Opens the store to read it, and says what there is to say about it.
pub fn open(settings: &Settings, console: &mut Console) -> Result<Store> {
    let store = history(settings).open()?;
    for note in store.notes() {
        console.note(note);
    }
    Ok(store)
}

/// Full records of up to `limit` runs of the same pipeline and environment before `record`, newest first.
pub fn earlier(store: &Store, record: &RunRecord, limit: usize) -> Result<Vec<RunRecord>> {
    let mut records = Vec::new();
    for summary in before(store, record)? {
        if records.len() >= limit {
            break;
        }
        // One that cannot be read is `history verify`'s to tell.
        records.extend(store.run(summary.id.as_str()).ok());
    }
    Ok(records)
}

fn before(store: &Store, record: &RunRecord) -> Result<Vec<RunSummary>> {
    let filter = RunFilter {
        pipeline: Some(record.pipeline.clone()),
        environment: Some(record.environment.clone()),
        ..RunFilter::default()
    };
    let mut runs = store.runs(&filter, LOOK_BACK)?;
    runs.retain(|run| run.id != record.id && run.started_at <= record.started_at);
    Ok(runs)
}

/// One sentence on a run that is over, beside earlier ones. A history that cannot be read costs the comparison, no more.
pub fn verdict(record: &RunRecord, settings: &Settings) -> String {
    let runs = history(settings).open().map_err(Failure::from).and_then(|store| before(&store, record));
    match runs {
        Ok(runs) => sparklet_report::verdict(record, runs),
        Err(_) => sparklet_report::verdict_alone(record),
    }
}

/// How much is said of a run that was remembered; trouble is always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// How to report it.
    Always,
    /// The same, where somebody watches.
    Watched,
    /// Nothing.
    Trouble,
}

/// Remembers a run and says what became of the record; `session` is the one that is alive meanwhile, if one is.
pub fn remember(
    record: &RunRecord,
    texts: &CanonicalTexts,
    session: Option<&Session>,
    settings: &Settings,
    world: &World,
    tell: Tell,
    console: &mut Console,
) {
    let remembered = match settings.hashed {
        false => with_history(session, settings, |history| history.remember(record, texts)),
        true => {
            let (mut record, mut texts) = (record.clone(), texts.clone());
            hash_values(&mut record, &mut texts);
            with_history(session, settings, |history| history.remember(&record, &texts))
        }
    };
    let watched = tell == Tell::Always || (tell == Tell::Watched && console.err_look().terminal);
    let report = format!("sparklet report {}{}", short(&record.id), world.state_argument(settings));
    if let Some(session) = session {
        session.forget_past();
    }
    match remembered {
        Remembered::Stored { notes } => {
            notes.iter().for_each(|note| console.note(note));
            keep_in_bounds(record, session, settings);
            learn(record, session, settings);
            if watched {
                console.hint(&report);
            }
        }
        Remembered::Spooled { reason } => {
            console.warn(&format!("run `{}` waits in the spool: {reason}", record.id));
            console.hint("the next run that can open the history takes it in; nothing is lost");
        }
        Remembered::Lost { reason } => {
            console.warn(&format!("run `{}` is not remembered: {reason}", record.id));
            console.hint(&format!(
                "make room in `{0}` and make it writable, or choose another folder with `--state`",
                shown(&settings.state)
            ));
        }
    }
}

/// Applies the retention settings after about every 32nd run: forgetting reads the whole store, which not every run should pay for.
/// What goes wrong here is for `history prune` to say.
fn keep_in_bounds(record: &RunRecord, session: Option<&Session>, settings: &Settings) {
    let due = record.id.as_str().ends_with('0');
    if !due {
        return;
    }
    let pruned = with_history(session, settings, |history| {
        history.open().and_then(|mut store| store.prune(&retention(settings), Utc::now()))
    });
    if let Err(error) = pruned {
        tracing::debug!("retention was not applied: {error}");
    }
}

/// Trains a cost model where one is due. Whatever goes wrong costs a model, and nothing else: `model show` says which serve.
fn learn(record: &RunRecord, session: Option<&Session>, settings: &Settings) {
    if settings.learning == Learning::Off || record.outcome != Outcome::Succeeded {
        return;
    }
    let trained =
        with_history(session, settings, |history| sparklet_core::models::train(history, &record.environment, false));
    if let Err(error) = trained {
        tracing::debug!("no model was trained: {error}");
    }
}

/// The retention settings as the store takes them.
pub fn retention(settings: &Settings) -> PrunePolicy {
    PrunePolicy { max_age: settings.max_age, max_runs: settings.max_runs, max_bytes: settings.max_size }
}

/// The first characters of a run's id.
pub fn short(id: &RunId) -> &str {
    id.as_str().get(..SHORT).unwrap_or(id.as_str())
}

fn shown(path: &Path) -> String {
    crate::settings::relative(path).display().to_string()
}

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Self {
        let (message, hint) = (error.to_string(), Some(error.hint()));
        match error {
            HistoryError::NotFound { .. } | HistoryError::Ambiguous { .. } => Self::Usage { message, hint },
            _ => Self::History { message, hint },
        }
    }
}

#[cfg(test)]
mod tests {
    use sparklet_core::SessionConfig;

    use super::*;
    use crate::settings::LookFlags;

    const MIB: u64 = 1 << 20;

    fn settings(folder: &tempfile::TempDir) -> Settings {
        let world = World { env: Box::new(|_| None), cwd: folder.path().to_owned() };
        world.settings(&LookFlags::default(), Default::default(), None).unwrap()
    }

    fn session(folder: &tempfile::TempDir, memory: u64) -> Session {
        let spill_dir = folder.path().join("spill");
        Session::new(SessionConfig { memory_limit: Some(memory), spill_dir, ..SessionConfig::default() }).unwrap()
    }

    /// Opens a store, does what a user of it does, and says what the session's pool holds meanwhile.
    fn charged(session: &Session, settings: &Settings) -> u64 {
        let (runs, reserved) = with_history(Some(session), settings, |history| {
            let mut store = history.create().unwrap();
            store.prune(&retention(settings), Utc::now()).unwrap();
            (store.runs(&RunFilter::default(), 1).unwrap(), session.memory().reserved)
        });
        assert_eq!(runs, []);
        reserved
    }

    #[test]
    fn the_cache_is_charged_while_the_store_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(&folder);
        assert!(settings.state.starts_with(folder.path()));
        // As much as it would take without a session, twice; or a quarter of the pool; or what is free.
        let caches = 2 * HistoryOptions::default().cache_bytes;
        let large = session(&folder, 1024 * MIB);
        assert_eq!(charged(&large, &settings), caches);
        assert_eq!(large.memory().reserved, 0, "given back");
        let small = session(&folder, 64 * MIB);
        assert_eq!(charged(&small, &settings), 16 * MIB);
        let taken = small.reserve("a query", 32 * MIB, 32 * MIB).unwrap();
        let more = small.reserve("a query", 24 * MIB, 24 * MIB).unwrap();
        assert_eq!(charged(&small, &settings), (32 + 24 + 8) * MIB);
        drop((taken, more));
        assert_eq!(small.memory().reserved, 0);
    }

    #[test]
    fn a_full_pool_keeps_nobody_from_the_history() {
        let folder = tempfile::tempdir().unwrap();
        let (settings, full) = (settings(&folder), session(&folder, 16 * MIB));
        let taken = full.reserve("a query", 16 * MIB, 16 * MIB).unwrap();
        assert_eq!(charged(&full, &settings), 16 * MIB, "nothing is charged, and the store opened");
        drop(taken);
        assert_eq!(charged(&full, &settings), 4 * MIB);
    }
}
