//! A frame in its sender's pages.

use core::ops::Range;

use abi::netif::{MIN_SLOTS, extra};
use abi::{GrantRef, PAGE_SIZE};
use heapless::Vec;

use crate::grants::Grants;
use crate::shared_page::SharedPage;

/// The first bytes of a frame, which are copied when it is taken.
pub const HEAD: usize = 128;
/// The shortest frame: an Ethernet header.
pub const MIN_FRAME: usize = 14;
/// The longest frame that a transmit request can describe.
pub const MAX_FRAME: usize = 65535;

/// Bytes in one page of the sender's, inside it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) gref: GrantRef,
    pub(super) offset: u16,
    pub(super) len: u16,
}

impl Piece {
    /// `None` for bytes that leave the page.
    pub(super) fn new(gref: u32, offset: u16, len: u16) -> Option<Self> {
        let inside = usize::from(offset).saturating_add(len.into()) <= PAGE_SIZE;
        inside.then_some(Self {
            gref: GrantRef(gref),
            offset,
            len,
        })
    }
}

/// How somebody else is to cut a long frame into segments (`XEN_NETIF_EXTRA_TYPE_GSO`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gso {
    /// Bytes of payload in a segment.
    pub size: u16,
    /// TCP over IPv6, if not over IPv4.
    pub is_ipv6: bool,
}

impl Gso {
    /// Reads what the extra information says; `None` for what nobody can do.
    pub(super) fn parse(data: [u8; 6]) -> Option<Self> {
        let [low, high, kind, ..] = data;
        let size = u16::from_le_bytes([low, high]);
        let is_ipv6 = match kind {
            extra::GSO_TCPV4 => false,
            extra::GSO_TCPV6 => true,
            _ => return None,
        };
        (size != 0).then_some(Self { size, is_ipv6 })
    }

    pub(super) const fn data(self) -> [u8; 6] {
        let [low, high] = self.size.to_le_bytes();
        let kind = if self.is_ipv6 {
            extra::GSO_TCPV6
        } else {
            extra::GSO_TCPV4
        };
        [low, high, kind, 0, 0, 0]
    }
}

/// A frame: its first bytes, copied, and the pages with the rest.
#[derive(Debug)]
pub struct Frame {
    pub(super) head: [u8; HEAD],
    pub(super) len: usize,
    pub(super) pieces: Vec<Piece, MIN_SLOTS>,
    /// The checksum of the transport header covers the pseudo header only.
    pub(super) checksum_is_blank: bool,
    /// The checksum need not be looked at.
    pub(super) is_validated: bool,
    pub(super) gso: Option<Gso>,
}

impl Frame {
    /// Nothing yet.
    pub(super) const fn new() -> Self {
        Self {
            head: [0; HEAD],
            len: 0,
            pieces: Vec::new(),
            checksum_is_blank: false,
            is_validated: false,
            gso: None,
        }
    }

    /// A frame of one piece of a page that `grants` has behind `gref`; `None` if it cannot be.
    #[must_use]
    pub fn whole(gref: GrantRef, offset: u16, len: u16, grants: &impl Grants) -> Option<Self> {
        let mut frame = Self::new();
        frame.len = len.into();
        let piece = Piece::new(gref.0, offset, len)?;
        frame.pieces.push(piece).ok()?;
        (frame.len >= MIN_FRAME).then_some(())?;
        frame.copy_head(grants)?;
        Some(frame)
    }

    /// How it is to be cut into segments, if it is.
    #[must_use]
    pub const fn gso(&self) -> Option<Gso> {
        self.gso
    }

    /// Whether the checksum of the transport header is left to others.
    #[must_use]
    pub const fn checksum_is_blank(&self) -> bool {
        self.checksum_is_blank
    }

    /// Copies the bytes of a range of it to `offset` in a page that has room for them; `None` when
    /// it has no such bytes, or a page of the sender's is not granted any more.
    #[must_use]
    pub fn copy_range(
        &self,
        range: Range<usize>,
        page: &SharedPage,
        offset: usize,
        sender: &impl Grants,
    ) -> Option<()> {
        let len = range.len();
        let mut cursor = Cursor::default();
        while cursor.at < range.start {
            let piece = self.pieces.get(cursor.piece)?;
            let step = usize::from(piece.len).min(range.start.saturating_sub(cursor.at));
            cursor.advance(step);
            if cursor.at < range.start {
                cursor.next_piece();
            }
        }
        self.copy(&mut cursor, len, (page, offset), sender)
    }

    /// Its length in bytes, [`MIN_FRAME`] to [`MAX_FRAME`].
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// False: there is no frame of no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first bytes, as they will be delivered.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.head.get(..self.len.min(HEAD)).unwrap_or(&self.head)
    }

    /// Copies the first bytes from the sender's pages; `None` when one is not granted.
    pub(super) fn copy_head(&mut self, grants: &impl Grants) -> Option<()> {
        let wanted = self.len.min(HEAD);
        let mut rest = self.head.get_mut(..wanted)?;
        for piece in &self.pieces {
            let len = rest.len().min(piece.len.into());
            if len == 0 {
                continue;
            }
            let (now, later) = core::mem::take(&mut rest).split_at_mut(len);
            grants.with_page(piece.gref, false, |page| {
                page.read(piece.offset.into(), now)
            })?;
            rest = later;
        }
        Some(())
    }

    /// Copies `len` bytes from the place of `cursor` on to an offset in a page, and moves the
    /// cursor behind them; `None` when a page of the sender's is not granted any more.
    pub(super) fn copy(
        &self,
        cursor: &mut Cursor,
        len: usize,
        (page, offset): (&SharedPage, usize),
        sender: &impl Grants,
    ) -> Option<()> {
        let mut done: usize = 0;
        while done < len {
            let piece = self.pieces.get(cursor.piece)?;
            let left = usize::from(piece.len).saturating_sub(cursor.offset);
            if left == 0 {
                cursor.next_piece();
                continue;
            }
            // Never what was looked at: that was copied.
            let head = self.head().get(cursor.at..).unwrap_or_default();
            let mut now = left.min(len.saturating_sub(done));
            if head.is_empty() {
                let from = usize::from(piece.offset).saturating_add(cursor.offset);
                sender.with_page(piece.gref, false, |source| {
                    page.copy_from(offset.saturating_add(done), source, from, now);
                })?;
            } else {
                now = now.min(head.len());
                page.write(offset.saturating_add(done), head.get(..now)?);
            }
            cursor.advance(now);
            done = done.saturating_add(now);
        }
        Some(())
    }
}

/// A place in a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// Bytes before it.
    at: usize,
    /// The piece that it is in, and bytes of that before it.
    piece: usize,
    offset: usize,
}

impl Cursor {
    const fn advance(&mut self, len: usize) {
        self.at = self.at.saturating_add(len);
        self.offset = self.offset.saturating_add(len);
    }

    const fn next_piece(&mut self) {
        self.piece = self.piece.saturating_add(1);
        self.offset = 0;
    }
}
