//! The skewed set: what uniform benchmark data has not.
//!
//! Eight tables of a shop platform. Shop 7 has 40 % of the events; users and items follow Zipf's law; items, tags and campaigns are
//! joined many-to-many over popular tags; currency follows from country, a shop's country from its events' and category from brand, so
//! that filters on both are correlated. Days differ in volume: half of it on weekends, three times as much on every thirteenth day.
//! The same scale and number of days give the same rows everywhere.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::data::{BASE_SHARE, Batches, Plan};

/// The shop with 40 % of the events.
const HOT_SHOP: i32 = 7;
const HOT_SHARE: f64 = 0.4;
/// Events at scale 1, all days together.
const EVENTS: f64 = 2_000_000.0;
/// Days from 1970-01-01 to 2026-01-01, the first day of events.
const FIRST_DAY: i32 = 20_454;
const BATCH: u64 = 8_192;

/// Countries, most frequent first, with the currency that 98 % of their events are paid in.
const COUNTRIES: [(&str, &str); 12] = [
    ("US", "USD"),
    ("DE", "EUR"),
    ("FR", "EUR"),
    ("GB", "GBP"),
    ("JP", "JPY"),
    ("IT", "EUR"),
    ("BR", "BRL"),
    ("IN", "INR"),
    ("CA", "CAD"),
    ("ES", "EUR"),
    ("PL", "PLN"),
    ("SE", "SEK"),
];
const KINDS: [&str; 4] = ["view", "view", "cart", "buy"];
const SEGMENTS: [&str; 5] = ["new", "casual", "regular", "loyal", "business"];
const REGIONS: [&str; 4] = ["north", "east", "south", "west"];
const CHANNELS: [&str; 5] = ["mail", "search", "social", "video", "print"];
const REASONS: [&str; 5] = ["damaged", "late", "wrong size", "not as described", "changed my mind"];

/// Draws 0..n with probability proportional to `1 ÷ (k + 1)^s`.
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(n: usize, s: f64) -> Self {
        let mut sum = 0.0;
        let mut add = |k: usize| {
            sum += 1.0 / ((k + 1) as f64).powf(s);
            sum
        };
        Self { cumulative: (0..n.max(1)).map(&mut add).collect() }
    }

    fn draw(&self, random: &mut StdRng) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(1.0);
        let at = random.random::<f64>() * total;
        self.cumulative.partition_point(|&c| c <= at).min(self.cumulative.len() - 1)
    }
}

/// How many of everything there are, and when.
struct World {
    users: usize,
    shops: usize,
    items: usize,
    tags: usize,
    campaigns: usize,
    user: Zipf,
    item: Zipf,
    tag: Zipf,
    country: Zipf,
    /// Events of each day, base days first.
    volume: Vec<u64>,
    base_days: usize,
}

impl World {
    fn new(scale: f64, days: u32) -> Self {
        let scaled = |n: f64, least: usize| ((n * scale) as usize).max(least);
        let (users, items) = (scaled(100_000.0, 200), scaled(20_000.0, 100));
        let all_days = (f64::from(days) / (1.0 - BASE_SHARE)).ceil() as usize;
        let weight = |day: usize| {
            if day % 13 == 12 {
                3.0
            } else if day % 7 >= 5 {
                0.5
            } else {
                1.0
            }
        };
        let weights: f64 = (0..all_days).map(weight).sum();
        let volume = (0..all_days).map(|day| (EVENTS * scale * weight(day) / weights).ceil() as u64).collect();
        Self {
            users,
            shops: scaled(2_000.0, 50),
            items,
            tags: scaled(400.0, 20),
            campaigns: scaled(300.0, 20),
            user: Zipf::new(users, 1.1),
            item: Zipf::new(items, 0.9),
            tag: Zipf::new(scaled(400.0, 20), 1.0),
            country: Zipf::new(COUNTRIES.len(), 1.2),
            volume,
            base_days: all_days - days as usize,
        }
    }

    /// Days of a slice, with the number of its first event.
    fn days_of(&self, slice: u32) -> (std::ops::Range<usize>, u64) {
        let days = if slice == 0 {
            0..self.base_days
        } else {
            self.base_days + slice as usize - 1..self.base_days + slice as usize
        };
        let first = self.volume[..days.start].iter().sum();
        (days, first)
    }
}

/// Last day with events after `arrived` days of new data, as days since 1970-01-01.
pub(crate) fn last_day(days: u32, arrived: u32) -> i32 {
    let all_days = (f64::from(days) / (1.0 - BASE_SHARE)).ceil() as i32;
    FIRST_DAY + all_days - days as i32 + arrived as i32 - 1
}

