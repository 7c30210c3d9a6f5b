//! COM1, buffered both ways.
//!
//! Output goes to the port as it gets ready: at each write, and by interrupts once they work. It
//! is sent on the spot, however long that takes, when debugging asks for it
//! ([`send_at_once`]), when the port has no interrupts, and while the hypervisor is dying.
//!
//! The port belongs to whoever holds [`PORT`]'s lock. In root mode interrupts are off except in
//! the idle loop and between steps of long work, where nobody holds it, so its interrupt handler may
//! take the lock too. Only the panic path breaks it, once every other CPU has stopped.
//!
//! A machine without the port, or one whose transmitter never gets ready, loses output but not
//! time: every wait is bounded, and a port that once timed out counts as absent.
#![expect(
    unsafe_code,
    reason = "names the UART's ports; the panic path breaks the lock"
)]

use heapless::Deque;
use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::port::Port;

const BASE: u16 = 0x3f8;
// SAFETY: the sixteen-byte UART at COM1 has no way to memory; the same holds for each register.
const DATA: Port = unsafe { Port::new(BASE) };
// SAFETY: see `DATA`.
const INTERRUPT_ENABLE: Port = unsafe { Port::new(BASE + 1) };
// SAFETY: see `DATA`.
const INTERRUPT_ID: Port = unsafe { Port::new(BASE + 2) };
// SAFETY: see `DATA`.
const FIFO_CONTROL: Port = unsafe { Port::new(BASE + 2) };
// SAFETY: see `DATA`.
const LINE_CONTROL: Port = unsafe { Port::new(BASE + 3) };
// SAFETY: see `DATA`.
const MODEM_CONTROL: Port = unsafe { Port::new(BASE + 4) };
// SAFETY: see `DATA`.
const LINE_STATUS: Port = unsafe { Port::new(BASE + 5) };
// SAFETY: see `DATA`.
const MODEM_STATUS: Port = unsafe { Port::new(BASE + 6) };
// SAFETY: see `DATA`.
const SCRATCH: Port = unsafe { Port::new(BASE + 7) };

/// Line status: a byte came in.
const DATA_READY: u8 = 1 << 0;
/// Line status: the transmit FIFO takes bytes.
const TRANSMIT_READY: u8 = 1 << 5;
/// Line status: everything has left the port.
const TRANSMIT_IDLE: u8 = 1 << 6;
/// Interrupt enable: received data.
const ON_INPUT: u8 = 1 << 0;
/// Interrupt enable: transmitter ready.
const ON_READY: u8 = 1 << 1;

/// Bytes that the transmit FIFO takes when it is empty.
const FIFO_SIZE: usize = 16;
/// Bytes buffered towards the port.
const OUTPUT_SIZE: usize = 8192;
/// Bytes buffered from the port.
const INPUT_SIZE: usize = 512;
/// Status reads (about a microsecond each on hardware) to wait for one FIFO at 115200 baud,
/// with room to spare.
const PATIENCE: u32 = 200_000;

static PORT: SpinMutex<Serial> = SpinMutex::new(Serial {
    present: false,
    interrupts: false,
    at_once: false,
    enabled: 0,
    output: Deque::new(),
    input: Deque::new(),
});

struct Serial {
    present: bool,
    /// Interrupts come; until then input is polled.
    interrupts: bool,
    /// Nothing waits in the output buffer.
    at_once: bool,
    /// What the interrupt enable register holds.
    enabled: u8,
    output: Deque<u8, OUTPUT_SIZE>,
    input: Deque<u8, INPUT_SIZE>,
}

/// Sets the port to 115200 baud, 8 data bits, no parity; tells whether there is one.
pub(crate) fn init() -> bool {
    let mut port = PORT.lock();
    for probe in [0x5a, 0xa5] {
        SCRATCH.write8(probe);
        if SCRATCH.read8() != probe {
            return false;
        }
    }
    INTERRUPT_ENABLE.write8(0);
    LINE_CONTROL.write8(0x80); // the divisor latch
    DATA.write8(1);
    INTERRUPT_ENABLE.write8(0);
    LINE_CONTROL.write8(0x03);
    FIFO_CONTROL.write8(0x07); // on, both cleared, interrupt at each byte
    MODEM_CONTROL.write8(0x0b); // DTR, RTS, and OUT2, which lets interrupts out
    port.present = true;
    true
}

/// Takes the port out of use (`console=none`).
pub(crate) fn disable() {
    PORT.lock().present = false;
}

