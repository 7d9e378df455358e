//! The stories260k model of the zoo: a Llama with grouped heads and tied embeddings.

use fewbit_exec::{Mode, SessionOptions};
use fewbit_llm::perplexity::{Windows, score};
use fewbit_llm::{
    Finish, Generation, Generator, GeneratorOptions, LanguageModel, Sampler, Sampling,
};
use std::path::{Path, PathBuf};

fn zoo() -> Option<PathBuf> {
    let found = std::env::var_os("FEWBIT_ZOO").map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: FEWBIT_ZOO is not set");
    }
    found
}

fn open(zoo: &Path) -> LanguageModel {
    LanguageModel::open(&zoo.join("stories260k")).unwrap()
}

#[test]
fn the_perplexity_is_that_of_other_programs() {
    let Some(zoo) = zoo() else { return };
    let model = open(&zoo);
    let text = std::fs::read_to_string(zoo.join("text/tinystories_sample.txt")).unwrap();
    let stories: Vec<&str> =
        text.split("<|endoftext|>").map(str::trim).filter(|s| s.len() > 200).take(5).collect();
    let windows = Windows::of_documents(&model, &stories).unwrap();
    let options = SessionOptions::new(Mode::Float).into();
    let found = score(&model, &windows, &options, &mut |_, _| {}).unwrap();
    assert_eq!(found.tokens, 1804);
    assert!((found.perplexity - 3.548).abs() < 0.0005, "{found:?}");
}

/// As llama.cpp continues it, greedily.
const CONTINUATION: &str = ", there was a little girl named Lily. She loved to play outside in the \
    park. One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n\
    Lily's mom said";

#[test]
fn the_greedy_continuation_is_that_of_llama_cpp() {
    let Some(zoo) = zoo() else { return };
    let model = open(&zoo);
    for threads in [1, 2] {
        let session = SessionOptions::new(Mode::Float).threads(threads);
        let options = GeneratorOptions { session, ..GeneratorOptions::default() };
        let mut generator = Generator::new(&model, &options).unwrap();
        let prompt = model.tokenizer().encode("Once upon a time", true).unwrap();
        let limits = Generation { max_tokens: 64, ..Generation::default() };
        let mut sampler = Sampler::new(Sampling::greedy());
        let mut text = String::new();
        let (tokens, finish, _) = generator
            .generate(&prompt, &mut sampler, &limits, &mut |piece| {
                text.push_str(piece);
                true
            })
            .unwrap();
        assert_eq!((tokens.len(), finish), (64, Finish::Length));
        assert_eq!(text, CONTINUATION);
        // What was seen before is not computed again, and changes nothing.
        let first = generator.logits(&prompt).unwrap();
        let mut anew = Generator::new(&model, &options).unwrap();
        assert_eq!(first, anew.logits(&prompt).unwrap());
    }
}

#[test]
fn a_prompt_and_its_continuation_are_one_text() {
    let Some(zoo) = zoo() else { return };
    let model = open(&zoo);
    let mut generator = Generator::new(&model, &GeneratorOptions::default()).unwrap();
    let limits = Generation { max_tokens: 12, ..Generation::default() };
    for prompt in ["", "Once upon a time, there was a little", "She said: \"Hi", "Lily ran. "] {
        let tokens = model.tokenizer().encode(prompt, true).unwrap();
        let mut text = prompt.to_string();
        let mut sampler = Sampler::new(Sampling::greedy());
        let mut hear = |piece: &str| {
            text.push_str(piece);
            true
        };
        let (new, ..) = generator.generate(&tokens, &mut sampler, &limits, &mut hear).unwrap();
        assert_eq!(text, model.tokenizer().decode(&[tokens, new].concat()).unwrap());
    }
}

#[test]
fn a_stop_text_ends_the_writing_and_is_no_part_of_it() {
    let Some(zoo) = zoo() else { return };
    let model = open(&zoo);
    let options = GeneratorOptions::default();
    let mut generator = Generator::new(&model, &options).unwrap();
    let prompt = model.tokenizer().encode("Once upon a time", true).unwrap();
    let stop = vec!["little girl".to_string()];
    let limits = Generation { max_tokens: 64, stop, ..Generation::default() };
    let mut text = String::new();
    let mut sampler = Sampler::new(Sampling::greedy());
    let (_, finish, _) = generator
        .generate(&prompt, &mut sampler, &limits, &mut |piece| {
            text.push_str(piece);
            true
        })
        .unwrap();
    assert_eq!(finish, Finish::Stop);
    assert!(!text.contains("little girl") && text.ends_with("a "), "{text:?}");
}

#[test]
fn texts_that_cannot_be_continued_are_refused() {
    let Some(zoo) = zoo() else { return };
    let model = open(&zoo);
    let mut generator = Generator::new(&model, &GeneratorOptions::default()).unwrap();
    assert_eq!(generator.logits(&[]).unwrap_err().stable_code(), "FB-2602");
    assert_eq!(generator.logits(&[1; 513]).unwrap_err().stable_code(), "FB-2603");
    assert_eq!(generator.logits(&[512]).unwrap_err().stable_code(), "FB-3707");
    assert!(model.encoder().is_err());
}
