//! Source files that no crate compiles.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use super::imports::{list, text};
use super::read;

/// Files of the tree that cannot be reached from any target by `mod` declarations.
pub(super) fn problems(root: &Path, metadata: &Value, files: &[PathBuf]) -> Result<Vec<String>> {
    let known: BTreeSet<&PathBuf> = files.iter().collect();
    let mut reached = BTreeSet::new();
    let mut open: Vec<(PathBuf, bool)> = Vec::new();
    for target in list(metadata, "packages")
        .iter()
        .flat_map(|p| list(p, "targets"))
    {
        let path = Path::new(text(target, "src_path"));
        open.push((path.strip_prefix(root).unwrap_or(path).to_path_buf(), true));
    }
    while let Some((file, is_root)) = open.pop() {
        if !known.contains(&file) || !reached.insert(file.clone()) {
            continue;
        }
        for module in modules(&read(root, &file)?) {
            open.extend(
                places(&file, is_root, &module)
                    .into_iter()
                    .map(|path| (path, false)),
            );
        }
    }
    let orphans = files.iter().filter(|file| !reached.contains(*file));
    Ok(orphans
        .map(|file| format!("{}: no crate has it as a module", file.display()))
        .collect())
}

/// A declared module, or a file named outright.
#[derive(Debug, PartialEq, Eq)]
enum Module {
    Named(String),
    Path(String),
}

/// The modules a source declares (`mod name;`, `#[path = "…"]`, `include!("….rs")`).
fn modules(source: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for line in source
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"))
    {
        if let Some(path) = quoted_after(line, "#[path = ").or(quoted_after(line, "include!(")) {
            found.push(Module::Path(path.to_owned()));
        }
        let declaration = line.strip_suffix(';').and_then(|line| {
            let at = line.find("mod ")?;
            let (before, after) = line.split_at(at);
            let before = before.trim_end();
            let visibility =
                before.is_empty() || before.starts_with("pub") || before.ends_with(']');
            visibility.then_some(after.strip_prefix("mod ")?.trim())
        });
        if let Some(name) = declaration
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            found.push(Module::Named(name.to_owned()));
        }
    }
    found
}

fn quoted_after<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(key)?;
    rest.strip_prefix('"')?.split('"').next()
}

/// Where a module declared in `file` may be. A crate root, `mod.rs` and the like look beside
/// themselves, other files in the directory of their name.
fn places(file: &Path, is_root: bool, module: &Module) -> Vec<PathBuf> {
    let beside = file.parent().unwrap_or(Path::new("")).to_path_buf();
    let dir = if is_root || file.ends_with("mod.rs") {
        beside.clone()
    } else {
        file.with_extension("")
    };
    match module {
        Module::Named(name) => vec![
            dir.join(format!("{name}.rs")),
            dir.join(name).join("mod.rs"),
        ],
        Module::Path(path) => vec![beside.join(path), dir.join(path)],
    }
}

#[cfg(test)]
mod tests {
    use super::{Module, modules, places};
    use std::path::Path;

    #[test]
    fn declarations_are_found() {
        let source = "mod a;\npub(crate) mod b;\n// mod c;\nmod d {\n#[cfg(test)] mod e;\n\
                      let module = 3;\n#[path = \"x/f.rs\"]\n";
        let named = |name: &str| Module::Named(name.to_owned());
        let expected = vec![
            named("a"),
            named("b"),
            named("e"),
            Module::Path("x/f.rs".to_owned()),
        ];
        assert_eq!(modules(source), expected);
    }

    #[test]
    fn a_module_is_beside_a_root_and_below_others() {
        let module = Module::Named("m".to_owned());
        let beside = [Path::new("s/m.rs"), Path::new("s/m/mod.rs")];
        assert_eq!(places(Path::new("s/lib.rs"), true, &module), beside);
        assert_eq!(places(Path::new("s/mod.rs"), false, &module), beside);
        let below = [Path::new("s/x/m.rs"), Path::new("s/x/m/mod.rs")];
        assert_eq!(places(Path::new("s/x.rs"), false, &module), below);
    }
}
