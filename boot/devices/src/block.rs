//! Requests to a disk, and the row in which they wait.

use alloc::collections::VecDeque;

/// The most requests that are carried out as one.
pub const MAX_BATCH: usize = 32;
/// How far the row is searched for a request that goes on where another ends.
const LOOK_AHEAD: usize = 64;

/// Bytes in a sector.
pub const SECTOR_SIZE: u64 = 512;

/// A piece of memory in the device's address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first byte.
    pub address: u64,
    /// How many, at least one.
    pub len: u32,
}

/// What a request's data goes to or comes from.
pub trait Buffers {
    /// The pieces, in order; whole sectors together.
    fn spans(&self) -> impl Iterator<Item = Span>;
}

/// What is done with the data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the disk.
    Read,
    /// To the disk.
    Write,
}

/// The disk could not do it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failed;

/// A request. It is done in this order: flush, data, flush; what is not asked for is left out.
#[derive(Debug)]
pub struct Request<T> {
    /// Which of the disks behind one controller.
    pub disk: u8,
    /// All that was written before is on the medium before the data is written.
    pub flush_before: bool,
    /// Which way the data goes.
    pub direction: Direction,
    /// The first sector.
    pub sector: u64,
    /// How many sectors; 0 without data.
    pub sectors: u32,
    /// What is written is on the medium when the request is done.
    pub flush_after: bool,
    /// Whose it is, and its memory.
    pub token: T,
}

/// What the device is to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// Bring all that it has on the medium.
    Flush,
    /// Move so many sectors.
    Transfer {
        direction: Direction,
        sector: u64,
        sectors: u32,
    },
}

impl<T> Request<T> {
    const fn work(&self) -> Option<Work> {
        if self.flush_before {
            Some(Work::Flush)
        } else if self.sectors != 0 {
            Some(Work::Transfer {
                direction: self.direction,
                sector: self.sector,
                sectors: self.sectors,
            })
        } else if self.flush_after {
            Some(Work::Flush)
        } else {
            None
        }
    }

    /// Takes note that the next of its steps is done; true when it was the last.
    const fn advance(&mut self) -> bool {
        if self.flush_before {
            self.flush_before = false;
        } else if self.sectors != 0 {
            self.sectors = 0;
        } else {
            self.flush_after = false;
        }
        self.work().is_none()
    }

    /// True when all of it is one transfer, that others may pass.
    const fn is_plain(&self) -> bool {
        !self.flush_before && !self.flush_after && self.sectors != 0
    }
}

/// Requests that are carried out as one.
pub(crate) type Batch<T> = heapless::Vec<Request<T>, MAX_BATCH>;

/// What became of some requests.
#[derive(Debug)]
#[must_use = "somebody waits for them"]
pub struct Done<T> {
    /// The requests.
    pub requests: heapless::Vec<Request<T>, MAX_BATCH>,
    /// How they went.
    pub result: Result<(), Failed>,
}

/// The limits of one command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) sectors: u32,
    pub(crate) spans: usize,
}

/// Requests that wait.
#[derive(Debug)]
pub(crate) struct Row<T>(VecDeque<Waiting<T>>);

#[derive(Debug)]
struct Waiting<T> {
    request: Request<T>,
    /// It has failed once, perhaps for another's sake, and goes alone now.
    again: bool,
}

impl<T: Buffers> Row<T> {
    pub(crate) const fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a request at the end; gives it back when there is no memory.
    pub(crate) fn push(&mut self, request: Request<T>) -> Result<(), Request<T>> {
        if self.0.try_reserve(1).is_err() {
            return Err(request);
        }
        self.0.push_back(Waiting {
            request,
            again: false,
        });
        Ok(())
    }

    /// Takes the first request, and those that go on where it ends and fit into the same command.
    /// None passes one that flushes. Says also whether it is their second try.
    pub(crate) fn next(&mut self, limits: Limits) -> Option<(Batch<T>, Work, bool)> {
        let mut batch = Batch::new();
        let Waiting {
            request: first,
            again,
        } = self.0.pop_front()?;
        let (disk, plain) = (first.disk, first.is_plain() && !again);
        let mut work = first.work().unwrap_or(Work::Flush);
        let mut spans = first.token.spans().count();
        // There is room for one.
        let _ = batch.push(first);
        let Work::Transfer {
            direction,
            sector,
            sectors,
        } = &mut work
        else {
            self.trim();
            return Some((batch, work, again));
        };
        let mut at = 0;
        for _ in 0..LOOK_AHEAD {
            let Some(other) = self.0.get(at).filter(|_| plain && !batch.is_full()) else {
                break;
            };
            let Waiting {
                request: other,
                again: false,
            } = other
            else {
                break;
            };
            if !other.is_plain() {
                break;
            }
            let total = sectors.saturating_add(other.sectors);
            let all_spans = spans.saturating_add(other.token.spans().count());
            let follows = other.disk == disk
                && other.direction == *direction
                && sector.checked_add(u64::from(*sectors)) == Some(other.sector);
            if follows && total <= limits.sectors && all_spans <= limits.spans {
                (*sectors, spans) = (total, all_spans);
                if let Some(other) = self.0.remove(at) {
                    let _ = batch.push(other.request);
                }
            } else {
                at = at.saturating_add(1);
            }
        }
        self.trim();
        Some((batch, work, again))
    }

