//! `size`: the sections of the hypervisor, and what a boot loader has to load.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use elf::ElfBytes;
use elf::abi::{PT_LOAD, SHF_ALLOC, SHT_NOBITS};
use elf::endian::LittleEndian;

use crate::build;
use crate::workspace::Workspace;

/// The verb.
pub(crate) fn run(ws: &Workspace) -> Result<()> {
    let built = build::hypervisor(ws)?;
    let bytes = fs::read(&built.image)?;
    let report = report(&bytes).with_context(|| format!("in {}", built.image.display()))?;
    print!("{report}");
    println!(
        "{:24} {:>10}  {}",
        "file",
        bytes.len(),
        built.image.display()
    );
    Ok(())
}

/// How big the hypervisor is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Bytes of the file.
    pub(crate) file: u64,
    /// Bytes of it that are its own symbol table.
    pub(crate) symbols: u64,
    /// Bytes it takes in memory.
    pub(crate) memory: u64,
}

/// Measures an image.
pub(crate) fn footprint(path: &Path) -> Result<Footprint> {
    let image = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = ElfBytes::<LittleEndian>::minimal_parse(&image).context("not an ELF file")?;
    let symbols = file.section_header_by_name(".symbols")?;
    let loads = file.segments().context("no program headers")?;
    let loads = loads.iter().filter(|segment| segment.p_type == PT_LOAD);
    Ok(Footprint {
        file: image.len() as u64,
        symbols: symbols.map_or(0, |section| section.sh_size),
        memory: loads.map(|segment| segment.p_memsz).sum(),
    })
}

fn report(image: &[u8]) -> Result<String> {
    let file = ElfBytes::<LittleEndian>::minimal_parse(image).context("not an ELF file")?;
    let mut text = format!("{:24} {:>10}  {:>18}\n", "section", "bytes", "address");
    if let (Some(headers), Some(names)) = file.section_headers_with_strtab()? {
        for header in headers
            .iter()
            .filter(|h| h.sh_flags & u64::from(SHF_ALLOC) != 0)
        {
            let name = names.get(usize::try_from(header.sh_name)?)?;
            let zero = if header.sh_type == SHT_NOBITS {
                "  (zeros, not in the file)"
            } else {
                ""
            };
            text.push_str(&format!(
                "{name:24} {:>10}  {:#018x}{zero}\n",
                header.sh_size, header.sh_addr
            ));
        }
    }
    let loads = file.segments().context("no program headers")?;
    let loads = loads.iter().filter(|segment| segment.p_type == PT_LOAD);
    let (in_file, in_memory) = loads.fold((0u64, 0u64), |(file, memory), segment| {
        (
            file.saturating_add(segment.p_filesz),
            memory.saturating_add(segment.p_memsz),
        )
    });
    text.push_str(&format!("{:24} {in_file:>10}\n", "loaded from the file"));
    text.push_str(&format!("{:24} {in_memory:>10}\n", "taken in memory"));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::report;

    #[test]
    fn this_very_program_has_sections() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let text = report(&program).unwrap();
        assert!(text.contains(".text ") && text.contains("(zeros"), "{text}");
        assert!(report(b"no ELF").is_err());
    }
}
