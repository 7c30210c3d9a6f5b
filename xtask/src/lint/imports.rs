//! The import rule: which of our packages may use which. Nothing outside this table.

use serde_json::Value;

/// A package and those of ours it may depend on.
const RULE: &[(&str, &[&str])] = &[
    ("abi", &[]),
    ("invariant", &[]),
    ("lists", &[]),
    ("ept", &["abi", "invariant"]),
    ("vmx", &["abi", "invariant"]),
    ("system", &["abi"]),
    ("xenstore", &["abi", "lists"]),
    ("vswitch", &["lists", "system"]),
    ("pv-drivers", &["abi", "invariant"]),
    // The console's back end and the layouts both sides share.
    (
        "vmm-core",
        &[
            "abi",
            "ept",
            "invariant",
            "lists",
            "pv-drivers",
            "system",
            "vmx",
            "vswitch",
            "xenstore",
        ],
    ),
    ("devices", &[]),
    ("boot", &["abi", "devices", "pv-drivers", "vmm-core", "vmx"]),
    ("calls", &["abi"]),
    ("guests", &["abi", "calls", "pv-drivers"]),
    ("fuzz", &["abi", "calls", "vmm-core", "vmx", "xenstore"]),
    ("xtask", &["system"]),
];

/// What breaks the rule.
pub(super) fn problems(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for package in list(metadata, "packages") {
        let name = text(package, "name");
        let Some((_, allowed)) = RULE.iter().find(|(known, _)| *known == name) else {
            problems.push(format!(
                "package {name} is not in the import rule (xtask lint)"
            ));
            continue;
        };
        for dependency in list(package, "dependencies") {
            let used = text(dependency, "name");
            let ours = RULE.iter().any(|(known, _)| *known == used);
            if ours && !allowed.contains(&used) && used != name {
                problems.push(format!("{name} must not depend on {used}"));
            }
        }
    }
    problems
}

/// The array under `key`, or nothing.
pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The string under `key`, or nothing.
pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{RULE, problems};
    use serde_json::{Value, json};

    fn uses(name: &str, used: &str) -> Value {
        json!({"packages": [{"name": name, "dependencies": [{"name": used}]}]})
    }

    #[test]
    fn downward_is_fine_and_upward_is_not() {
        assert!(problems(&uses("vmm-core", "ept")).is_empty());
        assert!(problems(&uses("vmm-core", "serde")).is_empty());
        assert_eq!(
            problems(&uses("ept", "vmx")),
            ["ept must not depend on vmx"]
        );
        assert_eq!(
            problems(&uses("xtask", "vmm-core")),
            ["xtask must not depend on vmm-core"]
        );
    }

    #[test]
    fn a_new_package_needs_a_rule() {
        assert_eq!(problems(&uses("novel", "abi")).len(), 1);
    }

    /// The rule itself has no cycle: every package may use only such as come before it.
    #[test]
    fn the_rule_is_acyclic() {
        for (at, (name, allowed)) in RULE.iter().enumerate() {
            for used in *allowed {
                let before = RULE[..at].iter().any(|(earlier, _)| earlier == used);
                assert!(before, "{name} -> {used}");
            }
        }
    }
}
