//! `fewbit generate MODEL --prompts FILE`: many texts, several at a time.

use super::{Writing, ending, generate::MAX_PROMPT_BYTES, longest};
use crate::flags::Work;
use crate::signals;
use crate::ui::Ui;
use fewbit::llm::{Answer, Batch, Event, Generation, LanguageModel, Request, Sampling, Ticket};
use fewbit::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A line of a JSONL file: a prompt, and what differs from the flags.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: String,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Option<Vec<String>>,
}

impl Line {
    fn plain(prompt: &str) -> Line {
        let prompt = prompt.to_string();
        Line {
            prompt,
            max_tokens: None,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            repeat_penalty: None,
            seed: None,
            stop: None,
        }
    }

    fn sampling(&self, flags: Sampling) -> Sampling {
        Sampling {
            repeat_penalty: self.repeat_penalty.unwrap_or(flags.repeat_penalty),
            top_k: self.top_k.unwrap_or(flags.top_k),
            top_p: self.top_p.unwrap_or(flags.top_p),
            min_p: self.min_p.unwrap_or(flags.min_p),
            temperature: self.temperature.unwrap_or(flags.temperature),
            seed: self.seed.unwrap_or(flags.seed),
            ..flags
        }
    }

    fn limits(&self, flags: Generation) -> Generation {
        Generation {
            max_tokens: self.max_tokens.unwrap_or(flags.max_tokens),
            stop: self.stop.clone().unwrap_or(flags.stop),
            ..flags
        }
    }
}

/// The prompts of a file: one on each line that is not empty, as text or (`.jsonl`) as an object.
fn read(path: &Path) -> Result<Vec<Line>> {
    let place = || path.display().to_string();
    let failed = |what: String| Error::bad_input(what).code("FB-3001").at(place());
    let file = std::fs::File::open(path)
        .map_err(|e| failed(format!("cannot open: {e}")).hint("check the path"))?;
    let mut text = Vec::new();
    let read = file.take(MAX_PROMPT_BYTES + 1).read_to_end(&mut text);
    read.map_err(|e| failed(format!("cannot read the prompts: {e}")))?;
    if text.len() as u64 > MAX_PROMPT_BYTES {
        return Err(failed(format!("a file of prompts has at most {MAX_PROMPT_BYTES} bytes"))
            .hint("give its parts one after another"));
    }
    let text = String::from_utf8(text).map_err(|e| failed(format!("no UTF-8 text: {e}")))?;
    let objects = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("jsonl"));
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parsed = lines.map(|(index, line)| match objects {
        false => Ok(Line::plain(line)),
        true => serde_json::from_str(line).map_err(|e| {
            failed(format!("line {}: {e}", index + 1))
                .hint("a line is an object such as {\"prompt\": \"Once\", \"max_tokens\": 20}")
        }),
    });
    let prompts = parsed.collect::<Result<Vec<Line>>>()?;
    if prompts.is_empty() {
        return Err(failed("there is no prompt in the file".to_string()));
    }
    Ok(prompts)
}

/// What came of a prompt.
#[derive(Default)]
struct Written {
    text: String,
    answer: Option<Answer>,
}

pub fn run(
    path: &Path,
    parallel: usize,
    model: &LanguageModel,
    (writing, work): (&Writing, &Work),
    ui: &Ui,
) -> Result<()> {
    let lines = read(path)?;
    let request = |line: &Line| -> Result<Request> {
        Ok(Request {
            prompt: model.tokenizer().encode(&line.prompt, true)?,
            sampling: line.sampling(writing.sampling()),
            limits: line.limits(writing.limits()),
        })
    };
    let requests = lines.iter().map(request).collect::<Result<Vec<_>>>()?;
    let lengths = requests.iter().map(|r| longest(r.prompt.len(), &r.limits));
    let all = lengths.collect::<Option<Vec<_>>>();
    let most = all.map(|all| all.into_iter().max().unwrap_or(0));
    let mut batch = Batch::new(model, &writing.options_for(work, model, most), parallel)?;
    for (index, request) in requests.into_iter().enumerate() {
        batch.add(request).map_err(|e| e.at(format!("prompt {}", index + 1)))?;
    }
    let mut all: Vec<Written> = lines.iter().map(|_| Written::default()).collect();
    let (began, mut shown) = (Instant::now(), 0);
    signals::interruptible(|interrupted| {
        batch.finish(&mut |ticket: Ticket, event| {
            match event {
                Event::Text(piece) => all[ticket].text.push_str(piece),
                Event::End(answer) => all[ticket].answer = Some(answer),
            }
            while let Some(Written { text, answer: Some(_) }) = all.get(shown) {
                ui.speech(&format!("{}. {}{text}\n\n", shown + 1, lines[shown].prompt));
                shown += 1;
            }
            !interrupted.load(Ordering::Relaxed)
        })
    })?;
    report(&all, began.elapsed().as_secs_f64(), ui);
    Ok(())
}

fn report(all: &[Written], seconds: f64, ui: &Ui) {
    let answers = || all.iter().filter_map(|written| written.answer.as_ref());
    let prompts: usize = answers().map(|answer| answer.speed.prompt_tokens).sum();
    let tokens: usize = answers().map(|answer| answer.tokens.len()).sum();
    if !ui.json {
        let rate = tokens as f64 / seconds.max(1e-9);
        return ui.note(&format!(
            "{} prompts of {prompts} tokens; {tokens} written in {seconds:.2} s ({rate:.1} per second)",
            all.len()
        ));
    }
    let answer = |written: &Written| -> Option<Value> {
        let answer = written.answer.as_ref()?;
        Some(json!({
            "text": written.text,
            "tokens": answer.tokens,
            "finish": ending(answer.finish),
            "prompt_tokens": answer.speed.prompt_tokens,
        }))
    };
    ui.print_json(&json!({
        "answers": all.iter().filter_map(answer).collect::<Vec<_>>(),
        "prompt_tokens": prompts,
        "tokens": tokens,
        "seconds": seconds,
        "peak_rss_bytes": fewbit::peak_rss_bytes(),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_differs_from_the_flags() {
        let line: Line =
            serde_json::from_str(r#"{"prompt": "a", "seed": 3, "stop": ["x"]}"#).unwrap();
        let sampling = line.sampling(Sampling { seed: 1, top_k: 7, ..Sampling::default() });
        assert_eq!((sampling.seed, sampling.top_k), (3, 7));
        let limits = line.limits(Generation { max_tokens: 9, ..Generation::default() });
        assert_eq!((limits.max_tokens, limits.stop), (9, vec!["x".to_string()]));
        assert!(serde_json::from_str::<Line>(r#"{"prompt": "a", "sed": 3}"#).is_err());
    }
}
