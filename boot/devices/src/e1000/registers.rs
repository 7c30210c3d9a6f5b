//! The registers that are used: "Register Descriptions" of the manual.

/// Device control.
pub(super) const CTRL: usize = 0x0000;
/// Device status.
pub(super) const STATUS: usize = 0x0008;
/// EEPROM read.
pub(super) const EERD: usize = 0x0014;
/// Flow control: address, type and pause time.
pub(super) const FLOW_CONTROL: [usize; 4] = [0x0028, 0x002c, 0x0030, 0x0170];
/// Interrupt causes; reading takes them.
pub(super) const ICR: usize = 0x00c0;
/// The least time between interrupts, in units of 256 ns.
pub(super) const ITR: usize = 0x00c4;
/// Interrupt mask: sets bits.
pub(super) const IMS: usize = 0x00d0;
/// Interrupt mask: clears bits.
pub(super) const IMC: usize = 0x00d8;
/// Receive control.
pub(super) const RCTL: usize = 0x0100;
/// Transmit control.
pub(super) const TCTL: usize = 0x0400;
/// Gaps between frames.
pub(super) const TIPG: usize = 0x0410;
/// The receive ring: address, length in bytes, head, tail.
pub(super) const RECEIVE: Ring = Ring(0x2800);
/// Delays of the receive interrupt.
pub(super) const RECEIVE_DELAYS: [usize; 2] = [0x2820, 0x282c];
/// The transmit ring.
pub(super) const TRANSMIT: Ring = Ring(0x3800);
/// Frames that came in and found no room; reading clears it.
pub(super) const MPC: usize = 0x4010;
/// Table of group addresses.
pub(super) const MTA: usize = 0x5200;
/// Its words.
pub(super) const MTA_WORDS: usize = 128;
/// The card's own address, low and high.
pub(super) const ADDRESS: [usize; 2] = [0x5400, 0x5404];

/// Registers of a ring.
#[derive(Clone, Copy)]
pub(super) struct Ring(usize);

impl Ring {
    pub(super) const fn address(self) -> [usize; 2] {
        [self.0, self.0.saturating_add(4)]
    }

    pub(super) const fn length(self) -> usize {
        self.0.saturating_add(8)
    }

    pub(super) const fn head(self) -> usize {
        self.0.saturating_add(0x10)
    }

    pub(super) const fn tail(self) -> usize {
        self.0.saturating_add(0x18)
    }
}

pub(super) mod ctrl {
    /// Link reset.
    pub(in super::super) const LRST: u32 = 1 << 3;
    /// Speed as the link's ends agree.
    pub(in super::super) const ASDE: u32 = 1 << 5;
    /// The link may come up.
    pub(in super::super) const SLU: u32 = 1 << 6;
    /// Loss of signal counts the other way round.
    pub(in super::super) const ILOS: u32 = 1 << 7;
    /// Speed or duplex are forced.
    pub(in super::super) const FORCED: u32 = 1 << 11 | 1 << 12;
    /// Resets the card; clears itself.
    pub(in super::super) const RST: u32 = 1 << 26;
    /// Flow control, receiving and transmitting.
    pub(in super::super) const FLOW: u32 = 1 << 27 | 1 << 28;
    /// Takes tags of virtual LANs out of frames.
    pub(in super::super) const VME: u32 = 1 << 30;
    /// Resets the transceiver.
    pub(in super::super) const PHY_RST: u32 = 1 << 31;
}

pub(super) mod eerd {
    pub(in super::super) const START: u32 = 1;
    pub(in super::super) const DONE: u32 = 1 << 4;
    pub(in super::super) const ADDRESS: u32 = 8;
    pub(in super::super) const DATA: u32 = 16;
}

pub(super) mod rctl {
    pub(in super::super) const EN: u32 = 1 << 1;
    /// All frames to single stations.
    pub(in super::super) const UPE: u32 = 1 << 3;
    /// All frames to groups.
    pub(in super::super) const MPE: u32 = 1 << 4;
    /// Broadcasts.
    pub(in super::super) const BAM: u32 = 1 << 15;
    /// Leaves out the frame check sequence.
    pub(in super::super) const SECRC: u32 = 1 << 26;
}

pub(super) mod tctl {
    pub(in super::super) const EN: u32 = 1 << 1;
    /// Fills short frames up.
    pub(in super::super) const PSP: u32 = 1 << 3;
    /// Collisions: 15 tries, and how far apart at full duplex.
    pub(in super::super) const COLLISIONS: u32 = 0x0f << 4 | 0x40 << 12;
}

/// Gaps as IEEE 802.3 wants them, on copper.
pub(super) const GAPS: u32 = 8 | 8 << 10 | 6 << 20;

/// 20,000 interrupts a second.
pub(super) const THROTTLE: u32 = 195;

/// An address is valid (in its high word).
pub(super) const ADDRESS_VALID: u32 = 1 << 31;

/// Why a card is to interrupt: few buffers, none for a frame, a frame has come.
pub(super) const CAUSES: u32 = 1 << 4 | 1 << 6 | 1 << 7;
