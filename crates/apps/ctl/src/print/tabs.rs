//! Columns separated by blanks, as Go's tabwriter sets them: every column, the last too, three blanks wider than its
//! widest cell and at least five. Control characters in cells are escaped.

use tortie_api::printable;

const LEAST: usize = 5;
const GAP: usize = 3;

/// The rows as lines. Every row has as many cells as the first.
pub(super) fn align(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (widest + GAP).max(LEAST)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_gos() {
        let rows = [vec!["NAME".to_owned(), "A".to_owned()], vec!["é".to_owned(), String::new()]];
        assert_eq!(align(&rows), "NAME   A    \né           \n");
        assert_eq!(align(&[vec!["\u{1b}[1m".to_owned()]]), "\\u{1b}[1m   \n");
    }
}
