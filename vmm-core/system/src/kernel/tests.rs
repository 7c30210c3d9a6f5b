//! Kernels of every kind, intact, damaged, cut short and random.

use super::unpack::LZ4_BLOCK;
use super::*;
use crate::synthetic::compressed::{GZIP, XZ, ZSTD};
use crate::synthetic::{Elf, LOAD, bzimage};
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

const HEAP: usize = 64 << 20;

/// Entry and segments, as owned data.
type Opened = (u32, Vec<(u64, Vec<u8>, u64)>);

/// Unpacks and reads a file.
fn open(file: &[u8]) -> Result<Opened, KernelError> {
    open_with(file, HEAP)
}

fn open_with(file: &[u8], heap: usize) -> Result<Opened, KernelError> {
    let image = Image::identify(file)?;
    // Larger than any synthetic kernel; damaged ones may ask for more than a test wants to give.
    let mut scratch = vec![0; image.scratch_size()?.min(1 << 20)];
    let kernel = Kernel::parse(image.unpack(&mut scratch, heap, &mut || ())?)?;
    let segments = kernel.segments().iter();
    Ok((
        kernel.entry(),
        segments
            .map(|s| (s.gpa, s.bytes.to_vec(), s.memsz))
            .collect(),
    ))
}

fn text(file: &[u8]) -> String {
    open(file).unwrap_err().to_string()
}

/// The default kernel in each compression, as a payload.
fn payloads() -> [(Format, Vec<u8>); 4] {
    let lz4 = compress_lz4(&Elf::default().build()).unwrap();
    let [xz, gzip, zstd] = [XZ, GZIP, ZSTD].map(<[u8]>::to_vec);
    [
        (Format::Lz4, lz4),
        (Format::Xz, xz),
        (Format::Gzip, gzip),
        (Format::Zstd, zstd),
    ]
}

#[test]
fn each_compression_unpacks_to_the_same() {
    let elf = Elf::default();
    let plain = open(&elf.build()).unwrap();
    assert_eq!(plain, (0x10_0000, elf.segments));
    for (format, payload) in payloads() {
        let file = bzimage(&payload);
        assert_eq!(Image::identify(&file).unwrap().format(), format);
        assert_eq!(open(&file), Ok(plain.clone()), "{format} bzImage");
        assert_eq!(open(&payload), Ok(plain.clone()), "{format} alone");
    }
}

#[test]
fn both_classes_and_machines_are_taken() {
    for (wide, machine) in [(true, 62), (true, 3), (false, 62), (false, 3)] {
        for note_in_section in [false, true] {
            for desc in [
                LOAD.to_le_bytes().to_vec(),
                0x10_0000_u32.to_le_bytes().to_vec(),
            ] {
                let entry = Some(desc);
                let elf = Elf {
                    wide,
                    machine,
                    note_in_section,
                    entry,
                    ..Elf::default()
                };
                assert_eq!(open(&elf.build()), Ok((0x10_0000, elf.segments)));
            }
        }
    }
}

#[test]
fn trimming_leaves_the_kernel_as_it_is() {
    for wide in [true, false] {
        let elf = Elf {
            wide,
            ..Elf::default()
        };
        let plain = elf.build();
        let mut large = plain.clone();
        large.extend([0xdb; 9000]);
        let trimmed = trim(&large).unwrap();
        assert!(trimmed.len() <= plain.len());
        assert_eq!(open(&trimmed), Ok((0x10_0000, elf.segments)));
        assert_eq!(trim(&trimmed), None, "nothing is left to take");
    }
    let by_section = Elf {
        note_in_section: true,
        ..Elf::default()
    };
    assert_eq!(trim(&by_section.build()), None, "the entry is not lost");
    assert_eq!(trim(GZIP), None);
}

#[test]
fn segments_are_sorted_and_empty_ones_left_out() {
    let segments = vec![
        (0x30_0000, vec![3; 10], 10),
        (0x20_0000, vec![], 0),
        (LOAD, vec![1; 4096], 4096),
    ];
    let elf = Elf {
        segments: segments.clone(),
        ..Elf::default()
    };
    let (_, read) = open(&elf.build()).unwrap();
    assert_eq!(read, [segments[2].clone(), segments[0].clone()]);
}

