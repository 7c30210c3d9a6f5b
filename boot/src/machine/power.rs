//! Switching the machine off and resetting it, the ACPI way. ACPI specification, "Power and
//! Performance Management" (SLP_TYP, SLP_EN) and "Fixed ACPI Description Table (FADT)".
#![expect(unsafe_code, reason = "names ports and registers that firmware names")]

use abi::Hpa;
use acpi::address::{AddressSpace, GenericAddress};
use acpi::fadt::Fadt;
use boot::aml;
use vmm_core::mm::directmap;

use crate::port::Port;

/// PM1 control: the machine is in ACPI mode.
const ACPI_MODE: u16 = 1 << 0;
/// PM1 control: go to the sleep state named in bits 12:10.
const SLEEP: u16 = 1 << 13;
/// PM1 control: the bits that name the sleep state, and the one that enters it.
const SLEEP_FIELDS: u16 = 0b111 << 10 | SLEEP;
/// Turns of the loop to wait for ACPI mode.
const PATIENCE: u32 = 1_000_000;

/// The registers, as the FADT names them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Power {
    control: [Option<Port>; 2],
    /// The sleep types of soft-off for both control registers.
    types: Option<(u8, u8)>,
    /// How to ask firmware for ACPI mode.
    enable: Option<(Port, u8)>,
    reset: Option<(Register, u8)>,
}

#[derive(Clone, Copy, Debug)]
enum Register {
    Port(Port),
    Memory(u64),
}

impl Power {
    /// Takes the registers from the FADT and the sleep types from the DSDT.
    pub(crate) fn new(fadt: &Fadt, dsdt: Option<&[u8]>) -> Self {
        let types = dsdt.and_then(aml::soft_off_types);
        if types.is_none() {
            log::warn!("acpi: the DSDT names no _S5: no soft-off");
        }
        let (flags, command) = (fadt.flags, fadt.smi_cmd_port);
        let enable = (fadt.acpi_enable != 0)
            .then(|| port(command.into()))
            .flatten()
            .map(|port| (port, fadt.acpi_enable));
        let reset = fadt
            .reset_register()
            .ok()
            .filter(|_| flags.supports_system_reset_via_fadt());
        Self {
            control: [
                fadt.pm1a_control_block().ok(),
                fadt.pm1b_control_block().ok().flatten(),
            ]
            .map(|address| io_port(address).and_then(|number| port(number.into()))),
            types,
            enable,
            reset: reset
                .and_then(register)
                .map(|register| (register, fadt.reset_value)),
        }
    }

    /// Asks for soft-off. Returns when the machine does not obey.
    pub(crate) fn soft_off(&self) {
        let Some((first, second)) = self.types else {
            return;
        };
        self.enter_acpi_mode();
        for (port, kind) in self.control.iter().zip([first, second]) {
            if let Some(port) = port {
                let rest = port.read16() & !SLEEP_FIELDS;
                port.write16(rest | u16::from(kind) << 10 | SLEEP);
            }
        }
    }

    /// Asks for a reset by the FADT's register. Returns when the machine does not obey.
    pub(crate) fn reset(&self) {
        match self.reset {
            Some((Register::Port(port), value)) => port.write8(value),
            Some((Register::Memory(address), value)) => {
                let register = directmap::ptr(Hpa::new(address));
                // SAFETY: the FADT says this is the reset register; it lies below 4 GiB, where
                // the direct map has all device memory.
                unsafe { register.write_volatile(value) };
            }
            None => {}
        }
    }

    fn enter_acpi_mode(&self) {
        let (Some(control), Some((command, value))) = (self.control[0], self.enable) else {
            return;
        };
        if control.read16() & ACPI_MODE == 0 {
            command.write8(value);
            for _ in 0..PATIENCE {
                if control.read16() & ACPI_MODE != 0 {
                    return;
                }
                core::hint::spin_loop();
            }
        }
    }
}

/// The port number of a register in I/O space.
pub(super) fn io_port(address: Option<GenericAddress>) -> Option<u16> {
    let address = address.filter(|a| a.address_space == AddressSpace::SystemIo)?;
    u16::try_from(address.address)
        .ok()
        .filter(|number| *number != 0)
}

fn port(number: u64) -> Option<Port> {
    let number = u16::try_from(number).ok().filter(|number| *number != 0)?;
    // SAFETY: the FADT says this is a power management register, which leaves memory alone
    // until the machine sleeps or resets.
    Some(unsafe { Port::new(number) })
}

fn register(address: GenericAddress) -> Option<Register> {
    match address.address_space {
        AddressSpace::SystemIo => port(address.address).map(Register::Port),
        AddressSpace::SystemMemory if address.address < boot::directmap::LOW_END => {
            Some(Register::Memory(address.address))
        }
        _ => None,
    }
}
