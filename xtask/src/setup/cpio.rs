//! Writes cpio archives in the "newc" format, the one Linux unpacks as an initramfs.
//!
//! All times, owners and inode numbers are fixed, so equal input gives equal bytes.

/// An archive under construction.
#[derive(Debug, Default)]
pub(super) struct Cpio {
    bytes: Vec<u8>,
    inode: u32,
}

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

impl Cpio {
    /// Adds a directory, mode 755. A directory comes before what is in it.
    pub(super) fn directory(&mut self, name: &str) {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a regular file with permission bits `mode`.
    pub(super) fn file(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entry(name, REGULAR | mode, (0, 0), data);
    }

    /// Adds a symbolic link.
    pub(super) fn symlink(&mut self, name: &str, target: &str) {
        self.entry(name, SYMLINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device node, mode 600.
    pub(super) fn character_device(&mut self, name: &str, major: u32, minor: u32) {
        self.entry(name, CHARACTER | 0o600, (major, minor), &[]);
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        let padded = self.bytes.len().next_multiple_of(512);
        self.bytes.resize(padded, 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.inode = self.inode.saturating_add(1);
        let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len().saturating_add(1)).unwrap_or(u32::MAX);
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        self.bytes.extend_from_slice(b"070701");
        for field in [
            self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ] {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Cpio;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn sample() -> Vec<u8> {
        let mut cpio = Cpio::default();
        cpio.directory("dev");
        cpio.character_device("dev/console", 5, 1);
        cpio.file("init", 0o755, b"#!/bin/sh\n");
        cpio.symlink("sh", "init");
        cpio.finish()
    }

    #[test]
    fn every_header_starts_on_a_word() {
        let bytes = sample();
        assert_eq!(bytes.len() % 512, 0);
        let starts: Vec<usize> = (0..bytes.len() - 6)
            .filter(|&at| &bytes[at..at + 6] == b"070701")
            .collect();
        assert_eq!(starts.len(), 5);
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
    }

    #[test]
    fn fields_are_where_the_format_puts_them() {
        let mut cpio = Cpio::default();
        cpio.file("ab", 0o644, b"xyz");
        let bytes = cpio.finish();
        let field = |n: usize| {
            let at = 6 + 8 * n;
            u32::from_str_radix(core::str::from_utf8(&bytes[at..at + 8]).unwrap(), 16).unwrap()
        };
        assert_eq!(field(1), 0o100_644);
        assert_eq!(field(6), 3);
        assert_eq!(field(11), 3);
        assert_eq!(&bytes[110..113], b"ab\0");
        assert_eq!(&bytes[116..119], b"xyz");
    }

    /// Another implementation reads the same entries, where one is installed.
    #[test]
    fn busybox_lists_it() {
        let Ok(mut child) = Command::new("busybox")
            .args(["cpio", "-t"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
        else {
            return;
        };
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"dev\ndev/console\ninit\nsh\n");
    }
}
