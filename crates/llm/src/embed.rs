//! Texts as vectors.

use crate::graph::decoder::State;
use crate::graph::encoder::Encoder;
use crate::graph::names;
use crate::model::LanguageModel;
use crate::source::Pooling;
use fewbit_core::{Error, Result, Tensor};
use fewbit_exec::{Session, SessionOptions};

/// Texts that run at once; those of one length go together, so that nothing is filled up.
const BATCH: usize = 32;

/// An encoder that turns texts into vectors, as sentence-transformers does.
pub struct Embedder<'m> {
    model: &'m LanguageModel,
    encoder: &'m Encoder,
    session: Session,
}

impl<'m> Embedder<'m> {
    /// Prepares a model.
    ///
    /// # Errors
    /// For decoders, and when the model contradicts itself.
    pub fn new(model: &'m LanguageModel, options: &SessionOptions) -> Result<Embedder<'m>> {
        let encoder = model.encoder()?;
        let session = Session::new(&model.graph(State::None)?, options)?;
        Ok(Embedder { model, encoder, session })
    }

    /// Length of the vectors.
    pub fn width(&self) -> usize {
        self.encoder.hidden
    }

    /// One vector for each text. `progress` hears the number of texts done.
    ///
    /// # Errors
    /// When the tokenizer or a run fails, and when a vector is not finite.
    pub fn embed(&self, texts: &[&str], progress: &mut dyn FnMut(usize)) -> Result<Vec<Vec<f32>>> {
        let tokens = texts.iter().map(|text| self.tokens(text)).collect::<Result<Vec<_>>>()?;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| tokens[i].len());
        let mut vectors = vec![Vec::new(); texts.len()];
        let mut done = 0;
        for same in order.chunk_by(|&a, &b| tokens[a].len() == tokens[b].len()) {
            for batch in same.chunks(BATCH) {
                let rows: Vec<&[u32]> = batch.iter().map(|&i| &tokens[i][..]).collect();
                for (&i, vector) in batch.iter().zip(self.run(&rows)?) {
                    vectors[i] = checked(vector, i)?;
                }
                done += batch.len();
                progress(done);
            }
        }
        Ok(vectors)
    }

    /// The tokens of a text; one that is too long loses its end, but for the last token, which
    /// marks the end.
    fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = self.model.tokenizer().encode(text, true)?;
        let pooling = self.model.checkpoint().pooling;
        let most = pooling.max_tokens.unwrap_or(usize::MAX).min(self.encoder.context).max(2);
        if let Some(&last) = tokens.last().filter(|_| tokens.len() > most) {
            tokens.truncate(most - 1);
            tokens.push(last);
        }
        if tokens.is_empty() {
            return Err(Error::usage("an empty text has no vector").code("FB-2602"));
        }
        Ok(tokens)
    }

    fn run(&self, rows: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let (batch, length) = (rows.len(), rows.first().map_or(0, |row| row.len()));
        let shape = vec![batch, length];
        let ids: Vec<i64> = rows.iter().flat_map(|row| row.iter().map(|&t| i64::from(t))).collect();
        let places: Vec<i64> = (0..batch).flat_map(|_| 0..length as i64).collect();
        let outputs = self.session.run_owned(vec![
            (names::TOKENS, Tensor::from_slice(shape.clone(), &ids)?),
            (names::POSITIONS, Tensor::from_slice(shape.clone(), &places)?),
            (names::TOKEN_TYPES, Tensor::from_slice(shape, &vec![0i64; batch * length])?),
        ])?;
        let Some((_, hidden)) = outputs.into_iter().next() else {
            return Err(Error::internal("an encoder without output"));
        };
        let hidden = hidden.cow::<f32>()?;
        let (width, pooling) = (self.width(), self.model.checkpoint().pooling);
        Ok(hidden.chunks_exact(length * width).map(|text| pool(text, width, pooling)).collect())
    }
}

/// The hidden states of one text as one vector.
fn pool(hidden: &[f32], width: usize, pooling: Pooling) -> Vec<f32> {
    let mut vector = vec![0f64; width];
    let rows = if pooling.mean { hidden.len() / width } else { 1 };
    for row in hidden.chunks_exact(width).take(rows) {
        vector.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v));
    }
    vector.iter_mut().for_each(|v| *v /= rows as f64);
    if pooling.normalize {
        let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
        vector.iter_mut().for_each(|v| *v /= length);
    }
    vector.into_iter().map(|v| v as f32).collect()
}

/// # Errors
/// When an element of the vector of text `text` is not finite: it is near nothing and far from
/// nothing.
fn checked(vector: Vec<f32>, text: usize) -> Result<Vec<f32>> {
    match vector.iter().position(|v| !v.is_finite()) {
        None => Ok(vector),
        Some(i) => {
            let what = format!("element {i} of the vector is {}", vector[i]);
            let error = Error::bad_input(what).at(format!("text {text}")).code("FB-3709");
            Err(error.hint("the model's weights are damaged, or numbers overflow in it"))
        }
    }
}

/// Cosine of the angle between two vectors; 0 where one has no length.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

/// Rank correlation of two lists (Spearman 1904); equal values share the mean of their ranks.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let (ma, mb) = (mean(&a), mean(&b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        a.iter().zip(&b).map(|(&x, &y)| f(x - ma, y - mb)).sum()
    };
    let spread = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    if spread > 0.0 { sum(&|x, y| x * y) / spread } else { 0.0 }
}

fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = first as f64 + (tied.len() - 1) as f64 / 2.0;
        tied.iter().for_each(|&i| ranks[i] = rank);
        first += tied.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pooling_takes_the_mean_or_the_first() {
        let hidden = [3.0, 0.0, 0.0, 4.0];
        let pooling = Pooling { mean: true, normalize: false, max_tokens: None };
        assert_eq!(pool(&hidden, 2, pooling), [1.5, 2.0]);
        assert_eq!(pool(&hidden, 2, Pooling { normalize: true, ..pooling }), [0.6, 0.8]);
        assert_eq!(pool(&hidden, 2, Pooling { mean: false, ..pooling }), [3.0, 0.0]);
    }

    #[test]
    fn vectors_are_finite() {
        assert_eq!(checked(vec![1.0, -2.0], 3).unwrap(), [1.0, -2.0]);
        for wrong in [f32::NAN, f32::INFINITY] {
            let error = checked(vec![1.0, wrong], 3).unwrap_err();
            assert_eq!(error.stable_code(), "FB-3709");
            assert!(error.to_string().contains("text 3"), "{error}");
        }
        let normalized = Pooling { mean: true, normalize: true, max_tokens: None };
        assert!(checked(pool(&[f32::NAN, 1.0], 2, normalized), 0).is_err());
    }

    #[test]
    fn ranks_correlate() {
        assert_eq!(ranks(&[5.0, 1.0, 5.0]), [1.5, 0.0, 1.5]);
        assert!((spearman(&[1.0, 2.0, 3.0, 4.0], &[10.0, 20.0, 40.0, 30.0]) - 0.8).abs() < 1e-12);
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), 0.0);
    }
}
