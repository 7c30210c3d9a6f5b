//! An ELF file without what nobody loads: sections for debuggers and linkers, which are most of an
//! unstripped file.

use super::Kernel;
use super::elf::Elf;
use alloc::vec::Vec;
use elf::file::Class;

/// Where the ELF header says where the section headers are, and how many there are
/// (`e_shoff`; `e_shnum` and `e_shstrndx`).
const fn section_fields(class: Class) -> [core::ops::Range<usize>; 2] {
    match class {
        Class::ELF32 => [0x20..0x24, 0x30..0x34],
        Class::ELF64 => [0x28..0x30, 0x3c..0x40],
    }
}

/// The part of an ELF file that its program headers name, without section headers; the same
/// kernel. Nothing when nothing can be left out, or when the kernel would not be the same, as when
/// its PVH entry is to be found by its section headers alone.
#[must_use]
pub fn trim(file: &[u8]) -> Option<Vec<u8>> {
    let elf = Elf::open(file).ok()?;
    let end = usize::try_from(elf.end_of_segments().ok()?).ok()?;
    let mut trimmed = file
        .get(..end)
        .filter(|part| part.len() < file.len())?
        .to_vec();
    for field in section_fields(elf.class()) {
        trimmed.get_mut(field)?.fill(0);
    }
    (Kernel::parse(&trimmed).ok()? == Kernel::parse(file).ok()?).then_some(trimmed)
}
