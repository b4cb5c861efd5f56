//! Makes the data sets: TPC-H and TPC-DS by their generators, the skewed set by [`crate::skewed`], as Parquet with integer decimals.
//!
//! Facts come as a base of about 70 % of the rows and a slice for each day. TPC-H days are parts of the generator's order (all dates in
//! every part). TPC-DS days are ranges of source rows: the generator makes catalog sales and inventory by date, so their last days are
//! the newest, and store and web sales in any order of dates.

use std::path::Path;
use std::sync::Mutex;

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchReader};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tpcdsgen::config::{Session, SessionBuilder, Table as Ds};
use tpchgen::generators as h;
use tpchgen_arrow as ha;

use crate::error::{AtPath, Failure, Result};
use crate::home::{Home, Manifest, Table, Workload, slice_file};
use crate::skewed;

/// Part of a growing table that is there before the first day.
pub(crate) const BASE_SHARE: f64 = 0.7;
/// Rows of a Parquet row group: several for every fact from scale 0.1 on.
const ROW_GROUP_ROWS: usize = 256 * 1024;

/// The rows of a slice.
pub(crate) type Batches = Box<dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>>>;
/// Makes the rows of slice 0 (the base) and of each day, with their schema.
pub(crate) type MakeSlice = Box<dyn Fn(u32) -> (SchemaRef, Batches) + Send + Sync>;

/// A table to generate.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) grows: bool,
    pub(crate) make: MakeSlice,
}

/// Generates the data set of `workload` at `scale` with `days` days, unless it is there; returns its manifest and whether it was made now.
pub(crate) fn setup(home: &Home, workload: Workload, scale: f64, days: u32, force: bool) -> Result<(Manifest, bool)> {
    if !(scale.is_finite() && scale > 0.0) || days == 0 {
        return Err(Failure::new(format!("scale {scale} with {days} days has no data"))
            .with_hint("use a scale above 0 and at least one day"));
    }
    let folder = home.data(workload, scale);
    if let Some(manifest) = Manifest::read(&folder).filter(|m| m.days == days && !force) {
        return Ok((manifest, false));
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder).at_path(&folder)?;
    }
    std::fs::create_dir_all(&folder).at_path(&folder)?;
    let plans = match workload {
        Workload::Tpch => tpch(scale, days),
        Workload::Tpcds => tpcds(scale, days)?,
        Workload::Skewed => skewed::plans(scale, days),
    };
    let tables = generate(&folder, &plans, days)?;
    let manifest = Manifest { format: Manifest::FORMAT, workload, scale, days, tables };
    manifest.write(&folder)?;
    Ok((manifest, true))
}

/// The manifest of a data set that must be there, with at least `days` days.
pub(crate) fn require(home: &Home, workload: Workload, scale: f64, days: u32) -> Result<Manifest> {
    let name = workload.name();
    let hint = format!("run `sparklet-harness setup --workload {name} --scale {scale} --days {}` first", days.max(10));
    let manifest = Manifest::read(&home.data(workload, scale)).ok_or_else(|| {
        Failure::new(format!("there is no {name} data set at scale {scale} in `{}`", home.root().display()))
            .with_hint(&hint)
    })?;
    if manifest.days < days {
        return Err(Failure::new(format!(
            "the {name} data set at scale {scale} has {} days, not {days}",
            manifest.days
        ))
        .with_hint(hint));
    }
    Ok(manifest)
}

