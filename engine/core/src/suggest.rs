//! "Did you mean": the closest of some names.

/// The name in `known` closest to `wanted`, if it is close enough to be meant (Jaro-Winkler ≥ 0.75, case ignored).
pub fn closest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn finds_misspellings_only() {
        let known = ["dep_delay", "arr_delay", "carrier"];
        assert_eq!(closest("dep_dealy", known), Some("dep_delay"));
        assert_eq!(closest("CARRIER", known), Some("carrier"));
        assert_eq!(closest("zzz", known), None);
    }
}