    /// Gives memory back that a rush of requests took.
    fn trim(&mut self) {
        if self.0.is_empty() && self.0.capacity() > LOOK_AHEAD {
            self.0 = VecDeque::new();
        }
    }

    /// Puts back what has steps left, and gives the others back, which are done.
    pub(crate) fn advance(&mut self, batch: Batch<T>) -> Option<Done<T>> {
        let mut requests = Batch::new();
        for mut request in batch {
            if request.advance() {
                let _ = requests.push(request);
            } else {
                // It came from here, so there is room.
                let again = false;
                self.0.push_front(Waiting { request, again });
            }
        }
        (!requests.is_empty()).then_some(Done {
            requests,
            result: Ok(()),
        })
    }

    /// Puts back, for a second try, what has failed.
    pub(crate) fn repeat(&mut self, batch: Batch<T>) {
        for request in batch.into_iter().rev() {
            // It came from here, so there is room.
            let again = true;
            self.0.push_front(Waiting { request, again });
        }
    }

    /// Takes some requests that nothing becomes of.
    pub(crate) fn fail(&mut self) -> Option<Done<T>> {
        let mut requests = Batch::new();
        while !requests.is_full() {
            let Some(waiting) = self.0.pop_front() else {
                break;
            };
            let _ = requests.push(waiting.request);
        }
        (!requests.is_empty()).then_some(Done {
            requests,
            result: Err(Failed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffers, Direction, Limits, Request, Row, Span, Work};
    use std::vec::Vec;

    struct Pages(usize);

    impl Buffers for Pages {
        fn spans(&self) -> impl Iterator<Item = Span> {
            (0..self.0).map(|_| Span {
                address: 0x1000,
                len: 512,
            })
        }
    }

    fn request(direction: Direction, sector: u64, sectors: u32) -> Request<Pages> {
        Request {
            disk: 0,
            flush_before: false,
            direction,
            sector,
            sectors,
            flush_after: false,
            token: Pages(sectors as usize),
        }
    }

    const LIMITS: Limits = Limits {
        sectors: 20,
        spans: 20,
    };

    fn row(requests: impl IntoIterator<Item = Request<Pages>>) -> Row<Pages> {
        let mut row = Row::new();
        for request in requests {
            assert!(row.push(request).is_ok());
        }
        row
    }

    fn sectors(row: &mut Row<Pages>) -> Vec<(u64, u32, usize)> {
        let mut all = Vec::new();
        while let Some((batch, work, _)) = row.next(LIMITS) {
            match work {
                Work::Transfer {
                    sector, sectors, ..
                } => all.push((sector, sectors, batch.len())),
                Work::Flush => all.push((u64::MAX, 0, batch.len())),
            }
            let _ = row.advance(batch);
        }
        all
    }

    #[test]
    fn what_follows_in_sectors_goes_in_one_command() {
        use Direction::{Read, Write};
        let mut row = row([
            request(Read, 0, 8),
            request(Read, 100, 8),
            request(Read, 8, 8),
            request(Write, 16, 2),
            request(Read, 16, 8),
            request(Read, 16, 4),
        ]);
        // The fifth would be too long, the sixth is not.
        let wanted = [(0, 20, 3), (100, 8, 1), (16, 2, 1), (16, 8, 1)];
        assert_eq!(sectors(&mut row), wanted);
    }

    #[test]
    fn disks_are_kept_apart() {
        let mut other = request(Direction::Read, 8, 8);
        other.disk = 1;
        let mut row = row([request(Direction::Read, 0, 8), other]);
        assert_eq!(sectors(&mut row), [(0, 8, 1), (8, 8, 1)]);
    }

    #[test]
    fn a_flush_comes_before_and_after_and_is_not_passed() {
        use Direction::Write;
        let mut barrier = request(Write, 8, 8);
        (barrier.flush_before, barrier.flush_after) = (true, true);
        let mut row = row([request(Write, 0, 8), barrier, request(Write, 8, 8)]);
        let flush = (u64::MAX, 0, 1);
        let wanted = [(0, 8, 1), flush, (8, 8, 1), flush, (8, 8, 1)];
        assert_eq!(sectors(&mut row), wanted);
        assert!(row.is_empty());
    }

    #[test]
    fn what_fails_comes_back_in_order() {
        let mut row = row((0..40).map(|at| request(Direction::Read, at, 1)));
        let mut seen = Vec::new();
        while let Some(done) = row.fail() {
            assert!(done.result.is_err());
            seen.extend(done.requests.iter().map(|request| request.sector));
        }
        assert_eq!(seen, (0..40).collect::<Vec<_>>());
    }
}
