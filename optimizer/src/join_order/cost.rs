//! A cost of joins that is cheap enough for the inside of the search: nanoseconds of CPU, about, of hash joins on vectors.

/// Rows of an input and their width in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input {
    pub(super) rows: f64,
    pub(super) width: f64,
}

impl Input {
    fn bytes(self) -> f64 {
        self.rows * self.width
    }
}

/// Build sides beyond this are divided over partitions together with the other input.
const BROADCAST_ROWS: f64 = 128.0 * 1024.0;

/// The cost of one join; `keys`: it has equal keys. The smaller input is built.
pub(super) fn of_join(a: Input, b: Input, output: Input, keys: bool) -> f64 {
    let (build, probe) = if a.bytes() <= b.bytes() { (a, b) } else { (b, a) };
    let written = output.rows * (6.0 + 0.25 * output.width);
    if !keys {
        return build.rows * probe.rows * 2.0 + build.rows * 10.0 + probe.rows * 10.0 + written;
    }
    // A table that leaves the caches costs more to look into.
    let lookup = 10.0 + 3.0 * (build.rows.max(1.0) / 4096.0).max(1.0).log2();
    let building = build.rows * (30.0 + 0.3 * build.width + lookup);
    let probing = probe.rows * lookup;
    let moving = if build.rows > BROADCAST_ROWS {
        build.rows * (15.0 + 0.3 * build.width) + probe.rows * (15.0 + 0.3 * probe.width)
    } else {
        0.0
    };
    building + probing + moving + written
}
