//! The VMCS fields: one typed constant per field, in the order of SDM 3D, "Field Encoding in
//! VMCS".
//!
//! A field's encoding tells its width (bits 14:13) and its type (bits 11:10), so a row whose Rust
//! type or access does not fit its encoding does not compile.
//!
//! The fields are those of the 64-bit forms; the "high" encodings only serve 32-bit software.

use core::fmt;
use core::marker::PhantomData;

mod sealed {
    pub trait Sealed {}
}

/// A type a field can hold.
pub trait Value: sealed::Sealed + Copy {
    /// The encodings of bits 14:13 that fit, as a bit set.
    const WIDTHS: u32;
    /// Takes the field's bits out of the register VMREAD filled.
    fn from_register(register: u64) -> Self;
    /// Zero-extends to the register VMWRITE takes.
    fn to_register(self) -> u64;
}

macro_rules! value {
    ($type:ty, $widths:expr) => {
        impl sealed::Sealed for $type {}
        impl Value for $type {
            const WIDTHS: u32 = $widths;

            #[expect(clippy::allow_attributes, reason = "the cast does nothing for u64")]
            #[allow(
                clippy::cast_possible_truncation,
                trivial_numeric_casts,
                reason = "VMREAD clears the bits above the field's width"
            )]
            #[inline(always)]
            fn from_register(register: u64) -> Self {
                register as Self
            }

            #[inline(always)]
            fn to_register(self) -> u64 {
                u64::from(self)
            }
        }
    };
}

value!(u16, 1 << 0);
value!(u32, 1 << 2);
// 64-bit and natural width are the same for us.
value!(u64, 1 << 1 | 1 << 3);

/// Access to a field.
pub trait Access: sealed::Sealed {
    /// The encodings of bits 11:10 that fit, as a bit set: 0 control, 1 VM-exit information,
    /// 2 guest state, 3 host state.
    const FITS: u32;
}

/// A VM-exit information field: VMREAD only.
#[derive(Clone, Copy, Debug)]
pub struct Ro;
/// A field whose value concerns the guest alone.
#[derive(Clone, Copy, Debug)]
pub struct Rw;
/// A field the host or its isolation depends on: host state, the control words, and pointers to
/// what the CPU reads or writes. Written by this crate only.
#[derive(Clone, Copy, Debug)]
pub struct Ctl;

impl sealed::Sealed for Ro {}
impl sealed::Sealed for Rw {}
impl sealed::Sealed for Ctl {}
impl Access for Ro {
    const FITS: u32 = 1 << 1;
}
impl Access for Rw {
    const FITS: u32 = 1 << 0 | 1 << 2;
}
impl Access for Ctl {
    const FITS: u32 = 1 << 0 | 1 << 2 | 1 << 3;
}

/// A VMCS field that holds a `T`.
pub struct Field<T, A> {
    encoding: u32,
    kind: PhantomData<fn() -> (T, A)>,
}

impl<T, A> Clone for Field<T, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, A> Copy for Field<T, A> {}

impl<T, A> fmt::Debug for Field<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(self.encoding))
    }
}

impl<T: Value, A: Access> Field<T, A> {
    /// A field by its encoding.
    ///
    /// # Panics
    /// (At compile time, in a constant) when the encoding does not fit `T` and `A`.
    const fn new(encoding: u32) -> Self {
        let width = encoding >> 13 & 3;
        let kind = encoding >> 10 & 3;
        assert!(
            T::WIDTHS & 1 << width != 0,
            "the encoding's width fits the type"
        );
        assert!(
            A::FITS & 1 << kind != 0,
            "the encoding's type fits the access"
        );
        assert!(
            encoding & !0x6ffe == 0,
            "no reserved bit, and not the high half"
        );
        Self {
            encoding,
            kind: PhantomData,
        }
    }
}

impl<T, A> Field<T, A> {
    /// The encoding VMREAD and VMWRITE take.
    #[must_use]
    pub const fn encoding(self) -> u32 {
        self.encoding
    }

    /// True when reading the field costs no exit under KVM with VMCS shadowing.
    #[must_use]
    pub const fn is_shadowed(self) -> bool {
        !matches!(shadow(self.encoding), Shadow::None)
    }

    /// True for a field that was tried when the VMCS was set up: see [`PROVEN`].
    #[must_use]
    pub(super) const fn is_proven(self) -> bool {
        let mut index = 0;
        while index < PROVEN.len() {
            if PROVEN[index].encoding == self.encoding {
                return true;
            }
            index += 1;
        }
        false
    }

