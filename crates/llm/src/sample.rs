//! From logits to a token.

use std::cmp::Ordering;

/// How a token is chosen. The filters apply in the order of the fields from `repeat_penalty` on;
/// the last is `temperature`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits of recent tokens are divided (or multiplied, where negative) by this; 1 for none.
    pub repeat_penalty: f32,
    /// How many recent tokens that concerns.
    pub repeat_last: usize,
    /// Only the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability; 1 for all.
    pub top_p: f32,
    /// Only tokens at least this probable, relative to the most likely one; 0 for all.
    pub min_p: f32,
    /// Logits are divided by this; 0 takes the most likely token always.
    pub temperature: f32,
    /// Where the pseudo-random numbers begin.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            repeat_penalty: 1.0,
            repeat_last: 64,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            temperature: 0.8,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Sampling {
        Sampling { temperature: 0.0, ..Sampling::default() }
    }
}

/// Chooses tokens; equal seeds and logits choose alike.
pub struct Sampler {
    sampling: Sampling,
    random: u64,
}

impl Sampler {
    /// A sampler at the beginning of its sequence.
    pub fn new(sampling: Sampling) -> Sampler {
        Sampler { random: sampling.seed, sampling }
    }

    /// The next token of `text`; `logits` are changed by the penalty.
    pub fn pick(&mut self, logits: &mut [f32], text: &[u32]) -> u32 {
        self.penalize(logits, text);
        if self.sampling.temperature <= 0.0 {
            return greatest(logits);
        }
        let candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|(_, p)| p).sum();
        let mut left = self.uniform() * total;
        for &(token, p) in &candidates {
            left -= p;
            if left < 0.0 {
                return token;
            }
        }
        candidates.last().map_or(0, |&(token, _)| token)
    }

    fn penalize(&self, logits: &mut [f32], text: &[u32]) {
        let penalty = self.sampling.repeat_penalty;
        if penalty == 1.0 || penalty <= 0.0 {
            return;
        }
        let mut recent: Vec<u32> =
            text.iter().rev().take(self.sampling.repeat_last).copied().collect();
        recent.sort_unstable();
        recent.dedup();
        for token in recent {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// Tokens that the filters leave, most likely first, with weights that need not sum to 1.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let s = &self.sampling;
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let better = |a: &u32, b: &u32| by_logit(logits, *a, *b);
        if s.top_k > 0 && s.top_k < order.len() {
            order.select_nth_unstable_by(s.top_k - 1, better);
            order.truncate(s.top_k);
        }
        order.sort_unstable_by(better);
        let logit = |token: u32| f64::from(logits[token as usize]);
        let best = order.first().map_or(0.0, |&t| logit(t));
        let plain: Vec<f64> = order.iter().map(|&t| (logit(t) - best).exp()).collect();
        let total: f64 = plain.iter().sum();
        let mut sum = 0.0;
        let nucleus = plain.iter().take_while(|&&p| {
            let inside = sum < f64::from(s.top_p) * total;
            sum += p;
            inside
        });
        let by_nucleus = nucleus.count();
        let by_min = plain.iter().take_while(|&&p| p >= f64::from(s.min_p)).count();
        let kept = by_nucleus.min(by_min).max(1);
        let heat = f64::from(s.temperature);
        order.truncate(kept);
        order.into_iter().map(|t| (t, ((logit(t) - best) / heat).exp())).collect()
    }

    /// A number in `0..1` (SplitMix64, Steele et al. 2014).
    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Greater logits first, NaN last, smaller ids first among equals.
fn by_logit(logits: &[f32], a: u32, b: u32) -> Ordering {
    let key = |token: u32| {
        let logit = logits[token as usize];
        if logit.is_nan() { f32::NEG_INFINITY } else { logit }
    };
    key(b).total_cmp(&key(a)).then(a.cmp(&b))
}

/// The token of the greatest logit.
pub(crate) fn greatest(logits: &[f32]) -> u32 {
    (0..logits.len() as u32).min_by(|&a, &b| by_logit(logits, a, b)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(sampling: Sampling, logits: &[f32], text: &[u32], times: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        (0..times).map(|_| sampler.pick(&mut logits.to_vec(), text)).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_greatest() {
        assert_eq!(drawn(Sampling::greedy(), &[0.0, 3.0, f32::NAN, 3.0], &[], 2), [1, 1]);
    }

    #[test]
    fn equal_seeds_draw_alike() {
        let hot = |seed| Sampling { seed, temperature: 1.0, ..Sampling::default() };
        let logits: Vec<f32> = (0..50).map(|i| (i % 7) as f32 / 3.0).collect();
        let first = drawn(hot(3), &logits, &[], 40);
        assert_eq!(first, drawn(hot(3), &logits, &[], 40));
        assert_ne!(first, drawn(hot(4), &logits, &[], 40));
    }

    #[test]
    fn filters_leave_what_they_say() {
        let open =
            Sampling { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 1.0, ..Sampling::default() };
        // Probabilities 1/2, 1/4, 1/8, 1/8.
        let logits = [4f32, 2.0, 1.0, 1.0].map(f32::ln);
        let tokens = |s: Sampling| {
            let mut all = drawn(s, &logits, &[], 400);
            all.sort_unstable();
            all.dedup();
            all
        };
        assert_eq!(tokens(open.clone()), [0, 1, 2, 3]);
        assert_eq!(tokens(Sampling { top_k: 2, ..open.clone() }), [0, 1]);
        assert_eq!(tokens(Sampling { top_p: 0.7, ..open.clone() }), [0, 1]);
        assert_eq!(tokens(Sampling { min_p: 0.4, ..open.clone() }), [0, 1]);
        assert_eq!(tokens(Sampling { top_p: 0.0, ..open }), [0]);
    }

    #[test]
    fn shares_follow_the_probabilities() {
        let open =
            Sampling { top_k: 0, top_p: 1.0, min_p: 0.0, temperature: 1.0, ..Sampling::default() };
        let all = drawn(open, &[3f32.ln(), 0.0], &[], 4000);
        let first = all.iter().filter(|&&t| t == 0).count() as f64 / 4000.0;
        assert!((first - 0.75).abs() < 0.03, "{first}");
    }

    #[test]
    fn repeated_tokens_pay() {
        let greedy = Sampling { repeat_penalty: 2.0, repeat_last: 2, ..Sampling::greedy() };
        assert_eq!(drawn(greedy.clone(), &[3.0, 2.0, -1.0], &[0], 1), [1]);
        assert_eq!(drawn(greedy, &[3.0, 2.0, -1.0], &[0, 1, 2], 1), [0]);
    }
}
