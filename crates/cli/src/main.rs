//! The `fewbit` command.
//!
//! One file for each command in [`cmd`], what people see in [`ui`], how it ends in [`exit`].

mod cmd;
mod exit;
mod flags;
mod signals;
mod ui;

use clap::{Parser, Subcommand};
use fewbit::{Error, Isa, Result};
use std::process::ExitCode;
use ui::{ColorWhen, Ui};

/// Quantize trained networks, within the accuracy bound you set, and with the proof.
///
/// Start with `fewbit demo`. Results go to stdout, messages and progress to stderr.
#[derive(Parser)]
#[command(
    name = "fewbit",
    version,
    propagate_version = true,
    after_help = exit::CODES
)]
struct Cli {
    /// When to use colours; NO_COLOR and CLICOLOR_FORCE are respected
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    color: ColorWhen,
    /// No progress and no notes, only results, warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// More detail
    #[arg(short, long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what a model is and how it would run
    Inspect(cmd::inspect::Args),
    /// Decide what to quantize, and write the decisions down with their reasons
    Plan(cmd::plan::Args),
    /// Quantize a model, measure the loss, and hold it within a bound
    Quantize(cmd::quantize::Args),
    /// Store the weights of a language model in other numbers, without quantizing
    Convert(cmd::convert::Args),
    /// Score a model on a data set
    Eval(cmd::eval::Args),
    /// Compare two models on a data set
    Compare(cmd::compare::Args),
    /// Measure latency
    Bench(cmd::bench::Args),
    /// Run a model once
    Run(cmd::run::Args),
    /// Continue a text with a language model
    Generate(cmd::text::generate::Args),
    /// Talk with a language model
    Chat(cmd::text::chat::Args),
    /// Turn texts into vectors
    Embed(cmd::text::embed::Args),
    /// Quantize the built-in digits network: the whole job in seconds
    Demo(cmd::demo::Args),
    /// Print completions for a shell
    Completions(cmd::completions::Args),
}

fn main() -> ExitCode {
    exit::install_panic_hook();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let ui = Ui::new(cli.color, cli.quiet, cli.verbose, cli.command.json());
    if let Err(error) = signals::install() {
        return exit::failure(&Error::resource(format!("cannot handle signals: {error}")), &ui);
    }
    match run(cli.command, &ui) {
        Ok(outcome) => outcome.code(),
        Err(error) => exit::failure(&error, &ui),
    }
}

fn run(command: Command, ui: &Ui) -> Result<exit::Outcome> {
    if !matches!(command, Command::Completions(_)) {
        check_isa()?;
    }
    match command {
        Command::Inspect(args) => cmd::inspect::run(&args, ui),
        Command::Plan(args) => cmd::plan::run(&args, ui),
        Command::Quantize(args) => cmd::quantize::run(&args, ui),
        Command::Convert(args) => cmd::convert::run(&args, ui),
        Command::Eval(args) => cmd::eval::run(&args, ui),
        Command::Compare(args) => cmd::compare::run(&args, ui),
        Command::Bench(args) => cmd::bench::run(&args, ui),
        Command::Run(args) => cmd::run::run(&args, ui),
        Command::Generate(args) => cmd::text::generate::run(&args, ui),
        Command::Chat(args) => cmd::text::chat::run(&args, ui),
        Command::Embed(args) => cmd::text::embed::run(&args, ui),
        Command::Demo(args) => cmd::demo::run(&args, ui),
        Command::Completions(args) => cmd::completions::run(&args, ui),
    }
}

/// A forced instruction set that is not there must not pass silently.
fn check_isa() -> Result<()> {
    let names: Vec<String> = Isa::available().iter().map(|isa| isa.to_string()).collect();
    Isa::from_env().map(drop).map_err(|e| {
        Error::usage(e.to_string())
            .at("FEWBIT_ISA")
            .hint(format!("this machine has: {}; unset it to take the widest", names.join(", ")))
    })
}

impl Command {
    fn json(&self) -> bool {
        match self {
            Command::Inspect(args) => args.json,
            Command::Plan(args) => args.json,
            Command::Quantize(args) => args.work.json,
            Command::Convert(args) => args.work.json,
            Command::Eval(args) => args.work.json,
            Command::Compare(args) => args.work.json,
            Command::Bench(args) => args.work.json,
            Command::Run(args) => args.work.json,
            Command::Generate(args) => args.work.json,
            Command::Embed(args) => args.work.json,
            Command::Demo(args) => args.work.json,
            Command::Chat(_) | Command::Completions(_) => false,
        }
    }
}
