//! The data: facts with one hot key, the same facts without it, and the table that they are joined with.
//!
//! Written once for each size. The same size gives the same rows everywhere.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::data::{Batches, Plan, generate};
use crate::error::{AtPath, Failure, Result};
use crate::home::{Home, Table};

/// The key with [`HOT_SHARE`] of the rows of `fact`; it has a partner.
const HOT_KEY: i64 = 7;
/// Part of the rows that have the hot key.
const HOT_SHARE: f64 = 0.4;
/// Part of the rows without a key.
const NULL_SHARE: f64 = 0.01;
/// Of the keys of the facts, each one with this remainder of [`STEP`] has no partner.
const LONELY: i64 = 13;
const STEP: i64 = 20;
/// Files of the facts beyond the first, so that all cores write and read.
const MORE_FILES: u32 = 7;
const BATCH: u64 = 8_192;
/// Raised when what is written changes.
const FORMAT: u32 = 1;

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    /// Rows of `fact`, and of `even`.
    pub(crate) rows: u64,
    /// Keys of the facts; `dim` has a fifth more rows.
    pub(crate) keys: u64,
}

/// What a folder holds; written last, so that data with it are whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    size: Size,
    tables: Vec<Table>,
}

const MANIFEST: &str = "manifest.json";

/// Folders of the tables `fact`, `even` and `dim`, which are written unless they are there; and whether they were.
pub(crate) fn setup(home: &Home, size: Size) -> Result<(Vec<(String, PathBuf)>, bool)> {
    if size.rows < 1_000 || size.keys <= HOT_KEY as u64 {
        return Err(Failure::new(format!("{} rows of {} keys are not skewed facts", size.rows, size.keys))
            .with_hint("use 1000 rows or more, and 8 keys or more"));
    }
    let folder = home.root().join("data").join(format!("skew-r{}-k{}", size.rows, size.keys));
    let whole = read(&folder).is_some_and(|m| m.format == FORMAT && m.size == size);
    let plans = plans(size);
    if !whole {
        if folder.exists() {
            std::fs::remove_dir_all(&folder).at_path(&folder)?;
        }
        std::fs::create_dir_all(&folder).at_path(&folder)?;
        let tables = generate(&folder, &plans, MORE_FILES)?;
        let manifest = Manifest { format: FORMAT, size, tables };
        let text = serde_json::to_string_pretty(&manifest).map_err(|e| Failure::new(e.to_string()))?;
        let (fresh, path) = (folder.join("manifest.new"), folder.join(MANIFEST));
        std::fs::write(&fresh, text).at_path(&fresh)?;
        std::fs::rename(&fresh, &path).at_path(&path)?;
    }
    Ok((plans.into_iter().map(|plan| (plan.name.clone(), folder.join(plan.name))).collect(), !whole))
}

fn read(folder: &Path) -> Option<Manifest> {
    serde_json::from_str(&std::fs::read_to_string(folder.join(MANIFEST)).ok()?).ok()
}

/// Reads all files once, so that the first query does not pay for the disk alone.
pub(crate) fn warm(tables: &[(String, PathBuf)]) -> Result<()> {
    for (_, folder) in tables {
        for file in std::fs::read_dir(folder).at_path(folder)? {
            let path = file.at_path(folder)?.path();
            io::copy(&mut std::fs::File::open(&path).at_path(&path)?, &mut io::sink()).at_path(&path)?;
        }
    }
    Ok(())
}

fn plans(size: Size) -> Vec<Plan> {
    let facts = |name: &str, hot: f64| Plan {
        name: name.to_owned(),
        grows: true,
        make: Box::new(move |slice| (facts_schema(), facts(size, hot, slice))),
    };
    let dim = Plan { name: "dim".to_owned(), grows: false, make: Box::new(move |_| (dim_schema(), dim(size))) };
    vec![facts("fact", HOT_SHARE), facts("even", 0.0), dim]
}

fn facts_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Int64, false),
        Field::new("f", DataType::Float64, false),
        Field::new("d", DataType::Int64, false),
    ]))
}

fn dim_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false), Field::new("w", DataType::Int64, false)]))
}

fn ranges(rows: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = rows.end;
    rows.step_by(BATCH as usize).map(move |start| start..end.min(start + BATCH))
}