/// First day with events, as days since 1970-01-01.
pub(crate) fn first_day() -> i32 {
    FIRST_DAY
}

/// The tables.
pub(crate) fn plans(scale: f64, days: u32) -> Vec<Plan> {
    let world = Arc::new(World::new(scale, days));
    type Make = fn(Arc<World>, u32) -> Batches;
    let tables: [(&str, bool, SchemaRef, Make); 8] = [
        ("events", true, events_schema(), events),
        ("returns", true, returns_schema(), returns),
        ("item_tags", false, schema(&[("it_item", DataType::Int32), ("it_tag", DataType::Int32)]), item_tags),
        ("users", false, users_schema(), users),
        ("items", false, items_schema(), items),
        (
            "tag_campaigns",
            false,
            schema(&[("tc_tag", DataType::Int32), ("tc_campaign", DataType::Int32)]),
            tag_campaigns,
        ),
        ("shops", false, shops_schema(), shops),
        ("campaigns", false, campaigns_schema(), campaigns),
    ];
    let plan = |(name, grows, schema, make): (&str, bool, SchemaRef, Make)| {
        let world = Arc::clone(&world);
        Plan {
            name: name.to_owned(),
            grows,
            make: Box::new(move |slice| (Arc::clone(&schema), make(Arc::clone(&world), slice))),
        }
    };
    tables.into_iter().map(plan).collect()
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(
        columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), false)).collect::<Vec<_>>(),
    ))
}

fn events_schema() -> SchemaRef {
    schema(&[
        ("e_id", DataType::Int64),
        ("e_day", DataType::Date32),
        ("e_user", DataType::Int32),
        ("e_shop", DataType::Int32),
        ("e_item", DataType::Int32),
        ("e_kind", DataType::Utf8),
        ("e_country", DataType::Utf8),
        ("e_currency", DataType::Utf8),
        ("e_quantity", DataType::Int32),
        ("e_amount", DataType::Decimal128(12, 2)),
    ])
}

fn returns_schema() -> SchemaRef {
    schema(&[
        ("r_event", DataType::Int64),
        ("r_day", DataType::Date32),
        ("r_reason", DataType::Utf8),
        ("r_amount", DataType::Decimal128(12, 2)),
    ])
}

fn users_schema() -> SchemaRef {
    schema(&[
        ("u_id", DataType::Int32),
        ("u_segment", DataType::Utf8),
        ("u_country", DataType::Utf8),
        ("u_joined", DataType::Date32),
    ])
}

fn items_schema() -> SchemaRef {
    schema(&[
        ("i_id", DataType::Int32),
        ("i_brand", DataType::Utf8),
        ("i_category", DataType::Utf8),
        ("i_price", DataType::Decimal128(12, 2)),
    ])
}

fn shops_schema() -> SchemaRef {
    schema(&[
        ("s_id", DataType::Int32),
        ("s_region", DataType::Utf8),
        ("s_tier", DataType::Int32),
        ("s_country", DataType::Utf8),
    ])
}

fn campaigns_schema() -> SchemaRef {
    schema(&[("c_id", DataType::Int32), ("c_channel", DataType::Utf8), ("c_budget", DataType::Decimal128(12, 2))])
}

fn cents(values: Vec<i128>) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(Decimal128Array::from(values).with_precision_and_scale(12, 2)?))
}

/// One batch after another from `rows` rows; `batch` makes the rows of a range.
fn in_batches(
    rows: u64,
    mut batch: impl FnMut(std::ops::Range<u64>) -> Result<RecordBatch, ArrowError> + 'static,
) -> Batches {
    let starts = (0..rows).step_by(BATCH as usize);
    Box::new(starts.map(move |start| batch(start..rows.min(start + BATCH))))
}

fn seeded(table: u64, slice: u32) -> StdRng {
    StdRng::seed_from_u64(table * 1_000_003 + u64::from(slice))
}

