//! A first pipeline for a newcomer: commented, with its own small data, and it runs as it is.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::units;

const DEFINITION: &str = include_str!("init/pipeline.toml");
const ENRICHED: &str = include_str!("init/enriched.sql");
const BY_CUSTOMER: &str = include_str!("init/by_customer.sql");
const CUSTOMERS: &str = include_str!("init/customers.csv");
/// Orders of the example.
const ORDERS: u64 = 500;

/// The files of the example with their texts, by path below its folder. `name` is the pipeline's.
pub fn example(name: &str) -> Vec<(PathBuf, String)> {
    [
        ("pipeline.toml", DEFINITION.replace("{name}", name)),
        ("enriched.sql", ENRICHED.to_owned()),
        ("by_customer.sql", BY_CUSTOMER.to_owned()),
        ("data/customers.csv", CUSTOMERS.to_owned()),
        ("data/orders.csv", orders()),
    ]
    .into_iter()
    .map(|(path, text)| (PathBuf::from(path), text))
    .collect()
}

/// Writes the example into `folder`, which is made if it is not there, and returns what it wrote. Files that exist are never changed:
/// if there is any of these names, nothing is written.
///
/// # Errors
/// A file of the example exists, or the folder cannot be written to.
pub fn init(folder: &Path) -> Result<Vec<PathBuf>, Vec<Diagnostic>> {
    let files = example(&name_of(folder));
    let mut errors = Vec::new();
    for (path, _) in &files {
        let path = folder.join(path);
        // A broken link is in the way as well.
        if std::fs::symlink_metadata(&path).is_ok() {
            let message = format!("`{}` exists already", path.display());
            errors.push(
                Diagnostic::error("exists", message).hint("choose another folder; `init` never overwrites a file"),
            );
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut written: Vec<PathBuf> = Vec::new();
    for (path, text) in files {
        let path = folder.join(path);
        if let Err(error) = write_new(&path, &text) {
            // What was written a moment ago is ours to take back.
            for path in &written {
                let _ = std::fs::remove_file(path);
            }
            let message = format!("failed to write `{}`: {error}", path.display());
            return Err(vec![Diagnostic::error("unwritable", message).hint("choose a folder that you may write to")]);
        }
        written.push(path);
    }
    Ok(written)
}

fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = std::fs::File::create_new(path)?;
    let result = file.write_all(text.as_bytes());
    if result.is_err() {
        let _ = std::fs::remove_file(path);
    }
    result
}

/// The pipeline's name: the folder's where that is one, else `example`.
fn name_of(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_default();
    let name = absolute.file_name().map(|n| n.to_string_lossy().replace([' ', '.'], "_")).unwrap_or_default();
    if units::check_name(&name).is_ok() { name } else { "example".to_owned() }
}

/// Orders of ten days, the same in each run: a multiplicative generator of pseudo-random numbers (Park and Miller, 1988).
fn orders() -> String {
    let mut state = 2013u64;
    let mut draw = |below: u64| {
        state = state * 48_271 % 0x7fff_ffff;
        state % below
    };
    let mut text = "order_id,customer_id,ordered_on,item,quantity,unit_price\n".to_owned();
    let items = ["keyboard", "lamp", "notebook", "chair", "cable"];
    for id in 1..=ORDERS {
        let (customer, item, quantity) = (draw(8) + 1, draw(items.len() as u64) as usize, draw(5) + 1);
        let day = 1 + (id - 1) * 10 / ORDERS;
        let cents = 500 + draw(9_500);
        text.push_str(&format!(
            "{id},{customer},2024-03-{day:02},{},{quantity},{}.{:02}\n",
            items[item],
            cents / 100,
            cents % 100
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_loads_without_a_word_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("my first.pipeline");
        let written = init(&target).unwrap();
        assert_eq!(written.len(), 5);
        let loaded = crate::load(&target, &|_| None).unwrap();
        assert_eq!(loaded.warnings, vec![]);
        assert_eq!(loaded.pipeline.name, "my_first_pipeline");
        assert!(loaded.pipeline.steps.len() >= 3);

        let errors = init(&target).unwrap_err();
        assert_eq!((errors.len(), errors[0].code), (5, "exists"));
        std::fs::remove_file(target.join("pipeline.toml")).unwrap();
        assert_eq!(init(&target).unwrap_err().len(), 4);
        assert!(!target.join("pipeline.toml").exists());
    }

    #[tokio::test]
    async fn it_checks_without_a_word() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path()).unwrap();
        let pipeline = crate::load(folder.path(), &|_| None).unwrap().pipeline;
        let config =
            sparklet_core::SessionConfig { slots: Some(2), memory_limit: Some(256 << 20), ..Default::default() };
        let session = sparklet_core::Session::new(config).unwrap();
        let params = crate::params::bind_params(&pipeline, &Default::default()).unwrap();
        assert_eq!(crate::check::check(&pipeline, &session, &params).await, vec![]);
    }

    #[test]
    fn an_unwritable_place_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(init(&folder.path().join("file")).unwrap_err()[0].code, "unwritable");
    }
}
