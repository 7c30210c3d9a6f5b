//! A disk's front end, and what the disk holds.
#![expect(
    clippy::cast_possible_truncation,
    reason = "small numbers of the test's own"
)]

use abi::PAGE_SIZE;
use abi::blkif::{
    Request, RequestDiscard, RequestIndirect, Response, SECTOR_SIZE, Segment, op, status,
};
use abi::ring::{ENTRIES, REQ_PROD, RSP_PROD, entries};
use calls::Choice;
use vmm_core::testing::SECTORS;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::front::{Front, Rights, address};
use crate::Input;

/// `xvda`.
const NUMBER: u32 = 51712;
const RING: u64 = 0x21;
const RING_GREF: u32 = 40;
/// Pages that requests move, and their grants.
const PAGES: u64 = 0x30;
const COUNT: usize = 16;
const FIRST_GREF: u32 = 8;
/// Grants of pages that rings are in or that the network interface uses.
pub(super) const FOREIGN: std::ops::Range<u32> = 40..80;
const SLOT: usize = size_of::<Request>();
const SLOTS: u32 = entries(SLOT, PAGE_SIZE) as u32;
const PAGE_SECTORS: usize = PAGE_SIZE / SECTOR_SIZE;
const MAX_INDIRECT: usize = 256;
/// Pages of the whole disk.
const WHOLE: u8 = (SECTORS as usize / PAGE_SECTORS) as u8;

/// The front end, and what must be so.
#[derive(Debug)]
pub(super) struct Disk {
    port: Option<u32>,
    /// Requests that the back end has been shown, and those that are in the ring besides.
    shown: u32,
    queued: u32,
    /// Since it connected the front end has kept to the rules, so that what comes is known.
    fair: bool,
    /// What the disk holds is known.
    known: bool,
    rights: [Rights; COUNT],
    sectors: Vec<u8>,
}

/// The pages that requests move.
type Pages = Vec<u8>;

impl Disk {
    pub(super) fn new(front: &Front<'_>) -> Self {
        for (gref, page) in (FIRST_GREF..).zip(PAGES..).take(COUNT) {
            front.grant(gref, page, Rights::Write);
        }
        front.grant(RING_GREF, RING, Rights::Write);
        Self {
            port: None,
            shown: 0,
            queued: 0,
            fair: false,
            known: true,
            rights: [Rights::Write; COUNT],
            sectors: vec![0; SECTORS as usize * SECTOR_SIZE],
        }
    }

    pub(super) fn step(&mut self, input: &mut Input<'_>, front: &Front<'_>) {
        match input.below(32) {
            0..2 => self.connect(front),
            2 => self.part(input, front),
            3 => self.mislead(input, front),
            4 => self.scribble(input, front),
            5 => self.set_rights(input, front),
            6 => self.change(input, front),
            7..20 => self.queue(input, front),
            _ => self.kick(front),
        }
    }

    fn key(name: &str) -> String {
        format!("device/vbd/{NUMBER}/{name}")
    }

    fn state(front: &Front<'_>) -> u8 {
        front.state_of_back("vbd", NUMBER)
    }

    /// Connects as it should be done, from whatever there was.
    fn connect(&mut self, front: &Front<'_>) {
        front.say(&Self::key("state"), 6);
        front.say(&Self::key("state"), 1);
        assert_eq!(Self::state(front), 2, "the back end waits");
        if let Some(port) = self.port.take() {
            front.close_port(port);
        }
        let port = front.new_port();
        front.write(address(RING), &[0_u8; ENTRIES]);
        for key in ["ring-page-order", "multi-queue-num-queues"] {
            front.forget(&Self::key(key));
        }
        front.say(&Self::key("ring-ref"), RING_GREF);
        front.say(&Self::key("event-channel"), port);
        front.say(&Self::key("protocol"), "x86_64-abi");
        front.say(&Self::key("state"), 3);
        assert_eq!(Self::state(front), 4, "the back end has connected");
        front.say(&Self::key("state"), 4);
        *self = Self {
            port: Some(port),
            shown: 0,
            queued: 0,
            fair: true,
            known: self.known,
            rights: self.rights,
            sectors: std::mem::take(&mut self.sectors),
        };
        if !self.known {
            self.read_all(front);
        }
    }

    /// Whatever the front end does now, the back end may have done anything to the disk.
    fn cheat(&mut self) {
        self.fair = false;
        self.known = false;
    }

