//! Records without values of the data: `history.values = "hashed"`.
//!
//! Literals and frequent keys can be personal data. What learns needs none of them: fingerprints are hashes, rows and times are numbers.

use crate::block::CanonicalTexts;
use crate::choice::FallBackReason;
use crate::record::{AdaptationReason, ErrorRecord, Fingerprint, RunRecord};

/// Digits of a hash that are kept: enough to tell values of one record apart.
const DIGITS: usize = 8;

/// Puts hashes in the place of all texts of a record that may hold values of the data: literals in operators, keys, parameters, messages.
/// Canonical texts are dropped. A hash of a value that can be guessed can be checked; it is no encryption.
pub fn hash_values(record: &mut RunRecord, texts: &mut CanonicalTexts) {
    texts.clear();
    record.params.values_mut().for_each(hash);
    record.error.iter_mut().for_each(hide);
    for step in &mut record.steps {
        step.error.iter_mut().for_each(hide);
        for node in step.plan.iter_mut().flat_map(|plan| &mut plan.nodes) {
            hash(&mut node.detail);
        }
        step.keys
            .iter_mut()
            .flat_map(|key| &mut key.heavy)
            .filter_map(|heavy| heavy.key.as_mut())
            .flatten()
            .for_each(hash);
        for adaptation in &mut step.adaptations {
            adaptation.hot_keys.iter_mut().filter_map(|hot| hot.key.as_mut()).flatten().for_each(hash);
            if let AdaptationReason::MemoryExhausted { message } = &mut adaptation.because {
                hash(message);
            }
        }
        let fell = step.choice.as_mut().and_then(|choice| choice.fell_back.as_mut());
        if let Some(FallBackReason::Failed { message }) = fell.map(|fell| &mut fell.because) {
            hash(message);
        }
    }
}

fn hash(text: &mut String) {
    if !text.is_empty() {
        let hash = Fingerprint::of(text).to_string();
        *text = format!("#{}", hash.get(..DIGITS).unwrap_or(&hash));
    }
}

fn hide(error: &mut ErrorRecord) {
    "not kept: `history.values` is `hashed`".clone_into(&mut error.message);
}
