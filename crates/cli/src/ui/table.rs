//! Tables with aligned columns.

use super::printable;

/// Rows of cells; the first column is aligned left, columns of numbers right.
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Longer cells are cut, so that one name does not spoil the table.
const MAX_WIDTH: usize = 100;

impl Table {
    /// A table with column titles; no title line when all are empty.
    pub fn new(header: &[&str]) -> Self {
        Table { header: header.iter().map(|h| h.to_string()).collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells stay empty.
    pub fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        self.rows.push(cells.iter().map(|c| cut(&printable(c.as_ref()))).collect());
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table, each line ending in a newline and indented by two.
    pub fn render(&self) -> String {
        let titled = self.header.iter().any(|h| !h.is_empty());
        let lines = self.header_line(titled).chain(&self.rows);
        let lines: Vec<&Vec<String>> = lines.collect();
        let columns = lines.iter().map(|l| l.len()).max().unwrap_or(0);
        let width =
            |c: usize| lines.iter().filter_map(|l| l.get(c)).map(|s| s.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|c| width(c).unwrap_or(0)).collect();
        let right: Vec<bool> = (0..columns).map(|c| self.is_numeric(c)).collect();
        lines.iter().map(|line| render_line(line, &widths, &right)).collect()
    }

    fn header_line(&self, titled: bool) -> impl Iterator<Item = &Vec<String>> {
        titled.then_some(&self.header).into_iter()
    }

    fn is_numeric(&self, column: usize) -> bool {
        let numeric = |cell: &String| {
            cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit() || "+-±<".contains(c))
        };
        column > 0 && self.rows.iter().filter_map(|r| r.get(column)).all(numeric)
    }
}

fn render_line(cells: &[String], widths: &[usize], right: &[bool]) -> String {
    let pad = |(i, cell): (usize, &String)| {
        let space = " ".repeat(widths[i] - cell.chars().count());
        if right[i] { format!("{space}{cell}") } else { format!("{cell}{space}") }
    };
    let cells: Vec<String> = cells.iter().enumerate().map(pad).collect();
    format!("  {}\n", cells.join("  ").trim_end())
}

fn cut(text: &str) -> String {
    let text = text.replace('\n', " ");
    if text.chars().count() <= MAX_WIDTH {
        return text;
    }
    let head: String = text.chars().take(MAX_WIDTH - 3).collect();
    format!("{head}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = Table::new(&["name", "count"]);
        table.row(&["Conv", "12"]);
        table.row(&["Gemm", "1"]);
        assert_eq!(table.render(), "  name  count\n  Conv     12\n  Gemm      1\n");
    }
}