    /// Finds out what the disk holds.
    fn read_all(&mut self, front: &Front<'_>) {
        let mut request = Request::new_zeroed();
        request.operation = op::READ;
        request.nr_segments = WHOLE;
        for (page, place) in request.seg.iter_mut().take(WHOLE.into()).enumerate() {
            self.allow(page, Rights::Write, front);
            place.gref = FIRST_GREF + page as u32;
            place.last_sect = 7;
        }
        front.write(Self::slot(self.queued), &request);
        self.queued = self.queued.wrapping_add(1);
        self.fair = false;
        self.kick(front);
        self.fair = true;
        let response: Response = front.read(Self::slot(self.shown.wrapping_sub(1)));
        assert_eq!(response.status, status::OKAY);
        self.sectors = pages(front);
        self.sectors.truncate(SECTORS as usize * SECTOR_SIZE);
        self.known = true;
    }

    fn allow(&mut self, page: usize, rights: Rights, front: &Front<'_>) {
        self.rights[page] = rights;
        let gref = FIRST_GREF + u32::try_from(page).expect("few pages");
        front.grant(gref, PAGES + page as u64, rights);
    }

    /// Says some state, whatever it is time for.
    fn part(&mut self, input: &mut Input<'_>, front: &Front<'_>) {
        self.cheat();
        front.say(&Self::key("state"), input.below(10));
    }

    /// Says something that is not so, or closes the port.
    fn mislead(&mut self, input: &mut Input<'_>, front: &Front<'_>) {
        const KEYS: [&str; 6] = [
            "ring-ref",
            "event-channel",
            "protocol",
            "ring-page-order",
            "multi-queue-num-queues",
            "ring-ref0",
        ];
        let choice = input.index(KEYS.len() + 1);
        match KEYS.get(choice) {
            Some(key) if input.flip() => front.say(&Self::key(key), input.below(FOREIGN.start)),
            Some(key) => front.say(&Self::key(key), input.any()),
            None => {
                self.cheat();
                if let Some(port) = self.port.take() {
                    front.close_port(port);
                }
            }
        }
    }

    /// Writes anything into the ring.
    fn scribble(&mut self, input: &mut Input<'_>, front: &Front<'_>) {
        self.cheat();
        let (at, word) = if input.flip() {
            let index = match input.below(4) {
                0 => self.shown.wrapping_add(SLOTS + 1),
                1 => self.shown.wrapping_sub(1),
                2 => self.shown.wrapping_add(input.below(SLOTS)),
                _ => input.below(u32::MAX),
            };
            (input.below(4) * 4, index)
        } else {
            // No grant of a page that another device uses.
            (input.below(1024) * 4, input.below(FOREIGN.start))
        };
        front.write(address(RING) + u64::from(at), &word);
    }

    fn set_rights(&mut self, input: &mut Input<'_>, front: &Front<'_>) {
        let page = input.index(COUNT);
        let rights = [Rights::None, Rights::Read, Rights::Write, Rights::Write];
        let rights = rights[input.index(rights.len())];
        self.allow(page, rights, front);
    }

    /// Where a request lies.
    fn slot(index: u32) -> u64 {
        address(RING) + (ENTRIES + (index % SLOTS) as usize * SLOT) as u64
    }

    fn queue(&mut self, input: &mut Input<'_>, front: &Front<'_>) {
        if self.queued.wrapping_sub(self.shown) < SLOTS {
            front.write(Self::slot(self.queued), &request(input, front));
            self.queued = self.queued.wrapping_add(1);
        }
    }

    /// Changes a request that is in the ring.
    fn change(&mut self, input: &mut Input<'_>, front: &Front<'_>) {
        let waiting = self.queued.wrapping_sub(self.shown);
        if waiting != 0 {
            let slot = Self::slot(self.shown.wrapping_add(input.below(waiting)));
            let at = u64::from(input.below(SLOT as u32));
            let before: [u8; SLOT] = front.read(slot);
            front.write(slot + at, &input.bytes::<1>());
            let words: [u32; SLOT / 4] = front.read(slot);
            if words.iter().any(|word| FOREIGN.contains(word)) {
                // What becomes of a page that another device uses nobody foresees.
                front.write(slot, &before);
            }
        }
    }

