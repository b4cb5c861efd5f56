//! Bytes on disk: small sealed values, and blocks that are cut into pieces.
//!
//! Every value starts with a version byte and carries a checksum of its own. A block (a run's record or a set of texts as
//! compressed JSON, the observations of a run) lies in pieces of a few KiB, since sled keeps up to sixteen values a page and moves pages above 128 KiB to files of
//! their own. Each piece says what it belongs to, so that blocks can be gathered from the raw bytes of a store that sled itself
//! no longer opens ([`carve`]).

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::HistoryError;
use crate::record::{Fingerprint, RECORD_VERSION, RunRecord};

/// Canonical texts by the fingerprint they hash to.
pub type CanonicalTexts = BTreeMap<Fingerprint, String>;

/// Version byte of the values written by this build.
pub(crate) const VALUE_VERSION: u8 = 1;

/// Why bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// Written by a newer build.
    #[error("it has version {0}, newer than this build reads")]
    Newer(u32),
    /// Not what was written.
    #[error("{0}")]
    Broken(String),
}

fn broken(what: impl Into<String>) -> Unreadable {
    Unreadable::Broken(what.into())
}

/// Bytes before the payload of a sealed value.
pub(crate) const SEAL: usize = 5;

/// `payload` behind a version byte and a checksum.
pub(crate) fn seal(payload: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(SEAL + payload.len());
    sealed.push(VALUE_VERSION);
    sealed.extend_from_slice(&blake3::hash(payload).as_bytes()[..4]);
    sealed.extend_from_slice(payload);
    sealed
}

/// The payload of a sealed value.
pub(crate) fn unseal(sealed: &[u8]) -> Result<&[u8], Unreadable> {
    let (&version, rest) = sealed.split_first().ok_or_else(|| broken("the value is empty"))?;
    known(version)?;
    let (sum, payload) = rest.split_at_checked(4).ok_or_else(|| broken("the value is cut off"))?;
    if blake3::hash(payload).as_bytes()[..4] == *sum { Ok(payload) } else { Err(broken("the checksum does not match")) }
}

fn known(version: u8) -> Result<(), Unreadable> {
    match version {
        0 => Err(broken("the version byte is zero")),
        VALUE_VERSION => Ok(()),
        newer => Err(Unreadable::Newer(newer.into())),
    }
}

/// Sealed JSON: for values that are few and may grow by fields.
pub(crate) fn seal_json<T: Serialize>(value: &T) -> Result<Vec<u8>, Unreadable> {
    serde_json::to_vec(value).map(|json| seal(&json)).map_err(|error| broken(error.to_string()))
}

/// The value of sealed JSON.
pub(crate) fn unseal_json<'a, T: Deserialize<'a>>(sealed: &'a [u8]) -> Result<T, Unreadable> {
    serde_json::from_slice(unseal(sealed)?).map_err(|error| broken(error.to_string()))
}

/// Largest JSON that a block may unpack to: a bound for what a broken or hostile block can take.
const UNPACKED_LIMIT: u64 = 512 << 20;
/// On records of real plans the fastest level is also among the smallest: they are short, and full of numbers.
const COMPRESSION_LEVEL: i32 = 1;

/// JSON, compressed.
pub(crate) fn pack<T: Serialize>(value: &T) -> Result<Vec<u8>, Unreadable> {
    let json = serde_json::to_vec(value).map_err(|error| broken(error.to_string()))?;
    zstd::bulk::compress(&json, COMPRESSION_LEVEL).map_err(|error| broken(error.to_string()))
}

/// The JSON in a compressed block.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>, Unreadable> {
    let mut json = Vec::new();
    let decoder = zstd::Decoder::with_buffer(packed).map_err(|error| broken(error.to_string()))?;
    decoder.take(UNPACKED_LIMIT + 1).read_to_end(&mut json).map_err(|error| broken(error.to_string()))?;
    if json.len() as u64 > UNPACKED_LIMIT { Err(broken("it unpacks to more than 512 MiB")) } else { Ok(json) }
}

