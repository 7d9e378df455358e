//! The equation of an `Einsum`: which axes of the operands and of the output go together.

use fewbit_core::{Error, Result};

/// An axis: a letter, or one of those that an ellipsis stands for, counted from the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Letter(char),
    Ellipsis(usize),
}

/// The terms of an equation for operands of known rank.
#[derive(Debug, PartialEq)]
pub(super) struct Equation {
    pub inputs: Vec<Vec<Label>>,
    pub output: Vec<Label>,
}

impl Equation {
    /// # Errors
    /// When the text is no equation, or does not fit the ranks.
    pub fn parse(text: &str, ranks: &[usize]) -> Result<Equation> {
        let wrong = |why: &str| Error::bad_input(format!("equation `{text}`: {why}"));
        let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let (left, right) = match plain.split_once("->") {
            Some((left, right)) => (left, Some(right)),
            None => (plain.as_str(), None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        if terms.len() != ranks.len() {
            return Err(wrong(&format!("{} terms for {} operands", terms.len(), ranks.len())));
        }
        let mut inputs = Vec::new();
        for (term, &rank) in terms.iter().zip(ranks) {
            let letters = term.replace("...", "").chars().count();
            let rest = rank.checked_sub(letters);
            let fits = rest.filter(|&rest| rest == 0 || term.contains("..."));
            let rest =
                fits.ok_or_else(|| wrong(&format!("`{term}` for an operand of rank {rank}")))?;
            inputs.push(labels(term, rest).ok_or_else(|| wrong("only letters and `...`"))?);
        }
        let ellipsis = inputs.iter().flatten().filter(|l| matches!(l, Label::Ellipsis(_)));
        let widest = ellipsis.map(|l| if let Label::Ellipsis(i) = l { i + 1 } else { 0 }).max();
        let output = match right {
            Some(right) => labels(right, widest.unwrap_or(0)).ok_or_else(|| wrong("its result"))?,
            None => implicit(&inputs, widest.unwrap_or(0)),
        };
        let known = |label: &Label| inputs.iter().flatten().any(|other| other == label);
        let once = |i: usize| !output[..i].contains(&output[i]);
        match output.iter().all(known) && (0..output.len()).all(once) {
            true => Ok(Equation { inputs, output }),
            false => Err(wrong("the result has an axis twice, or one that no operand has")),
        }
    }
}

/// The labels of a term whose ellipsis stands for `rest` axes.
fn labels(term: &str, rest: usize) -> Option<Vec<Label>> {
    let (before, after) = term.split_once("...").unwrap_or((term, ""));
    let letters = |part: &str| -> Option<Vec<Label>> {
        part.chars().map(|c| c.is_ascii_alphabetic().then_some(Label::Letter(c))).collect()
    };
    let mut found = letters(before)?;
    if term.contains("...") {
        found.extend((0..rest).rev().map(Label::Ellipsis));
    }
    found.extend(letters(after)?);
    Some(found)
}

/// The ellipsis, then in alphabetic order the letters that occur once.
fn implicit(inputs: &[Vec<Label>], ellipsis: usize) -> Vec<Label> {
    let mut letters: Vec<char> = Vec::new();
    for label in inputs.iter().flatten() {
        if let Label::Letter(letter) = label {
            letters.push(*letter);
        }
    }
    let once = |letter: &char| letters.iter().filter(|other| *other == letter).count() == 1;
    let mut single: Vec<char> = letters.iter().copied().filter(once).collect();
    single.sort_unstable();
    let axes = (0..ellipsis).rev().map(Label::Ellipsis);
    axes.chain(single.into_iter().map(Label::Letter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_result_letters_that_occur_once_remain() {
        let found = Equation::parse("...ik, ...kj", &[3, 2]).unwrap();
        let (i, j) = (Label::Letter('i'), Label::Letter('j'));
        assert_eq!(found.output, [Label::Ellipsis(0), i, j]);
        assert_eq!(found.inputs[1].len(), 2);
    }

    #[test]
    fn nonsense_is_refused() {
        for (text, ranks) in
            [("ij->ii", &[2][..]), ("ij->k", &[2]), ("ij", &[3]), ("i,j", &[1]), ("i.->i", &[2])]
        {
            assert!(Equation::parse(text, ranks).is_err(), "{text}");
        }
    }
}
