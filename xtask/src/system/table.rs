//! Reading a TOML table key by key, with a precise complaint about each that is not as it should
//! be. Every reading method takes an example for the remedy.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;

/// A value and its offset in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// A table being read.
#[derive(Debug)]
pub(super) struct Table<'t> {
    at: usize,
    entries: Vec<Entry<'t>>,
    known: Vec<&'static str>,
}

#[derive(Debug)]
struct Entry<'t> {
    key: String,
    at: usize,
    value: Spanned<DeValue<'t>>,
}

impl<'t> Table<'t> {
    /// `at` is where a missing key is reported.
    pub(super) fn new(at: usize, table: DeTable<'t>) -> Self {
        let entry = |(key, value): (Spanned<_>, _)| Entry {
            at: key.span().start,
            key: String::from(key.into_inner()),
            value,
        };
        Self {
            at,
            entries: table.into_iter().map(entry).collect(),
            known: Vec::new(),
        }
    }

    /// Where it begins in the text.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        self.known.push(key);
        let index = self.entries.iter().position(|entry| entry.key == key)?;
        Some(self.entries.swap_remove(index).value)
    }

    /// The value of `key`, if it is there and `read` likes it.
    fn read<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        example: &str,
        problems: &mut Vec<Problem>,
        read: impl Fn(&DeValue<'_>) -> Option<T>,
    ) -> Option<Located<T>> {
        let value = self.take(key)?;
        let at = value.span().start;
        if let Some(value) = read(value.get_ref()) {
            return Some(Located { value, at });
        }
        let found = kind(value.get_ref());
        let text = format!("expected {expected}, found {found}; write for example `{example}`");
        problems.push(Problem {
            at,
            key: key.into(),
            text,
        });
        None
    }

    /// Whether `key` is there. Before any other method for the key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Complains when `key` is not there. Before any other method for the key.
    pub(super) fn require(
        &self,
        key: &'static str,
        example: &str,
        problems: &mut Vec<Problem>,
    ) -> bool {
        let there = self.has(key);
        if !there {
            problems.push(Problem {
                at: self.at,
                key: key.into(),
                text: format!("missing; add for example `{example}`"),
            });
        }
        there
    }

    /// Complains about the `others`, which mean nothing without `key`, such as in the example.
    pub(super) fn only_with(
        &mut self,
        others: &[&'static str],
        key: &str,
        example: &str,
        problems: &mut Vec<Problem>,
    ) {
        for &other in others {
            let at = self.entries.iter().find(|entry| entry.key == other);
            let at = at.map(|entry| entry.at);
            if self.take(other).is_some() {
                problems.push(Problem {
                    at: at.unwrap_or(self.at),
                    key: other.into(),
                    text: format!("it means nothing without `{key}`; add for example `{example}`"),
                });
            }
        }
    }

    pub(super) fn text(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Located<String>> {
        let read = |value: &DeValue<'_>| value.as_str().map(String::from);
        self.read(key, "a string", example, problems, read)
    }

    /// A whole number; what does not fit counts as the largest.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Located<u32>> {
        self.read(key, "a whole number from 0 on", example, problems, number)
    }

    pub(super) fn boolean(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Located<bool>> {
        let read = |value: &DeValue<'_>| value.as_bool();
        self.read(key, "true or false", example, problems, read)
    }

    pub(super) fn numbers(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Located<Vec<u32>>> {
        let read = |value: &DeValue<'_>| list(value, |item| number(item.get_ref()));
        self.read(key, "a list of whole numbers", example, problems, read)
    }

    pub(super) fn texts(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Vec<Problem>,
    ) -> Option<Vec<Located<String>>> {
        let item = |item: &Spanned<DeValue<'_>>| {
            Some(Located {
                value: item.get_ref().as_str()?.to_owned(),
                at: item.span().start,
            })
        };
        let read = |value: &DeValue<'_>| list(value, item);
        let list = self.read(key, "a list of strings", example, problems, read)?;
        Some(list.value)
    }

    /// One of a few words; the default when the key is not there.
    pub(super) fn choice<T: Copy + Default>(
        &mut self,
        key: &'static str,
        choices: &[(&str, T)],
        problems: &mut Vec<Problem>,
    ) -> T {
        let words: Vec<_> = choices
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        let example = format!("{key} = {}", words.first().map_or("\"\"", String::as_str));
        let Some(word) = self.text(key, &example, problems) else {
            return T::default();
        };
        let chosen = choices.iter().find(|(name, _)| *name == word.value);
        if let Some(&(_, value)) = chosen {
            return value;
        }
        problems.push(Problem {
            at: word.at,
            key: key.into(),
            text: format!("\"{}\" is unknown; use {}", word.value, words.join(", ")),
        });
        T::default()
    }

    /// The tables under `key`, each begun by `header`: one in single brackets, or many in double ones.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
        header: &str,
        problems: &mut Vec<Problem>,
    ) -> Vec<Table<'t>> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let span = value.span();
        let many = header.starts_with("[[");
        let mut bad = |at, value: &DeValue<'_>| {
            let text = if many {
                format!(
                    "expected a list of tables, found {}; start each with `{header}`",
                    kind(value)
                )
            } else {
                format!(
                    "expected a table, found {}; start it with `{header}`",
                    kind(value)
                )
            };
            problems.push(Problem {
                at,
                key: key.into(),
                text,
            });
        };
        match value.into_inner() {
            DeValue::Table(table) if !many => vec![Table::new(span.start, table)],
            DeValue::Array(items) if many => {
                let mut tables = Vec::new();
                for item in items {
                    let at = item.span().start;
                    match item.into_inner() {
                        DeValue::Table(table) => tables.push(Table::new(at, table)),
                        other => bad(at, &other),
                    }
                }
                tables
            }
            other => {
                bad(span.start, &other);
                Vec::new()
            }
        }
    }

    /// Complains about every key that nobody has asked for.
    pub(super) fn finish(self, problems: &mut Vec<Problem>) {
        for entry in self.entries {
            let remedy = match nearest(self.known.iter().copied(), &entry.key) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("the keys here are {}", self.known.join(", ")),
            };
            let text = format!("unknown key; {remedy}");
            problems.push(Problem {
                at: entry.at,
                key: entry.key,
                text,
            });
        }
    }
}

fn number(value: &DeValue<'_>) -> Option<u32> {
    let number = value.as_integer()?;
    let digits = number.as_str();
    if digits.starts_with('-') {
        return None;
    }
    Some(u32::from_str_radix(digits.trim_start_matches('+'), number.radix()).unwrap_or(u32::MAX))
}

fn list<T>(
    value: &DeValue<'_>,
    read: impl Fn(&Spanned<DeValue<'_>>) -> Option<T>,
) -> Option<Vec<T>> {
    value.as_array()?.iter().map(read).collect()
}

fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string \"{text}\""),
        DeValue::Integer(number) => format!("the number {}", number.as_str()),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// The word among `known` that may have been meant.
pub(super) fn nearest<'k>(known: impl IntoIterator<Item = &'k str>, word: &str) -> Option<&'k str> {
    let far = known
        .into_iter()
        .map(|known| (distance(known, word), known));
    let near = far.filter(|(distance, _)| *distance <= 2);
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// The number of characters to insert, remove or replace to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let replaced = row[j] + usize::from(from != to);
            next.push(replaced.min(row[j + 1] + 1).min(next[j] + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::distance;

    #[test]
    fn near_words_are_near() {
        assert_eq!(distance("kernel", "kernel"), 0);
        assert_eq!(distance("kernel", "kernl"), 1);
        assert_eq!(distance("vcpus", "vpcu"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
