//! Conversations as the text a model was trained on, by its chat template.
//!
//! Templates are programs that come with a model: they run in a sandbox, with a bound on their
//! steps, and see nothing but the conversation.

mod json;
mod methods;
mod source;
mod time;

use crate::tokenizer::Tokenizer;
use fewbit_core::{Error, Result};
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind, context};
use std::collections::BTreeMap;

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
/// When the model has no template, or several of which none is for conversations (`FB-4711`), or
/// the template fails or refuses the conversation (`FB-3712`).
pub fn render(tokenizer: &Tokenizer, messages: &[Message]) -> Result<String> {
    if let Some(template) = tokenizer.template() {
        return expand(template, messages, &specials(tokenizer));
    }
    let names = tokenizer.templates();
    if !names.is_empty() {
        let what = format!("of the chat templates {} none is `default`", names.join(", "));
        return Err(Error::unsupported(what)
            .code("FB-4711")
            .hint("write the one to use into chat_template.jinja, beside the model"));
    }
    Err(Error::unsupported("the model has no chat template")
        .code("FB-4711")
        .hint("it is a base model: use `fewbit generate` with a text to continue"))
}

/// What the template may say of the tokenizer. The beginning and the end always have a spelling,
/// which may be empty.
fn specials(tokenizer: &Tokenizer) -> BTreeMap<&str, String> {
    let mut all: BTreeMap<&str, String> = tokenizer.specials().clone();
    let ends = [("bos_token", tokenizer.bos()), ("eos_token", tokenizer.ends().first().copied())];
    for (name, id) in ends {
        let spelled = || id.and_then(|id| tokenizer.spelling(id)).unwrap_or_default();
        all.entry(name).or_insert_with(spelled);
    }
    all
}

fn expand(
    template: &str,
    messages: &[Message],
    specials: &BTreeMap<&str, String>,
) -> Result<String> {
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
        tools => Value::from(()),
        documents => Value::from(()),
        ..Value::from_serialize(specials)
    };
    let text = environment().render_str(&source::rewritten(template), scope);
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
    env.set_unknown_method_callback(methods::call);
    let refusal = |what: String| minijinja::Error::new(ErrorKind::InvalidOperation, what);
    env.add_function("raise_exception", move |what: String| -> Result<String, _> {
        Err(refusal(what))
    });
    env.add_function("strftime_now", move |format: String| {
        let unknown = |letter| refusal(format!("strftime_now does not know `%{letter}`"));
        time::strftime(&format, time::now()).map_err(unknown)
    });
    env.add_filter("tojson", json::to_json);
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}{% if loop.first and \
        messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif \
        %}{{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() + '<|im_end|>' + \
        '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn expanded(template: &str, messages: &[Message]) -> Result<String> {
        let specials = BTreeMap::from([("bos_token", "<s>".into()), ("eos_token", "</s>".into())]);
        expand(template, messages, &specials)
    }

    #[test]
    fn a_template_of_the_usual_kind() {
        let text = expanded(CHATML, &[Message::new("user", " Hi! ")]).unwrap();
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
        for (template, said) in [
            (endless, "too many steps"),
            ("{{ raise_exception('no tools') }}", "no tools"),
            ("{{ strftime_now('%Q') }}", "`%Q`"),
            ("{{ 'a'[::0] }}", "slice step"),
            ("{{ 'a'.partition('') }}", "empty separator"),
            ("{{ 'a'.ljust(2000000000) }}", "too long"),
            (
                "{% set n = namespace(x=[]) %}{% for i in range(999) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x | tojson }}",
                "levels",
            ),
        ] {
            let error = expanded(template, &[]).unwrap_err();
            assert!(error.what().contains(said), "{template}: {error}");
        }
    }

    #[test]
    fn json_is_that_of_python() {
        let value = "{'a': 1, 'b': [1, 2.0, none, true], 'c': {}, 'd': '<é>\\n'}";
        for (arguments, expected) in [
            ("", r#"{"a": 1, "b": [1, 2.0, null, true], "c": {}, "d": "<é>\n"}"#),
            (
                "(ensure_ascii=true)",
                r#"{"a": 1, "b": [1, 2.0, null, true], "c": {}, "d": "<\u00e9>\n"}"#,
            ),
            ("(separators=(',', ':'))", r#"{"a":1,"b":[1,2.0,null,true],"c":{},"d":"<é>\n"}"#),
            (
                "(indent=2)",
                "{\n  \"a\": 1,\n  \"b\": [\n    1,\n    2.0,\n    null,\n    true\n  ],\n  \
                 \"c\": {},\n  \"d\": \"<é>\\n\"\n}",
            ),
        ] {
            let text = expanded(&format!("{{{{ {value} | tojson{arguments} }}}}"), &[]);
            assert_eq!(text.unwrap(), expected, "{arguments}");
        }
        let text = expanded("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}", &[]);
        assert_eq!(text.unwrap(), r#"{"a": 2, "b": 1}"#);
    }

    #[test]
    fn what_python_does() {
        for (template, expected) in [
            ("{{ 'abc'[::-1] }}|{{ ''[::-1] }}|{{ [][::-1] }}", "cba||[]"),
            ("{{ 'abcdef'[4:0:-2] }}|{{ 'abc'[5:1:-1] }}|{{ 'abc'[1:5:-1] }}", "ec|c|"),
            ("{{ 'abcdef'[1::2] }}|{{ 'abc'[-9:9:2] }}|{{ [1, 2, 3][::-1][0] }}", "bdf|ac|3"),
            ("{% for m in messages[::-1] %}{{ m.content }}{% endfor %}", "ba"),
            ("{{ 'a-b-c'.partition('-')[2] }} {{ 'a-b-c'.rpartition('-')[0] }}", "b-c a-b"),
            (
                "{{ 'a b  c'.rsplit(maxsplit=1) }}{{ 'a,b,c'.rsplit(',', 1) }}",
                "[\"a b\", \"c\"][\"a,b\", \"c\"]",
            ),
            ("{{ 'abc'.removeprefix('a').removesuffix('c') }}", "b"),
            ("{{ '-7'.zfill(4) }}|{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '.') }}", "-007|a  |..a"),
            ("{{ 'aB'.swapcase() }}{{ 'Straße'.casefold() }}", "Abstrasse"),
            ("{{ 'éa'.find('a') }}{{ 'aa'.count('a') }}", "12"),
            ("{%- generation -%} {% set x = 1 %} a {%- endgeneration %}", " a"),
            ("{{ tools is none }} {{ documents is defined }} {{ eos_token }}", "True True </s>"),
        ] {
            let turns = [Message::new("user", "a"), Message::new("user", "b")];
            assert_eq!(expanded(template, &turns).unwrap(), expected, "{template}");
        }
    }
}
