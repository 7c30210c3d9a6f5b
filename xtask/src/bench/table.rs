//! The figures as a table, the aims and Xen's figures beside them.

use std::fmt::Write as _;

use super::figures::{Exit, Numbers, RoundTrip};
use crate::size::Footprint;

/// Aim and the same figure of Xen 4.17 in the same emulator, where there is one.
const REFERENCES: &[(&str, Option<u64>, Option<u64>)] = &[
    ("xen_version", Some(150), Some(880)),
    ("xen_version_by_page", None, Some(878)),
    ("unknown_hypercall", None, Some(841)),
    ("cpuid_0", Some(250), Some(882)),
    ("cpuid_1", None, Some(907)),
    ("rdmsr_apic_base", Some(250), Some(790)),
    ("rdmsr_absent", None, Some(1061)),
    ("read_hole", None, Some(15_119)),
    ("apic_id", Some(900), Some(17_375)),
    ("yield", None, Some(3408)),
    ("yield_to_another", Some(700), Some(3388)),
    ("send_masked", Some(400), Some(6064)),
    ("send_pending", None, Some(6019)),
    ("send_to_self", Some(600), Some(6346)),
    ("evtchn_status", Some(450), Some(11_011)),
    ("multicall_8", Some(1600), Some(83_164)),
    ("decrease_1", Some(1500), Some(15_526)),
    ("populate_1", Some(1500), Some(14_520)),
    ("set_singleshot", Some(450), Some(6257)),
    ("stop_singleshot", None, Some(994)),
    ("set_timer_op", Some(300), Some(1184)),
    ("timer_wake_hlt_lateness", Some(800), Some(6188)),
    ("grant_copy_4096", Some(900 + 512), Some(14_058)),
    ("grant_copy_64", Some(900), Some(13_554)),
    ("grant_copy_16x4096", None, Some(175_803)),
    ("grant_map", Some(900), Some(17_674)),
    ("grant_unmap", Some(900), Some(15_109)),
    ("grant_map_refused", None, Some(11_393)),
    ("grant_query_size", None, Some(11_072)),
    ("vbd_read_4096", Some(900 + 512), None),
    ("vbd_read_32x4096", Some(32 * (250 + 512)), None),
    ("vbd_connect", Some(150_000), None),
];

/// What a boot's figures leave out when the aim of 2 million is looked at: work that grows with
/// the bytes of kernel and memory.
const BY_SIZE: &[&str] = &["checksum", "populate", "unpack", "copy"];
const ENTRY_AIM: u64 = 2_000_000;
const XEN_ENTRY: u64 = 100_487_032;
const IMAGE_AIM: u64 = 512;
const MEMORY_AIM: u64 = 4096;
const XEN_MEMORY: u64 = 27_704;

fn optional(value: Option<u64>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// The whole report.
pub(super) fn render(
    trips: &[RoundTrip],
    boots: &[(String, Numbers)],
    footprint: &Footprint,
    frames: &Numbers,
    exits: &[Exit],
) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(
        out,
        "{:28} {:>10} {:>10} {:>10} {:>10}",
        "round trip (instructions)", "median", "min", "aim", "Xen 4.17"
    );
    for trip in trips {
        let reference = REFERENCES.iter().find(|(name, ..)| *name == trip.name);
        let (aim, xen) = reference.map_or((None, None), |(_, aim, xen)| (*aim, *xen));
        let (name, median, min) = (&trip.name, trip.median, trip.min);
        let (aim, xen) = (optional(aim), optional(xen));
        let _ = writeln!(out, "{name:28} {median:>10} {min:>10} {aim:>10} {xen:>10}");
    }
    boot_table(&mut out, boots);
    memory_table(&mut out, footprint, frames);
    exit_table(&mut out, exits);
    out
}

fn boot_table(out: &mut String, boots: &[(String, Numbers)]) {
    for (name, numbers) in boots {
        let of = |key: &str| numbers.get(key).copied().unwrap_or(0);
        let by_size: u64 = BY_SIZE.iter().map(|key| of(key)).sum();
        let _ = writeln!(
            out,
            "\nfirst instruction of {name}: {} instructions after entry (Xen 4.17: {XEN_ENTRY})",
            of("since_entry")
        );
        let rest = of("since_entry").saturating_sub(by_size);
        let _ = writeln!(
            out,
            "  without what grows with size {rest:>14} (aim {ENTRY_AIM})"
        );
        for key in BY_SIZE {
            let _ = writeln!(out, "  {key:28} {:>14}", of(key));
        }
        let (copied, scrubbed) = (of("copied_bytes"), of("scrubbed_frames"));
        let _ = writeln!(
            out,
            "  bytes copied {copied:>30}\n  frames scrubbed {scrubbed:>27}"
        );
    }
}

fn memory_table(out: &mut String, footprint: &Footprint, frames: &Numbers) {
    let kib = |bytes: u64| bytes.div_ceil(1024);
    let of = |key: &str| frames.get(key).copied().unwrap_or(0).saturating_mul(4);
    let image = footprint.file.saturating_sub(footprint.symbols);
    let _ = writeln!(
        out,
        "\nimage without symbols {:>8} KiB (aim {IMAGE_AIM}), with symbols {} KiB",
        kib(image),
        kib(footprint.file)
    );
    let own = of("hypervisor") + of("heap") + of("cpus");
    let kept = own + kib(footprint.memory);
    let _ = writeln!(
        out,
        "memory kept           {kept:>8} KiB (aim {MEMORY_AIM}, Xen 4.17: {XEN_MEMORY}): image in \
         memory {}, frames {own}; beside it the frame table {}",
        kib(footprint.memory),
        of("frame_table"),
    );
}

fn exit_table(out: &mut String, exits: &[Exit]) {
    if exits.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n{:28} {:>9} {:>8} {:>9} {:>8} {:>8} {:>10}",
        "exits of a Debian boot", "count", "median", "worst", "vmreads", "vmwrites", "unshadowed"
    );
    let each = |total: u64, count: u64| {
        let tenths = (total * 10).checked_div(count).unwrap_or(0);
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    for exit in exits {
        let _ = writeln!(
            out,
            "{:28} {:>9} {:>8} {:>9} {:>8} {:>8} {:>10}",
            exit.reason,
            exit.count,
            exit.root_median,
            exit.root_max,
            each(exit.vmreads, exit.count),
            each(exit.vmwrites, exit.count),
            exit.unshadowed
        );
    }
    let _ = writeln!(
        out,
        "(median and worst in instructions; vmreads and vmwrites per exit)"
    );
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::bench::figures::{Exit, RoundTrip};
    use crate::size::Footprint;

    #[test]
    fn aims_stand_beside_the_figures() {
        let trips = [RoundTrip {
            name: "xen_version".into(),
            median: 143,
            min: 140,
        }];
        let boots = [(
            "a".to_owned(),
            [("since_entry".to_owned(), 3), ("copy".to_owned(), 1)].into(),
        )];
        let footprint = Footprint {
            file: 700 << 10,
            symbols: 200 << 10,
            memory: 900 << 10,
        };
        let exits = [Exit {
            reason: "hlt".into(),
            count: 4,
            vmreads: 6,
            ..Exit::default()
        }];
        let text = render(&trips, &boots, &footprint, &[].into(), &exits);
        assert!(
            text.contains("143        140        150        880"),
            "{text}"
        );
        assert!(
            text.contains("without what grows with size              2"),
            "{text}"
        );
        assert!(
            text.contains("image without symbols      500 KiB"),
            "{text}"
        );
        assert!(text.contains("1.5"), "{text}");
    }
}
