//! Evidence from the store.

use std::collections::BTreeSet;

use crate::append::SourceVersion;
use crate::block::{self, CanonicalTexts, Kind};
use crate::chunk::{Chunk, Recent};
use crate::error::HistoryError;
use crate::evidence::Evidence;
use crate::keys;
use crate::record::{Fingerprint, Observation, RunId};
use crate::store::Store;
use crate::trees::Name;

/// Subplans of a template that are looked at, the latest to appear first: their last runs are what a template is asked for.
const SUBPLANS_OF_TEMPLATE: usize = 256;

impl Store {
    /// The last `limit` observations of a subplan in an environment, newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn observations(
        &self,
        fingerprint: &Fingerprint,
        environment: &str,
        limit: usize,
    ) -> Result<Vec<Observation>, HistoryError> {
        let mut found = Vec::new();
        for recent in self.recent()?.iter().rev().filter(|recent| recent.environment == environment) {
            for observation in recent.of(fingerprint) {
                found.push(observation.map_err(|why| self.unreadable("an observation", &why))?);
            }
        }
        let waiting = found.len();
        let series = keys::series(fingerprint, environment);
        for entry in self.trees()?.tree(Name::Observations).prefix(&series) {
            if found.len() >= waiting.saturating_add(limit) {
                break;
            }
            let (_, value) = entry?;
            let chunk = Chunk::decode(&value).map_err(|why| self.unreadable("a chunk of observations", &why))?;
            for observation in chunk.newest_first().take(limit.saturating_add(waiting) - found.len()) {
                found.push(observation.map_err(|why| self.unreadable("an observation", &why))?);
            }
        }
        if waiting > 0 {
            // Stable: what is of the same time stays in the order in which it was found.
            found.sort_by_key(|observation| std::cmp::Reverse(observation.at));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The last `limit` observations of all subplans of a template in an environment, newest first. Of a template with more than
    /// 256 subplans the 256 that appeared last are looked at.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn observations_by_template(
        &self,
        template: &Fingerprint,
        environment: &str,
        limit: usize,
    ) -> Result<Vec<(Fingerprint, Observation)>, HistoryError> {
        let mut subplans = BTreeSet::new();
        for recent in self.recent()?.iter().filter(|recent| recent.environment == environment) {
            subplans.extend(recent.fingerprints_of(template));
        }
        let waiting = subplans.len();
        for entry in self.trees()?.tree(Name::Templates).prefix(&keys::series(template, environment)) {
            if subplans.len() >= waiting + SUBPLANS_OF_TEMPLATE {
                break;
            }
            subplans.extend(keys::posting_fingerprint(&entry?.0));
        }
        let mut found = Vec::new();
        for fingerprint in subplans {
            let observations = self.observations(&fingerprint, environment, limit)?;
            found.extend(observations.into_iter().map(|observation| (fingerprint, observation)));
        }
        found.sort_by_key(|(_, observation)| std::cmp::Reverse(observation.at));
        found.truncate(limit);
        Ok(found)
    }

    /// The canonical text of a fingerprint or template, if a run that is still known came with it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn text(&self, fingerprint: &Fingerprint) -> Result<Option<String>, HistoryError> {
        for run in self.runs_with(fingerprint)? {
            let id = RunId::from_bits(run);
            let Some(at) = self.trees()?.tree(Name::Ids).get(id.as_str().as_bytes())? else { continue };
            let entry = self.entry(&keys::run_from(&at, id.as_str()))?;
            let texts = entry.texts.map(|name| self.texts(&name)).transpose()?.unwrap_or_default();
            if let Some(text) = texts.get(fingerprint) {
                return Ok(Some(text.clone()));
            }
        }
        // The fingerprint of something that no operator completes: only the sets of texts have it.
        self.text_anywhere(fingerprint)
    }

    /// A few runs that observed a fingerprint, or a subplan of a template.
    fn runs_with(&self, fingerprint: &Fingerprint) -> Result<Vec<u64>, HistoryError> {
        let trees = self.trees()?;
        let mut runs = Vec::new();
        let mut subplans = vec![*fingerprint];
        for entry in trees.tree(Name::Templates).prefix(&fingerprint.0).take(1) {
            subplans.extend(keys::posting_fingerprint(&entry?.0));
        }
        for subplan in subplans {
            for entry in trees.tree(Name::Observations).prefix(&subplan.0).take(1) {
                let chunk = Chunk::decode(&entry?.1).map_err(|why| self.unreadable("a chunk of observations", &why))?;
                runs.extend(chunk.runs().last());
            }
        }
        let observed = |recent: &&Recent| {
            recent.of(fingerprint).next().is_some() || recent.fingerprints_of(fingerprint).next().is_some()
        };
        runs.extend(self.recent()?.iter().rev().find(observed).map(|recent| recent.run));
        Ok(runs)
    }

    fn text_anywhere(&self, fingerprint: &Fingerprint) -> Result<Option<String>, HistoryError> {
        for name in self.texts_names()? {
            let mut texts: CanonicalTexts = self.texts(&name)?;
            if let Some(text) = texts.remove(fingerprint) {
                return Ok(Some(text));
            }
        }
        Ok(None)
    }

    /// Names of all sets of texts.
    pub(crate) fn texts_names(&self) -> Result<BTreeSet<Fingerprint>, HistoryError> {
        let mut names = BTreeSet::new();
        for entry in self.trees()?.tree(Name::Texts).rows() {
            names.extend(keys::fingerprint_at(&entry?.0, 0));
        }
        Ok(names)
    }

    /// The versions of a source that runs have seen, in all pipelines and environments, the last seen first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn sources(&self, name: &str) -> Result<Vec<SourceVersion>, HistoryError> {
        let mut versions = Vec::new();
        for entry in self.trees()?.tree(Name::Sources).prefix(&keys::source_name(name)) {
            let version = block::unseal_json::<SourceVersion>(&entry?.1);
            versions.push(version.map_err(|why| self.unreadable(&format!("source `{name}`"), &why))?);
        }
        versions.sort_by_key(|version| std::cmp::Reverse(version.last_seen));
        Ok(versions)
    }

    /// Observations that wait to be folded, oldest run first.
    pub(crate) fn recent(&self) -> Result<&[Recent], HistoryError> {
        if let Some(known) = self.recent.get() {
            return Ok(known);
        }
        let mut pieces: Vec<(Vec<u8>, Vec<sled::IVec>)> = Vec::new();
        for entry in self.trees()?.tree(Name::Recent).rows() {
            let (key, value) = entry?;
            let run = &key[..key.len().saturating_sub(2)];
            match pieces.last_mut() {
                Some((last, frames)) if last == run => frames.push(value),
                _ => pieces.push((run.to_vec(), vec![value])),
            }
        }
        let decode = |(_, frames): &(Vec<u8>, Vec<sled::IVec>)| Recent::decode(&block::join(Kind::Recent, frames)?);
        let recent: Result<Vec<Recent>, _> = pieces.iter().map(decode).collect();
        let recent = recent.map_err(|why| self.unreadable("a run's observations", &why))?;
        Ok(self.recent.get_or_init(|| recent))
    }
}

impl Evidence for Store {
    fn by_fingerprint(&self, fingerprint: &Fingerprint, environment: &str, limit: usize) -> Vec<Observation> {
        readable(self.observations(fingerprint, environment, limit))
    }

    fn by_template(&self, template: &Fingerprint, environment: &str, limit: usize) -> Vec<(Fingerprint, Observation)> {
        readable(self.observations_by_template(template, environment, limit))
    }
}

fn readable<T>(found: Result<Vec<T>, HistoryError>) -> Vec<T> {
    found.unwrap_or_else(|error| {
        tracing::warn!("no evidence: {error}");
        Vec::new()
    })
}
