//! `fewbit chat MODEL`

use super::{Writing, speeds};
use crate::exit::Outcome;
use crate::flags::Work;
use crate::signals;
use crate::ui::{Paint, Ui};
use fewbit::llm::chat::{Message, render};
use fewbit::llm::{Finish, Generator, LanguageModel, Sampler};
use fewbit::{Error, Result};
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

#[derive(clap::Args)]
pub struct Args {
    /// A folder with config.json, or a GGUF file, of a model made for conversation
    model: PathBuf,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    pub work: Work,
}

const HELP: &str = "/clear  forget the conversation    /exit  leave (or Ctrl-D)\n\
                    Ctrl-C  stop the answer; at the prompt, leave";

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    args.work.limit_tensors();
    let model = LanguageModel::open(&args.model)?;
    // A model without a template is refused before anybody types.
    render(model.tokenizer(), &[Message::new("user", "")])?;
    let generator = Generator::new(&model, &args.writing.options(&args.work))?;
    let mut chat = Chat {
        args,
        ui,
        model: &model,
        generator,
        sampler: args.writing.sampler(),
        turns: args.opening(),
    };
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        ui.note(HELP);
    }
    let mut lines = std::io::stdin().lock();
    loop {
        if terminal {
            ui.print(&ui.paint(Paint::Good, "> "));
        }
        let mut line = String::new();
        let read = lines.read_line(&mut line);
        let read =
            read.map_err(|e| Error::resource(format!("cannot read: {e}")).code("FB-5201"))?;
        match line.trim() {
            _ if read == 0 => break,
            "/exit" | "/quit" => break,
            "/clear" => chat.turns = args.opening(),
            "/help" => ui.note(HELP),
            "" => {}
            text => chat.answer(text)?,
        }
    }
    if terminal {
        ui.line("");
    }
    Ok(Outcome::Done)
}

impl Args {
    fn opening(&self) -> Vec<Message> {
        self.system.iter().map(|text| Message::new("system", text)).collect()
    }
}

struct Chat<'c> {
    args: &'c Args,
    ui: &'c Ui,
    model: &'c LanguageModel,
    generator: Generator<'c>,
    sampler: Sampler,
    turns: Vec<Message>,
}

impl Chat<'_> {
    fn answer(&mut self, text: &str) -> Result<()> {
        self.turns.push(Message::new("user", text));
        let tokens = self.prompt()?;
        let mut answer = String::new();
        let (ui, limits) = (self.ui, self.args.writing.limits());
        let (_, finish, speed) = signals::interruptible(|interrupted| {
            self.generator.generate(&tokens, &mut self.sampler, &limits, &mut |piece| {
                // An answer begins a text of its own.
                let piece = if answer.is_empty() { piece.trim_start() } else { piece };
                ui.speech(piece);
                answer.push_str(piece);
                !interrupted.load(Ordering::Relaxed)
            })
        })?;
        ui.line("");
        if finish == Finish::Context {
            ui.note("the context is full; /clear begins anew");
        }
        if ui.verbose {
            ui.note(&speeds(&speed));
        }
        self.turns.push(Message::new("assistant", answer.trim()));
        Ok(())
    }

    /// The conversation as tokens; the oldest turns are forgotten where it does not fit.
    fn prompt(&mut self) -> Result<Vec<u32>> {
        let kept = self.args.opening().len();
        loop {
            let tokenizer = self.model.tokenizer();
            let tokens = tokenizer.encode(&render(tokenizer, &self.turns)?, false)?;
            let room = self.generator.context() - self.generator.context() / 4;
            if tokens.len() <= room || self.turns.len() < kept + 3 {
                return Ok(tokens);
            }
            self.turns.drain(kept..kept + 2);
        }
    }
}
