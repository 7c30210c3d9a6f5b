//! Bringing a card up.

use super::receive::Receive;
use super::registers::{
    ADDRESS, ADDRESS_VALID, CAUSES, CTRL, EERD, FLOW_CONTROL, GAPS, ICR, IMC, IMS, ITR, MTA,
    MTA_WORDS, RCTL, RECEIVE, RECEIVE_DELAYS, Ring, STATUS, TCTL, THROTTLE, TIPG, TRANSMIT, ctrl,
    eerd, rctl, tctl,
};
use super::transmit::Transmit;
use super::{BUFFERS_BYTES, RING_BYTES, before};
use crate::{DmaMemory, Registers};

/// How long the card may be busy with its last DMA, and with a reset, in microseconds.
const SETTLE_US: u32 = 10_000;
/// How long the EEPROM may take for a word, in microseconds.
const EEPROM_US: u32 = 1_000;

/// What the card and its driver share, for one direction.
#[derive(Debug)]
pub struct Memory<M> {
    /// [`RING_BYTES`] for descriptors.
    pub ring: M,
    /// Where the card finds [`BUFFERS_BYTES`] of buffers.
    pub buffers: u64,
}

/// A card that is silent.
#[derive(Debug)]
pub struct Found<R> {
    registers: R,
    /// Its own address.
    pub address: [u8; 6],
}

/// A card that runs.
#[derive(Debug)]
pub struct Card<R, M> {
    /// Frames that come in.
    pub receive: Receive<R, M>,
    /// Frames that go out.
    pub transmit: Transmit<R, M>,
}

/// Why a card cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoCard {
    /// Its registers say nothing, as if it were gone.
    Gone,
    /// Neither its registers nor its EEPROM name an address of its own.
    NoAddress,
    /// The memory is too small, or not where the card can be told to look.
    Memory,
}

impl NoCard {
    /// The reason, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Gone => "it does not answer",
            Self::NoAddress => "it has no address of its own",
            Self::Memory => "it cannot reach the memory set aside for it",
        }
    }
}

/// Resets a card, masks its interrupts and finds its address. `wait` waits so many microseconds.
///
/// # Errors
/// [`NoCard`].
pub fn find<R: Registers>(registers: R, mut wait: impl FnMut(u32)) -> Result<Found<R>, NoCard> {
    stop(&registers, &mut wait)?;
    let address = own_address(&registers, &mut wait).ok_or(NoCard::NoAddress)?;
    Ok(Found { registers, address })
}

impl<R: Registers + Clone> Found<R> {
    /// The card's interrupts.
    #[must_use]
    pub fn interrupts(&self) -> Interrupts<R> {
        Interrupts(self.registers.clone())
    }

    /// Has the card receive and transmit. To be called once.
    ///
    /// # Errors
    /// [`NoCard::Memory`].
    pub fn start<M: DmaMemory>(
        &self,
        receive: Memory<M>,
        transmit: Memory<M>,
    ) -> Result<Card<R, M>, NoCard> {
        for memory in [&receive, &transmit] {
            let end = memory.buffers.checked_add(BUFFERS_BYTES as u64);
            let is_good = memory.ring.size() >= RING_BYTES
                && memory.ring.address().is_multiple_of(16)
                && end.is_some();
            if !is_good {
                return Err(NoCard::Memory);
            }
        }
        let registers = &self.registers;
        prepare(registers);
        point(registers, RECEIVE, &receive.ring);
        point(registers, TRANSMIT, &transmit.ring);
        let receive = Receive::new(registers.clone(), receive);
        let transmit = Transmit::new(registers.clone(), transmit);
        registers.write32(TCTL, tctl::EN | tctl::PSP | tctl::COLLISIONS);
        // Buffers of 2048 bytes.
        let all = rctl::UPE | rctl::MPE | rctl::BAM;
        registers.write32(RCTL, rctl::EN | rctl::SECRC | all);
        // All but one, since head and tail at the same place say that there is none.
        registers.write32(RECEIVE.tail(), before(0).into());
        Ok(Card { receive, transmit })
    }
}

