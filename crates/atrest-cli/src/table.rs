//! Tables and bars in text.

use crate::paint::Paint;

/// Where a column's text stands.
#[derive(Clone, Copy)]
pub(crate) enum Align {
    Left,
    Right,
}

/// One cell: text without escape codes, and how it is painted.
pub(crate) struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl Cell {
    pub(crate) fn painted(text: impl Into<String>, paint: Paint) -> Self {
        Self { text: text.into(), paint: Some(paint) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), paint: None }
    }
}

/// Columns as wide as their widest cell.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table, each line indented by two, without a newline at the end.
    pub(crate) fn render(&self) -> String {
        let width_of = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.text.chars().count()).max().unwrap_or(0);
            widest.max(self.columns[column].0.chars().count())
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width_of).collect();
        let heads = self.columns.iter().map(|(head, _)| Cell::painted(*head, crate::paint::DIM));
        let mut lines = vec![self.line(&heads.collect::<Vec<_>>(), &widths)];
        lines.extend(self.rows.iter().map(|row| self.line(row, &widths)));
        lines.join("\n")
    }

    fn line(&self, cells: &[Cell], widths: &[usize]) -> String {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            let padding = " ".repeat(widths[index].saturating_sub(cell.text.chars().count()));
            let text = match cell.paint {
                Some(paint) if !cell.text.is_empty() => paint.paint(&cell.text),
                _ => cell.text.clone(),
            };
            line.push_str("  ");
            match self.columns[index].1 {
                Align::Left => line.extend([text, padding]),
                Align::Right => line.extend([padding, text]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// A bar of `share` (0 to 1) of `width` characters, to an eighth of a character. What is
/// not nothing shows.
pub(crate) fn bar(share: f64, width: usize) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let eighths = if share > 0.0 { eighths.max(1) } else { eighths };
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_shares() {
        assert_eq!(bar(0.0, 8), "");
        assert_eq!(bar(1e-9, 8), "▏");
        assert_eq!(bar(0.5, 8), "████");
        assert_eq!(bar(9.0, 2), "██");
    }

    #[test]
    fn columns_line_up_whatever_the_colours() {
        let mut table = Table::new(&[("name", Align::Left), ("bytes", Align::Right)]);
        table.row([Cell::painted("a", crate::paint::GREEN), "12345678".into()]);
        table.row(["longer".into(), "1".into()]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        assert_eq!(plain, "  name       bytes\n  a       12345678\n  longer         1");
    }
}
