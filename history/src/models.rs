//! Cost models of a state folder: a few files an environment, each whole or not there.
//!
//! They lie in the history's folder and go with it. What a model is, is the optimizer's to know: here they are bytes with a number.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::block;
use crate::error::HistoryError;
use crate::folder::replace;
use crate::record::Fingerprint;

/// Models that are kept: enough to go back.
const KEPT: usize = 8;

/// Largest model that is read, unpacked: a bound for what a broken file can take.
const LARGEST: usize = 64 << 20;

/// The models of one environment.
#[derive(Debug, Clone)]
pub struct Models {
    folder: PathBuf,
}

impl Models {
    pub(crate) fn of(history: &Path, environment: &str) -> Self {
        // Names of environments need not be names of folders.
        let tag = Fingerprint::of(environment).to_string();
        Self { folder: history.join("models").join(&tag[..16]) }
    }

    /// Numbers of the models that are kept, the oldest first.
    pub fn numbers(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut numbers: Vec<u32> =
            entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".model")?.parse().ok()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Number of the model that serves; none: the prior does.
    pub fn serving(&self) -> Option<u32> {
        let text = fs::read_to_string(self.folder.join("serving")).ok()?;
        text.trim().parse().ok().filter(|number| *number > 0)
    }

    /// The content of a model.
    ///
    /// # Errors
    /// There is none of that number, or its file is damaged or of a newer build.
    pub fn read(&self, number: u32) -> Result<Vec<u8>, HistoryError> {
        let path = self.path(number);
        let sealed = fs::read(&path).map_err(|source| HistoryError::io("read", &path, source))?;
        let damaged = |why: String| HistoryError::io("read", &path, io::Error::new(io::ErrorKind::InvalidData, why));
        let packed = block::unseal(&sealed).map_err(|why| damaged(why.to_string()))?;
        zstd::bulk::decompress(packed, LARGEST).map_err(|error| damaged(error.to_string()))
    }

    /// Keeps a model under the next number, and lets it serve if it is to; the oldest go. Where two processes do so at once, one of them wins.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn add(&self, content: &[u8], serves: bool) -> Result<u32, HistoryError> {
        let numbers = self.numbers();
        let number = numbers.last().copied().unwrap_or(0).saturating_add(1);
        let path = self.path(number);
        let failed = |source| HistoryError::io("write", &path, source);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let packed = zstd::bulk::compress(content, 1).map_err(failed)?;
        replace(&path, &block::seal(&packed)).map_err(failed)?;
        if serves {
            self.serve(Some(number))?;
        }
        let serving = self.serving();
        let surplus = (numbers.len() + 1).saturating_sub(KEPT);
        for old in numbers.into_iter().filter(|old| Some(*old) != serving).take(surplus) {
            // One that stays is no harm.
            let _ = fs::remove_file(self.path(old));
        }
        Ok(number)
    }

    /// Lets a model serve, or the prior. Whether it can be read is for the caller to know.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn serve(&self, number: Option<u32>) -> Result<(), HistoryError> {
        let path = self.folder.join("serving");
        let failed = |source| HistoryError::io("write", &path, source);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        replace(&path, format!("{}\n", number.unwrap_or(0)).as_bytes()).map_err(failed)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{number}.model"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_kept_served_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let models = Models::of(folder.path(), "dev/../x");
        assert!(models.numbers().is_empty() && models.serving().is_none());
        assert_eq!(models.add(b"one", true).unwrap(), 1);
        for _ in 0..2 * KEPT {
            models.add(b"another", false).unwrap();
        }
        assert_eq!(models.serving(), Some(1), "the one that serves stays");
        assert_eq!(models.read(1).unwrap(), b"one");
        assert_eq!(models.numbers().len(), KEPT);
        assert!(models.read(2).is_err());
        models.serve(None).unwrap();
        assert_eq!(models.serving(), None);
        assert!(Models::of(folder.path(), "production").numbers().is_empty(), "environments are apart");
    }

    #[test]
    fn a_damaged_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let models = Models::of(folder.path(), "dev");
        let number = models.add(b"content of a model", true).unwrap();
        let path = models.path(number);
        let sealed = fs::read(&path).unwrap();
        for at in [0, 3, sealed.len() - 1] {
            let mut bad = sealed.clone();
            bad[at] ^= 0x20;
            fs::write(&path, bad).unwrap();
            assert!(models.read(number).is_err(), "flip at {at}");
        }
        fs::write(&path, &sealed[..sealed.len() / 2]).unwrap();
        assert!(models.read(number).is_err());
    }
}
