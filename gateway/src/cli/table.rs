//! Tables for people: columns as wide as their widest cell.

/// Writes rows under a head; columns are two blanks apart, and no line ends in blanks.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    let body = rows
        .iter()
        .map(|row| line(std::array::from_fn(|column| row[column].as_str())));
    std::iter::once(line(head)).chain(body).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [
            ["größe".to_owned(), "2".to_owned()],
            ["a-long-name".to_owned(), String::new()],
        ];
        assert_eq!(
            table(["NAME", "REPLICAS"], &rows),
            "NAME         REPLICAS\ngröße        2\na-long-name\n"
        );
    }
}