/// Sets what is the same for all, and lets the link come up.
fn prepare(registers: &impl Registers) {
    for at in FLOW_CONTROL {
        registers.write32(at, 0);
    }
    for word in 0..MTA_WORDS {
        registers.write32(MTA.saturating_add(word.saturating_mul(4)), 0);
    }
    for at in RECEIVE_DELAYS {
        registers.write32(at, 0);
    }
    registers.write32(ITR, THROTTLE);
    registers.write32(TIPG, GAPS);
    let not = ctrl::LRST | ctrl::ILOS | ctrl::FORCED | ctrl::FLOW | ctrl::VME | ctrl::PHY_RST;
    let control = registers.read32(CTRL) & !not;
    registers.write32(CTRL, control | ctrl::ASDE | ctrl::SLU);
}

/// Ends what firmware had the card do, and resets it.
fn stop(registers: &impl Registers, wait: &mut impl FnMut(u32)) -> Result<(), NoCard> {
    if registers.read32(STATUS) == u32::MAX {
        return Err(NoCard::Gone);
    }
    registers.write32(IMC, u32::MAX);
    registers.write32(RCTL, 0);
    registers.write32(TCTL, tctl::PSP);
    wait(SETTLE_US);
    let control = registers.read32(CTRL);
    registers.write32(CTRL, control | ctrl::RST);
    wait(SETTLE_US);
    registers.write32(IMC, u32::MAX);
    // Takes causes that are left.
    if registers.read32(ICR) == u32::MAX {
        return Err(NoCard::Gone);
    }
    Ok(())
}

/// Tells the card where a ring is.
fn point(registers: &impl Registers, ring: Ring, memory: &impl DmaMemory) {
    let address = memory.address();
    let halves = [address & 0xffff_ffff, address >> 32];
    for (at, half) in ring.address().into_iter().zip(halves) {
        registers.write32(at, u32::try_from(half).unwrap_or(0));
    }
    registers.write32(ring.length(), u32::try_from(RING_BYTES).unwrap_or(0));
    registers.write32(ring.head(), 0);
    registers.write32(ring.tail(), 0);
}

/// The card's address: a reset loads it from the EEPROM, where else it is to be found.
fn own_address(registers: &impl Registers, wait: &mut impl FnMut(u32)) -> Option<[u8; 6]> {
    let [low, high] = ADDRESS.map(|at| registers.read32(at));
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, ..] = high.to_le_bytes();
    let loaded = [a, b, c, d, e, f];
    if high & ADDRESS_VALID != 0 && is_station(loaded) {
        return Some(loaded);
    }
    let mut address = [0; 6];
    for (number, pair) in (0..).zip(address.as_chunks_mut::<2>().0) {
        *pair = eeprom(registers, number, wait)?.to_le_bytes();
    }
    is_station(address).then_some(address)
}

/// An address that one card can have: of no group, and not all zeros.
fn is_station(address: [u8; 6]) -> bool {
    let [first, ..] = address;
    first & 1 == 0 && address != [0; 6]
}

/// A word of the EEPROM.
fn eeprom(registers: &impl Registers, word: u32, wait: &mut impl FnMut(u32)) -> Option<u16> {
    let address = word.checked_shl(eerd::ADDRESS)?;
    registers.write32(EERD, eerd::START | address);
    for _ in 0..EEPROM_US {
        let read = registers.read32(EERD);
        if read != u32::MAX && read & eerd::DONE != 0 {
            return u16::try_from(read >> eerd::DATA).ok();
        }
        wait(1);
    }
    None
}

/// A card's interrupts.
#[derive(Debug)]
pub struct Interrupts<R>(R);

impl<R: Registers> Interrupts<R> {
    /// Takes an interrupt, if it is this card's; it is masked then.
    #[must_use]
    pub fn take(&self) -> bool {
        let causes = self.0.read32(ICR);
        // A card that is gone says all ones.
        let is_own = causes != u32::MAX && causes & CAUSES != 0;
        if is_own {
            self.0.write32(IMC, u32::MAX);
        }
        is_own
    }

    /// Has the card interrupt again, at once for what has come meanwhile.
    pub fn unmask(&self) {
        self.0.write32(IMS, CAUSES);
    }
}
