//! The values of arguments, field by field.

use super::{Choice, Places};

/// Writes a structure as a compiler lays it out.
pub(super) struct Writer<'a> {
    bytes: &'a mut [u8],
    pub(super) at: usize,
    wide: bool,
}

impl<'a> Writer<'a> {
    pub(super) const fn new(bytes: &'a mut [u8], wide: bool) -> Self {
        Self { bytes, at: 0, wide }
    }

    /// A number in so many bytes, aligned to `align`; lost where there is no room.
    fn put(&mut self, value: u64, size: usize, align: usize) {
        self.at = self.at.next_multiple_of(align);
        let end = self.at.saturating_add(size);
        let value = value.to_le_bytes();
        if let (Some(room), Some(value)) = (self.bytes.get_mut(self.at..end), value.get(..size)) {
            room.copy_from_slice(value);
        }
        self.at = end;
    }

    /// A number of the caller's own width.
    pub(super) fn long(&mut self, value: u64) {
        let size = if self.wide { 8 } else { 4 };
        self.put(value, size, size);
    }

    /// A structure of these fields (see [`super::Shape::fields`]).
    pub(super) fn structure(
        &mut self,
        choice: &mut impl Choice,
        places: &Places,
        at: u64,
        fields: &str,
    ) {
        let quad = if self.wide { 8 } else { 4 };
        let align = if fields.contains(['G', 'A', 'q']) || fields.contains(['a', 'g', 'k', 'l']) {
            quad
        } else {
            4
        };
        self.at = self.at.next_multiple_of(align);
        for field in fields.bytes() {
            match field {
                b'd' => self.put(domain(choice, places).into(), 2, 2),
                b'h' => self.put(small(choice).into(), 2, 2),
                b'e' => self.put(offset(choice).into(), 2, 2),
                b'b' => self.put(choice.any(), 1, 1),
                b'p' => self.put(choice.below(12).into(), 4, 4),
                b'v' => self.put(vcpu(choice, places).into(), 4, 4),
                b'n' => self.put(small(choice).into(), 4, 4),
                b'i' => self.put(choice.below(40).into(), 4, 4),
                b'o' => self.put(offset(choice).into(), 4, 4),
                b'r' => self.put(choice.below(12).into(), 4, 4),
                b'x' => self.put(word(choice, places), 4, 4),
                b'l' => self.long(small(choice).into()),
                b'|' => self.at = self.at.next_multiple_of(quad),
                b'k' => self.long(index_or_frame(choice, places)),
                b'g' => self.long(frame(choice, places)),
                b'G' => self.put(frame(choice, places), 8, quad),
                b'a' => self.long(pointer(choice, places, at)),
                b'A' => self.put(address(choice, places), 8, quad),
                _ => self.put(word(choice, places), 8, quad),
            }
        }
    }
}

/// A number that counts or selects something.
pub(super) fn small(choice: &mut impl Choice) -> u32 {
    match choice.below(16) {
        0 => low(choice.any()),
        _ => choice.below(9),
    }
}

fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn domain(choice: &mut impl Choice, places: &Places) -> u16 {
    let [a, b, c] = places.domains;
    match choice.below(12) {
        0..=3 => abi::DomId::SELF.0,
        4..=5 => a,
        6..=8 => b,
        9 => c,
        10 => 0,
        _ => {
            let [low, high, ..] = choice.any().to_le_bytes();
            u16::from_le_bytes([low, high])
        }
    }
}

pub(super) fn vcpu(choice: &mut impl Choice, places: &Places) -> u32 {
    match choice.below(8) {
        0 => small(choice),
        _ => choice.below(places.vcpus.max(1)),
    }
}

/// An offset in a page, or about that.
fn offset(choice: &mut impl Choice) -> u32 {
    match choice.below(8) {
        0 => low(choice.any()),
        1 => 4096 - 8 * choice.below(16),
        _ => 8 * choice.below(64),
    }
}

/// A guest frame number, or the number of something else that frames are named by.
fn frame(choice: &mut impl Choice, places: &Places) -> u64 {
    let near = u64::from(choice.below(16));
    match choice.below(16) {
        0 => choice.any(),
        1 => u64::MAX,
        2 => abi::memory::GRANT_TABLE_STATUS | near & 3,
        3..=8 => places.hole.wrapping_add(near),
        _ => places.ram.wrapping_add(near),
    }
}

/// The number of a frame of the guest's, of one of a table's, or of a grant.
fn index_or_frame(choice: &mut impl Choice, places: &Places) -> u64 {
    if choice.below(2) == 0 {
        choice.below(12).into()
    } else {
        frame(choice, places)
    }
}

/// An address in such a frame.
fn address(choice: &mut impl Choice, places: &Places) -> u64 {
    let page = frame(choice, places) << 12;
    match choice.below(4) {
        0 => page.wrapping_add(offset(choice).into()),
        _ => page,
    }
}

/// A pointer to the call's own bytes, or to where a careful caller has none.
pub(super) fn pointer(choice: &mut impl Choice, places: &Places, at: u64) -> u64 {
    match choice.below(32) {
        0 => choice.any(),
        1 => 0,
        2 => places.absent,
        3 => places.absent.wrapping_sub(u64::from(choice.below(64))),
        4 => address(choice, places),
        5 => (at | 0xfff).wrapping_sub(u64::from(choice.below(32))),
        _ => at,
    }
}

/// A number of which nothing is known.
pub(super) fn word(choice: &mut impl Choice, places: &Places) -> u64 {
    match choice.below(8) {
        0 => 1 << (24 + choice.below(40)),
        1 => u64::MAX << choice.below(64),
        2 => choice.any(),
        3 => pointer(choice, places, places.argument),
        4 => frame(choice, places),
        _ => small(choice).into(),
    }
}
