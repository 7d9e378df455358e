//! `fewbit run MODEL --input NAME=x.npy`

use crate::exit::Outcome;
use crate::flags::{ModeFlag, Work, check_output};
use crate::ui::{Table, Ui};
use fewbit::formats::atomic::OutputOptions;
use fewbit::formats::data::{npy, npz};
use fewbit::{Error, Port, Result, Session, SessionOptions, Tensor};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The model file
    model: PathBuf,
    /// NAME=FILE with .npy, .npz, .png or .jpg; FILE alone for a model of one input, or for an
    /// .npz with an array for each input; repeatable
    #[arg(short, long, value_name = "NAME=FILE", required = true)]
    input: Vec<String>,
    /// Data card whose input steps turn an image into an input
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
    /// Where the outputs go: .npz, or .npy for a model of one output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How the model is run
    #[arg(long, value_enum, default_value = "integer")]
    mode: ModeFlag,
    /// Replace an existing output
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub work: Work,
}

/// Values of a tensor that JSON and text show.
const JSON_VALUES: usize = 4096;
const SHOWN_VALUES: usize = 5;

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    args.work.limit_tensors();
    let source = fewbit::load(&args.model)?;
    args.work.check_memory(&[&source.model], &[])?;
    let options = SessionOptions::new(args.mode.into()).threads(args.work.threads);
    let session = Session::new(&source.model, &options)?;
    let (inputs, mut files) = inputs(args, session.inputs())?;
    files.extend(source.files);
    if let Some(path) = &args.output {
        check_format(path, session.outputs().len())?;
        check_output(path, &files, args.force)?;
    }
    let named: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    let outputs = session.run(&named)?;
    if let Some(path) = &args.output {
        let keep_existing = !args.force;
        write(path, &outputs, &OutputOptions { inputs: files, keep_existing, expected_bytes: 0 })?;
    }
    if ui.json {
        let list: Vec<Value> = outputs.iter().map(|(n, t)| describe(n, t)).collect();
        ui.print_json(&json!({
            "outputs": list,
            "written": args.output.as_ref().map(|p| p.display().to_string()),
            "peak_rss_bytes": fewbit::peak_rss_bytes(),
        }));
    } else {
        show(&outputs, args, ui);
    }
    Ok(Outcome::Done)
}

type Named = Vec<(String, Tensor)>;

/// All inputs by name, and the files they come from.
fn inputs(args: &Args, ports: &[Port]) -> Result<(Named, Vec<PathBuf>)> {
    let (mut tensors, mut files) = (Vec::new(), Vec::new());
    let card = args.card.as_deref();
    for text in &args.input {
        let (name, path) = split(text, ports);
        match (name, ports) {
            (Some(name), _) => {
                let port = fewbit::named_inputs(ports, name)?;
                tensors.push((name.to_string(), fewbit::read_input(port, path, card)?));
            }
            (None, [only]) => {
                tensors.push((only.name.clone(), fewbit::read_input(only, path, card)?));
            }
            (None, _) => tensors.extend(fewbit::read_inputs_npz(ports, path)?),
        }
        files.push(path.to_path_buf());
    }
    files.extend(args.card.clone());
    Ok((tensors, files))
}

/// `NAME=FILE`; names may hold `=`, so the longest input name that fits decides.
fn split<'t>(text: &'t str, ports: &[Port]) -> (Option<&'t str>, &'t Path) {
    let known = ports
        .iter()
        .filter(|p| text.strip_prefix(p.name.as_str()).is_some_and(|rest| rest.starts_with('=')));
    let longest = known.map(|p| p.name.len()).max();
    match longest.or_else(|| text.find('=').filter(|_| !Path::new(text).exists())) {
        Some(at) => (Some(&text[..at]), Path::new(&text[at + 1..])),
        None => (None, Path::new(text)),
    }
}

fn check_format(path: &Path, outputs: usize) -> Result<()> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "npz" => Ok(()),
        "npy" if outputs == 1 => Ok(()),
        "npy" => Err(Error::usage(format!(
            "an .npy file holds one array, the model has {outputs} outputs"
        ))
        .hint("write an .npz file")),
        _ => Err(Error::usage(format!("cannot tell the format of {}", path.display()))
            .hint("end the name of the output in .npz or .npy")),
    }
}

fn write(path: &Path, outputs: &[(String, Tensor)], options: &OutputOptions) -> Result<()> {
    match outputs {
        [(_, only)] if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy")) => {
            npy::write(path, only, options)
        }
        _ => {
            let arrays: Vec<(&str, &Tensor)> =
                outputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
            npz::write(path, &arrays, options)
        }
    }
}

fn describe(name: &str, tensor: &Tensor) -> Value {
    let shown = tensor.len() <= JSON_VALUES;
    let values = tensor.to_f64().ok().filter(|_| shown);
    let strings = tensor.strings().filter(|_| shown).map(|list| {
        list.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect::<Vec<_>>()
    });
    json!({
        "name": name,
        "dtype": tensor.dtype().to_string(),
        "shape": tensor.shape(),
        "values": strings.map_or(json!(values), |s| json!(s)),
    })
}

fn show(outputs: &[(String, Tensor)], args: &Args, ui: &Ui) {
    let mut table =
        Table::new(&["output", "type", "shape", "least", "mean", "greatest", "largest at"]);
    for (name, tensor) in outputs {
        let values = tensor.to_f64().unwrap_or_default();
        let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        let number = |v: f64| if finite.is_empty() { String::new() } else { format!("{v:.5}") };
        let least = finite.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mean = finite.iter().sum::<f64>() / finite.len().max(1) as f64;
        table.row(&[
            name.as_str(),
            &tensor.dtype().to_string(),
            &format!("{:?}", tensor.shape()),
            &number(least),
            &number(mean),
            &number(greatest),
            &largest(&values),
        ]);
    }
    ui.print(&table.render());
    if let Some(path) = &args.output {
        ui.line(&format!("written to {}", path.display()));
    }
}

/// Positions of the largest values, as a classifier's user wants them.
fn largest(values: &[f64]) -> String {
    let mut order: Vec<usize> = (0..values.len()).filter(|&i| values[i].is_finite()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    let list: Vec<String> = order.iter().take(SHOWN_VALUES).map(usize::to_string).collect();
    list.join(" ")
}
