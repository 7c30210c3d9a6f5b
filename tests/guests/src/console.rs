//! Where a micro-guest writes: the console ring of its domain; without one, the hypervisor's
//! own console; outside any hypervisor, the emulators' debug port 0xe9.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use abi::{EvtchnPort, Gfn};
use heapless::String;
use pv_drivers::console::Client;
use pv_drivers::guest::sched;

use crate::{cpu, memory, xen};

/// Bytes of one line; longer ones come out in parts.
const LINE: usize = 256;

/// The ring's frame, 0 without a ring.
static FRAME: AtomicU64 = AtomicU64::new(0);
static PORT: AtomicU32 = AtomicU32::new(0);
static ON_XEN: AtomicBool = AtomicBool::new(false);
static BUSY: AtomicBool = AtomicBool::new(false);

/// Finds the ring.
pub(crate) fn init() {
    ON_XEN.store(xen::present(), Ordering::Relaxed);
    if !xen::present() {
        return;
    }
    if let Some(frame) = Client::frame()
        && let Some(client) = Client::connect(memory::view(frame))
    {
        PORT.store(client.port().0, Ordering::Relaxed);
        FRAME.store(frame.raw(), Ordering::Relaxed);
    }
}

/// The ring, for one who writes or reads it now.
#[must_use]
pub fn client() -> Option<Client> {
    let frame = FRAME.load(Ordering::Relaxed);
    let port = EvtchnPort(PORT.load(Ordering::Relaxed));
    (frame != 0).then(|| Client::attach(memory::view(Gfn::new(frame)), port))
}

/// Writes one line: `say!("text {}", args)`.
#[macro_export]
macro_rules! say {
    ($($text:tt)+) => { $crate::console::line(format_args!($($text)+)) };
}

struct Buffer(String<LINE>);

impl fmt::Write for Buffer {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            if self.0.push(c).is_err() {
                write(self.0.as_bytes());
                self.0.clear();
                self.0.push(c).map_err(|_| fmt::Error)?;
            }
        }
        Ok(())
    }
}

/// Writes one line; lines of several vCPUs do not mix.
pub fn line(text: fmt::Arguments<'_>) {
    // Bounded, since a fault report may come while this vCPU itself is writing.
    for _ in 0..1_000_000 {
        if !BUSY.swap(true, Ordering::Acquire) {
            break;
        }
        core::hint::spin_loop();
    }
    let mut buffer = Buffer(String::new());
    // The buffer empties itself, so nothing here can fail.
    let _ = fmt::write(&mut buffer, format_args!("{text}\r\n"));
    write(buffer.0.as_bytes());
    BUSY.store(false, Ordering::Release);
}

fn write(bytes: &[u8]) {
    if let Some(client) = client() {
        write_ring(client, bytes);
    } else if ON_XEN.load(Ordering::Relaxed) {
        xen::console_io(bytes);
    } else {
        for byte in bytes {
            // A port nobody listens at swallows the byte; there is nowhere else to say so.
            let _ = cpu::out8(0xe9, *byte);
        }
    }
}

/// Writes all of `bytes` to the ring, waiting while it is full.
fn write_ring(mut client: Client, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // What the back end makes no sense of cannot be said anywhere.
        let Ok(count) = client.write(bytes) else {
            return;
        };
        bytes = bytes.get(count..).unwrap_or_default();
        if count == 0 {
            let _ = sched::yield_now();
        }
    }
}

/// Waits until everything written has been taken out of the ring.
pub fn drain() {
    let Some(client) = client() else { return };
    for _ in 0..10_000 {
        if client.is_drained() == Ok(true) {
            return;
        }
        let _ = sched::yield_now();
    }
}
