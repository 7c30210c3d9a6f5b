//! Whole domains built into a pretended guest memory, read back as a guest would.

use super::*;
use crate::builder::memmap::HOLE_START;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use system::Quotas;
use system::Share;
use system::config::{Config, FileId, HostConfig, MemoryBacking, OnReboot};
use system::kernel::{Image, compress_lz4};
use system::synthetic::{Elf, LOAD, bzimage};
use system::write_archive;

/// Sparse memory; writes must lie in the domain's ranges and not meet each other.
#[derive(Default)]
struct Memory {
    ranges: Vec<(u64, u64)>,
    written: BTreeMap<u64, Vec<u8>>,
}

impl GuestWriter for Memory {
    fn write(&mut self, gpa: Gpa, bytes: &[u8]) -> Result<(), Errno> {
        let (start, end) = (gpa.raw(), gpa.raw() + bytes.len() as u64);
        if !self
            .ranges
            .iter()
            .any(|&(from, to)| from <= start && end <= to)
        {
            return Err(Errno::Efault);
        }
        let before = self.written.range(..end).next_back();
        let overlap = before.is_some_and(|(&at, old)| at + old.len() as u64 > start);
        assert!(!overlap, "overwrites something before {end:#x}");
        self.written.insert(start, bytes.to_vec());
        Ok(())
    }
}

impl Memory {
    fn at(&self, gpa: u64) -> &[u8] {
        let (start, bytes) = self
            .written
            .range(..=gpa)
            .next_back()
            .expect("nothing there");
        &bytes[usize::try_from(gpa - start).unwrap()..]
    }

    fn u32(&self, gpa: u64) -> u32 {
        u32::from_le_bytes(*self.at(gpa).first_chunk().unwrap())
    }

    fn u64(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(*self.at(gpa).first_chunk().unwrap())
    }

    fn text(&self, gpa: u64) -> String {
        let bytes = self.at(gpa);
        let end = bytes.iter().position(|&byte| byte == 0).expect("no NUL");
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    }
}

fn config(memory_pages: u64, initrd: bool) -> Config {
    let domain = DomainConfig {
        name: "guest".into(),
        kernel: FileId(0),
        initrd: initrd.then_some(FileId(1)),
        cmdline: "console=hvc0 root=/dev/ram0".into(),
        memory_pages,
        quotas: Quotas::usual(1, memory_pages),
        vcpus: 2,
        affinity: None,
        share: Share::default(),
        backing: MemoryBacking::OnTouch,
        on_reboot: OnReboot::Stop,
        disks: Vec::new(),
        vifs: Vec::new(),
    };
    Config {
        host: HostConfig::default(),
        networks: Vec::new(),
        domains: vec![domain],
    }
}

/// Enough for the dictionary of Debian's XZ kernels.
const HEAP: usize = 64 << 20;

fn build(config: &Config, kernel: &[u8], initrd: &[u8]) -> Result<(Memory, Entry), BuildError> {
    let bytes = write_archive(config, &[("kernel", kernel), ("initrd", initrd)]).unwrap();
    let archive = Archive::parse(&bytes).unwrap();
    let domain = &archive.config().domains[0];
    let map = MemoryMap::new(domain.memory_pages);
    let mut memory = Memory::default();
    let ranges = map.ranges();
    memory.ranges = ranges
        .iter()
        .map(|range| (range.start, range.start + range.size))
        .collect();

    let image = DomainImage::open(&archive, domain, &mut || ())?;
    let mut scratch = vec![0; image.scratch_size()?];
    let kernel = image.unpack(&mut scratch, HEAP, &mut || ())?;
    let entry = image.load(&kernel, &mut memory)?;
    Ok((memory, entry))
}

#[test]
fn a_guest_finds_everything_through_the_start_info() {
    let elf = Elf::default();
    let kernel = bzimage(&compress_lz4(&elf.build()).unwrap());
    let initrd = vec![7; 5000];
    let (memory, entry) = build(&config(0x10000, true), &kernel, &initrd).unwrap();

    assert_eq!(u64::from(entry.eip), LOAD);
    assert!(memory.at(LOAD).starts_with(&elf.segments[0].1));
    let info = u64::from(entry.ebx);
    assert_eq!(info, LOAD + 0x2000, "behind the zeros of the segment");
    assert_eq!((memory.u32(info), memory.u32(info + 4)), (0x336e_c578, 1));
    assert_eq!(memory.u32(info + 8), 0, "flags of an ordinary domain");

    assert_eq!(memory.u32(info + 12), 1);
    let module = memory.u64(info + 16);
    let gpa = memory.u64(module);
    assert_eq!((gpa % 4096, memory.u64(module + 8)), (0, 5000));
    assert_eq!(memory.at(gpa), initrd);
    assert_eq!(
        memory.text(memory.u64(info + 24)),
        "console=hvc0 root=/dev/ram0"
    );
    assert!(memory.at(memory.u64(info + 32)).starts_with(b"RSD PTR "));

    let (map, entries) = (memory.u64(info + 40), u64::from(memory.u32(info + 48)));
    let map: Vec<_> = (0..entries)
        .map(|index| map + index * 24)
        .map(|at| {
            (
                memory.u64(at),
                memory.u64(at + 8),
                memory.u32(at + 16),
                memory.u32(at + 20),
            )
        })
        .collect();
    let expected = [
        (0, 0x1000_0000, 1, 0),
        (HOLE_START, 0x1000, 4, 0),
        (0xfeff_8000, 0x8000, 2, 0),
    ];
    assert_eq!(map, expected);
    let written: usize = memory.written.values().map(Vec::len).sum();
    assert_eq!(entry.copied, written as u64);
}