fn events(world: Arc<World>, slice: u32) -> Batches {
    let (days, first_id) = world.days_of(slice);
    let day_of: Vec<(u64, i32)> = days
        .scan(0, |end, day| {
            *end += world.volume[day];
            Some((*end, FIRST_DAY + day as i32))
        })
        .collect();
    let total = day_of.last().map_or(0, |d| d.0);
    let mut random = seeded(1, slice);
    in_batches(total, move |range| {
        let n = (range.end - range.start) as usize;
        let (mut ids, mut dates, mut users) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
        let (mut shops, mut items, mut kinds) = (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
        let (mut countries, mut currencies) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let (mut quantities, mut amounts) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for row in range {
            let day = day_of[day_of.partition_point(|d| d.0 <= row).min(day_of.len() - 1)].1;
            let country = world.country.draw(&mut random);
            // A shop sells mostly at home: shops of a country are those with the same remainder.
            let home =
                (random.random_range(0..world.shops) / COUNTRIES.len() * COUNTRIES.len() + country) % world.shops;
            let shop = match random.random::<f64>() {
                p if p < HOT_SHARE => HOT_SHOP,
                p if p < 0.94 => home as i32,
                _ => random.random_range(0..world.shops) as i32,
            };
            let item = world.item.draw(&mut random);
            let quantity = 1 + (random.random::<f64>().powi(4) * 12.0) as i32;
            let foreign = random.random::<f64>() < 0.02;
            ids.push((first_id + row) as i64);
            dates.push(day);
            users.push(world.user.draw(&mut random) as i32);
            shops.push(shop);
            items.push(item as i32);
            kinds.push(KINDS[random.random_range(0..KINDS.len())]);
            countries.push(COUNTRIES[country].0);
            currencies.push(if foreign {
                COUNTRIES[random.random_range(0..COUNTRIES.len())].1
            } else {
                COUNTRIES[country].1
            });
            quantities.push(quantity);
            amounts.push(price(item) * i128::from(quantity));
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(ids)),
            Arc::new(Date32Array::from(dates)),
            Arc::new(Int32Array::from(users)),
            Arc::new(Int32Array::from(shops)),
            Arc::new(Int32Array::from(items)),
            Arc::new(StringArray::from(kinds)),
            Arc::new(StringArray::from(countries)),
            Arc::new(StringArray::from(currencies)),
            Arc::new(Int32Array::from(quantities)),
            cents(amounts)?,
        ];
        RecordBatch::try_new(events_schema(), columns)
    })
}

/// Price of an item in cents: popular ones are cheap.
fn price(item: usize) -> i128 {
    (199 + (item * 7_919) % 9_000 + item / 4) as i128
}

fn returns(world: Arc<World>, slice: u32) -> Batches {
    let (days, first_id) = world.days_of(slice);
    let events: u64 = world.volume[days.clone()].iter().sum();
    let last_day = FIRST_DAY + days.end as i32 - 1;
    let mut random = seeded(2, slice);
    in_batches(events / 20, move |range| {
        let rows = (range.end - range.start) as usize;
        let event: Vec<i64> = (0..rows).map(|_| (first_id + random.random_range(0..events)) as i64).collect();
        let day: Vec<i32> =
            (0..rows).map(|_| last_day - (random.random::<f64>().powi(2) * days.len() as f64) as i32).collect();
        let reason: Vec<&str> =
            (0..rows).map(|_| REASONS[(random.random::<f64>().powi(2) * REASONS.len() as f64) as usize]).collect();
        let amount: Vec<i128> = (0..rows).map(|_| i128::from(random.random_range(100..20_000))).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(event)),
            Arc::new(Date32Array::from(day)),
            Arc::new(StringArray::from(reason)),
            cents(amount)?,
        ];
        RecordBatch::try_new(returns_schema(), columns)
    })
}

fn users(world: Arc<World>, slice: u32) -> Batches {
    let mut random = seeded(3, slice);
    in_batches(world.users as u64, move |range| {
        let ids: Vec<i32> = range.map(|id| id as i32).collect();
        // The most active users are business users.
        let segment = |&id: &i32| if id < 50 { SEGMENTS[4] } else { SEGMENTS[id as usize % 4] };
        let segments: Vec<&str> = ids.iter().map(segment).collect();
        let countries: Vec<&str> = ids.iter().map(|_| COUNTRIES[world.country.draw(&mut random)].0).collect();
        let joined: Vec<i32> = ids.iter().map(|_| FIRST_DAY - random.random_range(0..2_000)).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(ids)),
            Arc::new(StringArray::from(segments)),
            Arc::new(StringArray::from(countries)),
            Arc::new(Date32Array::from(joined)),
        ];
        RecordBatch::try_new(users_schema(), columns)
    })
}

fn items(world: Arc<World>, _slice: u32) -> Batches {
    in_batches(world.items as u64, move |range| {
        let ids: Vec<i32> = range.map(|id| id as i32).collect();
        // A brand makes one category only.
        let brands: Vec<String> = ids.iter().map(|id| format!("brand {}", id % 200)).collect();
        let categories: Vec<String> = ids.iter().map(|id| format!("category {}", id % 200 % 25)).collect();
        let prices = cents(ids.iter().map(|&id| price(id as usize)).collect())?;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(ids)),
            Arc::new(StringArray::from(brands)),
            Arc::new(StringArray::from(categories)),
            prices,
        ];
        RecordBatch::try_new(items_schema(), columns)
    })
}