    /// True when writing the field costs no exit under KVM with VMCS shadowing.
    #[must_use]
    pub const fn is_write_shadowed(self) -> bool {
        matches!(shadow(self.encoding), Shadow::ReadWrite)
    }
}

/// A field of which every VM exit wants something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proven {
    pub(super) encoding: u32,
    pub(super) writable: bool,
    /// There only with the VMX-preemption timer.
    pub(super) of_timer: bool,
}

impl Proven {
    const fn read<T, A>(field: Field<T, A>) -> Self {
        Self {
            encoding: field.encoding,
            writable: false,
            of_timer: false,
        }
    }

    const fn write<T>(field: Field<T, Rw>) -> Self {
        Self {
            writable: true,
            ..Self::read(field)
        }
    }
}

/// Fields that are accessed without a look at the outcome. With a current VMCS, an access fails
/// only for a field that the CPU does not have (SDM 3D, "VMREAD" and "VMWRITE"), and each of these
/// is tried once for each VMCS.
pub(super) const PROVEN: [Proven; 11] = [
    Proven::read(EXIT_REASON),
    Proven::read(VM_EXIT_INSTRUCTION_LENGTH),
    Proven::read(GUEST_CS_ACCESS_RIGHTS),
    Proven::read(GUEST_SS_ACCESS_RIGHTS),
    Proven::write(GUEST_RIP),
    Proven::write(GUEST_RFLAGS),
    Proven::write(GUEST_INTERRUPTIBILITY_STATE),
    Proven::write(GUEST_CR0),
    Proven::write(GUEST_CR3),
    Proven::write(GUEST_CR4),
    Proven {
        of_timer: true,
        ..Proven::write(VMX_PREEMPTION_TIMER_VALUE)
    },
];

/// How an outer KVM shadows a field for a hypervisor nested in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shadow {
    None,
    Read,
    ReadWrite,
}

/// KVM's choice of shadowed fields (Linux, `arch/x86/kvm/vmx/vmcs_shadow_fields.h`).
const fn shadow(encoding: u32) -> Shadow {
    const READ: &[u32] = &[
        EXIT_REASON.encoding,
        VM_EXIT_INTERRUPTION_INFORMATION.encoding,
        VM_EXIT_INTERRUPTION_ERROR_CODE.encoding,
        VM_EXIT_INSTRUCTION_LENGTH.encoding,
        IDT_VECTORING_INFORMATION.encoding,
        IDT_VECTORING_ERROR_CODE.encoding,
        EXIT_QUALIFICATION.encoding,
        GUEST_LINEAR_ADDRESS.encoding,
        GUEST_PHYSICAL_ADDRESS.encoding,
        GUEST_CS_ACCESS_RIGHTS.encoding,
        GUEST_SS_ACCESS_RIGHTS.encoding,
    ];
    const READ_WRITE: &[u32] = &[
        PRIMARY_PROCESSOR_BASED_CONTROLS.encoding,
        EXCEPTION_BITMAP.encoding,
        VM_ENTRY_INTERRUPTION_INFORMATION.encoding,
        VM_ENTRY_EXCEPTION_ERROR_CODE.encoding,
        VM_ENTRY_INSTRUCTION_LENGTH.encoding,
        TPR_THRESHOLD.encoding,
        GUEST_INTERRUPTIBILITY_STATE.encoding,
        VMX_PREEMPTION_TIMER_VALUE.encoding,
        GUEST_RIP.encoding,
        GUEST_RSP.encoding,
        GUEST_RFLAGS.encoding,
        GUEST_CR0.encoding,
        GUEST_CR3.encoding,
        GUEST_CR4.encoding,
        CR0_GUEST_HOST_MASK.encoding,
        CR0_READ_SHADOW.encoding,
        CR4_READ_SHADOW.encoding,
        HOST_FS_BASE.encoding,
        HOST_GS_BASE.encoding,
        HOST_FS_SELECTOR.encoding,
        HOST_GS_SELECTOR.encoding,
        GUEST_INTERRUPT_STATUS.encoding,
        PML_INDEX.encoding,
    ];
    if contains(READ_WRITE, encoding) {
        Shadow::ReadWrite
    } else if contains(READ, encoding) {
        Shadow::Read
    } else {
        Shadow::None
    }
}

