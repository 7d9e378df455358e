//! Small pieces of HTML; everything that comes from a file is escaped here.

use crate::report::quantities::deceives;
use crate::report::tables::Table;
use std::fmt;

/// Text that cannot become markup.
pub(super) struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if deceives(c) => write!(f, "{}", c.escape_default())?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// JSON that stays inside a script element and means the same.
pub(super) fn embedded(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        // The only way out of a script element starts with `<`. ASCII control characters cannot
        // stand in a JSON string, so the ones here are line breaks between values.
        if c == '<' || (deceives(c) && !c.is_ascii()) {
            safe += &format!("\\u{:04x}", c as u32);
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A titled table; nothing without rows.
pub(super) fn table(table: &Table) -> String {
    let rows: Vec<String> = table.rows.iter().map(|cells| row(cells)).collect();
    section(table.title, &table.header, &rows)
}

fn row(cells: &[String]) -> String {
    let cells: String = cells.iter().map(|c| cell(c, &Escaped(c).to_string())).collect();
    format!("<tr>{cells}</tr>\n")
}

/// Letters of a word that still fits a column; hashes, paths and some names are longer.
const LONG_WORD: usize = 28;

/// A table cell. `markup` shows `text`, whose words may be broken only where one is too long.
pub(super) fn cell(text: &str, markup: &str) -> String {
    let long = text.split_whitespace().any(|word| word.chars().count() > LONG_WORD);
    format!("<td{}>{markup}</td>", if long { " class=\"long\"" } else { "" })
}

/// A titled table of rows that are markup already; nothing without rows.
pub(super) fn section(title: &str, header: &[String], rows: &[String]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let heading = |h: &String| format!("<th scope=\"col\">{}</th>", Escaped(h));
    let head = match header.iter().all(|h| h.is_empty()) {
        true => String::new(),
        false => {
            format!("<thead><tr>{}</tr></thead>\n", header.iter().map(heading).collect::<String>())
        }
    };
    format!(
        "<section>\n<h2>{}</h2>\n<table>\n{head}<tbody>\n{}</tbody>\n</table>\n</section>\n",
        Escaped(title),
        rows.concat()
    )
}