/// Writes all tables, one thread a core.
pub(crate) fn generate(folder: &Path, plans: &[Plan], days: u32) -> Result<Vec<Table>> {
    let slices: Vec<(usize, u32)> = plans
        .iter()
        .enumerate()
        .flat_map(|(i, plan)| (0..=if plan.grows { days } else { 0 }).map(move |slice| (i, slice)))
        .collect();
    for plan in plans {
        let table = folder.join(&plan.name);
        std::fs::create_dir_all(&table).at_path(&table)?;
    }
    // The largest first would be best; facts stand behind dimensions in no set, so the order of the plans does.
    let next = Mutex::new(slices.iter());
    let written = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| -> Result<()> {
        let work = || -> Result<()> {
            loop {
                let Some(&(table, slice)) = next.lock().ok().and_then(|mut n| n.next()) else { return Ok(()) };
                let plan = &plans[table];
                let path = folder.join(&plan.name).join(slice_file(slice));
                let (schema, batches) = (plan.make)(slice);
                let (rows, bytes) = write_parquet(&path, schema, batches).map_err(|e| e.at(path.display()))?;
                if let Ok(mut written) = written.lock() {
                    written.push((table, slice, rows, bytes));
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|w| w.join().unwrap_or_else(|_| Err(Failure::new("a data generator panicked"))))
    })?;
    let mut written = written.into_inner().unwrap_or_default();
    written.sort_unstable();
    let mut tables: Vec<Table> =
        plans.iter().map(|p| Table { name: p.name.clone(), rows: Vec::new(), bytes: 0 }).collect();
    for (table, _, rows, bytes) in written {
        tables[table].rows.push(rows);
        tables[table].bytes += bytes;
    }
    Ok(tables)
}

fn write_parquet(path: &Path, schema: SchemaRef, batches: Batches) -> Result<(u64, u64)> {
    let file = std::fs::File::create(path).at_path(path)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties))?;
    let mut rows = 0;
    for batch in batches {
        let batch = batch?;
        rows += batch.num_rows() as u64;
        writer.write(&batch)?;
    }
    writer.close()?;
    Ok((rows, std::fs::metadata(path).at_path(path)?.len()))
}

