//! Exit qualifications and instruction information, bit by bit.
//!
//! SDM 3C, "Basic VM-Exit Information" and "Information for VM Exits Due to Instruction
//! Execution".

use bitfield::bitfield;

bitfield! {
    /// SDM 3C, "Exit Qualification for Control-Register Accesses".
    pub(super) struct CrQual(pub(super) u64);
    pub(super) u8, number, _: 3, 0;
    pub(super) u8, kind, _: 5, 4;
    pub(super) lmsw_memory, _: 6;
    pub(super) u8, gpr, _: 11, 8;
    pub(super) u16, lmsw_source, _: 31, 16;
}

bitfield! {
    /// SDM 3C, "Exit Qualification for MOV DR".
    pub(super) struct DrQual(pub(super) u64);
    pub(super) u8, number, _: 2, 0;
    pub(super) from_dr, _: 4;
    pub(super) u8, gpr, _: 11, 8;
}

bitfield! {
    /// SDM 3C, "Exit Qualification for I/O Instructions".
    pub(super) struct IoQual(pub(super) u64);
    pub(super) u8, size, _: 2, 0;
    pub(super) input, _: 3;
    pub(super) string, _: 4;
    pub(super) rep, _: 5;
    pub(super) immediate, _: 6;
    pub(super) u16, port, _: 31, 16;
}

bitfield! {
    /// SDM 3C, "Exit Qualification for EPT Violations".
    pub(super) struct EptQual(pub(super) u64);
    pub(super) read, _: 0;
    pub(super) write, _: 1;
    pub(super) exec, _: 2;
    pub(super) readable, _: 3;
    pub(super) writable, _: 4;
    pub(super) executable, _: 5;
    pub(super) user_executable, _: 6;
    pub(super) linear_valid, _: 7;
    pub(super) linear_is_final, _: 8;
    pub(super) user_linear, _: 9;
    pub(super) writable_linear, _: 10;
    pub(super) execute_disable_linear, _: 11;
    pub(super) nmi_unblocked, _: 12;
    pub(super) shadow_stack, _: 13;
    pub(super) guest_paging_verification, _: 15;
    pub(super) asynchronous, _: 16;
}

bitfield! {
    /// SDM 3C, "Exit Qualification for Task Switches".
    pub(super) struct TaskQual(pub(super) u64);
    pub(super) u16, selector, _: 15, 0;
    pub(super) u8, source, _: 31, 30;
}

bitfield! {
    /// SDM 3C, "Exit Qualification for APIC-Access VM Exits from Linear Accesses and
    /// Guest-Physical Accesses".
    pub(super) struct ApicQual(pub(super) u64);
    pub(super) u16, offset, _: 11, 0;
    pub(super) u8, kind, _: 15, 12;
    pub(super) asynchronous, _: 16;
}

bitfield! {
    /// The parts that the instruction-information formats have in common: SDM 3C, "Format of the
    /// VM-Exit Instruction-Information Field as Used for ...".
    pub(super) struct OperandInfo(pub(super) u32);
    pub(super) u8, scaling, _: 1, 0;
    pub(super) u8, reg1, _: 6, 3;
    pub(super) u8, address_size, _: 9, 7;
    pub(super) is_register, _: 10;
    pub(super) u8, operand_size, _: 12, 11;
    pub(super) u8, segment, _: 17, 15;
    pub(super) u8, index, _: 21, 18;
    pub(super) no_index, _: 22;
    pub(super) u8, base, _: 26, 23;
    pub(super) no_base, _: 27;
    pub(super) u8, reg2, _: 31, 28;
    pub(super) u8, identity, _: 29, 28;
}