const fn contains(list: &[u32], encoding: u32) -> bool {
    let mut rest = list;
    while let [first, tail @ ..] = rest {
        if *first == encoding {
            return true;
        }
        rest = tail;
    }
    false
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $value:ty, $access:ty = $encoding:literal;)*) => {
        $($(#[$doc])* pub const $name: Field<$value, $access> = Field::new($encoding);)*

        /// Every field: encoding and name.
        pub const ALL: &[(u32, &str)] = &[$(($encoding, stringify!($name))),*];
    };
}

/// The name of the field with this encoding.
#[must_use]
pub fn name(encoding: u32) -> &'static str {
    ALL.iter()
        .find(|(other, _)| *other == encoding)
        .map_or("unknown field", |(_, name)| name)
}

fields! {
    // SDM 3D, "Field Encoding in VMCS": 16-bit control fields.
    /// Virtual-processor identifier (VPID).
    VIRTUAL_PROCESSOR_IDENTIFIER: u16, Ctl = 0x0000;
    /// Posted-interrupt notification vector.
    POSTED_INTERRUPT_NOTIFICATION_VECTOR: u16, Ctl = 0x0002;
    /// EPTP index.
    EPTP_INDEX: u16, Ctl = 0x0004;
    /// HLAT prefix size.
    HLAT_PREFIX_SIZE: u16, Ctl = 0x0006;
    /// Last PID-pointer index.
    LAST_PID_POINTER_INDEX: u16, Ctl = 0x0008;
    // SDM 3D, "Field Encoding in VMCS": 16-bit guest-state fields.
    /// Guest ES selector.
    GUEST_ES_SELECTOR: u16, Rw = 0x0800;
    /// Guest CS selector.
    GUEST_CS_SELECTOR: u16, Rw = 0x0802;
    /// Guest SS selector.
    GUEST_SS_SELECTOR: u16, Rw = 0x0804;
    /// Guest DS selector.
    GUEST_DS_SELECTOR: u16, Rw = 0x0806;
    /// Guest FS selector.
    GUEST_FS_SELECTOR: u16, Rw = 0x0808;
    /// Guest GS selector.
    GUEST_GS_SELECTOR: u16, Rw = 0x080a;
    /// Guest LDTR selector.
    GUEST_LDTR_SELECTOR: u16, Rw = 0x080c;
    /// Guest TR selector.
    GUEST_TR_SELECTOR: u16, Rw = 0x080e;
    /// Guest interrupt status.
    GUEST_INTERRUPT_STATUS: u16, Rw = 0x0810;
    /// PML index.
    PML_INDEX: u16, Rw = 0x0812;
    /// Guest user-interrupt notification vector.
    GUEST_UINV: u16, Rw = 0x0814;
    // SDM 3D, "Field Encoding in VMCS": 16-bit host-state fields.
    /// Host ES selector.
    HOST_ES_SELECTOR: u16, Ctl = 0x0c00;
    /// Host CS selector.
    HOST_CS_SELECTOR: u16, Ctl = 0x0c02;
    /// Host SS selector.
    HOST_SS_SELECTOR: u16, Ctl = 0x0c04;
    /// Host DS selector.
    HOST_DS_SELECTOR: u16, Ctl = 0x0c06;
    /// Host FS selector.
    HOST_FS_SELECTOR: u16, Ctl = 0x0c08;
    /// Host GS selector.
    HOST_GS_SELECTOR: u16, Ctl = 0x0c0a;
    /// Host TR selector.
    HOST_TR_SELECTOR: u16, Ctl = 0x0c0c;
    // SDM 3D, "Field Encoding in VMCS": 64-bit control fields.
    /// Address of I/O bitmap A.
    IO_BITMAP_A_ADDRESS: u64, Ctl = 0x2000;
    /// Address of I/O bitmap B.
    IO_BITMAP_B_ADDRESS: u64, Ctl = 0x2002;
    /// Address of the MSR bitmaps.
    MSR_BITMAP_ADDRESS: u64, Ctl = 0x2004;
    /// VM-exit MSR-store address.
    VM_EXIT_MSR_STORE_ADDRESS: u64, Ctl = 0x2006;
    /// VM-exit MSR-load address.
    VM_EXIT_MSR_LOAD_ADDRESS: u64, Ctl = 0x2008;
    /// VM-entry MSR-load address.
    VM_ENTRY_MSR_LOAD_ADDRESS: u64, Ctl = 0x200a;
    /// Executive-VMCS pointer.
    EXECUTIVE_VMCS_POINTER: u64, Ctl = 0x200c;
    /// PML address.
    PML_ADDRESS: u64, Ctl = 0x200e;
    /// TSC offset.
    TSC_OFFSET: u64, Rw = 0x2010;
    /// Virtual-APIC address.
    VIRTUAL_APIC_ADDRESS: u64, Ctl = 0x2012;
    /// APIC-access address.
    APIC_ACCESS_ADDRESS: u64, Ctl = 0x2014;
    /// Posted-interrupt descriptor address.
    POSTED_INTERRUPT_DESCRIPTOR_ADDRESS: u64, Ctl = 0x2016;
    /// VM-function controls.
    VM_FUNCTION_CONTROLS: u64, Ctl = 0x2018;
    /// EPT pointer (EPTP).
    EPT_POINTER: u64, Ctl = 0x201a;
    /// EOI-exit bitmap 0.
    EOI_EXIT_BITMAP_0: u64, Rw = 0x201c;
    /// EOI-exit bitmap 1.
    EOI_EXIT_BITMAP_1: u64, Rw = 0x201e;
    /// EOI-exit bitmap 2.
    EOI_EXIT_BITMAP_2: u64, Rw = 0x2020;
    /// EOI-exit bitmap 3.
    EOI_EXIT_BITMAP_3: u64, Rw = 0x2022;
    /// EPTP-list address.
    EPTP_LIST_ADDRESS: u64, Ctl = 0x2024;
    /// VMREAD-bitmap address.
    VMREAD_BITMAP_ADDRESS: u64, Ctl = 0x2026;
    /// VMWRITE-bitmap address.
    VMWRITE_BITMAP_ADDRESS: u64, Ctl = 0x2028;
    /// Virtualization-exception information address.
    VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS: u64, Ctl = 0x202a;
    /// XSS-exiting bitmap.
    XSS_EXITING_BITMAP: u64, Rw = 0x202c;
    /// ENCLS-exiting bitmap.
    ENCLS_EXITING_BITMAP: u64, Rw = 0x202e;
    /// Sub-page-permission-table pointer.
    SUB_PAGE_PERMISSION_TABLE_POINTER: u64, Ctl = 0x2030;
    /// TSC multiplier.
    TSC_MULTIPLIER: u64, Rw = 0x2032;
    /// Tertiary processor-based VM-execution controls.
    TERTIARY_PROCESSOR_BASED_CONTROLS: u64, Ctl = 0x2034;
    /// ENCLV-exiting bitmap.
    ENCLV_EXITING_BITMAP: u64, Rw = 0x2036;
    /// Low PASID directory address.
    LOW_PASID_DIRECTORY_ADDRESS: u64, Ctl = 0x2038;
    /// High PASID directory address.
    HIGH_PASID_DIRECTORY_ADDRESS: u64, Ctl = 0x203a;
    /// Shared EPT pointer.
    SHARED_EPT_POINTER: u64, Ctl = 0x203c;
    /// PCONFIG-exiting bitmap.
    PCONFIG_EXITING_BITMAP: u64, Rw = 0x203e;
    /// Hypervisor-managed linear-address translation pointer.
    HLAT_POINTER: u64, Ctl = 0x2040;
    /// PID-pointer table address.
    PID_POINTER_TABLE_ADDRESS: u64, Ctl = 0x2042;
    /// Secondary VM-exit controls.
    SECONDARY_VM_EXIT_CONTROLS: u64, Ctl = 0x2044;
    /// IA32_SPEC_CTRL mask.
    IA32_SPEC_CTRL_MASK: u64, Rw = 0x204a;
    /// IA32_SPEC_CTRL shadow.
    IA32_SPEC_CTRL_SHADOW: u64, Rw = 0x204c;
    // SDM 3D, "Field Encoding in VMCS": 64-bit read-only data fields.
    /// Guest-physical address.
    GUEST_PHYSICAL_ADDRESS: u64, Ro = 0x2400;
    /// MSR data of an interrupted WRMSRLIST.
    MSR_DATA: u64, Ro = 0x2402;
    // SDM 3D, "Field Encoding in VMCS": 64-bit guest-state fields.
    /// VMCS link pointer.
    VMCS_LINK_POINTER: u64, Ctl = 0x2800;
    /// Guest IA32_DEBUGCTL.
    GUEST_IA32_DEBUGCTL: u64, Rw = 0x2802;
    /// Guest IA32_PAT.
    GUEST_IA32_PAT: u64, Rw = 0x2804;
    /// Guest IA32_EFER.
    GUEST_IA32_EFER: u64, Rw = 0x2806;
    /// Guest IA32_PERF_GLOBAL_CTRL.
    GUEST_IA32_PERF_GLOBAL_CTRL: u64, Rw = 0x2808;
    /// Guest PDPTE0.
    GUEST_PDPTE0: u64, Rw = 0x280a;
    /// Guest PDPTE1.
    GUEST_PDPTE1: u64, Rw = 0x280c;
    /// Guest PDPTE2.
    GUEST_PDPTE2: u64, Rw = 0x280e;
    /// Guest PDPTE3.
    GUEST_PDPTE3: u64, Rw = 0x2810;
    /// Guest IA32_BNDCFGS.
    GUEST_IA32_BNDCFGS: u64, Rw = 0x2812;
    /// Guest IA32_RTIT_CTL.
    GUEST_IA32_RTIT_CTL: u64, Rw = 0x2814;
    /// Guest IA32_LBR_CTL.
    GUEST_IA32_LBR_CTL: u64, Rw = 0x2816;
    /// Guest IA32_PKRS.
    GUEST_IA32_PKRS: u64, Rw = 0x2818;
    /// Guest IA32_SPEC_CTRL.
    GUEST_IA32_SPEC_CTRL: u64, Rw = 0x282e;
    // SDM 3D, "Field Encoding in VMCS": 64-bit host-state fields.
    /// Host IA32_PAT.
    HOST_IA32_PAT: u64, Ctl = 0x2c00;
    /// Host IA32_EFER.
    HOST_IA32_EFER: u64, Ctl = 0x2c02;
    /// Host IA32_PERF_GLOBAL_CTRL.
    HOST_IA32_PERF_GLOBAL_CTRL: u64, Ctl = 0x2c04;
    /// Host IA32_PKRS.
    HOST_IA32_PKRS: u64, Ctl = 0x2c06;
    /// Host IA32_SPEC_CTRL.
    HOST_IA32_SPEC_CTRL: u64, Ctl = 0x2c1a;
    // SDM 3D, "Field Encoding in VMCS": 32-bit control fields.
    /// Pin-based VM-execution controls.
    PIN_BASED_CONTROLS: u32, Ctl = 0x4000;
    /// Primary processor-based VM-execution controls.
    PRIMARY_PROCESSOR_BASED_CONTROLS: u32, Ctl = 0x4002;
    /// Exception bitmap.
    EXCEPTION_BITMAP: u32, Rw = 0x4004;
    /// Page-fault error-code mask.
    PAGE_FAULT_ERROR_CODE_MASK: u32, Rw = 0x4006;
    /// Page-fault error-code match.
    PAGE_FAULT_ERROR_CODE_MATCH: u32, Rw = 0x4008;
    /// CR3-target count.
    CR3_TARGET_COUNT: u32, Rw = 0x400a;
    /// Primary VM-exit controls.
    PRIMARY_VM_EXIT_CONTROLS: u32, Ctl = 0x400c;
    /// VM-exit MSR-store count.
    VM_EXIT_MSR_STORE_COUNT: u32, Ctl = 0x400e;
    /// VM-exit MSR-load count.
    VM_EXIT_MSR_LOAD_COUNT: u32, Ctl = 0x4010;
    /// VM-entry controls.
    VM_ENTRY_CONTROLS: u32, Ctl = 0x4012;
    /// VM-entry MSR-load count.
    VM_ENTRY_MSR_LOAD_COUNT: u32, Ctl = 0x4014;
    /// VM-entry interruption-information field.
    VM_ENTRY_INTERRUPTION_INFORMATION: u32, Rw = 0x4016;
    /// VM-entry exception error code.
    VM_ENTRY_EXCEPTION_ERROR_CODE: u32, Rw = 0x4018;
    /// VM-entry instruction length.
    VM_ENTRY_INSTRUCTION_LENGTH: u32, Rw = 0x401a;
    /// TPR threshold.
    TPR_THRESHOLD: u32, Rw = 0x401c;
    /// Secondary processor-based VM-execution controls.
    SECONDARY_PROCESSOR_BASED_CONTROLS: u32, Ctl = 0x401e;
    /// PLE_Gap.
    PLE_GAP: u32, Rw = 0x4020;
    /// PLE_Window.
    PLE_WINDOW: u32, Rw = 0x4022;
    /// Instruction-timeout control.
    INSTRUCTION_TIMEOUT_CONTROL: u32, Rw = 0x4024;
    // SDM 3D, "Field Encoding in VMCS": 32-bit read-only data fields.
    /// VM-instruction error.
    VM_INSTRUCTION_ERROR: u32, Ro = 0x4400;
    /// Exit reason.
    EXIT_REASON: u32, Ro = 0x4402;
    /// VM-exit interruption information.
    VM_EXIT_INTERRUPTION_INFORMATION: u32, Ro = 0x4404;
    /// VM-exit interruption error code.
    VM_EXIT_INTERRUPTION_ERROR_CODE: u32, Ro = 0x4406;
    /// IDT-vectoring information field.
    IDT_VECTORING_INFORMATION: u32, Ro = 0x4408;
    /// IDT-vectoring error code.
    IDT_VECTORING_ERROR_CODE: u32, Ro = 0x440a;
    /// VM-exit instruction length.
    VM_EXIT_INSTRUCTION_LENGTH: u32, Ro = 0x440c;
    /// VM-exit instruction information.
    VM_EXIT_INSTRUCTION_INFORMATION: u32, Ro = 0x440e;
    // SDM 3D, "Field Encoding in VMCS": 32-bit guest-state fields.
    /// Guest ES limit.
    GUEST_ES_LIMIT: u32, Rw = 0x4800;
    /// Guest CS limit.
    GUEST_CS_LIMIT: u32, Rw = 0x4802;
    /// Guest SS limit.
    GUEST_SS_LIMIT: u32, Rw = 0x4804;
    /// Guest DS limit.
    GUEST_DS_LIMIT: u32, Rw = 0x4806;
    /// Guest FS limit.
    GUEST_FS_LIMIT: u32, Rw = 0x4808;
    /// Guest GS limit.
    GUEST_GS_LIMIT: u32, Rw = 0x480a;
    /// Guest LDTR limit.
    GUEST_LDTR_LIMIT: u32, Rw = 0x480c;
    /// Guest TR limit.
    GUEST_TR_LIMIT: u32, Rw = 0x480e;
    /// Guest GDTR limit.
    GUEST_GDTR_LIMIT: u32, Rw = 0x4810;
    /// Guest IDTR limit.
    GUEST_IDTR_LIMIT: u32, Rw = 0x4812;
    /// Guest ES access rights.
    GUEST_ES_ACCESS_RIGHTS: u32, Rw = 0x4814;
    /// Guest CS access rights.
    GUEST_CS_ACCESS_RIGHTS: u32, Rw = 0x4816;
    /// Guest SS access rights.
    GUEST_SS_ACCESS_RIGHTS: u32, Rw = 0x4818;
    /// Guest DS access rights.
    GUEST_DS_ACCESS_RIGHTS: u32, Rw = 0x481a;
    /// Guest FS access rights.
    GUEST_FS_ACCESS_RIGHTS: u32, Rw = 0x481c;
    /// Guest GS access rights.
    GUEST_GS_ACCESS_RIGHTS: u32, Rw = 0x481e;
    /// Guest LDTR access rights.
    GUEST_LDTR_ACCESS_RIGHTS: u32, Rw = 0x4820;
    /// Guest TR access rights.
    GUEST_TR_ACCESS_RIGHTS: u32, Rw = 0x4822;
    /// Guest interruptibility state.
    GUEST_INTERRUPTIBILITY_STATE: u32, Rw = 0x4824;
    /// Guest activity state.
    GUEST_ACTIVITY_STATE: u32, Rw = 0x4826;
    /// Guest SMBASE.
    GUEST_SMBASE: u32, Ctl = 0x4828;
    /// Guest IA32_SYSENTER_CS.
    GUEST_IA32_SYSENTER_CS: u32, Rw = 0x482a;
    /// VMX-preemption timer value.
    VMX_PREEMPTION_TIMER_VALUE: u32, Rw = 0x482e;
    // SDM 3D, "Field Encoding in VMCS": 32-bit host-state field.
    /// Host IA32_SYSENTER_CS.
    HOST_IA32_SYSENTER_CS: u32, Ctl = 0x4c00;
    // SDM 3D, "Field Encoding in VMCS": Natural-width control fields.
    /// CR0 guest/host mask.
    CR0_GUEST_HOST_MASK: u64, Rw = 0x6000;
    /// CR4 guest/host mask.
    CR4_GUEST_HOST_MASK: u64, Rw = 0x6002;
    /// CR0 read shadow.
    CR0_READ_SHADOW: u64, Rw = 0x6004;
    /// CR4 read shadow.
    CR4_READ_SHADOW: u64, Rw = 0x6006;
    /// CR3-target value 0.
    CR3_TARGET_VALUE_0: u64, Rw = 0x6008;
    /// CR3-target value 1.
    CR3_TARGET_VALUE_1: u64, Rw = 0x600a;
    /// CR3-target value 2.
    CR3_TARGET_VALUE_2: u64, Rw = 0x600c;
    /// CR3-target value 3.
    CR3_TARGET_VALUE_3: u64, Rw = 0x600e;
    // SDM 3D, "Field Encoding in VMCS": Natural-width read-only data fields.
    /// Exit qualification.
    EXIT_QUALIFICATION: u64, Ro = 0x6400;
    /// I/O RCX.
    IO_RCX: u64, Ro = 0x6402;
    /// I/O RSI.
    IO_RSI: u64, Ro = 0x6404;
    /// I/O RDI.
    IO_RDI: u64, Ro = 0x6406;
    /// I/O RIP.
    IO_RIP: u64, Ro = 0x6408;
    /// Guest-linear address.
    GUEST_LINEAR_ADDRESS: u64, Ro = 0x640a;
    // SDM 3D, "Field Encoding in VMCS": Natural-width guest-state fields.
    /// Guest CR0.
    GUEST_CR0: u64, Rw = 0x6800;
    /// Guest CR3.
    GUEST_CR3: u64, Rw = 0x6802;
    /// Guest CR4.
    GUEST_CR4: u64, Rw = 0x6804;
    /// Guest ES base.
    GUEST_ES_BASE: u64, Rw = 0x6806;
    /// Guest CS base.
    GUEST_CS_BASE: u64, Rw = 0x6808;
    /// Guest SS base.
    GUEST_SS_BASE: u64, Rw = 0x680a;
    /// Guest DS base.
    GUEST_DS_BASE: u64, Rw = 0x680c;
    /// Guest FS base.
    GUEST_FS_BASE: u64, Rw = 0x680e;
    /// Guest GS base.
    GUEST_GS_BASE: u64, Rw = 0x6810;
    /// Guest LDTR base.
    GUEST_LDTR_BASE: u64, Rw = 0x6812;
    /// Guest TR base.
    GUEST_TR_BASE: u64, Rw = 0x6814;
    /// Guest GDTR base.
    GUEST_GDTR_BASE: u64, Rw = 0x6816;
    /// Guest IDTR base.
    GUEST_IDTR_BASE: u64, Rw = 0x6818;
    /// Guest DR7.
    GUEST_DR7: u64, Rw = 0x681a;
    /// Guest RSP.
    GUEST_RSP: u64, Rw = 0x681c;
    /// Guest RIP.
    GUEST_RIP: u64, Rw = 0x681e;
    /// Guest RFLAGS.
    GUEST_RFLAGS: u64, Rw = 0x6820;
    /// Guest pending debug exceptions.
    GUEST_PENDING_DEBUG_EXCEPTIONS: u64, Rw = 0x6822;
    /// Guest IA32_SYSENTER_ESP.
    GUEST_IA32_SYSENTER_ESP: u64, Rw = 0x6824;
    /// Guest IA32_SYSENTER_EIP.
    GUEST_IA32_SYSENTER_EIP: u64, Rw = 0x6826;
    /// Guest IA32_S_CET.
    GUEST_IA32_S_CET: u64, Rw = 0x6828;
    /// Guest SSP.
    GUEST_SSP: u64, Rw = 0x682a;
    /// Guest IA32_INTERRUPT_SSP_TABLE_ADDR.
    GUEST_IA32_INTERRUPT_SSP_TABLE_ADDR: u64, Rw = 0x682c;
    // SDM 3D, "Field Encoding in VMCS": Natural-width host-state fields.
    /// Host CR0.
    HOST_CR0: u64, Ctl = 0x6c00;
    /// Host CR3.
    HOST_CR3: u64, Ctl = 0x6c02;
    /// Host CR4.
    HOST_CR4: u64, Ctl = 0x6c04;
    /// Host FS base.
    HOST_FS_BASE: u64, Ctl = 0x6c06;
    /// Host GS base.
    HOST_GS_BASE: u64, Ctl = 0x6c08;
    /// Host TR base.
    HOST_TR_BASE: u64, Ctl = 0x6c0a;
    /// Host GDTR base.
    HOST_GDTR_BASE: u64, Ctl = 0x6c0c;
    /// Host IDTR base.
    HOST_IDTR_BASE: u64, Ctl = 0x6c0e;
    /// Host IA32_SYSENTER_ESP.
    HOST_IA32_SYSENTER_ESP: u64, Ctl = 0x6c10;
    /// Host IA32_SYSENTER_EIP.
    HOST_IA32_SYSENTER_EIP: u64, Ctl = 0x6c12;
    /// Host RSP.
    HOST_RSP: u64, Ctl = 0x6c14;
    /// Host RIP.
    HOST_RIP: u64, Ctl = 0x6c16;
    /// Host IA32_S_CET.
    HOST_IA32_S_CET: u64, Ctl = 0x6c18;
    /// Host SSP.
    HOST_SSP: u64, Ctl = 0x6c1a;
    /// Host IA32_INTERRUPT_SSP_TABLE_ADDR.
    HOST_IA32_INTERRUPT_SSP_TABLE_ADDR: u64, Ctl = 0x6c1c;
}

