//! ELF kernels: the segments to load and the PVH entry.
//!
//! Xen, `xen/include/public/elfnote.h`: a note of owner "Xen" and type 18 (PHYS32_ENTRY) holds
//! the physical address at which the kernel is entered, in 4 or 8 bytes. Segments are loaded at
//! their physical addresses. Both ELF classes are taken with either x86 machine number: there are
//! 32-bit files with 64-bit code, written so because their loaders know no other class.

use super::KernelError;
use alloc::vec::Vec;
use elf::abi;
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::note::{Note, NoteIterator};
use elf::parse::ParseAt;
use elf::section::SectionHeaderTable;
use elf::segment::{ProgramHeader, SegmentTable};

const XEN: &[u8] = b"Xen\0";
const PHYS32_ENTRY: u64 = 18;
/// More program headers than any kernel has.
const MAX_SEGMENTS: usize = 128;
/// More section headers than a kernel's note is looked for in.
const MAX_SECTIONS: usize = 1024;
/// Notes are padded to four bytes, whatever the segment's alignment says.
const NOTE_ALIGN: usize = 4;

/// A part of the kernel to be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// The guest-physical address of its first byte.
    pub gpa: u64,
    /// What the file holds of it.
    pub bytes: &'a [u8],
    /// Its size in memory; what exceeds the bytes is zero.
    pub memsz: u64,
}

impl Segment<'_> {
    /// The guest-physical address behind its last byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.gpa.saturating_add(self.memsz)
    }
}

/// A kernel that can be loaded and entered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel<'a> {
    segments: Vec<Segment<'a>>,
    entry: u32,
}

impl<'a> Kernel<'a> {
    /// Reads an ELF file.
    ///
    /// # Errors
    /// [`KernelError`] when it is not for x86, is cut short, makes no sense or has no PVH entry.
    pub fn parse(file: &'a [u8]) -> Result<Self, KernelError> {
        let elf = Elf::open(file)?;
        let mut segments = Vec::new();
        for header in elf
            .program_headers()?
            .iter()
            .filter(|h| h.p_type == abi::PT_LOAD)
        {
            if header.p_memsz == 0 {
                continue;
            }
            segments.push(segment(file, &header)?);
        }
        segments.sort_unstable_by_key(|segment| segment.gpa);
        if segments.is_empty() {
            return Err(KernelError::BadElf("it has no segment to load"));
        }
        if segments
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.end() > b.gpa))
        {
            return Err(KernelError::BadElf("its segments overlap"));
        }
        let entry = elf.pvh_entry()?.ok_or(KernelError::NotPvh)?;
        let inside = |segment: &Segment<'_>| (segment.gpa..segment.end()).contains(&entry.into());
        if !segments.iter().any(inside) {
            return Err(KernelError::BadElf(
                "its PVH entry lies outside of its segments",
            ));
        }
        Ok(Self { segments, entry })
    }

    /// What is to be loaded, by ascending address, without overlaps.
    #[must_use]
    pub fn segments(&self) -> &[Segment<'a>] {
        &self.segments
    }

    /// The guest-physical address at which the kernel is entered, in 32-bit mode.
    #[must_use]
    pub const fn entry(&self) -> u32 {
        self.entry
    }

    /// The guest-physical address behind the last segment.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }
}

fn segment<'a>(file: &'a [u8], header: &ProgramHeader) -> Result<Segment<'a>, KernelError> {
    if header.p_filesz > header.p_memsz {
        return Err(KernelError::BadElf(
            "a segment is larger in the file than in memory",
        ));
    }
    if header.p_paddr.checked_add(header.p_memsz).is_none() {
        return Err(KernelError::BadElf(
            "a segment ends beyond the address space",
        ));
    }
    let bytes = slice(file, header.p_offset, header.p_filesz, "a segment")?;
    Ok(Segment {
        gpa: header.p_paddr,
        bytes,
        memsz: header.p_memsz,
    })
}

pub(super) struct Elf<'a> {
    file: &'a [u8],
    header: FileHeader<LittleEndian>,
}

impl<'a> Elf<'a> {
    pub(super) fn open(file: &'a [u8]) -> Result<Self, KernelError> {
        if !file.starts_with(&abi::ELFMAGIC) {
            return Err(KernelError::NotElf);
        }
        let ident = slice(file, 0, abi::EI_NIDENT as u64, "its ELF header")?;
        if ident.get(abi::EI_DATA) != Some(&abi::ELFDATA2LSB) {
            return Err(KernelError::BadElf("it is not little endian"));
        }
        let bad = |_| KernelError::BadElf("its identification is unknown");
        let ident = parse_ident::<LittleEndian>(ident).map_err(bad)?;
        let size = match ident.1 {
            Class::ELF32 => elf::file::ELF32_EHDR_TAILSIZE,
            Class::ELF64 => elf::file::ELF64_EHDR_TAILSIZE,
        };
        let tail = slice(file, abi::EI_NIDENT as u64, size as u64, "its ELF header")?;
        let bad = |_| KernelError::BadElf("its header is unreadable");
        let header = FileHeader::parse_tail(ident, tail).map_err(bad)?;
        if ![abi::EM_386, abi::EM_X86_64].contains(&header.e_machine) {
            return Err(KernelError::ForeignElf(header.e_machine));
        }
        Ok(Self { file, header })
    }