/// The version of a record, whatever else it holds.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Version {
    version: u16,
}

/// JSON with a record in it. The record's version is looked at first: a newer one need not have today's fields.
pub(crate) fn from_versioned_json<T: DeserializeOwned>(
    json: &[u8],
    version: impl Fn(&[u8]) -> Option<Version>,
) -> Result<T, Unreadable> {
    match version(json) {
        Some(Version { version }) if version > RECORD_VERSION => Err(Unreadable::Newer(version.into())),
        _ => serde_json::from_slice(json).map_err(|error| broken(error.to_string())),
    }
}

#[derive(Serialize)]
struct RunBlockOut<'a> {
    /// First, so that what a run belongs to can be seen without the whole.
    texts: Option<Fingerprint>,
    record: &'a RunRecord,
}

#[derive(Deserialize)]
struct RunBlock<R> {
    #[serde(default)]
    texts: Option<Fingerprint>,
    record: R,
}

/// A record with the name of its set of texts, compressed.
pub(crate) fn pack_run(record: &RunRecord, texts: Option<Fingerprint>) -> Result<Vec<u8>, Unreadable> {
    pack(&RunBlockOut { texts, record })
}

/// What [`pack_run`] packed.
pub(crate) fn unpack_run(packed: &[u8]) -> Result<(RunRecord, Option<Fingerprint>), Unreadable> {
    let RunBlock { texts, record } = from_versioned_json(&unpack(packed)?, |json| {
        serde_json::from_slice::<RunBlock<Version>>(json).ok().map(|block| block.record)
    })?;
    Ok((record, texts))
}

/// A record as the store keeps it: one block of compressed JSON.
///
/// # Errors
/// A text or number in it has no JSON.
pub fn encode_record(record: &RunRecord) -> Result<Vec<u8>, HistoryError> {
    pack_run(record, None).map_err(|why| HistoryError::Record { run: record.id.to_string(), detail: why.to_string() })
}

/// The record in a block.
///
/// # Errors
/// It is not a block of a record, or is of a newer version.
pub fn decode_record(block: &[u8]) -> Result<RunRecord, HistoryError> {
    let record = unpack_run(block).map(|(record, _)| record);
    record.map_err(|why| HistoryError::Record { run: "of a block".into(), detail: why.to_string() })
}

/// The texts in a compressed block.
pub(crate) fn unpack_texts(packed: &[u8]) -> Result<CanonicalTexts, Unreadable> {
    serde_json::from_slice(&unpack(packed)?).map_err(|error| broken(error.to_string()))
}

/// Name of a set of texts: a hash over all of them.
pub(crate) fn texts_name(texts: &CanonicalTexts) -> Fingerprint {
    let mut hash = blake3::Hasher::new();
    for (fingerprint, text) in texts {
        hash.update(&fingerprint.0).update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize().as_bytes()[..16]);
    Fingerprint(first)
}

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Run,
    Texts,
    Recent,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Run, Self::Texts, Self::Recent];

    fn byte(self) -> u8 {
        match self {
            Self::Run => b'R',
            Self::Texts => b'T',
            Self::Recent => b'O',
        }
    }
}

/// Bytes of payload in a piece.
const PIECE: usize = 4 << 10;
/// version 1 · kind 1 · magic 6 · hash of the block 16 · index 2 · pieces 2 · length 4 · checksum 8
const HEADER: usize = 40;
const MAGIC: &[u8; 6] = b"spklet";
const MAGIC_AT: usize = 2;

/// A piece of a block as found.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    kind: Kind,
    block: [u8; 16],
    index: u16,
    pieces: u16,
    payload: &'a [u8],
}

