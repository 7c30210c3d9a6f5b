//! Scripted debugger sessions: the `.gdb` files beside this one say what they do.

pub(super) mod boot;
pub(super) mod nested;
mod relay;
mod session;
