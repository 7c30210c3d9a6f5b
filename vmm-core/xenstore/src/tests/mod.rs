//! The store as its clients meet it: messages in, messages out.

mod basic;
mod quotas;
mod transactions;
mod watches;

use crate::testing::{
    ask, begin, end, events, read, send, store, store_with, take, usage, word, write,
};