    pub(super) const fn class(&self) -> Class {
        self.header.class
    }

    /// The offset behind the last byte of the file that a program header names, and behind their
    /// table.
    pub(super) fn end_of_segments(&self) -> Result<u64, KernelError> {
        let headers = self.program_headers()?;
        let table = ProgramHeader::size_for(self.header.class) * headers.len();
        let end = self.header.e_phoff.saturating_add(table as u64);
        let ends = headers
            .iter()
            .map(|header| header.p_offset.saturating_add(header.p_filesz));
        Ok(ends.fold(end, u64::max))
    }

    fn program_headers(&self) -> Result<SegmentTable<'a, LittleEndian>, KernelError> {
        let count = usize::from(self.header.e_phnum);
        if count > MAX_SEGMENTS {
            return Err(KernelError::BadElf("it has too many program headers"));
        }
        let entry = ProgramHeader::size_for(self.header.class);
        if count > 0 && usize::from(self.header.e_phentsize) != entry {
            return Err(KernelError::BadElf("its program headers have an odd size"));
        }
        let size = (entry * count) as u64;
        let table = slice(
            self.file,
            self.header.e_phoff,
            size,
            "its program header table",
        )?;
        Ok(SegmentTable::new(LittleEndian, self.header.class, table))
    }

    /// Looks in the note segments and, when there is none, in the note sections.
    fn pvh_entry(&self) -> Result<Option<u32>, KernelError> {
        let mut segments = 0;
        for header in self
            .program_headers()?
            .iter()
            .filter(|h| h.p_type == abi::PT_NOTE)
        {
            segments += 1;
            let notes = slice(
                self.file,
                header.p_offset,
                header.p_filesz,
                "a note segment",
            )?;
            if let Some(entry) = self.entry_in(notes)? {
                return Ok(Some(entry));
            }
        }
        if segments == 0 {
            self.entry_in_sections()
        } else {
            Ok(None)
        }
    }

    fn entry_in_sections(&self) -> Result<Option<u32>, KernelError> {
        let count = usize::from(self.header.e_shnum).min(MAX_SECTIONS);
        let entry = elf::section::SectionHeader::size_for(self.header.class);
        if usize::from(self.header.e_shentsize) != entry {
            return Ok(None);
        }
        let size = (entry * count) as u64;
        let table = slice(
            self.file,
            self.header.e_shoff,
            size,
            "its section header table",
        )?;
        let table = SectionHeaderTable::new(LittleEndian, self.header.class, table);
        for header in table.iter().filter(|h| h.sh_type == abi::SHT_NOTE) {
            let notes = slice(
                self.file,
                header.sh_offset,
                header.sh_size,
                "a note section",
            )?;
            if let Some(entry) = self.entry_in(notes)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn entry_in(&self, notes: &[u8]) -> Result<Option<u32>, KernelError> {
        let notes = NoteIterator::new(LittleEndian, self.header.class, NOTE_ALIGN, notes);
        for note in notes {
            let Note::Unknown(note) = note else { continue };
            if note.name != XEN || note.n_type != PHYS32_ENTRY {
                continue;
            }
            let entry = match note.desc.len() {
                4 => note
                    .desc
                    .first_chunk()
                    .map(|desc| u32::from_le_bytes(*desc)),
                8 => {
                    let desc = note
                        .desc
                        .first_chunk()
                        .map(|desc| u64::from_le_bytes(*desc));
                    desc.and_then(|entry| u32::try_from(entry).ok())
                }
                _ => None,
            };
            return match entry {
                Some(entry) => Ok(Some(entry)),
                None => Err(KernelError::BadElf(
                    "its PVH entry note holds no 32-bit address",
                )),
            };
        }
        Ok(None)
    }
}

/// A part of the file, or an error that names what is cut off.
fn slice<'a>(
    file: &'a [u8],
    offset: u64,
    length: u64,
    what: &'static str,
) -> Result<&'a [u8], KernelError> {
    let needed = offset.saturating_add(length);
    let range = usize::try_from(offset)
        .ok()
        .zip(usize::try_from(needed).ok());
    let truncated = KernelError::Truncated {
        what,
        needed,
        actual: file.len() as u64,
    };
    range
        .and_then(|(start, end)| file.get(start..end))
        .ok_or(truncated)
}
