//! Finds the file behind a data error.
//!
//! Readers of CSV and JSON count lines from where their byte range begins and do not name the file. So, once a query has failed
//! on its data, each of its files is read again, alone and whole, until one fails: its error has the right line.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;
use futures::StreamExt;

use crate::error::{Error, ErrorKind};
use crate::observe::file_scan;
use crate::session::Session;

/// Time that may go into the search; a failed run should not take twice as long.
const BUDGET: Duration = Duration::from_secs(20);

/// `error` with the file (and line) that it comes from, where that can be found.
pub(crate) async fn locate(session: &Session, plan: &Arc<dyn ExecutionPlan>, error: Error) -> Error {
    let start = Instant::now();
    let mut scans = Vec::new();
    find_scans(plan, &mut scans);
    for scan in scans {
        let mut seen = std::collections::BTreeSet::new();
        for file in scan.file_groups.iter().flat_map(|group| group.iter()) {
            if !seen.insert(file.object_meta.location.clone()) {
                continue;
            }
            let left = BUDGET.saturating_sub(start.elapsed());
            if left.is_zero() {
                return error
                    .or_hint("the file at fault was not found in time; read the sources one by one to find it");
            }
            match tokio::time::timeout(left, read_whole(session, scan, file)).await {
                Ok(Some(found)) => return at_file(found, error, scan.object_store_url.as_ref(), file),
                Ok(None) => {}
                Err(_) => return error,
            }
        }
    }
    error
}

fn find_scans<'a>(plan: &'a Arc<dyn ExecutionPlan>, into: &mut Vec<&'a FileScanConfig>) {
    into.extend(file_scan(plan));
    plan.children().into_iter().for_each(|child| find_scans(child, into));
}

/// The error of reading `file` alone.
async fn read_whole(session: &Session, scan: &FileScanConfig, file: &PartitionedFile) -> Option<Error> {
    let mut file = file.clone();
    file.range = None;
    let alone = FileScanConfigBuilder::from(scan.clone()).with_file_groups(vec![FileGroup::new(vec![file])]).build();
    let plan = DataSourceExec::from_data_source(alone);
    let mut stream = match plan.execute(0, session.context().task_ctx()) {
        Ok(stream) => stream,
        Err(error) => return Some(session.explain(error)),
    };
    while let Some(batch) = stream.next().await {
        if let Err(error) = batch {
            return Some(count_from_one(session.explain(error)));
        }
    }
    None
}

fn at_file(found: Error, original: Error, store: &str, file: &PartitionedFile) -> Error {
    let location = file.object_meta.location.as_ref();
    let path = if store.starts_with("file:") {
        let absolute = std::path::PathBuf::from(format!("/{location}"));
        let here = std::env::current_dir().ok();
        let relative = here.and_then(|here| absolute.strip_prefix(here).map(ToOwned::to_owned).ok());
        relative.unwrap_or(absolute).display().to_string()
    } else {
        format!("{store}{location}")
    };
    let path = match line_of(&found.message) {
        Some(line) => format!("{path}:{line}"),
        None => path,
    };
    let hint = found.hint.or_else(|| hint_for(&found.message).map(str::to_owned));
    Error {
        kind: ErrorKind::Data,
        message: format!("`{path}`: {}", found.message),
        hint: hint.or(original.hint),
        source: original.source,
    }
}

/// `error` with lines counted from 1: arrow counts them from 0 in errors about values, from 1 in those about fields.
fn count_from_one(mut error: Error) -> Error {
    if error.message.contains("Error while parsing value")
        && let Some(line) = line_of(&error.message)
    {
        error.message = error.message.replacen(&format!("at line {line}"), &format!("at line {}", line + 1), 1);
    }
    error
}

/// The number after "line" in an error of a reader.
pub(crate) fn line_of(message: &str) -> Option<u64> {
    let mut words = message.split([' ', ',', '.', ':']).skip_while(|word| *word != "line");
    words.nth(1)?.parse().ok()
}

pub(crate) fn hint_for(message: &str) -> Option<&'static str> {
    let has = |text: &str| message.contains(text);
    if has("UTF-8") || has("utf-8") {
        Some("convert the file to UTF-8, e.g. with `iconv -f latin1 -t utf-8`")
    } else if has("incorrect number of fields for line 1,") {
        Some(
            "the header does not fit: two of its columns have one name, or the file has other columns than those before it",
        )
    } else if has("incorrect number of fields") || has("unequal lengths") {
        Some("mend the line; if fields hold line breaks, set `multiline = true` on the source")
    } else if has("deflate stream") || has("gzip header") || has("decompress") {
        Some("the compressed file is cut off or damaged: copy or write it again")
    } else if has("does not parse") {
        Some(
            "declare the column as `VARCHAR` in `columns` and convert with `TRY_CAST`, or name its NULLs with `null = \"…\"`",
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::line_of;

    #[test]
    fn lines_are_read_off_messages() {
        assert_eq!(line_of("incorrect number of fields for line 4, expected 3 got 2"), Some(4));
        assert_eq!(line_of("value 'x' at line 12. Row data: '[x]'"), Some(12));
        assert_eq!(line_of("no place"), None);
    }
}
