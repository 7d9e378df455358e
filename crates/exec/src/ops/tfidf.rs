//! `TfIdfVectorizer`: counts of known n-grams, weighed or not.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype, typed};
use crate::ops::params::size;
use fewbit_core::{Attr, DType, Dim, Error, Node, Result, Tensor, ValueType};
use std::collections::HashMap;

pub(super) const DEFS: &[OpDef] = &[OpDef::new("TfIdfVectorizer", infer, eval).since(9)];

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(shape) = ctx.shape(0) else {
        return Ok(vec![only_dtype(Some(DType::F32))]);
    };
    let mut dims = shape[..shape.len().saturating_sub(1)].to_vec();
    dims.push(Dim::Known(columns(ctx.node)?));
    Ok(vec![typed(Some(DType::F32), Some(dims))])
}

/// One more than the largest output column.
fn columns(node: &Node) -> Result<usize> {
    let indices = node.ints("ngram_indexes")?.unwrap_or(&[]);
    let largest = indices.iter().copied().max().unwrap_or(-1);
    size(largest, "the largest of `ngram_indexes`")?
        .checked_add(1)
        .ok_or_else(|| Error::bad_input("`ngram_indexes` is too large"))
}

/// A token of the text or of the pool.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Token {
    Number(i64),
    Text(Vec<u8>),
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (x, columns) = (ctx.input(0)?, columns(ctx.node)?);
    let &[.., len] = x.shape() else {
        return Err(Error::bad_input("the text is a scalar, expected [C] or [N, C]"));
    };
    if x.rank() > 2 {
        return Err(Error::bad_input(format!("{:?}, expected [C] or [N, C]", x.shape())));
    }
    let vocabulary = Vocabulary::new(ctx.node)?;
    let text = vocabulary.ids(&tokens(x)?);
    let mut shape = x.shape()[..x.rank() - 1].to_vec();
    shape.push(columns);
    let mut out = Tensor::zeros(DType::F32, shape)?;
    let reach = Reach::new(ctx)?;
    let rows = out.as_mut_slice::<f32>()?.chunks_exact_mut(columns);
    for (text, counts) in text.chunks_exact(len.max(1)).zip(rows) {
        reach.for_each_gram(text, |gram| {
            if let Some(&column) = vocabulary.grams.get(gram) {
                counts[column] += 1.0;
            }
        });
    }
    weigh(ctx, out.as_mut_slice()?, columns)?;
    Ok(vec![out])
}

fn tokens(tensor: &Tensor) -> Result<Vec<Token>> {
    match tensor.strings() {
        Some(strings) => Ok(strings.iter().cloned().map(Token::Text).collect()),
        None => Ok(tensor.to_i64()?.into_iter().map(Token::Number).collect()),
    }
}

/// The n-grams of the pool, as ids of their tokens, with their output columns.
struct Vocabulary {
    ids: HashMap<Token, u32>,
    grams: HashMap<Vec<u32>, usize>,
}

impl Vocabulary {
    fn new(node: &Node) -> Result<Vocabulary> {
        let pool: Vec<Token> = match (node.attr("pool_strings"), node.ints("pool_int64s")?) {
            (Some(Attr::Strings(pool)), _) => pool.iter().cloned().map(Token::Text).collect(),
            (_, Some(pool)) => pool.iter().copied().map(Token::Number).collect(),
            _ => return Err(Error::bad_input("neither `pool_strings` nor `pool_int64s` is given")),
        };
        let mut vocabulary = Vocabulary { ids: HashMap::new(), grams: HashMap::new() };
        for token in &pool {
            let next = vocabulary.ids.len() as u32;
            vocabulary.ids.entry(token.clone()).or_insert(next);
        }
        let ids = vocabulary.ids(&pool);
        let mut columns = node.ints("ngram_indexes")?.unwrap_or(&[]).iter();
        for (n, ids) in sections(node, &ids)?.into_iter().enumerate() {
            for (gram, &column) in ids.chunks_exact(n + 1).zip(columns.by_ref()) {
                vocabulary.grams.insert(gram.to_vec(), size(column, "`ngram_indexes`")?);
            }
        }
        Ok(vocabulary)
    }

    /// Tokens outside of the pool get an id that no n-gram has.
    fn ids(&self, tokens: &[Token]) -> Vec<u32> {
        tokens.iter().map(|token| self.ids.get(token).copied().unwrap_or(u32::MAX)).collect()
    }
}

/// The parts of the pool that hold 1-grams, 2-grams, and so on.
fn sections<'a>(node: &Node, pool: &'a [u32]) -> Result<Vec<&'a [u32]>> {
    let starts = node.ints("ngram_counts")?.unwrap_or(&[]);
    let ends = starts.iter().skip(1).copied().chain([pool.len() as i64]);
    let section = |(&start, end): (&i64, i64)| {
        let (start, end) = (usize::try_from(start).ok()?, usize::try_from(end).ok()?);
        pool.get(start..end)
    };
    starts.iter().zip(ends).map(section).collect::<Option<_>>().ok_or_else(|| {
        Error::bad_input(format!("{starts:?} does not divide a pool of {}", pool.len()))
            .at("attribute `ngram_counts`")
    })
}

/// Which n-grams are looked at.
struct Reach {
    shortest: usize,
    longest: usize,
    skip: usize,
}

impl Reach {
    fn new(ctx: &EvalCtx) -> Result<Reach> {
        let get = |name| size(ctx.int(name, 0)?, name);
        let shortest = get("min_gram_length")?.max(1);
        Ok(Reach { shortest, longest: get("max_gram_length")?, skip: get("max_skip_count")? })
    }

    /// Tokens of an n-gram stand up to `skip + 1` apart, all at the same distance; single tokens
    /// count once.
    fn for_each_gram(&self, text: &[u32], mut found: impl FnMut(&[u32])) {
        let mut gram = Vec::new();
        for n in self.shortest..=self.longest.min(text.len()) {
            let distances = if n == 1 { 1 } else { self.skip.saturating_add(1) };
            for distance in 1..=distances.min(text.len()) {
                let span = (n - 1).saturating_mul(distance);
                for start in 0..text.len().saturating_sub(span) {
                    gram.clear();
                    gram.extend(text[start..=start + span].iter().step_by(distance));
                    found(&gram);
                }
            }
        }
    }
}

fn weigh(ctx: &EvalCtx, counts: &mut [f32], columns: usize) -> Result<()> {
    let weights = ctx.node.floats("weights")?.unwrap_or(&[]);
    let weight = |i: usize| weights.get(i % columns).copied().unwrap_or(1.0);
    let counts = counts.iter_mut().enumerate();
    match ctx.string("mode", "")? {
        "TF" => {}
        "IDF" => counts.for_each(|(i, c)| *c = if *c > 0.0 { weight(i) } else { 0.0 }),
        "TFIDF" => counts.for_each(|(i, c)| *c *= weight(i)),
        other => {
            return Err(Error::bad_input(format!("mode `{other}`; allowed: TF, IDF, TFIDF")));
        }
    }
    Ok(())
}
