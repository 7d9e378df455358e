//! What templates say and the engine does not know, in words that it knows: slices with a step
//! (`text[::-1]`), and the blocks `generation` that training looks for.

use super::methods::SLICE;

/// Expressions of more brackets in brackets are refused by the engine.
const MAX_DEPTH: usize = 256;

/// An open bracket of an expression.
struct Open {
    bracket: char,
    /// Where what it encloses begins in the output.
    start: usize,
    /// Where the colons in it are, but for those in brackets within.
    colons: Vec<usize>,
}

/// The template in other words.
pub(super) fn rewritten(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = next_tag(rest) {
        let (before, tag) = rest.split_at(at);
        out += before;
        rest = match &tag[..2] {
            "{#" => copy(&mut out, tag, tag.find("#}").map_or(tag.len(), |end| end + 2)),
            "{{" => expression(&mut out, tag, "}}"),
            _ if word(tag) == "raw" => copy(&mut out, tag, end_of_raw(tag)),
            _ => match word(tag) {
                "generation" => renamed(&mut out, tag, "generation", "with"),
                "endgeneration" => renamed(&mut out, tag, "endgeneration", "endwith"),
                _ => expression(&mut out, tag, "%}"),
            },
        };
    }
    out + rest
}

fn next_tag(text: &str) -> Option<usize> {
    let opens = |at: &usize| matches!(text.as_bytes().get(at + 1), Some(b'%' | b'{' | b'#'));
    text.match_indices('{').map(|(at, _)| at).find(opens)
}

/// Copies so many bytes; gives what is left.
fn copy<'t>(out: &mut String, text: &'t str, len: usize) -> &'t str {
    let (taken, rest) = text.split_at(len);
    *out += taken;
    rest
}

/// The first word of a block.
fn word(tag: &str) -> &str {
    let inside = tag[2..].trim_start_matches(['-', '+']).trim_start();
    let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    &inside[..end.unwrap_or(inside.len())]
}

/// Copies the beginning of a block with another name; its end is copied as text.
fn renamed<'t>(out: &mut String, tag: &'t str, name: &str, by: &str) -> &'t str {
    let at = tag.find(name).unwrap_or_default();
    *out += &tag[..at];
    *out += by;
    &tag[at + name.len()..]
}

/// Where the block ends that ends raw text.
fn end_of_raw(tag: &str) -> usize {
    let mut from = 2;
    while let Some(at) = tag[from..].find("{%") {
        from += at;
        if word(&tag[from..]) == "endraw" {
            return from;
        }
        from += 2;
    }
    tag.len()
}

/// Copies code up to `end` with its slices rewritten; gives what is behind it.
fn expression<'t>(out: &mut String, code: &'t str, end: &str) -> &'t str {
    let mut open: Vec<Open> = Vec::new();
    let mut rest = copy(out, code, 2);
    while let Some(c) = rest.chars().next() {
        if rest.starts_with(end) && open.iter().all(|open| open.bracket != '{') {
            return copy(out, rest, end.len());
        }
        match c {
            '"' | '\'' => {
                rest = copy(out, rest, quoted(rest, c));
                continue;
            }
            ':' => open.iter_mut().rev().take(1).for_each(|open| open.colons.push(out.len())),
            ']' | '}' | ')' => {
                if let Some(slice) = open.pop().filter(|open| c == ']' && open.colons.len() == 2) {
                    call(out, &slice);
                    rest = &rest[1..];
                    continue;
                }
            }
            _ => {}
        }
        rest = copy(out, rest, c.len_utf8());
        if matches!(c, '[' | '{' | '(') {
            if open.len() == MAX_DEPTH {
                return copy(out, rest, rest.len());
            }
            open.push(Open { bracket: c, start: out.len(), colons: Vec::new() });
        }
    }
    rest
}

/// Bytes of a string, with its quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Makes a call of a slice at the end of the output.
fn call(out: &mut String, slice: &Open) {
    let [first, second] = slice.colons[..] else { return };
    let part = |text: &str| match text.trim() {
        "" => "none".to_string(),
        text => text.to_string(),
    };
    let parts = [&out[slice.start..first], &out[first + 1..second], &out[second + 1..]].map(part);
    out.truncate(slice.start - 1);
    *out += &format!(".{SLICE}({})", parts.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_engine_lacks_changes() {
        for (template, expected) in [
            ("a [::-1] {# {% generation %} [::2] #} b", None),
            ("{% raw %}{% generation %}{{ a[::2] }}{% endraw %}", None),
            ("{{ '[::2] }} {% generation %}' }}{{ a[1:2] }}{{ {'a': b, 'c': 1} }}", None),
            ("{%- generation -%} x {%+ endgeneration %}", Some("{%- with -%} x {%+ endwith %}")),
            ("{{ a[::-1][0] }}", Some("{{ a.slice_of_python(none, none, -1)[0] }}")),
            (
                "{% for m in a[b[::2]|length - 1 :f({'x': [1]}): -1] %}",
                Some(
                    "{% for m in a.slice_of_python(b.slice_of_python(none, none, 2)|length - 1, \
                     f({'x': [1]}), -1) %}",
                ),
            ),
            (
                "{{ {'a': {'b': c[::3]}} }}",
                Some("{{ {'a': {'b': c.slice_of_python(none, none, 3)}} }}"),
            ),
            ("{{ 'open", None),
            ("{% generation", Some("{% with")),
            ("{", None),
        ] {
            assert_eq!(rewritten(template), expected.unwrap_or(template));
        }
    }
}
