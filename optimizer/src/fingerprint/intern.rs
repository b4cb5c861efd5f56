//! Interned strings with a hash that is the same on every machine and in every build.
//!
//! Colours decide the order in which occurrences are written into canonical texts, so they may not depend on the process: neither
//! `std`'s nor `hashbrown`'s hashers will do.

use std::rc::Rc;

use datafusion::common::HashMap;

/// An interned string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Sym(u32);

/// The strings of one fingerprinting.
#[derive(Default)]
pub(crate) struct Symbols {
    index: HashMap<Rc<str>, Sym>,
    entries: Vec<(Rc<str>, u64)>,
}

impl Symbols {
    pub(crate) fn intern(&mut self, text: &str) -> Sym {
        if let Some(&sym) = self.index.get(text) {
            return sym;
        }
        let sym = Sym(self.entries.len() as u32);
        let text: Rc<str> = Rc::from(text);
        self.entries.push((Rc::clone(&text), hash_text(&text)));
        self.index.insert(text, sym);
        sym
    }

    pub(crate) fn text(&self, sym: Sym) -> &str {
        &self.entries[sym.0 as usize].0
    }

    pub(crate) fn hash(&self, sym: Sym) -> u64 {
        self.entries[sym.0 as usize].1
    }
}

/// Mixes `value` into `state`: a rotation, an addition and the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
pub(crate) fn mix(state: u64, value: u64) -> u64 {
    let mut z = state.rotate_left(23).wrapping_add(value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn hash_text(text: &str) -> u64 {
    let chunks = text.as_bytes().chunks(8);
    let seed = mix(0x7370_6172_6b6c_6574, text.len() as u64);
    chunks.fold(seed, |state, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(state, u64::from_le_bytes(word))
    })
}

/// `name` as it stands in a canonical text: bare if it is plain, else quoted with escapes, so that no name can be mistaken for syntax.
pub(crate) fn quoted(name: &str) -> String {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain { name.to_owned() } else { format!("{name:?}") }
}
