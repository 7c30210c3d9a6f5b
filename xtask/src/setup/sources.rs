//! The machine's package sources: both of apt's formats, and which entries are Debian's own.

use std::fmt::Write as _;

/// One entry of `sources.list` or of a `.sources` file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Source {
    /// `deb`, `deb-src`.
    pub(super) types: Vec<String>,
    pub(super) uris: Vec<String>,
    pub(super) suites: Vec<String>,
    pub(super) components: Vec<String>,
    /// Keyring path, fingerprint, or an embedded key block, as written.
    pub(super) signed_by: Option<String>,
}

/// Reads a one-line format file (`sources.list`, `*.list`).
pub(super) fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let (kind, mut rest) = line.split_once(char::is_whitespace)?;
    if kind != "deb" && kind != "deb-src" {
        return None;
    }
    rest = rest.trim_start();
    let mut signed_by = None;
    if let Some(after) = rest.strip_prefix('[') {
        let (options, tail) = after.split_once(']')?;
        rest = tail;
        for option in options.split_whitespace() {
            if let Some(value) = option.strip_prefix("signed-by=") {
                signed_by = Some(value.to_owned());
            }
        }
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        types: vec![kind.to_owned()],
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by,
    })
}

/// Reads a deb822 format file (`*.sources`).
pub(super) fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza(&core::mem::take(&mut fields)));
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza(fields: &[(String, String)]) -> Option<Source> {
    let get = |name: &str| {
        fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    };
    let words = |name| -> Vec<String> {
        get(name)
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    };
    if matches!(get("enabled"), Some("no" | "false" | "0" | "off")) {
        return None;
    }
    let source = Source {
        types: words("types"),
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: get("signed-by").map(str::to_owned),
    };
    (!source.types.is_empty() && !source.uris.is_empty() && !source.suites.is_empty())
        .then_some(source)
}

/// The entries that serve the binary packages of Debian `codename` (its main archive, updates and
/// security), each reduced to those suites.
pub(super) fn binary_entries(sources: &[Source], codename: &str) -> Vec<Source> {
    let ours = |suite: &String| {
        suite.strip_prefix(codename).is_some_and(|rest| {
            matches!(
                rest.trim_end_matches('/'),
                "" | "-updates" | "-security" | "/updates"
            )
        })
    };
    sources
        .iter()
        .filter(|source| source.types.iter().any(|t| t == "deb") && is_main(source))
        .filter_map(|source| {
            let suites: Vec<String> = source.suites.iter().filter(|s| ours(s)).cloned().collect();
            (!suites.is_empty()).then(|| Source {
                types: vec!["deb".to_owned()],
                suites,
                components: vec!["main".to_owned()],
                ..source.clone()
            })
        })
        .collect()
}

/// An entry for the source packages of suite `newer` on the same mirrors that serve the main
/// archive of `codename`.
pub(super) fn source_entries(sources: &[Source], codename: &str, newer: &str) -> Vec<Source> {
    binary_entries(sources, codename)
        .into_iter()
        .filter(|source| source.suites.iter().any(|suite| suite == codename))
        .map(|source| Source {
            types: vec!["deb-src".to_owned()],
            suites: vec![newer.to_owned()],
            ..source
        })
        .collect()
}

fn is_main(source: &Source) -> bool {
    source
        .components
        .iter()
        .any(|component| component == "main")
}

/// Writes entries in deb822 format.
pub(super) fn to_deb822(sources: &[Source]) -> String {
    let mut text = String::new();
    for source in sources {
        for (name, words) in [
            ("Types", &source.types),
            ("URIs", &source.uris),
            ("Suites", &source.suites),
            ("Components", &source.components),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}: {}", words.join(" "));
        }
        if let Some(keys) = &source.signed_by {
            let _ = writeln!(text, "Signed-By: {keys}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Source, binary_entries, parse_deb822, parse_list, source_entries, to_deb822};

    const LIST: &str = "\
# a comment
deb http://mirror.example/debian bookworm main contrib # trailing
deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian-security bookworm-security main
deb-src http://mirror.example/debian bookworm main
deb [broken
deb http://other.example/tools stable main
rubbish
";

    const DEB822: &str = "\
Types: deb
# a dated comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main


Types: deb deb-src
URIs: http://a.example/x
 http://b.example/x
Suites: nodistro
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----";

    #[test]
    fn one_line_entries() {
        let sources = parse_list(LIST);
        assert_eq!(sources.len(), 4);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(sources[1].signed_by.as_deref(), Some("/k.gpg"));
        assert_eq!(sources[1].uris, ["https://mirror.example/debian-security"]);
        assert_eq!(sources[2].types, ["deb-src"]);
    }

    #[test]
    fn deb822_entries() {
        let sources = parse_deb822(DEB822);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(
            sources[1].uris,
            ["http://a.example/x", "http://b.example/x"]
        );
        assert!(
            sources[1]
                .signed_by
                .as_deref()
                .is_some_and(|key| key.contains("\n .\n abc"))
        );
    }

    #[test]
    fn the_new_suite_comes_from_the_machines_own_mirror() {
        for sources in [parse_list(LIST), parse_deb822(DEB822)] {
            let entries = source_entries(&sources, "bookworm", "trixie");
            assert_eq!(entries.len(), 1);
            assert_eq!(entries[0].uris, ["http://mirror.example/debian"]);
            assert_eq!(entries[0].suites, ["trixie"]);
            assert_eq!(entries[0].types, ["deb-src"]);
            assert_eq!(entries[0].components, ["main"]);
        }
    }

    #[test]
    fn binary_entries_leave_other_archives_out() {
        let entries = binary_entries(&parse_list(LIST), "bookworm");
        let suites: Vec<_> = entries.iter().flat_map(|entry| &entry.suites).collect();
        assert_eq!(suites, ["bookworm", "bookworm-security"]);
        assert!(binary_entries(&parse_deb822(DEB822), "trixie").is_empty());
    }

    #[test]
    fn written_entries_read_back() {
        let sources = parse_deb822(DEB822);
        assert_eq!(parse_deb822(&to_deb822(&sources)), sources);
        assert_eq!(parse_deb822("Types: deb\n orphan"), Vec::<Source>::new());
    }
}
