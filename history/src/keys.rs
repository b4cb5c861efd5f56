//! Keys of the trees, and what their order gives.
//!
//! | tree | key | so that |
//! |---|---|---|
//! | `runs` | start ‖ id | the newest runs are the end of the tree |
//! | `ids` | id → start | a prefix of an id is a range |
//! | `blocks` | start ‖ id ‖ piece | a run's record is a range, written at the end of the tree |
//! | `recent` | scope ‖ start ‖ id ‖ shelf and piece | what waits of a scope is a range |
//! | `observations` | template ‖ scope ‖ descending start of the chunk's first | the last N are the first of a range |
//! | `texts` | hash of the set ‖ piece | a set of texts is a range |
//! | `sources` | name ‖ pipeline and environment ‖ data version | all versions of a source are a range |

use chrono::{DateTime, Utc};

use crate::evidence::Scope;
use crate::record::{Fingerprint, RunId};

/// Bytes of a time in a key.
const TIME: usize = 8;

/// Micro-seconds since 1970 such that byte order is time order, also before 1970.
pub(crate) fn ascending(at: DateTime<Utc>) -> [u8; TIME] {
    at.timestamp_micros().cast_unsigned().wrapping_add(1 << 63).to_be_bytes()
}

/// The other way round: the newest first.
pub(crate) fn descending(at_us: i64) -> [u8; TIME] {
    (!at_us.cast_unsigned().wrapping_add(1 << 63)).to_be_bytes()
}

/// Key of a run in `runs`, and prefix of its pieces in `blocks`.
pub(crate) fn run(at: DateTime<Utc>, id: &RunId) -> Vec<u8> {
    [&ascending(at)[..], id.as_str().as_bytes()].concat()
}

/// The same from the value in `ids`.
pub(crate) fn run_from(at: &[u8], id: &str) -> Vec<u8> {
    [at, id.as_bytes()].concat()
}

/// The id in a key of `runs`.
pub(crate) fn run_id(key: &[u8]) -> Option<RunId> {
    std::str::from_utf8(key.get(TIME..)?).ok()?.parse().ok()
}

/// Piece `index` of a block.
pub(crate) fn piece(prefix: &[u8], index: u16) -> Vec<u8> {
    [prefix, &index.to_be_bytes()[..]].concat()
}

/// A scope in keys.
pub(crate) fn scope(scope: Scope<'_>) -> [u8; 8] {
    let Fingerprint(hash) =
        Fingerprint::of(&format!("{}:{}{}", scope.pipeline.len(), scope.pipeline, scope.environment));
    let mut tag = [0; 8];
    tag.copy_from_slice(&hash[..8]);
    tag
}

/// Key of a run in `recent`, and prefix of its pieces.
pub(crate) fn recent(scope: &[u8; 8], at: DateTime<Utc>, id: &RunId) -> Vec<u8> {
    [&scope[..], &run(at, id)[..]].concat()
}

/// Shelves that the observations of a scope wait on.
pub(crate) const SHELVES: usize = 16;
/// Bits of a number in `recent` that say which piece; the others say which shelf. (Once all of a run lay on the first one: such
/// blocks are read too, since nothing but folding asks where an observation lies.)
const PIECE_BITS: u32 = 12;

/// The shelf of a series: any, but always the same.
pub(crate) fn shelf_of(series: &Fingerprint) -> usize {
    usize::from(series.0[0] >> 4) % SHELVES
}

/// Piece `index` on a shelf of a run in `recent`.
pub(crate) fn recent_piece(prefix: &[u8], shelf: usize, index: u16) -> Vec<u8> {
    piece(prefix, ((shelf % SHELVES) as u16) << PIECE_BITS | index & ((1 << PIECE_BITS) - 1))
}

/// Run, shelf and piece of a key in `recent`.
pub(crate) fn of_recent(key: &[u8]) -> (&[u8], usize, u16) {
    let (run, number) = key.split_last_chunk::<2>().unwrap_or((key, &[0; 2]));
    let number = u16::from_be_bytes(*number);
    (run, usize::from(number >> PIECE_BITS), number & ((1 << PIECE_BITS) - 1))
}

/// Prefix of the chunks of a series in a scope.
pub(crate) fn series(series: &Fingerprint, scope: &[u8; 8]) -> Vec<u8> {
    [&series.0[..], &scope[..]].concat()
}

/// Length of [`series`].
pub(crate) const SERIES: usize = 24;

/// A chunk of a series by its oldest observation.
pub(crate) fn chunk(series: &[u8], first_at_us: i64) -> Vec<u8> {
    [series, &descending(first_at_us)[..]].concat()
}

/// The fingerprint that starts at `at` in a key.
pub(crate) fn fingerprint_at(key: &[u8], at: usize) -> Option<Fingerprint> {
    key.get(at..at + 16)?.try_into().ok().map(Fingerprint)
}

/// Prefix of all versions of a source name.
pub(crate) fn source_name(name: &str) -> [u8; 16] {
    Fingerprint::of(name).0
}

/// A version of a source.
pub(crate) fn source(name: &str, owner: Scope<'_>, data_version: &Fingerprint) -> Vec<u8> {
    [&source_name(name)[..], &scope(owner)[..], &data_version.0[..]].concat()
}
