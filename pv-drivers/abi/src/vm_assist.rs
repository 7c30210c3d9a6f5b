//! Arguments of `HYPERVISOR_vm_assist` (`public/xen.h`).

/// `VMASST_CMD_enable`.
pub const ENABLE: u64 = 0;
/// `VMASST_CMD_disable`.
pub const DISABLE: u64 = 1;

/// `VMASST_TYPE_runstate_update_flag`: runstate areas say when they are being written.
pub const RUNSTATE_UPDATE_FLAG: u64 = 5;
