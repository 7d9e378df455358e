//! Recipes, targets and plans by name or file.

use crate::inspect::computes_on_codes;
use fewbit_core::{Error, Model, Result, ResultExt};
use fewbit_formats::mmap::{InputFile, shown};
use fewbit_quant::{BUILT_IN_RECIPES, BUILT_IN_TARGETS, Plan, Recipe, Target, prepare};
use std::path::Path;

/// Recipes, targets and plans are written by hand; anything longer is something else.
const MAX_TEXT_BYTES: usize = 64 << 20;

/// A recipe by the name of a built-in one, or by the path of a `.toml` file.
///
/// # Errors
/// When there is neither, or the file is no recipe.
pub fn recipe(name_or_path: &str) -> Result<Recipe> {
    let built_in = BUILT_IN_RECIPES.iter().any(|(n, _)| *n == name_or_path);
    if built_in || !looks_like_path(name_or_path) {
        return Recipe::built_in(name_or_path)
            .map_err(|e| nearest(e, name_or_path, BUILT_IN_RECIPES));
    }
    let text = read_text(Path::new(name_or_path))?;
    Recipe::parse(&text).at(|| shown(Path::new(name_or_path)))
}

/// A target by the name of a built-in one, or by the path of a `.toml` file.
///
/// # Errors
/// When there is neither, or the file is no target.
pub fn target(name_or_path: &str) -> Result<Target> {
    let built_in = BUILT_IN_TARGETS.iter().any(|(n, _)| *n == name_or_path);
    if built_in || !looks_like_path(name_or_path) {
        return Target::built_in(name_or_path)
            .map_err(|e| nearest(e, name_or_path, BUILT_IN_TARGETS));
    }
    let text = read_text(Path::new(name_or_path))?;
    Target::parse(&text).at(|| shown(Path::new(name_or_path)))
}

/// Resolves a recipe for a model: one line for each node and value, with the reason.
///
/// # Errors
/// When the model is quantized already or cannot be prepared, or recipe and target contradict each
/// other.
pub fn plan(model: &Model, recipe: &Recipe, target: &Target) -> Result<Plan> {
    refuse_quantized(model)?;
    Plan::resolve(&prepare(model)?, recipe, target)
}

/// Checks that no node of a model computes on codes: what is quantized starts from floats.
///
/// # Errors
/// With the first node that does.
pub(crate) fn refuse_quantized(model: &Model) -> Result<()> {
    let on_codes =
        |op: &str| matches!(op, "QuantizeLinear" | "DequantizeLinear") || computes_on_codes(op);
    match model.graph.nodes().find(|(_, node)| on_codes(&node.op)) {
        None => Ok(()),
        Some((id, _)) => Err(Error::unsupported("the model is quantized already")
            .code("FB-4201")
            .at(model.graph.label(id))
            .hint("start from the float model; `fewbit eval` and `fewbit bench` run this one as it is")),
    }
}

/// Reads a plan, possibly edited by hand.
///
/// # Errors
/// With line and column when the file is no plan.
pub fn read_plan(path: &Path) -> Result<Plan> {
    Plan::parse(&read_text(path)?).at(|| shown(path))
}

/// Reads a text file that a person wrote.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let file = InputFile::open(path)?;
    if file.bytes().len() > MAX_TEXT_BYTES {
        return Err(Error::bad_input("too long for a file of settings").at(shown(path)));
    }
    String::from_utf8(file.bytes().to_vec())
        .map_err(|_| Error::bad_input("not UTF-8 text").at(shown(path)))
}

fn looks_like_path(text: &str) -> bool {
    text.ends_with(".toml") || text.contains(std::path::MAIN_SEPARATOR) || Path::new(text).exists()
}

/// Adds the built-in name that a misspelt one is closest to.
fn nearest(error: Error, name: &str, known: &[(&str, &str)]) -> Error {
    let close = known.iter().map(|(k, _)| (edits(name, k), *k)).min();
    match (close, error.advice()) {
        (Some((distance, best)), Some(advice)) if distance <= 3 => {
            let hint = format!("did you mean `{best}`? {advice}");
            error.hint(hint)
        }
        _ => error,
    }
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.chars().enumerate() {
            let substitute = diagonal + (ca != cb) as usize;
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_are_answered() {
        let error = recipe("int8-dynamik").unwrap_err();
        assert!(error.advice().unwrap().contains("did you mean `int8-dynamic`"), "{error:?}");
        assert!(!target("completely else").unwrap_err().advice().unwrap().contains("did you mean"));
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
