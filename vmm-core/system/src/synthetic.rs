//! Tiny kernels made on the spot, for tests: an ELF file of a chosen shape, and a bzImage around
//! a payload.

pub mod compressed;

use alloc::vec;
use alloc::vec::Vec;

/// Where the first segment of [`Elf::default`] lies and where its PVH entry is.
pub const LOAD: u64 = 0x10_0000;

/// The shape of an ELF file.
#[derive(Clone, Debug)]
pub struct Elf {
    /// 64-bit headers or 32-bit ones.
    pub wide: bool,
    /// The machine number.
    pub machine: u16,
    /// Address, contents and size in memory of each segment.
    pub segments: Vec<(u64, Vec<u8>, u64)>,
    /// What the PHYS32_ENTRY note holds; no note when absent.
    pub entry: Option<Vec<u8>>,
    /// The note is reached through a section header instead of a program header.
    pub note_in_section: bool,
}

impl Default for Elf {
    /// 64-bit, one segment of 600 bytes with some zeros behind it.
    fn default() -> Self {
        Self {
            wide: true,
            machine: 62,
            segments: vec![(LOAD, code(), 0x2000)],
            entry: Some(LOAD.to_le_bytes().to_vec()),
            note_in_section: false,
        }
    }
}

/// Calls to one and the same place, which the x86 branch filter turns into something else.
fn code() -> Vec<u8> {
    let call = |at: u32| {
        let mut bytes = vec![0xe8];
        bytes.extend_from_slice(&(0x400_u32.wrapping_sub(at + 5)).to_le_bytes());
        bytes.extend_from_slice(&[0x90, 0xf4, 0x90]);
        bytes
    };
    (0..75).flat_map(|index| call(index * 8)).collect()
}

/// The bytes of a note with the owner "Xen".
fn xen_note(kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [4, size(desc), kind] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(b"Xen\0");
    out.extend_from_slice(desc);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

impl Elf {
    /// The file's bytes.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let note = self.entry.as_ref().map(|desc| {
            // Another note first, as Linux has them.
            let mut notes = xen_note(6, b"linux\0");
            notes.extend_from_slice(&xen_note(18, desc));
            notes
        });
        let note_segment = note.is_some() && !self.note_in_section;
        let headers = self.segments.len() + usize::from(note_segment);
        let (file_header, header) = if self.wide { (64, 56) } else { (52, 32) };
        let mut body = Vec::new();
        let start = file_header + headers * header;
        let mut table = Vec::new();
        for (gpa, bytes, memsz) in &self.segments {
            let offset = (start + body.len()) as u64;
            body.extend_from_slice(bytes);
            self.program_header(&mut table, 1, offset, *gpa, bytes.len() as u64, *memsz);
        }
        let notes = (start + body.len()) as u64;
        let notes_size = note.as_ref().map_or(0, |note| note.len() as u64);
        body.extend_from_slice(note.as_deref().unwrap_or_default());
        if note_segment {
            self.program_header(&mut table, 4, notes, 0, notes_size, notes_size);
        }
        let sections = (start + body.len()) as u64;
        let has_section = note.is_some() && self.note_in_section;
        if has_section {
            self.note_section(&mut body, notes, notes_size);
        }
        let mut out = self.file_header(headers, if has_section { sections } else { 0 });
        out.extend_from_slice(&table);
        out.extend_from_slice(&body);
        out
    }

    fn word(&self, out: &mut Vec<u8>, value: u64) {
        let bytes = value.to_le_bytes();
        out.extend_from_slice(if self.wide { &bytes } else { &bytes[..4] });
    }

    fn file_header(&self, headers: usize, sections: u64) -> Vec<u8> {
        let class = if self.wide { 2 } else { 1 };
        let mut out = vec![0x7f, b'E', b'L', b'F', class, 1, 1];
        out.resize(16, 0);
        out.extend_from_slice(&2u16.to_le_bytes());
        out.extend_from_slice(&self.machine.to_le_bytes());
        out.extend_from_slice(&1u32.to_le_bytes());
        self.word(&mut out, LOAD);
        self.word(&mut out, if self.wide { 64 } else { 52 });
        self.word(&mut out, sections);
        out.extend_from_slice(&0u32.to_le_bytes());
        let sizes: [u16; 3] = if self.wide {
            [64, 56, 64]
        } else {
            [52, 32, 40]
        };
        let count = u16::try_from(headers).unwrap_or(u16::MAX);
        let section_count = u16::from(sections != 0);
        for half in [sizes[0], sizes[1], count, sizes[2], section_count, 0] {
            out.extend_from_slice(&half.to_le_bytes());
        }
        out
    }

    fn program_header(
        &self,
        out: &mut Vec<u8>,
        kind: u32,
        offset: u64,
        gpa: u64,
        filesz: u64,
        memsz: u64,
    ) {
        const FLAGS: u32 = 7;
        out.extend_from_slice(&kind.to_le_bytes());
        if self.wide {
            out.extend_from_slice(&FLAGS.to_le_bytes());
        }
        // The virtual address is somewhere else, as in Linux.
        let linear = gpa.wrapping_add(0xffff_ffff_8000_0000);
        for value in [offset, linear, gpa, filesz, memsz] {
            self.word(out, value);
        }
        if !self.wide {
            out.extend_from_slice(&FLAGS.to_le_bytes());
        }
        self.word(out, 4);
    }

    fn note_section(&self, out: &mut Vec<u8>, offset: u64, size: u64) {
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&7u32.to_le_bytes());
        for value in [0, 0, offset, size] {
            self.word(out, value);
        }
        out.extend_from_slice(&[0; 8]);
        for value in [4, 0] {
            self.word(out, value);
        }
    }
}

/// A bzImage of protocol 2.15 around a compressed kernel, which ends with its unpacked size.
#[must_use]
pub fn bzimage(payload: &[u8]) -> Vec<u8> {
    const SETUP_SECTORS: u8 = 2;
    const PAYLOAD_OFFSET: u32 = 0x40;
    let start = (usize::from(SETUP_SECTORS) + 1) * 512;
    let mut out = vec![0; start + 0x40];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[SETUP_SECTORS]);
    put(0x202, b"HdrS");
    put(0x206, &0x020f_u16.to_le_bytes());
    put(0x248, &PAYLOAD_OFFSET.to_le_bytes());
    put(0x24c, &size(payload).to_le_bytes());
    out.extend_from_slice(payload);
    // The rest of the boot loader's view of the file.
    out.extend_from_slice(&[0xcc; 16]);
    out
}
