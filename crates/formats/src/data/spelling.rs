//! "Did you mean": the known word nearest to an unknown one.

/// The candidate within two edits of `word` (one for short words), nearest first.
pub(crate) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let allowed = if word.chars().count() <= 3 { 1 } else { 2 };
    let distances = candidates.iter().map(|c| (edits(&word.to_lowercase(), &c.to_lowercase()), *c));
    let best = distances.min_by_key(|(d, _)| *d)?;
    (best.0 <= allowed).then_some(best.1)
}

/// A hint that names the nearest word, or all of them.
pub(crate) fn hint(word: &str, candidates: &[&str]) -> String {
    match nearest(word, candidates) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", candidates.join(", ")),
    }
}

/// Levenshtein distance. Words are cut at 64 characters, which bounds the work.
fn edits(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["resize", "crop", "mean", "std"];
        assert_eq!(nearest("resise", &known), Some("resize"));
        assert_eq!(nearest("means", &known), Some("mean"));
        assert_eq!(nearest("sdt", &known), None);
        assert_eq!(hint("brightness", &known), "known: resize, crop, mean, std");
    }
}
