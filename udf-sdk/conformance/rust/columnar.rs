//! The columnar functions of the cases, in Rust.

use std::collections::BTreeSet;

use sparklet_udf::{
    aggregate, record, scalar, table, Aggregate, Date, Decimal, Duration, Micros, Millis, Result, Seconds, Timestamp,
    TimestampUtc,
};

scalar! {
    /// Both, "xor".
    fn xor(a: bool, b: bool) -> bool { a != b }
    fn add_int8(a: i8, b: i8) -> i8 { a.wrapping_add(b) }
    fn add_int16(a: i16, b: i16) -> i16 { a.wrapping_add(b) }
    fn add_int32(a: i32, b: i32) -> i32 { a.wrapping_add(b) }
    fn add_int64(a: i64, b: i64) -> i64 { a.wrapping_add(b) }
    fn add_uint8(a: u8, b: u8) -> u8 { a.wrapping_add(b) }
    fn add_uint16(a: u16, b: u16) -> u16 { a.wrapping_add(b) }
    fn add_uint32(a: u32, b: u32) -> u32 { a.wrapping_add(b) }
    fn add_uint64(a: u64, b: u64) -> u64 { a.wrapping_add(b) }
    fn half_float32(a: f32) -> f32 { a / 2.0 }
    fn mul_add(a: f64, b: f64) -> f64 { a * b + 1.0 }
    fn shout(text: &str) -> String { text.to_ascii_uppercase() + "!" }
    fn or_else(a: Option<&str>, b: Option<&str>) -> Option<String> { a.or(b).map(str::to_owned) }
    fn is_missing(a: Option<i64>) -> bool { a.is_none() }
    fn reverse_bytes(bytes: &[u8]) -> Vec<u8> { bytes.iter().rev().copied().collect() }
    fn double_decimal(a: Decimal<12, 2>) -> Decimal<12, 2> { Decimal::new(a.units() * 2) }
    fn next_day(a: Date) -> Date { Date(a.0 + 1) }
    fn add_hour(a: Timestamp<Micros>) -> Timestamp<Micros> { Timestamp::new(a.count() + 3_600_000_000) }
    fn add_hour_utc(a: TimestampUtc<Millis>) -> TimestampUtc<Millis> { TimestampUtc::new(a.count() + 3_600_000) }
    fn negate(a: Duration<Seconds>) -> Duration<Seconds> { Duration::new(-a.count()) }
    fn sum_list(list: Vec<Option<i64>>) -> i64 { list.into_iter().flatten().sum() }
    fn letters(text: &str) -> Vec<String> { text.chars().map(String::from).collect() }
    fn nested(n: i64) -> Vec<Vec<i64>> { (0..n).map(|i| (0..i).collect()).collect() }
    fn swap(point: Point) -> Point { Point { x: point.y, y: point.x } }
    fn tag(n: i64, text: &str) -> Tag { Tag { n: (n >= 0).then(|| n), words: text.split_whitespace().map(str::to_owned).collect() } }
    fn checked_div(a: i64, b: i64) -> Result<i64> {
        a.checked_div(b).ok_or_else(|| "division by zero".into())
    }
    #[name = "twice"]
    fn twice_int64(a: i64) -> i64 { a.wrapping_mul(2) }
    #[name = "twice"]
    fn twice_utf8(a: &str) -> String { a.repeat(2) }
    fn forty_two() -> i32 { 42 }
}

record! {
    struct Point { x: Option<f64>, y: Option<f64> }
}

record! {
    struct Tag { n: Option<i64>, words: Vec<String> }
}

#[derive(Default)]
struct Wavg {
    sum: f64,
    weight: f64,
}

impl<'a> Aggregate<'a> for Wavg {
    type Args = (f64, f64);
    type State = (f64, f64);
    type Output = Option<f64>;

    fn update(&mut self, (value, weight): (f64, f64)) -> Result {
        self.merge((value * weight, weight))
    }

    fn merge(&mut self, (sum, weight): (f64, f64)) -> Result {
        self.sum += sum;
        self.weight += weight;
        Ok(())
    }

    fn state(self) -> (f64, f64) {
        (self.sum, self.weight)
    }

    fn evaluate(self) -> Option<f64> {
        (self.weight != 0.0).then(|| self.sum / self.weight)
    }
}

/// The longest text; of equally long ones the first in order.
#[derive(Default)]
struct Longest(Option<String>);

impl<'a> Aggregate<'a> for Longest {
    type Args = (&'a str,);
    type State = (Option<String>,);
    type Output = Option<String>;

    fn update(&mut self, (text,): (&'a str,)) -> Result {
        let better = match &self.0 {
            Some(best) => text.len() > best.len() || (text.len() == best.len() && text < best.as_str()),
            None => true,
        };
        if better {
            self.0 = Some(text.to_owned());
        }
        Ok(())
    }

    fn merge(&mut self, (best,): (Option<String>,)) -> Result {
        best.map_or(Ok(()), |best| Aggregate::update(self, (best.as_str(),)))
    }

    fn state(self) -> (Option<String>,) {
        (self.0,)
    }

    fn evaluate(self) -> Option<String> {
        self.0
    }

    fn heap(&self) -> usize {
        self.0.as_ref().map_or(0, String::capacity)
    }
}

/// How many different texts there are.
#[derive(Default)]
struct Distinct {
    texts: BTreeSet<String>,
    bytes: usize,
}

impl<'a> Aggregate<'a> for Distinct {
    type Args = (&'a str,);
    type State = (Vec<String>,);
    type Output = i64;

    fn update(&mut self, (text,): (&'a str,)) -> Result {
        if !self.texts.contains(text) {
            self.bytes += text.len() + 32;
            self.texts.insert(text.to_owned());
        }
        Ok(())
    }

    fn merge(&mut self, (texts,): (Vec<String>,)) -> Result {
        texts.iter().try_for_each(|text| Aggregate::update(self, (text.as_str(),)))
    }

    fn state(self) -> (Vec<String>,) {
        (self.texts.into_iter().collect(),)
    }

    fn evaluate(self) -> i64 {
        self.texts.len() as i64
    }

    fn heap(&self) -> usize {
        self.bytes
    }
}

aggregate! {
    /// The average of values by weight.
    wavg = Wavg,
    longest = Longest,
    distinct_texts = Distinct
}

table! {
    /// The words of a text, and where they are.
    fn words(text: String) -> [word: String, at: i32] {
        text.split_whitespace().map(str::to_owned).zip(0..).collect::<Vec<_>>()
    }

    fn series(low: i64, high: i64) -> Result<[n: i64]> {
        if low > high {
            return Err("the series ends before it begins".into());
        }
        Ok((low..=high).map(|n| (n,)))
    }
}