#[test]
fn what_is_wrong_with_a_file_is_told() {
    let elf = |change: fn(&mut Elf)| {
        let mut elf = Elf::default();
        change(&mut elf);
        text(&elf.build())
    };
    assert_eq!(
        elf(|elf| elf.entry = None),
        "kernel has no PVH entry note (Xen, PHYS32_ENTRY): use a kernel with CONFIG_PVH=y, or add \
         the note to the image"
    );
    assert_eq!(
        elf(|elf| elf.machine = 183),
        "kernel is an ELF file for another processor (machine 183): give one for x86"
    );
    let broken =
        |detail| std::format!("kernel is a broken ELF file ({detail}): build or copy it again");
    assert_eq!(
        elf(|elf| elf.entry = Some(vec![1, 2])),
        broken("its PVH entry note holds no 32-bit address")
    );
    assert_eq!(
        elf(|elf| elf.entry = Some(u64::MAX.to_le_bytes().to_vec())),
        broken("its PVH entry note holds no 32-bit address")
    );
    assert_eq!(
        elf(|elf| elf.entry = Some(0x5000_u32.to_le_bytes().to_vec())),
        broken("its PVH entry lies outside of its segments")
    );
    assert_eq!(
        elf(|elf| elf.segments.clear()),
        broken("it has no segment to load")
    );
    assert_eq!(
        elf(|elf| elf.segments.push((LOAD + 0x1fff, vec![], 1))),
        broken("its segments overlap")
    );
    assert_eq!(
        elf(|elf| elf.segments[0].2 = 1),
        broken("a segment is larger in the file than in memory")
    );
    assert_eq!(
        elf(|elf| elf.segments.push((u64::MAX, vec![], 2))),
        broken("a segment ends beyond the address space")
    );
    assert_eq!(
        text(b"#!/bin/sh\n"),
        "kernel is neither an ELF file nor a bzImage: give a Linux vmlinuz or vmlinux, or another \
         ELF file with a PVH entry"
    );
}

#[test]
fn what_is_wrong_with_a_bzimage_is_told() {
    let good = bzimage(&compress_lz4(&Elf::default().build()).unwrap());
    let cut = &good[..good.len() - 100];
    assert_eq!(
        text(cut),
        std::format!(
            "kernel is truncated: its compressed payload ends at byte {}, the file has {}; copy \
             it again",
            good.len() - 16,
            cut.len()
        )
    );
    let mut old = good;
    old[0x206] = 7;
    assert_eq!(
        text(&old),
        "kernel is a bzImage of boot protocol 2.07: at least 2.08 is needed; use a newer kernel"
    );
    assert_eq!(
        text(&bzimage(b"BZh9....")),
        "kernel is a bzImage with an unknown compression (it starts 42 5a 68 39): use one with \
         LZ4, XZ, gzip or zstd"
    );
    assert_eq!(
        text(&bzimage(&compress_lz4(b"no ELF file").unwrap())),
        "kernel does not unpack to an ELF file: give a Linux kernel for x86-64"
    );
}

#[test]
fn what_is_wrong_with_compressed_data_is_told() {
    for (format, payload) in payloads() {
        let size = payload.len();
        let mut large = payload.clone();
        large[size - 4..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(
            text(&large),
            "kernel is corrupt: it claims to unpack to 4294967295 bytes, at most 536870912 can \
             be; copy it again"
        );
        let image = Image::identify(&payload).unwrap();
        let needed = image.scratch_size().unwrap();
        assert_eq!(
            image
                .unpack(&mut [0; 10], HEAP, &mut || ())
                .unwrap_err()
                .to_string(),
            std::format!(
                "not enough memory to unpack the kernel: {format} takes {needed} bytes, 10 are \
                 there; give the machine more memory or let the packer unpack the kernel"
            )
        );
        let mut more = payload.clone();
        more[size - 4] += 1;
        let error = open(&more).unwrap_err();
        assert!(
            matches!(error, KernelError::Unpack(_, UnpackError::WrongSize { .. })),
            "{error}"
        );
        let mut less = payload;
        less[size - 4] -= 1;
        let error = open(&less).unwrap_err();
        assert!(
            matches!(error, KernelError::Unpack(_, UnpackError::Corrupt(_))),
            "{error}"
        );
    }
}

#[test]
fn a_window_beyond_the_heap_is_refused() {
    for payload in [XZ, ZSTD] {
        let error = open_with(payload, 1024).unwrap_err();
        let refused = matches!(error, KernelError::Unpack(_, UnpackError::NoRoom { .. }));
        assert!(refused, "{error}");
    }
}

#[test]
fn lz4_blocks_are_joined() {
    // Two full blocks of the largest size and a bit, hard enough to pack that no block is trivial.
    let mut state = 1u32;
    let noise: Vec<u8> = core::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 {
            0
        } else {
            state.to_le_bytes()[3]
        }
    })
    .take((16 << 20) + 5)
    .collect();
    assert!(noise.len() > 2 * LZ4_BLOCK);
    let packed = compress_lz4(&noise).unwrap();
    let image = Image::identify(&packed).unwrap();
    let mut scratch = vec![0; image.scratch_size().unwrap()];
    let unpacked = image.unpack(&mut scratch, 0, &mut || ());
    assert!(unpacked.unwrap() == noise);
}

