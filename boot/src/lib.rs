//! The parts of boot that are pure: maps, tables and clocks as data.
//!
//! The image itself is `main.rs`; what lies here takes bytes and numbers and returns values, so
//! that the host tests it, with hostile input too.
#![no_std]
#![forbid(unsafe_code)]

pub mod acpi_header;
pub mod aml;
pub mod clock;
pub mod directmap;
pub mod madt;
pub mod memmap;
pub mod symtab;
