//! `fewbit completions SHELL`

use crate::exit::Outcome;
use crate::ui::Ui;
use clap::CommandFactory;
use clap_complete::Shell;
use fewbit::Result;

#[derive(clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "fewbit", &mut script);
    ui.data(&script);
    Ok(Outcome::Done)
}
