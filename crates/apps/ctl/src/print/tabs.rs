//! Columns separated by blanks, as Go's tabwriter sets them: every column, the last too, three blanks wider than its
//! widest cell and at least five.

const LEAST: usize = 5;
const GAP: usize = 3;

/// The rows as lines. Every row has as many cells as the first.
pub(super) fn align(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (widest + GAP).max(LEAST)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
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
    }
}
