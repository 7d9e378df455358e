//! Methods of Python's strings, lists and mappings that templates call.

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

/// The method that stands for a slice with a step.
pub(super) const SLICE: &str = "slice_of_python";

/// Longest text that filling makes.
const MAX_WIDTH: usize = 1 << 20;

/// A method that the engine has not.
pub(super) fn call(
    state: &State,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if name == SLICE {
        return slice(value, args);
    }
    let found = value.as_str().map(|text| of_text(text, name, args)).transpose()?.flatten();
    match found {
        Some(found) => Ok(found),
        None => unknown_method_callback(state, value, name, args),
    }
}

/// `None` for methods that others know.
fn of_text(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "partition" | "rpartition" => partition(text, name == "rpartition", args)?,
        "rsplit" => rsplit(text, args)?,
        "removeprefix" => {
            let (part,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(part).unwrap_or(text))
        }
        "removesuffix" => {
            let (part,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(part).unwrap_or(text))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let sign = usize::from(text.starts_with(['-', '+']));
            Value::from(format!("{}{}{}", &text[..sign], fill(text, width, '0')?, &text[sign..]))
        }
        "ljust" => {
            let (width, with): (usize, Option<char>) = from_args(args)?;
            Value::from(format!("{text}{}", fill(text, width, with.unwrap_or(' '))?))
        }
        "rjust" => {
            let (width, with): (usize, Option<char>) = from_args(args)?;
            Value::from(format!("{}{text}", fill(text, width, with.unwrap_or(' '))?))
        }
        "casefold" => {
            let () = from_args(args)?;
            Value::from(text.to_lowercase().replace('ß', "ss"))
        }
        "swapcase" => {
            let () = from_args(args)?;
            Value::from(text.chars().map(swapped).collect::<String>())
        }
        // Those of the engine count bytes, or without end.
        "find" | "rfind" => {
            let (part,): (&str,) = from_args(args)?;
            let at = if name == "find" { text.find(part) } else { text.rfind(part) };
            Value::from(at.map_or(-1, |at| text[..at].chars().count() as i64))
        }
        "count" => {
            let (part,): (&str,) = from_args(args)?;
            Value::from(text.matches(part).count())
        }
        _ => return Ok(None),
    }))
}

fn partition(text: &str, last: bool, args: &[Value]) -> Result<Value, Error> {
    let (at,): (&str,) = from_args(args)?;
    let at = separator(at)?;
    let found = if last { text.rsplit_once(at) } else { text.split_once(at) };
    Ok(texts(&match found {
        Some((before, behind)) => [before, at, behind],
        None if last => ["", "", text],
        None => [text, "", ""],
    }))
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (at, most, named): (Option<Option<&str>>, Option<i64>, Kwargs) = from_args(args)?;
    let at = named.get::<Option<&str>>("sep")?.or(at.flatten());
    let most = named.get::<Option<i64>>("maxsplit")?.or(most).unwrap_or(-1);
    named.assert_all_used()?;
    let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
    let Some(at) = at else { return Ok(words_from_the_end(text, most)) };
    let mut parts: Vec<&str> = text.rsplitn(most.saturating_add(1), separator(at)?).collect();
    parts.reverse();
    Ok(texts(&parts))
}

/// The last `most` words, and what is before them.
fn words_from_the_end(text: &str, most: usize) -> Value {
    let (mut rest, mut parts) = (text.trim(), Vec::new());
    while !rest.is_empty() {
        let cut = if parts.len() == most { None } else { rest.rfind(char::is_whitespace) };
        // Behind the white space, which may be more than one byte.
        let start = cut.map_or(0, |at| at + rest[at..].chars().next().map_or(0, char::len_utf8));
        parts.push(&rest[start..]);
        rest = rest[..start].trim_end();
    }
    parts.reverse();
    texts(&parts)
}

fn texts(parts: &[&str]) -> Value {
    parts.iter().copied().map(Value::from).collect()
}

fn separator(text: &str) -> Result<&str, Error> {
    match text.is_empty() {
        true => Err(wrong("empty separator")),
        false => Ok(text),
    }
}

/// What a text lacks to a width.
fn fill(text: &str, width: usize, with: char) -> Result<String, Error> {
    if width > MAX_WIDTH {
        return Err(wrong("a text of that width is too long"));
    }
    let lacks = width.saturating_sub(text.chars().count());
    Ok(std::iter::repeat_n(with, lacks).collect())
}

fn swapped(c: char) -> String {
    match c.is_uppercase() {
        true => c.to_lowercase().collect(),
        false => c.to_uppercase().collect(),
    }
}

/// `value[start:stop:step]`.
fn slice(value: &Value, args: &[Value]) -> Result<Value, Error> {
    let (start, stop, step): (Option<i64>, Option<i64>, Option<i64>) = from_args(args)?;
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(wrong("slice step cannot be zero"));
    }
    if let Some(text) = value.as_str() {
        let chars: Vec<char> = text.chars().collect();
        let places = places(chars.len(), start, stop, step);
        return Ok(Value::from(places.map(|at| chars[at]).collect::<String>()));
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(wrong(&format!("value of type {} cannot be sliced", value.kind())));
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    let places = places(items.len(), start, stop, step);
    Ok(Value::from(places.map(|at| items[at].clone()).collect::<Vec<Value>>()))
}

/// The places that a slice of `len` elements has.
fn places(
    len: usize,
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
) -> impl Iterator<Item = usize> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let (least, most) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let place = |at: i64| if at < 0 { at.saturating_add(len) } else { at }.clamp(least, most);
    let (first, end) = if step > 0 { (least, most) } else { (most, least) };
    let (first, end) = (start.map_or(first, place), stop.map_or(end, place));
    let next = move |at: &i64| at.checked_add(step);
    std::iter::successors(Some(first), next)
        .take_while(move |at| if step > 0 { *at < end } else { *at > end })
        .filter_map(|at| usize::try_from(at).ok())
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.to_string())
}