#[test]
fn every_truncation_is_an_error() {
    let mut files: Vec<Vec<u8>> = payloads().into_iter().map(|(_, payload)| payload).collect();
    files.push(Elf::default().build());
    files.push(bzimage(&files[0]));
    files.push(bzimage(&files[1]));
    for file in files {
        // A bzImage ends with something that is not the kernel.
        let end = if file.starts_with(&[0; 4]) {
            file.len() - 16
        } else {
            file.len()
        };
        for length in 0..end {
            assert!(open(&file[..length]).is_err(), "{length} of {end}");
        }
    }
}

/// Every `vmlinuz*` below the directory that the environment names.
fn real_kernels() -> Vec<std::path::PathBuf> {
    let root = std::env::var_os("TESSERA_TEST_KERNELS").expect("TESSERA_TEST_KERNELS is not set");
    let mut directories = vec![std::path::PathBuf::from(root)];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                directories.push(path);
            } else if name.starts_with("vmlinuz") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
#[ignore = "needs distribution kernels below TESSERA_TEST_KERNELS; run by cargo xtask test"]
fn real_kernels_are_read() {
    let kernels = real_kernels();
    assert!(!kernels.is_empty(), "no vmlinuz below TESSERA_TEST_KERNELS");
    for path in kernels {
        let file = std::fs::read(&path).unwrap();
        let image = Image::identify(&file).unwrap();
        let mut scratch = vec![0; image.scratch_size().unwrap()];
        // As the packer does: newer ones take more memory than the hypervisor gives.
        let elf = image.unpack(&mut scratch, usize::MAX, &mut || ()).unwrap();
        let kernel = Kernel::parse(elf).unwrap();
        assert!(kernel.segments().len() >= 3, "{}", path.display());
        assert_eq!(kernel.segments()[0].gpa, 0x100_0000, "{}", path.display());
        assert!(kernel.entry() > 0x100_0000, "{}", path.display());

        // What the packer makes of it is the same kernel.
        let packed = compress_lz4(elf).unwrap();
        let image = Image::identify(&packed).unwrap();
        let mut scratch = vec![0; image.scratch_size().unwrap()];
        assert!(
            image.unpack(&mut scratch, 0, &mut || ()).unwrap() == elf,
            "{}",
            path.display()
        );
    }
}

mod hostile {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn changed_files_never_panic(
            which in 0..6usize,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        ) {
            let mut file = match payloads().into_iter().nth(which) {
                Some((_, payload)) => payload,
                None if which == 4 => Elf::default().build(),
                None => bzimage(XZ),
            };
            for (at, value) in changes {
                let at = at.index(file.len());
                file[at] = value;
            }
            let _ = open(&file);
        }

        #[test]
        fn random_data_behind_a_magic_never_panic(
            which in 0..5usize,
            tail in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let magics: [&[u8]; 5] =
                [b"\x7fELF\x02\x01\x01", &XZ[..30], &GZIP[..10], &ZSTD[..4], &[2, 0x21, 0x4c, 0x18]];
            let mut file = magics[which].to_vec();
            file.extend_from_slice(&tail);
            // A plausible size, so that the data themselves are looked at.
            file.extend_from_slice(&5000u32.to_le_bytes());
            let _ = open(&file);
        }

        #[test]
        fn random_header_fields_never_panic(words in prop::collection::vec(any::<u64>(), 7)) {
            // One program header and its contents from random numbers, small ones among them.
            for shift in [0, 20, 40, 56] {
                let mut file = Elf::default().build();
                for (index, word) in words.iter().enumerate() {
                    let at = 64 + index * 8;
                    file[at..at + 8].copy_from_slice(&(word >> shift).to_le_bytes());
                }
                file[64..68].copy_from_slice(&1u32.to_le_bytes());
                let _ = open(&file);
            }
        }
    }
}
