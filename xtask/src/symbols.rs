//! The symbol table that goes into the hypervisor image.
