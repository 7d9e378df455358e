//! Data for language models: texts to predict, pairs of sentences to compare.

use super::card::{Card, Task};
use super::file::show;
use super::spec::{DataSpec, SampleRange};
use super::text::{read_text, utf8};
use fewbit_core::{Error, Result, ResultExt};
use std::path::{Path, PathBuf};

/// Two sentences and how alike they are to people.
#[derive(Clone, Debug, PartialEq)]
pub struct SentencePair {
    /// The sentences.
    pub sentences: [String; 2],
    /// Greater is more alike; only the order of pairs counts.
    pub score: f64,
}

/// What a [`Corpus`] holds.
#[derive(Clone, Debug, PartialEq)]
pub enum CorpusKind {
    /// One long text, predicted window by window.
    Text(String),
    /// Texts that are predicted one by one, each as a whole.
    Documents(Vec<String>),
    /// Sentence pairs.
    Pairs(Vec<SentencePair>),
}

/// An open data set for language models.
#[derive(Clone, Debug, PartialEq)]
pub struct Corpus {
    /// What it holds.
    pub kind: CorpusKind,
    /// Which windows, documents or pairs are meant.
    pub range: SampleRange,
    /// The files it came from.
    pub files: Vec<PathBuf>,
}

impl Corpus {
    /// Opens `PATH` or `PATH@A..B`: a card with the task `perplexity` or `similarity`, a text
    /// file, or a `.csv` of sentence, sentence, score.
    ///
    /// # Errors
    /// `FB-2301` for a wrong range, `FB-2303` for data of another kind, `FB-33xx` for damaged
    /// data.
    pub fn open(spec: &str) -> Result<Corpus> {
        let spec = DataSpec::parse(spec)?;
        if !has_extension(&spec.path, "toml") {
            let task = match has_extension(&spec.path, "csv") {
                true => Task::Similarity,
                false => Task::Perplexity,
            };
            return read(&spec.path, task, None, spec.range);
        }
        let card = Card::read(&spec.path)?;
        let path = spec.path.parent().unwrap_or(Path::new("")).join(&card.path);
        let task = card.task.unwrap_or(Task::Perplexity);
        let mut corpus = read(&path, task, card.separator.as_deref(), spec.range)
            .at(|| format!("card {}", show(&spec.path)))?;
        corpus.files.push(spec.path);
        Ok(corpus)
    }

    /// What is scored.
    pub fn task(&self) -> Task {
        match self.kind {
            CorpusKind::Pairs(_) => Task::Similarity,
            CorpusKind::Text(_) | CorpusKind::Documents(_) => Task::Perplexity,
        }
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

fn read(path: &Path, task: Task, separator: Option<&str>, range: SampleRange) -> Result<Corpus> {
    let kind = match task {
        Task::Similarity => CorpusKind::Pairs(pairs(path)?),
        Task::Perplexity => text(path, separator)?,
        other => {
            let error =
                Error::usage(format!("the task `{}` is not for language models", other.name()));
            return Err(error.code("FB-2303").hint("theirs are: perplexity, similarity"));
        }
    };
    Ok(Corpus { kind, range, files: vec![path.to_path_buf()] })
}

fn text(path: &Path, separator: Option<&str>) -> Result<CorpusKind> {
    let text = read_text(path).at(|| show(path))?;
    let Some(separator) = separator.filter(|s| !s.is_empty()) else {
        return Ok(CorpusKind::Text(text));
    };
    let documents = text.split(separator).map(str::trim).filter(|d| !d.is_empty());
    Ok(CorpusKind::Documents(documents.map(str::to_string).collect()))
}

/// Lines of sentence, sentence, score; a first line whose score is no number is a header.
fn pairs(path: &Path) -> Result<Vec<SentencePair>> {
    let text = read_text(path).at(|| show(path))?;
    utf8(text.as_bytes())?;
    let mut lines =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut pairs = Vec::new();
    for (index, line) in lines.records().enumerate() {
        let place = || format!("{}: line {}", show(path), index + 1);
        let line = line.map_err(|e| Error::bad_input(e.to_string()).code("FB-3340").at(place()))?;
        let fields: Vec<&str> = line.iter().collect();
        let score =
            fields.get(2).and_then(|s| s.trim().parse::<f64>().ok()).filter(|s| s.is_finite());
        match (score, fields.as_slice()) {
            (Some(score), [a, b, _]) => {
                pairs.push(SentencePair { sentences: [a.to_string(), b.to_string()], score });
            }
            _ if index == 0 => {}
            _ => {
                let error = Error::bad_input("expected sentence, sentence, score");
                return Err(error.code("FB-3340").at(place()));
            }
        }
    }
    if pairs.is_empty() {
        return Err(Error::bad_input("there are no pairs of sentences")
            .code("FB-3340")
            .at(show(path)));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, content: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let spec = path.to_str().unwrap().to_string();
        (folder, spec)
    }

    #[test]
    fn pairs_are_read_with_and_without_header() {
        for header in ["", "a,b,score\n"] {
            let (_folder, spec) = written("x.csv", &format!("{header}\"A, b.\",B,2.5\nC,D,0\n"));
            let corpus = Corpus::open(&format!("{spec}@0..1")).unwrap();
            let CorpusKind::Pairs(pairs) = &corpus.kind else { panic!("no pairs") };
            assert_eq!(pairs.len(), 2);
            assert_eq!((pairs[0].sentences[0].as_str(), pairs[0].score), ("A, b.", 2.5));
            assert_eq!(corpus.range.resolve(2).unwrap(), 0..1);
        }
        let (_folder, spec) = written("x.csv", "A,B,1\nC,D\n");
        let error = Corpus::open(&spec).unwrap_err();
        assert_eq!(error.stable_code(), "FB-3340");
        assert!(error.place().contains("line 2"));
    }

    #[test]
    fn a_separator_makes_documents() {
        let (folder, _) = written("x.txt", " one\n<|>two <|>\n");
        let card = folder.path().join("x.toml");
        std::fs::write(&card, "path = 'x.txt'\ntask = 'perplexity'\nseparator = '<|>'\n").unwrap();
        let corpus = Corpus::open(card.to_str().unwrap()).unwrap();
        assert_eq!(corpus.kind, CorpusKind::Documents(vec!["one".into(), "two".into()]));
        std::fs::write(&card, "path = 'x.txt'\ntask = 'classify'\n").unwrap();
        assert_eq!(Corpus::open(card.to_str().unwrap()).unwrap_err().stable_code(), "FB-2303");
    }
}