#[test]
fn without_an_initrd_there_is_no_module() {
    let (memory, entry) = build(&config(512, false), &Elf::default().build(), &[]).unwrap();
    let info = u64::from(entry.ebx);
    assert_eq!((memory.u32(info + 12), memory.u64(info + 16)), (0, 0));
    assert_eq!(
        memory.text(memory.u64(info + 24)),
        "console=hvc0 root=/dev/ram0"
    );
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let text = |config: &Config, elf: &Elf, initrd: &[u8]| {
        build(config, &elf.build(), initrd)
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let elf = Elf::default();
    assert_eq!(
        text(&config(256, false), &elf, &[]),
        "not enough memory: kernel, initrd and start info end at 0x103000, memory below 4 GiB ends \
         at 0x100000; give the domain more than 2 MiB or smaller images"
    );
    assert_eq!(
        text(&config(512, true), &elf, &vec![0; 0xfd001]),
        "not enough memory: kernel, initrd and start info end at 0x200001, memory below 4 GiB ends \
         at 0x200000; give the domain more than 3 MiB or smaller images"
    );
    let at = |gpa: u64| Elf {
        segments: vec![(gpa, vec![0x90; 16], 0x2000)],
        entry: Some(gpa.to_le_bytes().to_vec()),
        ..Elf::default()
    };
    assert_eq!(
        text(&config(1 << 20, false), &at(HOLE_START - 0x1000), &[]),
        "kernel wants memory up to 0xfc001000, a domain has some only up to 0xfc000000: link it to \
         a lower physical address"
    );
    assert_eq!(
        text(&config(1 << 20, false), &at(0x3fff_e000), &[]),
        "kernel leaves no room for the start info: it would end at 0x40001000, the limit is \
         0x40000000; link the kernel to a lower physical address"
    );
    assert_eq!(
        text(&config(512, false), &Elf { entry: None, ..elf }, &[]),
        "kernel has no PVH entry note (Xen, PHYS32_ENTRY): use a kernel with CONFIG_PVH=y, or add \
         the note to the image"
    );
}

#[test]
fn a_damaged_file_is_named() {
    let bytes = {
        let kernel = Elf::default().build();
        let mut bytes = write_archive(&config(512, false), &[("vmlinuz", &kernel)]).unwrap();
        bytes[4096 + 100] ^= 0x20;
        bytes
    };
    let archive = Archive::parse(&bytes).unwrap();
    let error = DomainImage::open(&archive, &archive.config().domains[0], &mut || ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "boot archive is corrupt: file `vmlinuz` is damaged; pack it again"
    );
}

/// A kernel as the packer leaves it: one that takes more memory to unpack than the hypervisor gives is
/// packed anew.
fn packed(file: Vec<u8>) -> Vec<u8> {
    let image = Image::identify(&file).unwrap();
    let mut scratch = vec![0; image.scratch_size().unwrap()];
    if image.unpack(&mut scratch, HEAP, &mut || ()).is_ok() {
        return file;
    }
    let elf = image.unpack(&mut scratch, usize::MAX, &mut || ());
    compress_lz4(elf.unwrap()).unwrap()
}

/// Needs `guests/NAME/vmlinuz` or the like: any depth will do.
#[test]
#[ignore = "needs distribution kernels below TESSERA_TEST_KERNELS; run by cargo xtask test"]
fn real_kernels_are_built() {
    let root = std::env::var_os("TESSERA_TEST_KERNELS").expect("TESSERA_TEST_KERNELS is not set");
    let mut directories = vec![std::path::PathBuf::from(root)];
    let mut count = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"))
            {
                let kernel = packed(std::fs::read(&path).unwrap());
                let (memory, entry) = build(&config(0x10000, true), &kernel, &[1; 9]).unwrap();
                // Linux's PVH entry starts with CLD, then LGDT or, since it may be anywhere in
                // memory, MOV from (EBX).
                let code = &memory.at(entry.eip.into())[..3];
                assert!(
                    [[0xfc, 0x0f, 0x01], [0xfc, 0x8b, 0x03]].contains(&[code[0], code[1], code[2]]),
                    "{}: {code:x?}",
                    path.display()
                );
                assert!(entry.copied > 20 << 20 && entry.ebx > entry.eip);
                count += 1;
            }
        }
    }
    assert!(count > 0, "no vmlinuz below TESSERA_TEST_KERNELS");
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = u64> {
        // All magnitudes, and the neighbourhood of the limits.
        let limits = [LOAD, 1 << 30, HOLE_START, 1 << 32, u64::MAX - 0x1000];
        prop_oneof![
            (any::<u64>(), 0..64u32).prop_map(|(value, shift)| value >> shift),
            (0..limits.len(), 0..0x3000u64).prop_map(move |(index, more)| {
                limits[index].wrapping_sub(0x1000).wrapping_add(more)
            }),
        ]
    }

    proptest! {
        /// Wherever a kernel wants to lie, nothing is written outside of the guest's memory and
        /// nothing is written twice: `Memory` sees to both.
        #[test]
        fn any_segments_and_initrd(
            segments in prop::collection::vec((number(), 0..64usize, number()), 1..5),
            initrd in 0..0x20_0000usize,
            pages in 256..0x800u64,
        ) {
            let entry = Some(segments[0].0.to_le_bytes().to_vec());
            let segments = segments
                .into_iter()
                .map(|(gpa, size, memsz)| (gpa, vec![0xcc; size], memsz.max(size as u64)))
                .collect();
            let elf = Elf { segments, entry, ..Elf::default() };
            match build(&config(pages, true), &elf.build(), &vec![1; initrd]) {
                Err(BuildError::Write { .. }) => prop_assert!(false, "planned outside of memory"),
                Err(_) => {}
                Ok((_, entry)) => prop_assert!(u64::from(entry.ebx) < pages << 12),
            }
        }
    }
}