/// From now on no output waits in the buffer.
pub(crate) fn send_at_once() {
    let mut port = PORT.lock();
    port.at_once = true;
    port.drain();
}

/// From now on the port raises interrupts.
pub(crate) fn use_interrupts() {
    let mut port = PORT.lock();
    if port.present {
        port.interrupts = true;
        port.send();
        // What came before counts as an edge that is over: take it by hand.
        port.receive();
    }
}

/// Sends or queues bytes.
pub(crate) fn write(bytes: &[u8]) {
    PORT.lock().write(bytes);
}

/// Takes the next byte that came in.
pub(crate) fn read() -> Option<u8> {
    let mut port = PORT.lock();
    if !port.interrupts {
        port.receive();
    }
    port.input.pop_front()
}

/// Waits until all output has left the port.
pub(crate) fn flush() {
    PORT.lock().flush();
}

/// Serves the port's interrupt.
pub(crate) fn interrupt() {
    let mut port = PORT.lock();
    // An edge-triggered line: leave only when the port has nothing more to say.
    for _ in 0..FIFO_SIZE * 4 {
        match INTERRUPT_ID.read8() & 0x0f {
            0x02 => port.send(),
            0x04 | 0x0c => port.receive(),
            0x06 => {
                let _ = LINE_STATUS.read8();
            }
            0x00 => {
                let _ = MODEM_STATUS.read8();
            }
            _ => return,
        }
    }
}

/// Takes the port from whoever has it, for the last words of a dying hypervisor.
///
/// # Safety
/// No other CPU runs, and the interrupted code of this one does not go on.
pub(crate) unsafe fn seize() -> Epitaph {
    let port = PORT.try_lock();
    let mut port = match port {
        Some(port) => port,
        None => {
            // SAFETY: the holder is stopped for ever by the caller's promise, and everything
            // behind the lock is valid whatever was left half done.
            unsafe { PORT.force_unlock() };
            PORT.lock()
        }
    };
    port.interrupts = false;
    port.at_once = true;
    port.enable(0);
    port.flush();
    Epitaph(port)
}

/// The port in the hands of the panic path: polled, unbuffered.
pub(crate) struct Epitaph(SpinMutexGuard<'static, Serial>);

impl Epitaph {
    /// Waits until all output has left the port.
    pub(crate) fn flush(&mut self) {
        self.0.flush();
    }
}

impl core::fmt::Write for Epitaph {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Serial {
    fn write(&mut self, bytes: &[u8]) {
        if !self.present {
            return;
        }
        for &byte in bytes {
            if self.output.is_full() {
                self.drain();
            }
            let _ = self.output.push_back(byte);
        }
        if self.at_once {
            self.drain();
        } else {
            self.send();
        }
    }

    /// Fills the FIFO if it is empty, and asks for an interrupt if more waits.
    fn send(&mut self) {
        if LINE_STATUS.read8() & TRANSMIT_READY != 0 {
            for byte in core::iter::from_fn(|| self.output.pop_front()).take(FIFO_SIZE) {
                DATA.write8(byte);
            }
        }
        if self.interrupts {
            let ready = if self.output.is_empty() { 0 } else { ON_READY };
            self.enable(ON_INPUT | ready);
        }
    }

    /// Takes in what waits in the port; what finds no room is lost.
    fn receive(&mut self) {
        if !self.present {
            return;
        }
        for _ in 0..INPUT_SIZE {
            if LINE_STATUS.read8() & DATA_READY == 0 {
                return;
            }
            let _ = self.input.push_back(DATA.read8());
        }
    }

    /// Sends everything that is queued, now.
    fn drain(&mut self) {
        while !self.output.is_empty() {
            if !self.wait_for(TRANSMIT_READY) {
                return;
            }
            self.send();
        }
    }

    fn flush(&mut self) {
        if self.present {
            self.drain();
            self.wait_for(TRANSMIT_IDLE);
        }
    }

    /// Waits for a status bit; gives the port up when it does not come.
    fn wait_for(&mut self, status: u8) -> bool {
        for _ in 0..PATIENCE {
            if LINE_STATUS.read8() & status != 0 {
                return true;
            }
            core::hint::spin_loop();
        }
        self.present = false;
        self.output.clear();
        false
    }

    fn enable(&mut self, interrupts: u8) {
        if self.present && self.enabled != interrupts {
            INTERRUPT_ENABLE.write8(interrupts);
            self.enabled = interrupts;
        }
    }
}