/// A file of facts. All but the key is the same whatever the share of the hot key.
fn facts(size: Size, hot: f64, slice: u32) -> Batches {
    let start = |slice: u32| size.rows * u64::from(slice) / u64::from(MORE_FILES + 1);
    let mut random = StdRng::seed_from_u64(0x5eed_0000 + u64::from(slice));
    Box::new(ranges(start(slice)..start(slice + 1)).map(move |range| {
        let n = (range.end - range.start) as usize;
        let (mut k, mut v) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let (mut f, mut d) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for _ in range {
            let (place, any) = (random.random::<f64>(), random.random_range(0..size.keys as i64));
            k.push(match place {
                p if p < NULL_SHARE => None,
                p if p < NULL_SHARE + hot => Some(HOT_KEY),
                _ => Some(any),
            });
            v.push(random.random_range(0..1_000_000_i64));
            f.push(random.random::<f64>() * 100.0);
            d.push(random.random_range(0..size.rows as i64));
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(k)),
            Arc::new(Int64Array::from(v)),
            Arc::new(Float64Array::from(f)),
            Arc::new(Int64Array::from(d)),
        ];
        RecordBatch::try_new(facts_schema(), columns)
    }))
}

/// A row for most keys of the facts, and for a quarter as many keys that no fact has.
fn dim(size: Size) -> Batches {
    let mut random = StdRng::seed_from_u64(0x005e_edd1);
    Box::new(ranges(0..size.keys + size.keys / 4).map(move |range| {
        let k: Vec<i64> = range.map(|k| k as i64).filter(|k| k % STEP != LONELY).collect();
        let w: Vec<i64> = k.iter().map(|_| random.random_range(0..1_000)).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(k)), Arc::new(Int64Array::from(w))];
        RecordBatch::try_new(dim_schema(), columns)
    }))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn column(batches: &[RecordBatch], at: usize) -> Vec<Option<i64>> {
        batches.iter().flat_map(|b| b.column(at).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect()
    }

    #[test]
    fn the_hot_key_has_its_share_and_nothing_else_differs() {
        let size = Size { rows: 40_000, keys: 500 };
        let all = |hot| -> Vec<RecordBatch> {
            (0..=MORE_FILES).flat_map(|slice| facts(size, hot, slice)).map(Result::unwrap).collect()
        };
        let (skewed, even) = (all(HOT_SHARE), all(0.0));
        assert_eq!(skewed.iter().map(RecordBatch::num_rows).sum::<usize>(), 40_000);
        let share = |batches: &[RecordBatch], key: Option<i64>| {
            column(batches, 0).into_iter().filter(|k| *k == key).count() as f64 / 40_000.0
        };
        assert!((share(&skewed, Some(HOT_KEY)) - 0.4).abs() < 0.02 && share(&even, Some(HOT_KEY)) < 0.01);
        assert!((share(&skewed, None) - 0.01).abs() < 0.005 && (share(&even, None) - 0.01).abs() < 0.005);
        for at in 1..4 {
            assert!(skewed.iter().zip(&even).all(|(s, e)| s.column(at).as_ref() == e.column(at).as_ref()));
        }
        let partners: Vec<_> = column(&dim(size).map(Result::unwrap).collect::<Vec<_>>(), 0);
        assert!(partners.len() == 594 && partners.contains(&Some(HOT_KEY)) && !partners.contains(&Some(LONELY)));
        assert!(partners.iter().any(|k| k.is_some_and(|k| k >= 500)));
        assert!(skewed[0].column(0).null_count() > 0);
    }

    #[test]
    fn data_are_written_once_and_again_where_they_are_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let size = Size { rows: 1_000, keys: 50 };
        let (tables, made) = setup(&home, size).unwrap();
        assert!(made && tables.iter().map(|t| t.0.as_str()).eq(["fact", "even", "dim"]));
        warm(&tables).unwrap();
        assert!(!setup(&home, size).unwrap().1);
        let data = tables[0].1.parent().unwrap();
        std::fs::remove_file(data.join(MANIFEST)).unwrap();
        assert!(setup(&home, size).unwrap().1);
        assert!(setup(&home, Size { rows: 10, keys: 50 }).is_err());
        assert!(setup(&home, Size { rows: 1_000, keys: 2 }).is_err());
    }
}
