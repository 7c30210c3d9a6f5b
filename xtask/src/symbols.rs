//! The symbol table inside the hypervisor image, for backtraces whatever loaded it.
//!
//! The linker script reserves the section `.symbols`; after linking, [`fill`] writes into it the
//! names of all functions, sorted by address. boot's `symbols` module reads this format:
//!
//! ```text
//! u32 magic "TSYM"      u32 count        u64 address that the offsets below count from
//! count * { u32 offset of the function; u32 place of its name, from the section's start }
//! names, each one byte of length and its characters
//! ```
//! All numbers are little-endian. A table of zeros means: no symbols.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use elf::ElfBytes;
use elf::abi::STT_FUNC;
use elf::endian::LittleEndian;

const SECTION: &str = ".symbols";
const MAGIC: &[u8; 4] = b"TSYM";
const HEADER: usize = 16;
const ENTRY: usize = 8;

/// Writes the symbol table of the ELF program into its own reserved section.
pub(crate) fn fill(program: &mut [u8]) -> Result<()> {
    let (place, table) = {
        let file = ElfBytes::<LittleEndian>::minimal_parse(program).context("not an ELF file")?;
        let section = file
            .section_header_by_name(SECTION)?
            .with_context(|| format!("no section {SECTION}"))?;
        let start = usize::try_from(section.sh_offset)?;
        let size = usize::try_from(section.sh_size)?;
        let table = encode(&functions(&file, short_name)?)?;
        ensure!(
            table.len() <= size,
            "the symbol table takes {} bytes, the linker script reserves {size} in {SECTION}",
            table.len()
        );
        (start..start + table.len(), table)
    };
    program
        .get_mut(place)
        .context("section beyond the file")?
        .copy_from_slice(&table);
    Ok(())
}

/// A program's functions by address.
#[derive(Debug)]
pub(crate) struct Functions(BTreeMap<u64, String>);

impl Functions {
    /// Reads them out of an ELF program.
    pub(crate) fn read(program: &[u8]) -> Result<Self> {
        let file = ElfBytes::<LittleEndian>::minimal_parse(program).context("not an ELF file")?;
        Ok(Self(functions(&file, short_name)?))
    }

    /// The same with generic arguments, so that each instance has a name of its own.
    pub(crate) fn read_in_full(program: &[u8]) -> Result<Self> {
        let file = ElfBytes::<LittleEndian>::minimal_parse(program).context("not an ELF file")?;
        Ok(Self(functions(&file, full_name)?))
    }

    /// The function at or before `address`.
    pub(crate) fn at(&self, address: u64) -> Option<&str> {
        let (_, name) = self.0.range(..=address).next_back()?;
        Some(name)
    }
}

#[cfg(test)]
impl<const N: usize> From<[(u64, String); N]> for Functions {
    fn from(functions: [(u64, String); N]) -> Self {
        Self(functions.into())
    }
}

/// Every function's address, and its name as `name` makes it of the mangled one.
fn functions(
    file: &ElfBytes<'_, LittleEndian>,
    name: fn(&str) -> String,
) -> Result<BTreeMap<u64, String>> {
    let (symbols, names) = file.symbol_table()?.context("the program is stripped")?;
    let mut found = BTreeMap::new();
    for symbol in symbols
        .iter()
        .filter(|s| s.st_symtype() == STT_FUNC && s.st_value != 0)
    {
        found.insert(symbol.st_value, name(names.get(symbol.st_name as usize)?));
    }
    Ok(found)
}

fn encode(functions: &BTreeMap<u64, String>) -> Result<Vec<u8>> {
    let base = functions.keys().next().copied().unwrap_or(0);
    let mut table = Vec::from(MAGIC);
    table.extend(u32::try_from(functions.len())?.to_le_bytes());
    table.extend(base.to_le_bytes());
    let mut names = Vec::new();
    for (address, name) in functions {
        let offset = u32::try_from(address - base).context("functions are 4 GiB apart")?;
        let place = HEADER + ENTRY * functions.len() + names.len();
        table.extend(offset.to_le_bytes());
        table.extend(u32::try_from(place)?.to_le_bytes());
        let text = &name.as_bytes()[..name.len().min(usize::from(u8::MAX))];
        names.push(u8::try_from(text.len())?);
        names.extend(text);
    }
    table.extend(names);
    Ok(table)
}

/// The demangled path without the hash.
fn full_name(mangled: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(mangled))
}

/// The demangled path without the hash and without what stands in angle brackets, except for
/// the type and trait of an implementation: `<a::T as b::Tr>::f` becomes `a::T::f`.
fn short_name(mangled: &str) -> String {
    let full = full_name(mangled);
    let mut short = String::new();
    let mut rest = full.as_str();
    if let Some(inner) = rest.strip_prefix('<') {
        let end = closing(inner);
        let type_name = inner[..end].split(" as ").next().unwrap_or_default();
        short.push_str(&plain(type_name));
        rest = inner.get(end + 1..).unwrap_or_default();
    }
    let path = rest.trim_start_matches("::");
    if !short.is_empty() && !path.is_empty() {
        short.push_str("::");
    }
    short.push_str(&plain(path));
    short
}

/// The text without generic arguments.
fn plain(path: &str) -> String {
    let mut depth = 0_usize;
    let mut out = String::new();
    let mut last = ' ';
    for c in path.chars() {
        match c {
            '<' => depth += 1,
            // The arrow of a function type closes nothing.
            '>' if last != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(c),
            _ => {}
        }
        last = c;
    }
    out.replace("::::", "::").trim_end_matches("::").to_string()
}

/// The index of the `>` that closes the bracket before `text`.
fn closing(text: &str) -> usize {
    let mut depth = 1_usize;
    let mut last = ' ';
    for (index, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if last != '-' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index;
        }
        last = c;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_hashes_and_generics() {
        for (mangled, short) in [
            (
                "_ZN4boot5panic5panic17h0123456789abcdefE",
                "boot::panic::panic",
            ),
            ("boot_entry", "boot_entry"),
        ] {
            assert_eq!(short_name(mangled), short);
        }
        assert_eq!(
            plain("core::ptr::drop_in_place::<a::B<C>>"),
            "core::ptr::drop_in_place"
        );
        assert_eq!(plain("a::b::<C>::d"), "a::b::d");
        assert_eq!(closing("a::T as b::Tr<c>>::f"), 16);
    }

    #[test]
    fn the_table_is_sorted_and_self_contained() {
        let functions = BTreeMap::from([
            (0x2000, String::from("b::second")),
            (0x1000, String::from("a::first")),
        ]);
        let table = encode(&functions).unwrap();
        assert_eq!(&table[..4], MAGIC);
        assert_eq!(table[4..8], 2_u32.to_le_bytes());
        assert_eq!(table[8..16], 0x1000_u64.to_le_bytes());
        let entry = |i: usize| {
            let at = HEADER + ENTRY * i;
            let number =
                |at: usize| u32::from_le_bytes(table[at..at + 4].try_into().unwrap()) as usize;
            let name = number(at + 4);
            let length = usize::from(table[name]);
            (number(at), &table[name + 1..=name + length])
        };
        assert_eq!(entry(0), (0, b"a::first".as_slice()));
        assert_eq!(entry(1), (0x1000, b"b::second".as_slice()));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(fill(&mut []).is_err());
        assert!(fill(&mut [0x7f; 100]).is_err());
    }
}
