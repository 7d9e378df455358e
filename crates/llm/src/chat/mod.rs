//! Conversations as the text a model was trained on, by its chat template.
//!
//! Templates are programs that come with a model: they run in a sandbox, with a bound on their
//! steps, and see nothing but the conversation.

use crate::tokenizer::Tokenizer;
use fewbit_core::{Error, Result};
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, context};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// Steps of the template engine before a template is stopped.
const FUEL: u64 = 5_000_000;
/// Longer templates are something else.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of a role.
    pub fn new(role: &str, content: impl Into<String>) -> Message {
        Message { role: role.to_string(), content: content.into() }
    }
}

/// The text of a conversation, ready for the next turn of the assistant.
///
/// # Errors
/// When the model has no template (`FB-4711`), or the template fails or refuses the
/// conversation (`FB-3712`).
pub fn render(tokenizer: &Tokenizer, messages: &[Message]) -> Result<String> {
    let Some(template) = tokenizer.template() else {
        return Err(Error::unsupported("the model has no chat template")
            .code("FB-4711")
            .hint("it is a base model: use `fewbit generate` with a text to continue"));
    };
    let spelled = |id: Option<u32>| id.and_then(|id| tokenizer.spelling(id)).unwrap_or_default();
    let (bos, eos) = (spelled(tokenizer.bos()), spelled(tokenizer.ends().first().copied()));
    expand(template, messages, &bos, &eos)
}

fn expand(template: &str, messages: &[Message], bos: &str, eos: &str) -> Result<String> {
    if template.len() > MAX_TEMPLATE_BYTES {
        return Err(failed(format!("{} bytes are too many", template.len())));
    }
    let turns: Vec<Value> = messages
        .iter()
        .map(|m| context! { role => m.role.as_str(), content => m.content.as_str() })
        .collect();
    let scope = context! {
        messages => turns,
        add_generation_prompt => true,
        bos_token => bos,
        eos_token => eos,
    };
    let text = environment().render_str(template, scope);
    text.map_err(|e| match e.kind() {
        ErrorKind::OutOfFuel => failed("it takes too many steps".to_string()),
        _ => failed(e.to_string()),
    })
}

fn failed(what: String) -> Error {
    Error::bad_input(what).code("FB-3712").at("chat template")
}

/// As transformers sets its own up.
fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_fuel(Some(FUEL));
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", |what: String| -> Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, what))
    });
    env.add_function("strftime_now", |format: String| strftime(&format, now()));
    env.add_filter("tojson", |value: Value| json!(value).to_string());
    env
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The fields that templates use, in universal time.
fn strftime(format: &str, seconds: u64) -> String {
    let (year, month, day) = civil(seconds / 86_400);
    let month_name = MONTHS[month - 1];
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out += &year.to_string(),
            Some('m') => out += &format!("{month:02}"),
            Some('d') => out += &format!("{day:02}"),
            Some('B') => out += month_name,
            Some('b') => out += &month_name[..3],
            Some('H') => out += &format!("{hour:02}"),
            Some('M') => out += &format!("{minute:02}"),
            Some('S') => out += &format!("{:02}", seconds % 60),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-compatible
/// low-level date algorithms").
fn civil(days: u64) -> (u64, usize, u64) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month as usize, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}{% if loop.first and \
        messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif \
        %}{{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() + '<|im_end|>' + \
        '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    #[test]
    fn a_template_of_the_usual_kind() {
        let text = expand(CHATML, &[Message::new("user", " Hi! ")], "", "").unwrap();
        assert_eq!(
            text,
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n\
             <|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_template_cannot_run_forever_and_may_refuse() {
        let endless =
            "{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}";
        let error = expand(endless, &[], "", "").unwrap_err();
        assert!(error.what().contains("too many steps"), "{error}");
        let error = expand("{{ raise_exception('no tools') }}", &[], "", "").unwrap_err();
        assert!(error.what().contains("no tools"), "{error}");
    }

    #[test]
    fn json_is_not_escaped_for_html() {
        let text =
            expand("{{ messages[0].content | tojson }}", &[Message::new("user", "<é>")], "", "");
        assert_eq!(text.unwrap(), "\"<é>\"");
    }

    #[test]
    fn dates() {
        assert_eq!(
            strftime("%d %B %Y, %d %b, %Y-%m-%d %H:%M:%S %%", 0),
            "01 January 1970, 01 Jan, 1970-01-01 00:00:00 %"
        );
        assert_eq!(strftime("%Y-%m-%d", 1_709_164_800), "2024-02-29");
        assert_eq!(strftime("%Y-%m-%d", 4_102_444_799), "2099-12-31");
    }
}