    /// Shows the back end what is queued, and compares what it makes of that.
    fn kick(&mut self, front: &Front<'_>) {
        let Some(port) = self.port else { return };
        let waiting: Vec<[u8; SLOT]> = (self.shown..self.queued)
            .map(|index| front.read(Self::slot(index)))
            .collect();
        let mut pages = pages(front);
        front.write(address(RING) + REQ_PROD as u64, &self.queued);
        front.send(port);
        let first = std::mem::replace(&mut self.shown, self.queued);
        if !self.fair {
            return;
        }
        let answered: u32 = front.read(address(RING) + RSP_PROD as u64);
        assert_eq!(answered, self.shown, "every request is answered");
        for (index, request) in (first..).zip(&waiting) {
            let (id, operation, status) = self.carry_out(request, &mut pages);
            let response: Response = front.read(Self::slot(index));
            assert_eq!(
                (response.id, response.operation, response.status),
                (id, operation, status),
                "{request:x?}"
            );
        }
        assert!(pages == self::pages(front), "what was read: {waiting:x?}");
    }

    /// The page that a grant names, if it may be used so.
    fn page(&self, gref: u32, write: bool) -> Option<usize> {
        let page = gref.checked_sub(FIRST_GREF)? as usize;
        let good = match self.rights.get(page)? {
            Rights::None => false,
            Rights::Read => !write,
            Rights::Write => true,
        };
        good.then_some(page)
    }

    /// What the back end is to answer; the pages and the disk are then as they are to be.
    fn carry_out(&mut self, bytes: &[u8; SLOT], pages: &mut Pages) -> (u64, u8, i16) {
        let request = Request::read_from_bytes(bytes).expect("its size");
        let Request {
            operation,
            nr_segments: detail,
            id,
            sector_number: sector,
            ..
        } = request;
        let status = match operation {
            op::DISCARD if detail & 1 != 0 => status::EOPNOTSUPP,
            op::DISCARD => {
                let (discard, _) = RequestDiscard::read_from_prefix(bytes).expect("its size");
                self.discard(sector, discard.nr_sectors)
            }
            op::INDIRECT if !matches!(detail, op::READ | op::WRITE) => status::EOPNOTSUPP,
            op::INDIRECT => {
                let (indirect, _) = RequestIndirect::read_from_prefix(bytes).expect("its size");
                let done = self
                    .segments(&indirect, pages)
                    .and_then(|segments| self.transfer(detail, sector, &segments, pages));
                done.map_or(status::ERROR, |()| status::OKAY)
            }
            op::READ | op::WRITE | op::WRITE_BARRIER | op::FLUSH_DISKCACHE => {
                let segments = request.seg.get(..detail.into());
                let done = segments.and_then(|segs| self.transfer(operation, sector, segs, pages));
                done.map_or(status::ERROR, |()| status::OKAY)
            }
            _ => status::EOPNOTSUPP,
        };
        let said = if operation == op::INDIRECT {
            detail
        } else {
            operation
        };
        (id, said, status)
    }

    fn segments(&self, request: &RequestIndirect, pages: &Pages) -> Option<Vec<Segment>> {
        let count = usize::from(request.nr_segments);
        if count > MAX_INDIRECT {
            return None;
        }
        let page = self.page(request.indirect_grefs[0], false)?;
        let bytes = pages[page * PAGE_SIZE..].chunks_exact(size_of::<Segment>());
        let segments = bytes.map(|bytes| Segment::read_from_bytes(bytes).expect("its size"));
        Some(segments.take(count).collect())
    }

    /// Zeroes the pages of the disk that lie in a range.
    fn discard(&mut self, sector: u64, count: u64) -> i16 {
        let end = sector.checked_add(count).filter(|&end| end <= SECTORS);
        let Some(end) = end else {
            return status::ERROR;
        };
        let [first, last] = [sector.div_ceil(8), end / 8].map(|page| page as usize * PAGE_SIZE);
        if first < last {
            self.sectors[first..last].fill(0);
        }
        status::OKAY
    }