/// Cuts a block into framed pieces.
pub(crate) fn cut(kind: Kind, packed: &[u8]) -> Result<Vec<Vec<u8>>, Unreadable> {
    let pieces = u16::try_from(packed.len().div_ceil(PIECE).max(1)).map_err(|_| broken("the record is too large"))?;
    let block = blake3::hash(packed);
    let cut = (0..pieces).map(|index| {
        let from = usize::from(index) * PIECE;
        let payload = &packed[from..packed.len().min(from + PIECE)];
        let mut frame = Vec::with_capacity(HEADER + payload.len());
        frame.extend_from_slice(&[VALUE_VERSION, kind.byte()]);
        frame.extend_from_slice(MAGIC);
        frame.extend_from_slice(&block.as_bytes()[..16]);
        frame.extend_from_slice(&index.to_le_bytes());
        frame.extend_from_slice(&pieces.to_le_bytes());
        frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        let sum = piece_sum(&frame, payload);
        frame.extend_from_slice(&sum);
        frame.extend_from_slice(payload);
        frame
    });
    Ok(cut.collect())
}

fn piece_sum(header: &[u8], payload: &[u8]) -> [u8; 8] {
    let hash = blake3::Hasher::new().update(header).update(payload).finalize();
    let mut sum = [0; 8];
    sum.copy_from_slice(&hash.as_bytes()[..8]);
    sum
}

/// Reads the piece at the start of `bytes`; what follows it is not looked at.
fn piece(bytes: &[u8]) -> Result<Piece<'_>, Unreadable> {
    let header = bytes.get(..HEADER).ok_or_else(|| broken("the piece is cut off"))?;
    known(header[0])?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.byte() == header[1]);
    let (Some(kind), true) = (kind, &header[MAGIC_AT..MAGIC_AT + 6] == MAGIC) else {
        return Err(broken("not a piece"));
    };
    let mut block = [0; 16];
    block.copy_from_slice(&header[8..24]);
    let length = u32::from_le_bytes([header[28], header[29], header[30], header[31]]) as usize;
    let payload = bytes.get(HEADER..HEADER + length.min(PIECE)).ok_or_else(|| broken("the piece is cut off"))?;
    if piece_sum(&header[..32], payload) != header[32..] {
        return Err(broken("the checksum of a piece does not match"));
    }
    let (index, pieces) = (u16::from_le_bytes([header[24], header[25]]), u16::from_le_bytes([header[26], header[27]]));
    Ok(Piece { kind, block, index, pieces, payload })
}

/// Puts the pieces of one block, in order, together.
pub(crate) fn join<B: AsRef<[u8]>>(kind: Kind, frames: &[B]) -> Result<Vec<u8>, Unreadable> {
    let mut packed = Vec::with_capacity(frames.len() * PIECE);
    for (i, frame) in frames.iter().enumerate() {
        let found = piece(frame.as_ref())?;
        if found.kind != kind || usize::from(found.index) != i || usize::from(found.pieces) != frames.len() {
            return Err(broken(format!("piece {i} of {} is not the one expected", frames.len())));
        }
        packed.extend_from_slice(found.payload);
    }
    if frames.is_empty() { Err(broken("its block is missing")) } else { Ok(packed) }
}

/// Blocks gathered from raw bytes.
#[derive(Debug, Default)]
pub(crate) struct Carved {
    blocks: HashMap<(Kind, [u8; 16]), Pieces>,
}

#[derive(Debug, Default)]
struct Pieces {
    found: BTreeMap<u16, Vec<u8>>,
    all: u16,
}

impl Carved {
    /// Takes in the pieces that lie anywhere in what `reader` gives.
    pub(crate) fn carve(&mut self, mut reader: impl Read) -> std::io::Result<()> {
        const WINDOW: usize = 4 << 20;
        let mut window = Vec::with_capacity(WINDOW + HEADER + PIECE);
        loop {
            let kept = window.len();
            let read = reader.by_ref().take((WINDOW - kept) as u64).read_to_end(&mut window)?;
            // A piece that the window cuts is looked at again with the next one.
            let limit = if read == 0 { window.len() } else { window.len().saturating_sub(HEADER + PIECE) };
            self.look(&window, limit);
            if read == 0 {
                return Ok(());
            }
            window.drain(..limit);
        }
    }

