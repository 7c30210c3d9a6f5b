//! Extended page tables: format, walk, map and split, as pure logic.
#![no_std]
