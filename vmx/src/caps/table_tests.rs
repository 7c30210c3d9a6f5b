//! The table for people in `docs/hardware.md` says what the tables of the code say.

extern crate std;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::super::CapMsrs;
use super::{CAPABILITIES, CONTROLS, Features, REQUIRED, Source, Word};

const DOCUMENT: &str = include_str!("../../../docs/hardware.md");

/// The bits that a feature needs, in the document's words.
fn bits(feature: Features) -> String {
    // Without TRUE MSRs, whose bits are numbered alike.
    let msrs = CapMsrs::default();
    let short = |name: &'static str| name.trim_start_matches("IA32_VMX_");
    let controls = CONTROLS
        .iter()
        .filter(|control| control.feature == feature)
        .map(|control| {
            let (_, msr) = Word::source(control.word, &msrs);
            format!("{} bit {}", short(msr), control.bit.trailing_zeros())
        });
    let capabilities = CAPABILITIES
        .iter()
        .filter(|capability| capability.feature == feature)
        .map(|capability| {
            let (_, msr) = Source::read(capability.source, &msrs);
            format!("{} bit {}", short(msr), capability.bit)
        });
    controls.chain(capabilities).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_document_lists_every_feature_with_its_bits_and_use() {
    let rows: Vec<&str> = DOCUMENT
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let mut wrong = Vec::new();
    for feature in Features::all().iter() {
        let kind = if REQUIRED.contains(feature) {
            "required"
        } else {
            "wanted"
        };
        let start = format!("| `{feature}` | {} | {kind} | ", bits(feature));
        let told = |row: &&&str| {
            let cost = row.strip_prefix(&start)?.strip_suffix(" |")?;
            (cost.len() > 3).then_some(())
        };
        if rows.iter().filter(|row| told(row).is_some()).count() != 1 {
            wrong.push(start);
        }
    }
    assert!(
        wrong.is_empty(),
        "rows missing or wrong:\n{}",
        wrong.join("\n")
    );
    let count = Features::all().iter().count();
    assert_eq!(rows.len(), count, "rows of features that do not exist");
    assert!(Features::all().to_string().split(' ').count() == count);
}
