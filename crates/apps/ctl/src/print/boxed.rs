//! Tables with lines around every cell, as `calicoctl node status` and `calicoctl ipam show` print them: headings in
//! the middle of their columns, long text broken at blanks. Control characters in cells are escaped.

use tortie_api::{printable, printable_lines};

/// Text longer than this goes on in the next line of its cell.
const WIDEST: usize = 30;

/// Where the text of a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// At the left.
    Left,
    /// At the right.
    Right,
}

/// A table.
pub(crate) struct BoxTable {
    headings: Vec<(&'static str, Align)>,
    rows: Vec<Vec<Vec<String>>>,
    /// For each column, the width that its text would have in one line, but no more than [`WIDEST`].
    widths: Vec<usize>,
}

impl BoxTable {
    /// A table without rows.
    pub(crate) fn new(headings: &[(&'static str, Align)]) -> BoxTable {
        let widths = headings.iter().map(|(heading, _)| heading.len()).collect();
        BoxTable { headings: headings.to_vec(), rows: Vec::new(), widths }
    }

    /// Adds a row whose long cells may be broken.
    pub(crate) fn wrapped(&mut self, cells: Vec<String>) {
        let cells: Vec<_> = cells.iter().map(|cell| printable_lines(cell)).collect();
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = cell.chars().count().min(WIDEST).max(*width);
        }
        self.rows.push(cells.iter().map(|cell| wrap(cell)).collect());
    }

    /// Adds a row whose cells stay whole.
    pub(crate) fn whole(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| vec![printable(cell).into_owned()]).collect());
    }

    /// The table's lines.
    pub(crate) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().flat_map(|row| &row[column]);
            cells.map(|line| line.chars().count()).max().unwrap_or(0).max(self.widths[column])
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect::<String>() + "+\n";
        let mut text = rule.clone();
        for ((heading, _), width) in self.headings.iter().zip(&widths) {
            text.push_str(&format!("| {heading:^width$} "));
        }
        text.push_str("|\n");
        text.push_str(&rule);
        for row in &self.rows {
            for line in 0..row.iter().map(Vec::len).max().unwrap_or(0) {
                for (column, cell) in row.iter().enumerate() {
                    let (part, width) = (cell.get(line).map_or("", String::as_str), widths[column]);
                    match self.headings[column].1 {
                        Align::Left => text.push_str(&format!("| {part:<width$} ")),
                        Align::Right => text.push_str(&format!("| {part:>width$} ")),
                    }
                }
                text.push_str("|\n");
            }
        }
        text.push_str(&rule);
        text
    }
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is always a line");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= WIDEST {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_table_is_set_as_it_stands_there() {
        let left = |heading| (heading, Align::Left);
        let mut table = BoxTable::new(&["PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"].map(left));
        for row in [
            ["192.168.13.220", "node-to-node mesh", "start", "08:57:08", "Active Socket: Connection refused"],
            ["192.168.13.221", "node-to-node mesh", "up", "2023-09-21", "Established"],
            ["192.168.13.222", "node-to-node mesh", "up", "2023-09-21", "Established"],
        ] {
            table.wrapped(row.map(str::to_owned).to_vec());
        }
        let expected = "\
+----------------+-------------------+-------+------------+--------------------------------+
|  PEER ADDRESS  |     PEER TYPE     | STATE |   SINCE    |              INFO              |
+----------------+-------------------+-------+------------+--------------------------------+
| 192.168.13.220 | node-to-node mesh | start | 08:57:08   | Active Socket: Connection      |
|                |                   |       |            | refused                        |
| 192.168.13.221 | node-to-node mesh | up    | 2023-09-21 | Established                    |
| 192.168.13.222 | node-to-node mesh | up    | 2023-09-21 | Established                    |
+----------------+-------------------+-------+------------+--------------------------------+
";
        assert_eq!(table.render(), expected);
    }
}
