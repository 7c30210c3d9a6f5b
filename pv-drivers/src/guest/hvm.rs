//! Parameters of this domain and the vector of its event upcalls (`HVMOP_*`).

use abi::hvm::{EvtchnUpcallVector, GET_PARAM, Param, SET_EVTCHN_UPCALL_VECTOR, SET_PARAM, param};
use abi::hypercall::HVM_OP;
use abi::{DomId, VcpuId};
use zerocopy::FromZeros;

use crate::hypercall::{Refused, Reply, command};

fn own(index: u32, value: u64) -> Param {
    let mut argument = Param::new_zeroed();
    argument.domid = DomId::SELF.0;
    argument.index = index;
    argument.value = value;
    argument
}

/// Reads a parameter of this domain.
///
/// # Errors
/// `-EPERM` or `-EINVAL` for one the guest may not read.
pub fn get_param(index: u32) -> Result<u64, Refused> {
    let mut argument = own(index, 0);
    command(HVM_OP, GET_PARAM, &mut argument)?;
    Ok(argument.value)
}

/// Sets a parameter of this domain.
///
/// # Errors
/// `-EPERM` or `-EINVAL` for one the guest may not set.
pub fn set_param(index: u32, value: u64) -> Reply {
    command(HVM_OP, SET_PARAM, &mut own(index, value))
}

/// Has event upcalls come as an interrupt of `vector` on every vCPU, past the local APIC.
///
/// # Errors
/// As [`set_param`].
pub fn set_callback_vector(vector: u8) -> Reply {
    let kind = u64::from(param::CALLBACK_TYPE_VECTOR) << param::CALLBACK_TYPE_SHIFT;
    set_param(param::CALLBACK_IRQ, kind | u64::from(vector))
}

/// Has event upcalls of one vCPU come through its local APIC at `vector`.
///
/// # Errors
/// `-EINVAL` for a vector below 0x10, `-ENOENT` for no such vCPU.
pub fn set_upcall_vector(vcpu: VcpuId, vector: u8) -> Reply {
    let mut argument = EvtchnUpcallVector::new_zeroed();
    argument.vcpu = vcpu.0;
    argument.vector = vector;
    command(HVM_OP, SET_EVTCHN_UPCALL_VECTOR, &mut argument)
}
