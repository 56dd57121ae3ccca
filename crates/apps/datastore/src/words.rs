//! The nearest good word to one that is wrong.

/// The candidate that a misspelt word most likely means.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let limit = 1 + word.chars().count() / 4;
    let scored = candidates.into_iter().map(|c| (strsim::damerau_levenshtein(&lower, &c.to_lowercase()), c));
    scored.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, c)| c)
}

/// `; did you mean "X"?`, or nothing.
pub fn hint<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default()
}