fn shops(world: Arc<World>, _slice: u32) -> Batches {
    in_batches(world.shops as u64, move |range| {
        let ids: Vec<i32> = range.map(|id| id as i32).collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(ids.clone())),
            Arc::new(StringArray::from(ids.iter().map(|id| REGIONS[*id as usize / 3 % 4]).collect::<Vec<_>>())),
            Arc::new(Int32Array::from(
                ids.iter().map(|id| if *id == HOT_SHOP { 1 } else { 1 + id % 5 }).collect::<Vec<_>>(),
            )),
            Arc::new(StringArray::from(
                ids.iter().map(|id| COUNTRIES[*id as usize % COUNTRIES.len()].0).collect::<Vec<_>>(),
            )),
        ];
        RecordBatch::try_new(shops_schema(), columns)
    })
}

/// Pairs of two keys: `per_left` for each left key, right keys by `draw`; a pair may occur twice, as in logs of assignments.
fn pairs(names: [&'static str; 2], left: usize, per_left: u64, mut draw: impl FnMut() -> usize + 'static) -> Batches {
    in_batches(left as u64 * per_left, move |range| {
        let rights: Vec<i32> = range.clone().map(|_| draw() as i32).collect();
        let lefts: Vec<i32> = range.map(|row| (row / per_left) as i32).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(Int32Array::from(lefts)), Arc::new(Int32Array::from(rights))];
        RecordBatch::try_new(schema(&names.map(|name| (name, DataType::Int32))), columns)
    })
}

fn item_tags(world: Arc<World>, slice: u32) -> Batches {
    let mut random = seeded(4, slice);
    pairs(["it_item", "it_tag"], world.items, 5, move || world.tag.draw(&mut random))
}

fn tag_campaigns(world: Arc<World>, slice: u32) -> Batches {
    let mut random = seeded(5, slice);
    pairs(["tc_tag", "tc_campaign"], world.tags, 20, move || random.random_range(0..world.campaigns))
}

fn campaigns(world: Arc<World>, _slice: u32) -> Batches {
    in_batches(world.campaigns as u64, move |range| {
        let ids: Vec<i32> = range.map(|id| id as i32).collect();
        let channels: Vec<&str> = ids.iter().map(|id| CHANNELS[*id as usize % CHANNELS.len()]).collect();
        let budgets = cents(ids.iter().map(|&id| i128::from(id % 17) * 100_000 + 50_000).collect())?;
        RecordBatch::try_new(
            campaigns_schema(),
            vec![Arc::new(Int32Array::from(ids)), Arc::new(StringArray::from(channels)), budgets],
        )
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int32Type;

    use super::*;

    fn all(table: &str, slice: u32) -> Vec<RecordBatch> {
        let plans = plans(0.01, 10);
        let plan = plans.iter().find(|p| p.name == table).unwrap();
        (plan.make)(slice).1.map(Result::unwrap).collect()
    }

    #[test]
    fn one_shop_has_two_fifths_and_users_are_skewed() {
        let batches = all("events", 0);
        let values = |column: usize| -> Vec<i32> {
            batches.iter().flat_map(|b| b.column(column).as_primitive::<Int32Type>().values().to_vec()).collect()
        };
        let rows = values(3).len() as f64;
        let hot = values(3).iter().filter(|&&shop| shop == HOT_SHOP).count() as f64 / rows;
        assert!((0.39..0.43).contains(&hot), "{hot}");
        let first = values(2).iter().filter(|&&user| user == 0).count() as f64 / rows;
        assert!(first > 0.1, "{first}");
    }

    #[test]
    fn slices_are_repeatable_and_have_their_own_days() {
        assert_eq!(all("events", 3), all("events", 3));
        let days = |slice| -> Vec<i32> {
            let batches = all("events", slice);
            let mut days: Vec<i32> = batches
                .iter()
                .flat_map(|b| b.column(1).as_primitive::<arrow::datatypes::Date32Type>().values().to_vec())
                .collect();
            days.dedup();
            days
        };
        assert_eq!(days(0).len(), 24);
        assert_eq!(days(1), [last_day(10, 1)]);
        assert_eq!(*days(0).last().unwrap(), last_day(10, 0));
        assert_eq!(days(0)[0], first_day());
    }

    #[test]
    fn every_table_keeps_its_schema() {
        for plan in plans(0.01, 2) {
            let (schema, batches) = (plan.make)(if plan.grows { 1 } else { 0 });
            let mut rows = 0;
            for batch in batches {
                let batch = batch.unwrap();
                assert_eq!(batch.schema(), schema, "{}", plan.name);
                rows += batch.num_rows();
            }
            assert!(rows > 0, "{}", plan.name);
        }
    }
}
