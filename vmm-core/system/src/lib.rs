//! The boot archive: system configuration and guest images in one file.
#![no_std]
