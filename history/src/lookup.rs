//! Evidence from the store.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use crate::append::SourceVersion;
use crate::block::{self, Unreadable};
use crate::chunk::{Chunk, Recent, Seen};
use crate::error::HistoryError;
use crate::evidence::{Evidence, Scope, Subplan};
use crate::keys;
use crate::record::{Fingerprint, Observation};
use crate::store::{Entry, Store};
use crate::trees::Name;

/// Chunks of a template that are searched for one of its subplans: 2,048 observations where all of them are as short as a chunk gets.
const CHUNKS_SEARCHED: usize = 256;

impl Store {
    /// The last `limit` observations of a subplan, newest first; of those of its template the last 2,048, or some more, are looked at.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn observations(
        &self,
        scope: Scope<'_>,
        subplan: &Subplan,
        limit: usize,
    ) -> Result<Vec<Observation>, HistoryError> {
        let own = |(fingerprint, _): &Seen| *fingerprint == subplan.fingerprint;
        let found = self.newest(scope, &subplan.series(), limit, CHUNKS_SEARCHED, own, |sealed, limit| {
            if !Chunk::may_hold(sealed, &subplan.fingerprint) {
                return Ok(Vec::new());
            }
            Chunk::decode(sealed)?.newest_of(&subplan.fingerprint).take(limit).collect()
        })?;
        Ok(found.into_iter().map(|(_, observation)| observation).collect())
    }

    /// The last `limit` observations of all subplans of a template, newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn observations_by_template(
        &self,
        scope: Scope<'_>,
        template: &Fingerprint,
        limit: usize,
    ) -> Result<Vec<(Fingerprint, Observation)>, HistoryError> {
        self.newest(
            scope,
            template,
            limit,
            usize::MAX,
            |_| true,
            |sealed, limit| Chunk::decode(sealed)?.newest_first().take(limit).collect(),
        )
    }

    /// The last of a series: of what waits and of the first chunks.
    fn newest(
        &self,
        scope: Scope<'_>,
        series: &Fingerprint,
        limit: usize,
        chunks: usize,
        own: impl Fn(&Seen) -> bool,
        of_chunk: impl Fn(&[u8], usize) -> Result<Vec<Seen>, Unreadable>,
    ) -> Result<Vec<Seen>, HistoryError> {
        let unreadable = |why| self.unreadable("an observation", &why);
        let tag = keys::scope(scope);
        let mut found: Vec<Seen> = Vec::new();
        for recent in self.recent(&tag)?.iter().rev().filter(|recent| recent.spans(series)) {
            for seen in recent.of(series) {
                let seen = seen.map_err(unreadable)?;
                if own(&seen) {
                    found.push(seen);
                }
            }
        }
        let waiting = found.len();
        for entry in self.trees()?.tree(Name::Observations).prefix(&keys::series(series, &tag)).take(chunks) {
            // What waits is mostly newer, but need not be.
            let wanted = waiting.saturating_add(limit) - found.len();
            if wanted == 0 {
                break;
            }
            found.extend(of_chunk(&entry?.1, wanted).map_err(unreadable)?);
        }
        if waiting > 0 {
            // Stable: what is of the same time stays in the order in which it was found.
            found.sort_by_key(|(_, observation)| std::cmp::Reverse(observation.at));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The canonical text of a fingerprint or template, if a run that is still known came with it. Where the run is known,
    /// [`Store::texts_of`] is faster: this looks through the texts of all runs, the newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn text(&self, fingerprint: &Fingerprint) -> Result<Option<String>, HistoryError> {
        let mut looked_at = BTreeSet::new();
        for row in self.trees()?.tree(Name::Runs).rows().rev() {
            // Runs and texts that cannot be read are `verify`'s to tell.
            let Ok(Entry { texts: Some(name), .. }) = block::unseal_json(&row?.1) else { continue };
            if looked_at.insert(name)
                && let Ok(mut texts) = self.texts(&name)
                && let Some(text) = texts.remove(fingerprint)
            {
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

    /// The observations of a scope that wait to be folded, by run the oldest first.
    pub(crate) fn recent(&self, scope: &[u8; 8]) -> Result<Arc<Vec<Recent>>, HistoryError> {
        let mut known = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(scope) {
            return Ok(Arc::clone(known));
        }
        let entries = self.trees()?.tree(Name::Recent).prefix(scope).collect::<Result<Vec<_>, _>>()?;
        let recent = Arc::new(self.decoded(&entries)?);
        known.insert(*scope, Arc::clone(&recent));
        Ok(recent)
    }

    /// Scopes that have observations waiting.
    pub(crate) fn waiting_scopes(&self) -> Result<BTreeSet<[u8; 8]>, HistoryError> {
        let mut scopes = BTreeSet::new();
        for row in self.trees()?.tree(Name::Recent).rows() {
            scopes.extend(row?.0.first_chunk::<8>());
        }
        Ok(scopes)
    }
}

impl Evidence for Store {
    fn by_fingerprint(&self, scope: Scope<'_>, subplan: &Subplan, limit: usize) -> Vec<Observation> {
        readable(self.observations(scope, subplan, limit))
    }

    fn by_template(&self, scope: Scope<'_>, template: &Fingerprint, limit: usize) -> Vec<(Fingerprint, Observation)> {
        readable(self.observations_by_template(scope, template, limit))
    }
}

fn readable<T>(found: Result<Vec<T>, HistoryError>) -> Vec<T> {
    found.unwrap_or_else(|error| {
        tracing::warn!("no evidence: {error}");
        Vec::new()
    })
}
