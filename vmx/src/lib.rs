//! Intel VT-x: every privileged CPU instruction, the VMCS, VM entry and exit decoding.
#![no_std]
