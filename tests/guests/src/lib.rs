//! Micro-guests.
#![no_std]