fn reader<R>(readers: impl IntoIterator<Item = R> + 'static, schema: SchemaRef) -> (SchemaRef, Batches)
where
    R: RecordBatchReader + 'static,
{
    (schema, Box::new(readers.into_iter().flatten()))
}

/// The eight tables; orders and their lines grow.
fn tpch(scale: f64, days: u32) -> Vec<Plan> {
    let parts = (f64::from(days) / (1.0 - BASE_SHARE)).ceil() as i32;
    let base = parts - days as i32;
    let parts_of = move |slice: u32| if slice == 0 { 1..=base } else { base + slice as i32..=base + slice as i32 };
    let fixed = |name: &str, make: MakeSlice| Plan { name: name.to_owned(), grows: false, make };
    let grows = |name: &str, make: MakeSlice| Plan { name: name.to_owned(), grows: true, make };
    vec![
        grows(
            "lineitem",
            Box::new(move |slice| {
                let part = move |part| ha::LineItemArrow::new(h::LineItemGenerator::new(scale, part, parts));
                reader(parts_of(slice).map(part), ha::LineItemArrow::schema_ref())
            }),
        ),
        grows(
            "orders",
            Box::new(move |slice| {
                let part = move |part| ha::OrderArrow::new(h::OrderGenerator::new(scale, part, parts));
                reader(parts_of(slice).map(part), ha::OrderArrow::schema_ref())
            }),
        ),
        fixed(
            "partsupp",
            Box::new(move |_| {
                reader(
                    [ha::PartSuppArrow::new(h::PartSuppGenerator::new(scale, 1, 1))],
                    ha::PartSuppArrow::schema_ref(),
                )
            }),
        ),
        fixed(
            "part",
            Box::new(move |_| {
                reader([ha::PartArrow::new(h::PartGenerator::new(scale, 1, 1))], ha::PartArrow::schema_ref())
            }),
        ),
        fixed(
            "customer",
            Box::new(move |_| {
                reader(
                    [ha::CustomerArrow::new(h::CustomerGenerator::new(scale, 1, 1))],
                    ha::CustomerArrow::schema_ref(),
                )
            }),
        ),
        fixed(
            "supplier",
            Box::new(move |_| {
                reader(
                    [ha::SupplierArrow::new(h::SupplierGenerator::new(scale, 1, 1))],
                    ha::SupplierArrow::schema_ref(),
                )
            }),
        ),
        fixed(
            "nation",
            Box::new(move |_| {
                reader([ha::NationArrow::new(h::NationGenerator::new(scale, 1, 1))], ha::NationArrow::schema_ref())
            }),
        ),
        fixed(
            "region",
            Box::new(move |_| {
                reader([ha::RegionArrow::new(h::RegionGenerator::new(scale, 1, 1))], ha::RegionArrow::schema_ref())
            }),
        ),
    ]
}

/// First and last source row of a slice, 1-based and inclusive; consecutive slices meet.
fn source_rows(total: u64, slice: u32, days: u32) -> (u64, u64) {
    let share = |slices: u32| BASE_SHARE + (1.0 - BASE_SHARE) * f64::from(slices) / f64::from(days);
    let end = |slices: u32| if slices >= days { total } else { (total as f64 * share(slices)) as u64 };
    if slice == 0 { (1, end(0)) } else { (end(slice - 1) + 1, end(slice)) }
}

/// The 24 tables; sales, returns and inventory grow.
fn tpcds(scale: f64, days: u32) -> Result<Vec<Plan>> {
    let session: Session = SessionBuilder::new()
        .with_scale_factor(scale)
        .build()
        .map_err(|e| Failure::new(format!("the TPC-DS generator refuses scale {scale}: {e}")))?;
    let mut plans = Vec::new();
    macro_rules! growing {
        ($($name:literal $table:ident $generator:ident),+) => {$({
            let session = session.clone();
            let total = session.get_scaling().get_row_count(Ds::$table);
            plans.push(Plan { name: $name.to_owned(), grows: true, make: Box::new(move |slice| {
                let (first, last) = source_rows(total, slice, days);
                let rows = tpcdsgen_arrow::$generator::new(session.clone()).with_source_row_range(first, last);
                reader((first <= last).then_some(rows), tpcdsgen_arrow::$generator::schema_ref())
            })});
        })+};
    }
    macro_rules! fixed {
        ($($name:literal $generator:ident),+) => {$({
            let session = session.clone();
            plans.push(Plan { name: $name.to_owned(), grows: false, make: Box::new(move |_| {
                reader([tpcdsgen_arrow::$generator::new(session.clone())], tpcdsgen_arrow::$generator::schema_ref())
            })});
        })+};
    }
    growing!(
        "inventory" Inventory InventoryArrow, "store_sales" StoreSales StoreSalesArrow, "store_returns" StoreReturns StoreReturnsArrow,
        "catalog_sales" CatalogSales CatalogSalesArrow, "catalog_returns" CatalogReturns CatalogReturnsArrow,
        "web_sales" WebSales WebSalesArrow, "web_returns" WebReturns WebReturnsArrow
    );
    fixed!(
        "call_center" CallCenterArrow, "catalog_page" CatalogPageArrow, "customer" CustomerArrow,
        "customer_address" CustomerAddressArrow, "customer_demographics" CustomerDemographicsArrow, "date_dim" DateDimArrow,
        "household_demographics" HouseholdDemographicsArrow, "income_band" IncomeBandArrow, "item" ItemArrow,
        "promotion" PromotionArrow, "reason" ReasonArrow, "ship_mode" ShipModeArrow, "store" StoreArrow, "time_dim" TimeDimArrow,
        "warehouse" WarehouseArrow, "web_page" WebPageArrow, "web_site" WebSiteArrow
    );
    Ok(plans)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn slices_meet_and_cover_everything() {
        for (total, days) in [(1_000, 10), (7, 10), (123_457, 3)] {
            let mut next = 1;
            for slice in 0..=days {
                let (first, last) = source_rows(total, slice, days);
                assert_eq!(first, next);
                next = last + 1;
            }
            assert_eq!(next, total + 1);
        }
    }

    #[test]
    fn a_set_is_whole_sliced_and_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let rows = |manifest: &Manifest| -> BTreeMap<String, u64> {
            manifest.tables.iter().map(|t| (t.name.clone(), t.rows.iter().sum())).collect()
        };
        let (manifest, made) = setup(&home, Workload::Tpch, 0.001, 3, false).unwrap();
        assert!(made && manifest.tables.len() == 8);
        // Rows as the specification has them (orders are 1,500,000 × scale) whatever the slices.
        assert_eq!((rows(&manifest)["orders"], rows(&manifest)["nation"]), (1_500, 25));
        let orders = &manifest.tables[1];
        assert!(orders.rows.len() == 4 && orders.rows.iter().all(|&n| n > 0), "{orders:?}");
        assert!(!setup(&home, Workload::Tpch, 0.001, 3, false).unwrap().1);
        assert!(setup(&home, Workload::Tpch, 0.001, 1, false).unwrap().1);
        assert!(require(&home, Workload::Tpch, 0.001, 2).is_err());
        assert!(setup(&home, Workload::Tpch, 0.0, 1, false).is_err());
    }
}
