//! Small pieces of HTML; everything that comes from a file is escaped here.

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
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                // Marks that reorder text could make a name read as another one.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    write!(f, "{}", c.escape_default())?;
                }
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// A table row of text cells.
pub(super) fn row(cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|c| format!("<td>{}</td>", Escaped(c))).collect();
    format!("<tr>{cells}</tr>\n")
}

/// A titled table; nothing without rows.
pub(super) fn table(title: &str, header: &[&str], rows: &[String]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head: String =
        header.iter().map(|h| format!("<th scope=\"col\">{}</th>", Escaped(h))).collect();
    let head = if header.iter().all(|h| h.is_empty()) {
        String::new()
    } else {
        format!("<thead><tr>{head}</tr></thead>\n")
    };
    format!(
        "<section>\n<h2>{}</h2>\n<table>\n{head}<tbody>\n{}</tbody>\n</table>\n</section>\n",
        Escaped(title),
        rows.concat()
    )
}

/// Bytes with a decimal unit.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [(&str, f64); 4] = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match UNITS.iter().find(|(_, size)| n as f64 >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", n as f64 / size),
        None => format!("{n} B"),
    }
}

/// Percentage points; without a sign for zero.
pub(super) fn points(value: f64) -> String {
    let text = format!("{value:.2}");
    format!("{} points", if text == "-0.00" { "0.00" } else { &text })
}
