//! Changes to the source of Bochs 3.0: two mistakes mended, and faults that tests ask for.
//!
//! What a fault does is told by `faults.h`, which goes into Bochs as it is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The environment variable that names the faults of one run.
pub(crate) const FAULTS: &str = "TESSERA_BOCHS_FAULTS";

/// Lines to add to a source file behind others, which it has once.
struct Mend {
    file: &'static str,
    after: &'static str,
    add: &'static str,
}

/// Applies all changes to the unpacked source.
pub(super) fn apply(tree: &Path) -> Result<()> {
    let header = tree.join("cpu/tessera_faults.h");
    fs::write(&header, include_str!("faults.h")).context("cannot write to the cache")?;
    for file in FAULTY {
        include(file).apply(tree)?;
    }
    MENDS.iter().try_for_each(|mend| mend.apply(tree))
}

impl Mend {
    fn apply(&self, tree: &Path) -> Result<()> {
        let path = tree.join(self.file);
        let source = fs::read_to_string(&path).context("the source is not what it was")?;
        ensure!(
            source.matches(self.after).count() == 1,
            "{} is not what it was: a change to it does not fit",
            self.file
        );
        let both = [self.after, self.add].concat();
        fs::write(&path, source.replace(self.after, &both)).context("cannot write to the cache")
    }
}

/// The files that ask for faults.
const FAULTY: &[&str] = &["cpu/vmcs.cc", "cpu/vmx.cc", "cpu/msr.cc", "cpu/event.cc"];

const fn include(file: &'static str) -> Mend {
    Mend {
        file,
        after: "#include \"cpu.h\"\n",
        add: "#include \"tessera_faults.h\"\n",
    }
}

const MENDS: &[Mend] = &[
    // A mistake that only shows with several CPUs. When an exception or a VM exit leaves the
    // emulation of an instruction, the loop for one CPU notes the new instruction pointer before
    // it goes on, and the function that the loop for several calls does not. A VM exit by an
    // interrupt or the preemption timer in front of an exception handler's first instruction then
    // saves the address of the instruction that faulted, with the handler's stack pointer.
    Mend {
        file: "cpu/cpu.cc",
        after: "void BX_CPU_C::cpu_run_trace(void)\n{\n",
        add: "  BX_CPU_THIS_PTR prev_rip = RIP;\n  BX_CPU_THIS_PTR speculative_rsp = false;\n\n",
    },
    // Interrupts end a guest's turn whatever its RFLAGS.IF says (SDM 3C, "Pin-Based VM-Execution
    // Controls", external-interrupt exiting). What masks them is decided before the CPU counts as in
    // VMX non-root operation, so a guest that was entered with IF = 0 kept them out until it set IF:
    // a KVM whose guest spins with IF = 0 got no more timer interrupts.
    Mend {
        file: "cpu/vmx.cc",
        after: "  BX_CPU_THIS_PTR in_vmx_guest = true;\n",
        add: "  handleInterruptMaskChange();\n",
    },
    Mend {
        file: "cpu/vmcs.cc",
        after: "  init_vmexit_ctrls();\n  init_vmentry_ctrls();\n",
        add: "\
  struct bx_VMX_Cap *cap = &BX_CPU_THIS_PTR vmx_cap;
  cap->vmx_pin_vmexec_ctrl_supported_bits = \
(Bit32u) tessera_present(0x481, cap->vmx_pin_vmexec_ctrl_supported_bits);
  cap->vmx_proc_vmexec_ctrl_supported_bits = \
(Bit32u) tessera_present(0x482, cap->vmx_proc_vmexec_ctrl_supported_bits);
  cap->vmx_vmexit_ctrl1_supported_bits = \
(Bit32u) tessera_present(0x483, cap->vmx_vmexit_ctrl1_supported_bits);
  cap->vmx_vmentry_ctrl_supported_bits = \
(Bit32u) tessera_present(0x484, cap->vmx_vmentry_ctrl_supported_bits);
  cap->vmx_vmexec_ctrl2_supported_bits = \
(Bit32u) tessera_present(0x48b, cap->vmx_vmexec_ctrl2_supported_bits);
  cap->vmx_ept_vpid_cap_supported_bits = \
tessera_present(0x48c, cap->vmx_ept_vpid_cap_supported_bits);
",
    },
    Mend {
        file: "cpu/vmcs.cc",
        after: "bool BX_CPU_C::vmcs_field_supported(Bit32u encoding)\n{\n",
        add: "  if (! tessera_has_field(encoding)) return false;\n",
    },
    // The types that IA32_VMX_EPT_VPID_CAP does not report fail.
    Mend {
        file: "cpu/vmx.cc",
        after: "  read_virtual_xmmword(i->seg(), eaddr, &inv_eptp);\n",
        add: "\
  if (type < 4 && ! (VMX_MSR_VMX_EPT_VPID_CAP >> (24 + type) & 1)) {
    VMfail(VMXERR_INVALID_INVEPT_INVVPID);
    BX_NEXT_TRACE(i);
  }
",
    },
    Mend {
        file: "cpu/vmx.cc",
        after: "  read_virtual_xmmword(i->seg(), eaddr, &invvpid_desc);\n",
        add: "\
  if (type < 4 && ! (VMX_MSR_VMX_EPT_VPID_CAP >> (40 + type) & 1)) {
    VMfail(VMXERR_INVALID_INVEPT_INVVPID);
    BX_NEXT_TRACE(i);
  }
",
    },
    Mend {
        file: "cpu/vmx.cc",
        after: "\
      BX_ERROR((\"VMXON: invalid or not page aligned physical address !\"));
      VMfailInvalid();
      BX_NEXT_INSTR(i);
    }
",
        add: "\
    if (tessera_fault_on(BX_CPU_ID, \"vmxon-fails\")) {
      VMfailInvalid();
      BX_NEXT_INSTR(i);
    }
",
    },
    Mend {
        file: "cpu/msr.cc",
        after: "      val64 = VMX_MSR_VMX_BASIC;\n",
        add: "      val64 = tessera_present(0x480, val64);\n",
    },
    Mend {
        file: "cpu/msr.cc",
        after: "      val64 = VMX_MSR_MISC;\n",
        add: "      val64 = tessera_present(0x485, val64);\n",
    },
    // Firmware writes this MSR before anybody is in long mode.
    Mend {
        file: "cpu/msr.cc",
        after: "      BX_CPU_THIS_PTR msr.ia32_feature_ctrl = val32_lo;\n",
        add: "\
      if (BX_CPU_THIS_PTR cpu_mode < BX_MODE_LONG_COMPAT) {
        if (tessera_fault_on(BX_CPU_ID, \"feature-control-open\"))
          BX_CPU_THIS_PTR msr.ia32_feature_ctrl = 0;
        if (tessera_fault_on(BX_CPU_ID, \"feature-control-locked\"))
          BX_CPU_THIS_PTR msr.ia32_feature_ctrl = BX_IA32_FEATURE_CONTROL_LOCK_BIT;
      }
",
    },
    // Firmware counts the CPUs by starting them, before anybody is in long mode.
    Mend {
        file: "cpu/event.cc",
        after: "void BX_CPU_C::deliver_SIPI(unsigned vector)\n{\n",
        add: "\
  if (BX_CPU(0)->cpu_mode >= BX_MODE_LONG_COMPAT && \
tessera_fault_on(BX_CPU_ID, \"sipi-ignored\"))
    return;
",
    },
];
