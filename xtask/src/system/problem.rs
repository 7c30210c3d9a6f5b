//! Mistakes in a description: where they are, what is wrong, what helps.

use std::fmt;
use std::path::{Path, PathBuf};

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Offset in the text, in bytes.
    pub(super) at: usize,
    /// The key it is about; empty when the text is no TOML at all.
    pub(super) key: String,
    /// Cause and remedy.
    pub(super) text: String,
}

/// All mistakes of a description, by their place. Shown as one line each:
/// `file:line:column: key: cause; remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problems {
    file: PathBuf,
    lines: Vec<(usize, usize, Problem)>,
}

impl Problems {
    pub(super) fn new(file: &Path, source: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.at);
        let place = |problem: Problem| {
            let (line, column) = line_and_column(source, problem.at);
            (line, column, problem)
        };
        Self {
            file: file.to_path_buf(),
            lines: problems.into_iter().map(place).collect(),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (line, column, problem)) in self.lines.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:{line}:{column}: ", self.file.display())?;
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            write!(f, "{}", problem.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Both count from one; columns count characters.
fn line_and_column(source: &str, at: usize) -> (usize, usize) {
    let before = source.get(..at).unwrap_or(source);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(start..).map_or(0, |text| text.chars().count()) + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::line_and_column;

    #[test]
    fn places_count_from_one() {
        let source = "ab\nÄc\n";
        assert_eq!(line_and_column(source, 0), (1, 1));
        assert_eq!(line_and_column(source, 3), (2, 1));
        assert_eq!(line_and_column(source, 5), (2, 2));
        assert_eq!(line_and_column(source, 99), (3, 1));
    }
}
