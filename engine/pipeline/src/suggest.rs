//! "Did you mean": the nearest of what would have been right.

/// The candidate nearest to `word`, if it is near enough to be what was meant. Ties go to the first.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let mut best: Option<(f64, &'a str)> = None;
    for candidate in candidates {
        let other = candidate.to_lowercase();
        // The share of characters that need no edit; a prefix is what a person types who forgets the end.
        let mut score = strsim::normalized_damerau_levenshtein(&lower, &other);
        if lower.len() >= 3 && (other.starts_with(&lower) || lower.starts_with(&other) && other.len() >= 3) {
            score = score.max(0.75);
        }
        if score >= 0.55 && best.is_none_or(|(s, _)| score > s) {
            best = Some((score, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// `did you mean `x`?` or, where nothing is near, `KIND: `a`, `b`, …` (at most twelve), or nothing where there are none.
pub fn hint<'a>(word: &str, kind: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(near) = nearest(word, candidates.clone()) {
        return Some(format!("did you mean `{near}`?"));
    }
    let list = listing(candidates);
    if list.is_empty() { None } else { Some(format!("{kind}: {list}")) }
}

/// Names in backticks with commas, at most twelve, then how many more there are.
pub fn listing<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = names.iter().take(12).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    if names.len() > 12 {
        text.push_str(&format!(" and {} more", names.len() - 12));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_far() {
        let known = ["orders", "customers", "customer_id", "path"];
        for (word, expected) in [
            ("order", Some("orders")),
            ("ordrs", Some("orders")),
            ("ORDERS", Some("orders")),
            ("custmers", Some("customers")),
            ("pth", Some("path")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
        assert_eq!(hint("zzz", "known", known), Some("known: `orders`, `customers`, `customer_id`, `path`".to_owned()));
        assert_eq!(hint("zzz", "known", []), None);
    }
}