    fn look(&mut self, window: &[u8], limit: usize) {
        let mut at = 0;
        while at < limit {
            // Pieces start two bytes before the magic; its first byte is what is searched for.
            let Some(next) = window[at..].iter().skip(MAGIC_AT).position(|&byte| byte == MAGIC[0]) else { return };
            at += next;
            if at >= limit {
                return;
            }
            match piece(&window[at..]) {
                Ok(found) => {
                    let length = HEADER + found.payload.len();
                    self.keep(&found);
                    at += length;
                }
                Err(_) => at += 1,
            }
        }
    }

    fn keep(&mut self, piece: &Piece<'_>) {
        let block = self.blocks.entry((piece.kind, piece.block)).or_default();
        block.all = piece.pieces;
        block.found.entry(piece.index).or_insert_with(|| piece.payload.to_vec());
    }

    /// The blocks of a kind that are whole, unpacked one at a time, and how many are not.
    pub(crate) fn whole(&self, kind: Kind) -> (impl Iterator<Item = Vec<u8>> + '_, usize) {
        let of_kind = move |key: &(Kind, [u8; 16])| key.0 == kind;
        let is_whole = |key: &(Kind, [u8; 16]), pieces: &Pieces| {
            pieces.found.len() == usize::from(pieces.all) && {
                let mut hash = blake3::Hasher::new();
                for payload in pieces.found.values() {
                    hash.update(payload);
                }
                hash.finalize().as_bytes()[..16] == key.1
            }
        };
        let parts = self.blocks.iter().filter(|(key, pieces)| of_kind(key) && !is_whole(key, pieces)).count();
        let whole = self.blocks.iter().filter(move |(key, pieces)| of_kind(key) && is_whole(key, pieces));
        (whole.map(|(_, pieces)| pieces.found.values().flatten().copied().collect()), parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn sealed_values_tell_what_is_wrong() {
        let sealed = seal(b"payload");
        assert_eq!(unseal(&sealed), Ok(&b"payload"[..]));
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 0x40;
            assert!(unseal(&bad).is_err(), "flip at {at}");
        }
        assert_eq!(unseal(&[9, 0, 0, 0, 0]), Err(Unreadable::Newer(9)));
        assert!(unseal(&[]).is_err() && unseal(&sealed[..3]).is_err());
    }

    #[test]
    fn blocks_come_back_from_their_pieces() {
        for length in [0, 1, PIECE, PIECE + 1, 5 * PIECE - 1] {
            let packed = noise(length, 1);
            let mut frames = cut(Kind::Run, &packed).unwrap();
            assert_eq!(join(Kind::Run, &frames).unwrap(), packed);
            assert!(join(Kind::Texts, &frames).is_err());
            frames.pop();
            assert!(join(Kind::Run, &frames).is_err(), "a piece less of {length} bytes");
        }
    }

    #[test]
    fn carving_finds_blocks_among_noise_across_windows() {
        let blocks: Vec<Vec<u8>> = (0..40).map(|i| noise(500 + 700 * usize::from(i), i)).collect();
        let mut raw = Vec::new();
        for (i, block) in blocks.iter().enumerate() {
            for frame in cut(Kind::Run, block).unwrap() {
                // Almost a piece, noise, and then a real one.
                raw.extend_from_slice(&frame[..20]);
                raw.extend(noise(220_000 + i, 99));
                raw.extend(frame);
            }
        }
        raw.truncate(raw.len() - 1);
        let mut carved = Carved::default();
        carved.carve(&raw[..]).unwrap();
        let (whole, parts) = carved.whole(Kind::Run);
        let mut found: Vec<Vec<u8>> = whole.collect();
        found.sort_by_key(Vec::len);
        assert_eq!((found.len(), parts), (39, 1), "the last one lost its last byte");
        assert!(found == blocks[..39]);
        assert_eq!(carved.whole(Kind::Texts).1, 0);
    }
}
