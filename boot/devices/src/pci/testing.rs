//! A model of configuration space.

use core::cell::RefCell;
use std::collections::BTreeMap;

use super::{Address, Config};

/// Functions, their registers, and of base address registers the bits that can be set.
pub(crate) struct Model {
    words: RefCell<BTreeMap<(Address, u8), u32>>,
    masks: RefCell<BTreeMap<(Address, u8), u32>>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            words: RefCell::default(),
            masks: RefCell::default(),
        }
    }

    /// Adds a function with its first word and that of its class.
    pub(crate) fn add(&self, at: Address, id: u32, class: u32) {
        let mut words = self.words.borrow_mut();
        words.insert((at, 0), id);
        words.insert((at, 8), class);
    }

    /// Sets a base address register, and what can be read after all ones were written.
    pub(crate) fn bar(&self, at: Address, number: u8, value: u32, mask: u32) {
        let register = 0x10 + 4 * number;
        self.words.borrow_mut().insert((at, register), value);
        self.masks.borrow_mut().insert((at, register), mask);
    }
}

impl Config for Model {
    fn read32(&self, function: Address, at: u8) -> u32 {
        assert_eq!(at % 4, 0);
        let words = self.words.borrow();
        if !words.contains_key(&(function, 0)) {
            return !0;
        }
        words.get(&(function, at)).copied().unwrap_or(0)
    }

    fn write32(&self, function: Address, at: u8, value: u32) {
        assert_eq!(at % 4, 0);
        let masks = self.masks.borrow();
        let value = match masks.get(&(function, at)) {
            Some(mask) if value == !0 => *mask,
            None if value == !0 && (0x10..0x28).contains(&at) => 0,
            _ => value,
        };
        // The upper half of the command register is the status; zeros leave it as it is.
        self.words.borrow_mut().insert((function, at), value);
    }
}
