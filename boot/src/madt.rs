//! The ACPI Multiple APIC Description Table: CPUs, IOAPICs and where the ISA lines go.
//!
//! Layout by the ACPI specification, "Multiple APIC Description Table (MADT)". The bytes come
//! from firmware and are believed only as far as they are inside the table.

use heapless::Vec;

/// The most CPUs taken from the table.
pub const MAX_CPUS: usize = 256;
/// The most IOAPICs taken from the table.
pub const MAX_IOAPICS: usize = 16;

/// Bytes before the first entry: the common table header, the local APIC's address, flags.
const ENTRIES: usize = 44;

/// A CPU that can be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// The id of its local APIC.
    pub apic_id: u32,
    /// The processor's ACPI uid.
    pub acpi_uid: u32,
}

/// An IOAPIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IoApic {
    /// The physical address of its registers.
    pub address: u32,
    /// The global interrupt number of its first input.
    pub first_gsi: u32,
}

/// Where an ISA line that does not go to the input of its own number goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IsaLine {
    /// The global interrupt number.
    pub gsi: u32,
    /// The line is active low.
    pub active_low: bool,
    /// The line is level-triggered.
    pub level: bool,
}

/// What the table says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Madt {
    /// The physical address of the local APICs' registers.
    pub local_apic: u64,
    /// Enabled CPUs in the table's order.
    pub cpus: Vec<Cpu, MAX_CPUS>,
    /// CPUs that found no room.
    pub dropped_cpus: usize,
    /// IOAPICs.
    pub ioapics: Vec<IoApic, MAX_IOAPICS>,
    /// The sixteen ISA lines.
    pub isa: [IsaLine; 16],
}

/// What is wrong with a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MadtError {
    /// Too short for its own header.
    Truncated,
    /// An entry at this offset has a length that cannot be.
    BadEntry(usize),
    /// No enabled CPU.
    NoCpus,
}

impl core::fmt::Display for MadtError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Truncated => f.write_str("the table is shorter than its header"),
            Self::BadEntry(offset) => write!(f, "the entry at offset {offset} has a wrong length"),
            Self::NoCpus => f.write_str("the table lists no enabled CPU"),
        }
    }
}

impl Madt {
    /// Reads a whole table, header included.
    pub fn parse(table: &[u8]) -> Result<Self, MadtError> {
        let mut madt = Self {
            local_apic: u64::from(u32_at(table, 36).ok_or(MadtError::Truncated)?),
            cpus: Vec::new(),
            dropped_cpus: 0,
            ioapics: Vec::new(),
            isa: core::array::from_fn(|line| IsaLine {
                gsi: u32::try_from(line).unwrap_or(0),
                active_low: false,
                level: false,
            }),
        };
        let mut offset = ENTRIES;
        while let Some(&[_, length]) = table.get(offset..).and_then(|rest| rest.first_chunk()) {
            let entry = table
                .get(offset..offset + usize::from(length))
                .filter(|entry| entry.len() >= 2)
                .ok_or(MadtError::BadEntry(offset))?;
            madt.entry(entry).ok_or(MadtError::BadEntry(offset))?;
            offset += entry.len();
        }
        if madt.cpus.is_empty() {
            return Err(MadtError::NoCpus);
        }
        Ok(madt)
    }

    /// Takes in one entry; `None` when it is too short for its type.
    fn entry(&mut self, entry: &[u8]) -> Option<()> {
        match entry.first()? {
            0 => self.cpu(
                u32::from(*entry.get(3)?),
                u32::from(*entry.get(2)?),
                u32_at(entry, 4)?,
            ),
            1 => {
                let ioapic = IoApic {
                    address: u32_at(entry, 4)?,
                    first_gsi: u32_at(entry, 8)?,
                };
                // More IOAPICs than that carry no ISA line.
                let _ = self.ioapics.push(ioapic);
            }
            2 => {
                let flags = u16_at(entry, 8)?;
                let line = IsaLine {
                    gsi: u32_at(entry, 4)?,
                    active_low: flags & 3 == 3,
                    level: flags >> 2 & 3 == 3,
                };
                if let Some(place) = self.isa.get_mut(usize::from(*entry.get(3)?)) {
                    *place = line;
                }
            }
            5 => self.local_apic = u64_at(entry, 4)?,
            9 => self.cpu(u32_at(entry, 4)?, u32_at(entry, 12)?, u32_at(entry, 8)?),
            _ => {}
        }
        Some(())
    }

    fn cpu(&mut self, apic_id: u32, acpi_uid: u32, flags: u32) {
        let known = self.cpus.iter().any(|cpu| cpu.apic_id == apic_id);
        if flags & 1 == 0 || known {
            return;
        }
        if self.cpus.push(Cpu { apic_id, acpi_uid }).is_err() {
            self.dropped_cpus += 1;
        }
    }
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes
        .get(offset..)?
        .first_chunk()
        .copied()
        .map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec as StdVec;

    fn table(entries: &[&[u8]]) -> StdVec<u8> {
        let mut table = std::vec![0; ENTRIES];
        table[36..40].copy_from_slice(&0xfee0_0000_u32.to_le_bytes());
        for entry in entries {
            table.extend_from_slice(entry);
        }
        table
    }

    const CPU0: &[u8] = &[0, 8, 1, 0, 1, 0, 0, 0];
    const CPU_OFF: &[u8] = &[0, 8, 2, 7, 0, 0, 0, 0];
    const X2CPU: &[u8] = &[9, 16, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0];
    const IOAPIC: &[u8] = &[1, 12, 2, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0];
    const OVERRIDE: &[u8] = &[2, 10, 0, 9, 20, 0, 0, 0, 0x0f, 0];

    #[test]
    fn cpus_ioapics_and_overrides_are_read() {
        let madt = Madt::parse(&table(&[CPU0, CPU_OFF, X2CPU, CPU0, IOAPIC, OVERRIDE])).unwrap();
        let ids: StdVec<_> = madt
            .cpus
            .iter()
            .map(|cpu| (cpu.apic_id, cpu.acpi_uid))
            .collect();
        assert_eq!(ids, [(0, 1), (300, 5)]);
        assert_eq!(madt.local_apic, 0xfee0_0000);
        assert_eq!(madt.ioapics[0].address, 0xfec0_0000);
        let line = |gsi, active_low, level| IsaLine {
            gsi,
            active_low,
            level,
        };
        assert_eq!(madt.isa[9], line(20, true, true));
        assert_eq!(madt.isa[4], line(4, false, false));
    }

    #[test]
    fn broken_tables_are_named() {
        assert_eq!(Madt::parse(&[0; 30]), Err(MadtError::Truncated));
        assert_eq!(Madt::parse(&table(&[])), Err(MadtError::NoCpus));
        assert_eq!(Madt::parse(&table(&[CPU_OFF])), Err(MadtError::NoCpus));
        assert_eq!(
            Madt::parse(&table(&[&[0, 0]])),
            Err(MadtError::BadEntry(44))
        );
        assert_eq!(
            Madt::parse(&table(&[CPU0, &[1, 4, 0, 0]])),
            Err(MadtError::BadEntry(52))
        );
        assert_eq!(
            Madt::parse(&table(&[CPU0, &[200, 99]])),
            Err(MadtError::BadEntry(52))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Madt::parse(&bytes);
        }
    }
}
