//! Host-side harness: boots real images and judges them by their serial console.
#![no_std]