    fn transfer(
        &mut self,
        operation: u8,
        sector: u64,
        segments: &[Segment],
        pages: &mut Pages,
    ) -> Option<()> {
        let inside = |segment: &Segment| {
            segment.first_sect <= segment.last_sect && usize::from(segment.last_sect) < PAGE_SECTORS
        };
        if !segments.iter().all(inside) {
            return None;
        }
        let length = |segment: &Segment| u64::from(segment.last_sect - segment.first_sect) + 1;
        let count: u64 = segments.iter().map(length).sum();
        if count == 0 {
            return matches!(operation, op::WRITE_BARRIER | op::FLUSH_DISKCACHE).then_some(());
        }
        sector.checked_add(count).filter(|&end| end <= SECTORS)?;
        let mut on_disk = sector as usize * SECTOR_SIZE;
        for segment in segments {
            let reads = operation == op::READ;
            let page = self.page(segment.gref, reads)?;
            let size = length(segment) as usize * SECTOR_SIZE;
            let start = page * PAGE_SIZE + usize::from(segment.first_sect) * SECTOR_SIZE;
            let (memory, disk) = (start..start + size, on_disk..on_disk + size);
            if reads {
                pages[memory].copy_from_slice(&self.sectors[disk]);
            } else {
                self.sectors[disk].copy_from_slice(&pages[memory]);
            }
            on_disk += size;
        }
        Some(())
    }
}

fn pages(front: &Front<'_>) -> Pages {
    let mut pages = vec![0; COUNT * PAGE_SIZE];
    assert!(front.guest.read(address(PAGES), &mut pages));
    pages
}

/// A grant that a request names: mostly one that is there.
fn gref(input: &mut Input<'_>) -> u32 {
    match input.below(16) {
        0 => input.below(FOREIGN.start),
        1 => FOREIGN.end + input.below(u32::MAX - FOREIGN.end),
        _ => FIRST_GREF + input.below(COUNT as u32),
    }
}

fn segment(input: &mut Input<'_>) -> Segment {
    let mut segment = Segment::new_zeroed();
    segment.gref = gref(input);
    let [first, last] = [input.below(8), input.below(8)].map(|it| u8::try_from(it).expect("few"));
    let swap = first > last && input.below(8) != 0;
    (segment.first_sect, segment.last_sect) = if swap { (last, first) } else { (first, last) };
    match input.below(64) {
        0 => [segment.last_sect] = input.bytes(),
        1 => segment.last_sect = 8,
        _ => {}
    }
    segment
}

fn sector(input: &mut Input<'_>) -> u64 {
    match input.below(16) {
        0 => input.any(),
        1 => u64::MAX - u64::from(input.below(8)),
        _ => input.below(SECTORS as u32).into(),
    }
}

/// A request, mostly one that makes sense; what its segments' pages hold is chosen anew.
fn request(input: &mut Input<'_>, front: &Front<'_>) -> [u8; SLOT] {
    let mut bytes = [0; SLOT];
    let operation = [op::READ, op::WRITE, op::READ, op::WRITE, 2, 3, 4, 5, 6, 7];
    let operation = operation[input.index(operation.len())];
    let id = input.any();
    match operation {
        op::DISCARD => {
            let mut request = RequestDiscard::new_zeroed();
            request.operation = operation;
            request.flag = u8::from(input.below(8) == 0);
            request.id = id;
            request.sector_number = sector(input);
            request.nr_sectors = sector(input);
            bytes[..size_of::<RequestDiscard>()].copy_from_slice(request.as_bytes());
        }
        op::INDIRECT => {
            let mut request = RequestIndirect::new_zeroed();
            request.operation = operation;
            request.indirect_op = u8::try_from(input.below(3)).expect("few");
            request.nr_segments = u16::try_from(input.below(40)).expect("few");
            if input.below(16) == 0 {
                request.nr_segments = u16::from_le_bytes(input.bytes());
            }
            request.id = id;
            request.sector_number = sector(input) / 2;
            let page = input.below(COUNT as u32);
            request.indirect_grefs[0] = FIRST_GREF + page;
            for index in 0..u64::from(request.nr_segments.min(40)) {
                let at = address(PAGES + u64::from(page)) + index * 8;
                front.write(at, &segment(input));
            }
            bytes[..size_of::<RequestIndirect>()].copy_from_slice(request.as_bytes());
        }
        _ => {
            let mut request = Request::new_zeroed();
            request.operation = operation;
            let count = if input.flip() {
                input.below(13)
            } else {
                1 + input.below(2)
            };
            request.nr_segments = u8::try_from(count).expect("few");
            request.id = id;
            request.sector_number = sector(input);
            for place in request.seg.iter_mut().take(count as usize) {
                *place = segment(input);
                let page = place.gref.wrapping_sub(FIRST_GREF);
                if operation == op::WRITE && page < COUNT as u32 {
                    let at = address(PAGES + u64::from(page)) + u64::from(input.below(4096 - 8));
                    front.write(at, &input.any());
                }
            }
            bytes.copy_from_slice(request.as_bytes());
        }
    }
    bytes
}