#[cfg(test)]
mod tests {
    use super::{ALL, Shadow, name, shadow};

    #[test]
    fn encodings_are_in_order_and_unique() {
        // The manual lists them by width, then type, then index: the order of the encodings.
        assert!(ALL.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(ALL.len() > 150);
    }

    #[test]
    fn names_are_found() {
        assert_eq!(name(0x681e), "GUEST_RIP");
        assert_eq!(name(0x1234), "unknown field");
    }

    #[test]
    fn encodings_agree_with_the_x86_crate() {
        use x86::vmx::vmcs::{control, guest, host, ro};
        let table = [
            (super::EXIT_REASON.encoding(), ro::EXIT_REASON),
            (
                super::GUEST_PHYSICAL_ADDRESS.encoding(),
                ro::GUEST_PHYSICAL_ADDR_FULL,
            ),
            (
                super::IDT_VECTORING_ERROR_CODE.encoding(),
                ro::IDT_VECTORING_ERR_CODE,
            ),
            (
                super::GUEST_LINEAR_ADDRESS.encoding(),
                ro::GUEST_LINEAR_ADDR,
            ),
            (
                super::VIRTUAL_PROCESSOR_IDENTIFIER.encoding(),
                control::VPID,
            ),
            (super::EPT_POINTER.encoding(), control::EPTP_FULL),
            (super::TSC_OFFSET.encoding(), control::TSC_OFFSET_FULL),
            (super::PLE_WINDOW.encoding(), control::PLE_WINDOW),
            (super::CR4_READ_SHADOW.encoding(), control::CR4_READ_SHADOW),
            (super::GUEST_IA32_EFER.encoding(), guest::IA32_EFER_FULL),
            (
                super::GUEST_TR_ACCESS_RIGHTS.encoding(),
                guest::TR_ACCESS_RIGHTS,
            ),
            (super::GUEST_RFLAGS.encoding(), guest::RFLAGS),
            (
                super::VMX_PREEMPTION_TIMER_VALUE.encoding(),
                guest::VMX_PREEMPTION_TIMER_VALUE,
            ),
            (super::HOST_TR_SELECTOR.encoding(), host::TR_SELECTOR),
            (super::HOST_IA32_PAT.encoding(), host::IA32_PAT_FULL),
            (super::HOST_RIP.encoding(), host::RIP),
        ];
        for (ours, theirs) in table {
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn the_shadow_set_is_kvms() {
        let count = |kind| {
            ALL.iter()
                .filter(|(encoding, _)| shadow(*encoding) == kind)
                .count()
        };
        assert_eq!(count(Shadow::Read), 11);
        assert_eq!(count(Shadow::ReadWrite), 23);
        assert!(super::GUEST_RIP.is_write_shadowed());
        assert!(super::GUEST_CS_ACCESS_RIGHTS.is_shadowed());
        assert!(!super::GUEST_CS_ACCESS_RIGHTS.is_write_shadowed());
        assert!(!super::HOST_RSP.is_shadowed());
        assert!(!super::GUEST_IA32_EFER.is_shadowed());
    }
}
