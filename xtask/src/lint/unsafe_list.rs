//! Files with unsafe code: docs/safety.md lists them, with the reason each gives.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::read;

const DOCUMENT: &str = "docs/safety.md";
const BEGIN: &str = "<!-- unsafe files: begin (cargo xtask lint --bless-unsafe) -->\n";
const END: &str = "<!-- unsafe files: end -->\n";

/// Differences between the sources and the document.
pub(super) fn problems(root: &Path, files: &[PathBuf]) -> Result<Vec<String>> {
    let table = table(&opted_in(root, files)?);
    let document = fs::read_to_string(root.join(DOCUMENT)).unwrap_or_default();
    let listed = section(&document).map(|(_, listed, _)| listed);
    Ok(differences(listed.unwrap_or_default(), &table))
}

/// Writes the list into the document.
pub(super) fn bless(root: &Path, files: &[PathBuf]) -> Result<()> {
    let path = root.join(DOCUMENT);
    let document = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(_) => format!("# Unsafe code\n\n{BEGIN}{END}"),
    };
    let (before, _, after) =
        section(&document).with_context(|| format!("{DOCUMENT} has no line {}", BEGIN.trim()))?;
    let text = format!(
        "{before}{BEGIN}{}{END}{after}",
        table(&opted_in(root, files)?)
    );
    ensure!(
        path.parent().is_some_and(Path::is_dir),
        "there is no directory docs"
    );
    fs::write(&path, text).with_context(|| format!("cannot write {DOCUMENT}"))
}

/// The document before the list, the list, and the rest.
fn section(document: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (list, after) = rest.split_once(END)?;
    Some((before, list, after))
}

fn table(files: &BTreeMap<String, String>) -> String {
    let mut text = "| file | why |\n|---|---|\n".to_owned();
    for (file, reason) in files {
        text.push_str(&format!("| `{file}` | {reason} |\n"));
    }
    text
}

fn differences(listed: &str, actual: &str) -> Vec<String> {
    let missing = actual
        .lines()
        .filter(|line| !listed.lines().any(|other| other == *line));
    let extra = listed
        .lines()
        .filter(|line| !actual.lines().any(|other| other == *line));
    let missing = missing.map(|line| format!("{DOCUMENT} lacks: {line}"));
    missing
        .chain(extra.map(|line| format!("{DOCUMENT} is out of date: {line}")))
        .collect()
}

/// Files that allow themselves unsafe code, with their reasons.
fn opted_in(root: &Path, files: &[PathBuf]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for file in files {
        if let Some(reason) = reason(&read(root, file)?) {
            found.insert(file.display().to_string(), reason);
        }
    }
    Ok(found)
}

/// The reason in a file's `expect(unsafe_code, reason = "…")`.
fn reason(source: &str) -> Option<String> {
    let starts = source
        .match_indices("#![expect(")
        .chain(source.match_indices("#[expect("));
    for (at, _) in starts {
        let line_start = source
            .get(..at)?
            .rfind('\n')
            .map_or(0, |newline| newline.saturating_add(1));
        // Not in a comment and not in a string.
        if !source.get(line_start..at)?.trim().is_empty() {
            continue;
        }
        let attribute = source.get(at..)?.split(")]").next()?;
        let (lints, rest) = attribute.split_once("reason").unwrap_or((attribute, ""));
        if lints.contains("unsafe_code") {
            let text = rest.split('"').nth(1).unwrap_or("no reason given");
            let words: Vec<&str> = text
                .split_whitespace()
                .filter(|word| *word != "\\")
                .collect();
            return Some(words.join(" "));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{differences, reason, section};

    #[test]
    fn the_reason_is_found_in_either_layout() {
        let one = "//! Doc.\n#![expect(unsafe_code, reason = \"one line\")]\n";
        assert_eq!(reason(one).as_deref(), Some("one line"));
        let many =
            "#![expect(\n    clippy::x,\n    unsafe_code,\n    reason = \"two \\\n  lines\"\n)]";
        assert_eq!(reason(many).as_deref(), Some("two lines"));
        let named =
            "//! `#![expect(unsafe_code)]`\n    #[expect(clippy::x, reason = \"unsafe_code\")]\n";
        assert_eq!(reason(named), None);
    }

    #[test]
    fn only_the_marked_part_counts() {
        let text = format!("a\n{}x\n{}b\n", super::BEGIN, super::END);
        assert_eq!(section(&text), Some(("a\n", "x\n", "b\n")));
        assert_eq!(section("nothing"), None);
    }

    #[test]
    fn both_directions_are_reported() {
        assert!(differences("| a |\n", "| a |\n").is_empty());
        let both = differences("| a |\n| b |\n", "| a |\n| c |\n");
        assert_eq!(
            both,
            [
                "docs/safety.md lacks: | c |",
                "docs/safety.md is out of date: | b |"
            ]
        );
    }
}
