//! The features of VT-x, as the tables of `docs/hardware.md` tell of them. A host test of `vmx` holds
//! those against the hypervisor's own.

use anyhow::{Context, Result, bail};

const DOCUMENT: &str = include_str!("../../docs/hardware.md");

/// One feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Feature {
    /// As in `vmx.mask=`.
    pub(crate) name: &'static str,
    pub(crate) required: bool,
    /// The capability MSRs without their common prefix, and bits.
    pub(crate) bits: Vec<(&'static str, u8)>,
}

/// All of them.
pub(crate) fn all() -> Result<Vec<Feature>> {
    rows().map(|(name, rest)| feature(name, rest)).collect()
}

/// The names of all.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    rows().map(|(name, _)| name)
}

/// The name in each row of the tables, and its other columns.
fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    let row = |line: &'static str| line.strip_prefix("| `")?.split_once("` | ");
    DOCUMENT.lines().filter_map(row)
}

fn feature(name: &'static str, rest: &'static str) -> Result<Feature> {
    let columns: Vec<&str> = rest.split('|').map(str::trim).collect();
    let [bits, kind, _why, ..] = columns.as_slice() else {
        bail!("the row of {name} in the document lacks a column");
    };
    let bit = |word: &'static str| -> Option<(&'static str, u8)> {
        let (msr, bit) = word.split_once(" bit ")?;
        Some((msr, bit.parse().ok()?))
    };
    Ok(Feature {
        name,
        required: *kind == "required",
        bits: bits
            .split(", ")
            .map(|word| bit(word).with_context(|| format!("no bit: {word}")))
            .collect::<Result<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::all;

    #[test]
    fn the_document_is_understood() {
        let features = all().unwrap();
        assert!(features.len() > 20, "the document has no tables");
        let find = |name| features.iter().find(|feature| feature.name == name);
        let ept = find("ept").unwrap();
        assert!(ept.required);
        assert_eq!(ept.bits, [("PROCBASED_CTLS2", 1)]);
        let vpid = find("vpid").unwrap();
        assert!(!vpid.required);
        assert_eq!(vpid.bits, [("PROCBASED_CTLS2", 5), ("EPT_VPID_CAP", 32)]);
    }
}
