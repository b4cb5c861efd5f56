//! Export and import: one JSON object a line.
//!
//! ```text
//! {"kind":"history","version":1}
//! {"kind":"texts","name":"<hash>","texts":{"<fingerprint>":"<canonical text>", …}}
//! {"kind":"run","texts":"<hash>" or null,"record":{…}}
//! ```
//!
//! Runs come oldest first, and a set of texts before the first run that refers to it. Observations are not exported: they follow from
//! the runs.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use crate::append::GROUP;
use crate::block::{self, CanonicalTexts, Unreadable, Version};
use crate::error::HistoryError;
use crate::keys;
use crate::record::{Fingerprint, RunRecord};
use crate::store::Store;
use crate::trees::Name;

/// Version of the lines.
const EXPORT_VERSION: u32 = 1;
/// Longest line that is read.
const LINE_LIMIT: u64 = 512 << 20;

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum LineOut<'a> {
    History { version: u32 },
    Texts { name: Fingerprint, texts: &'a CanonicalTexts },
    Run { texts: Option<Fingerprint>, record: &'a RunRecord },
}

#[derive(Deserialize)]
struct Head {
    kind: String,
    version: Option<u32>,
}

#[derive(Deserialize)]
struct TextsIn {
    name: Fingerprint,
    texts: CanonicalTexts,
}

#[derive(Deserialize)]
struct RunIn<R> {
    #[serde(default)]
    texts: Option<Fingerprint>,
    record: R,
}

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Runs written.
    pub runs: u64,
    /// Runs and texts left out since they cannot be read, with the reason.
    pub unreadable: Vec<String>,
}

/// What was imported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Runs that are new.
    pub imported: u64,
    /// Runs that were there already.
    pub known: u64,
    /// Lines that were skipped, by their number from 1, with the reason.
    pub skipped: Vec<(u64, String)>,
}

impl Store {
    /// Writes all runs and texts as lines of JSON.
    ///
    /// # Errors
    /// The store cannot be read; the writer fails.
    pub fn export(&self, mut writer: impl Write) -> Result<ExportReport, HistoryError> {
        let write = |writer: &mut dyn Write, line: &LineOut<'_>| {
            let mut json = serde_json::to_vec(line).map_err(io::Error::from)?;
            json.push(b'\n');
            writer.write_all(&json)
        };
        let failed = |source| HistoryError::Io { doing: "export", path: self.folder.root(), source };
        write(&mut writer, &LineOut::History { version: EXPORT_VERSION }).map_err(failed)?;
        let mut report = ExportReport::default();
        let mut written = HashSet::new();
        for row in self.trees()?.tree(Name::Runs).rows() {
            let (key, _) = row?;
            let name = keys::run_id(&key).map(String::from).unwrap_or_default();
            let run = self.block(&key).map_err(|error| error.to_string());
            let run = run.and_then(|packed| block::unpack_run(&packed).map_err(|why| format!("run `{name}`: {why}")));
            let (record, mut texts) = match run {
                Ok(run) => run,
                Err(why) => {
                    report.unreadable.push(why);
                    continue;
                }
            };
            if let Some(name) = texts
                && written.insert(name)
            {
                match self.texts(&name) {
                    Ok(found) => write(&mut writer, &LineOut::Texts { name, texts: &found }).map_err(failed)?,
                    Err(error) => {
                        report.unreadable.push(format!("texts of run `{}`: {error}", record.id));
                        written.remove(&name);
                        texts = None;
                    }
                }
            }
            write(&mut writer, &LineOut::Run { texts, record: &record }).map_err(failed)?;
            report.runs += 1;
        }
        writer.flush().map_err(failed)?;
        Ok(report)
    }

    /// Reads what [`Self::export`] wrote and adds the runs that are not known. Lines that cannot be read, or are of a newer
    /// version, are skipped and reported.
    ///
    /// # Errors
    /// The store cannot be written, or is a copy; the reader fails.
    pub fn import(&mut self, mut reader: impl BufRead) -> Result<ImportReport, HistoryError> {
        self.refuse_copy()?;
        let path = self.folder.root();
        let mut report = ImportReport::default();
        let mut texts: HashMap<Fingerprint, Vec<u8>> = HashMap::new();
        let mut group: Vec<(RunRecord, CanonicalTexts)> = Vec::new();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line);
            let read = read.map_err(|source| HistoryError::Io { doing: "import into", path: path.clone(), source })?;
            if read == 0 {
                break;
            }
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            match take_line(line, &mut texts) {
                Ok(None) => {}
                Ok(Some(run)) => {
                    if run.1 {
                        report
                            .skipped
                            .push((number, "its texts were not found in the lines before it; the run is kept".into()));
                    }
                    group.push(run.0);
                }
                Err(why) => report.skipped.push((number, why.to_string())),
            }
            if group.len() == GROUP {
                self.import_group(&mut group, &mut report)?;
            }
        }
        self.import_group(&mut group, &mut report)?;
        Ok(report)
    }

    fn import_group(
        &mut self,
        group: &mut Vec<(RunRecord, CanonicalTexts)>,
        report: &mut ImportReport,
    ) -> Result<(), HistoryError> {
        let added = self.append_all(group)?;
        report.imported += added;
        report.known += group.len() as u64 - added;
        group.clear();
        Ok(())
    }
}

type ImportedRun = ((RunRecord, CanonicalTexts), bool);

/// A run, with true if its texts are missing; none for lines that hold something else.
fn take_line(line: &[u8], texts: &mut HashMap<Fingerprint, Vec<u8>>) -> Result<Option<ImportedRun>, Unreadable> {
    let broken = |error: serde_json::Error| Unreadable::Broken(error.to_string());
    let head: Head = serde_json::from_slice(line).map_err(broken)?;
    if let Some(version) = head.version.filter(|&version| version > EXPORT_VERSION) {
        return Err(Unreadable::Newer(version));
    }
    match head.kind.as_str() {
        "history" => Ok(None),
        "texts" => {
            let found: TextsIn = serde_json::from_slice(line).map_err(broken)?;
            if block::texts_name(&found.texts) != found.name {
                return Err(Unreadable::Broken("the texts do not hash to their name".into()));
            }
            texts.insert(found.name, block::pack(&found.texts)?);
            Ok(None)
        }
        "run" => {
            let run: RunIn<RunRecord> = block::from_versioned_json(line, |line| {
                serde_json::from_slice::<RunIn<Version>>(line).ok().map(|run| run.record)
            })?;
            let found = run.texts.and_then(|name| texts.get(&name));
            let missing = run.texts.is_some() && found.is_none();
            let texts = found.map(|packed| block::unpack_texts(packed)).transpose()?.unwrap_or_default();
            Ok(Some(((run.record, texts), missing)))
        }
        other => Err(Unreadable::Broken(format!("lines of kind `{other}` are not known"))),
    }
}
