//! Maps a page that `grantor` (domain `peer=`) grants it, writes to it, and ends with it mapped.
#![no_std]
#![no_main]

use abi::GrantRef;
use guests::grants::{self, HOLE};
use guests::mailbox::wait;
use guests::report::Report;
use guests::{check, check_eq, cpu, runtime};

guests::main!(run);

const MARK: u64 = 0x1122_3344_5566_0000;

fn run(t: &mut Report) {
    let peer = runtime::domain("peer");
    let mapped = wait(|| grants::map(peer, GrantRef(11), HOLE, false).is_ok());
    check!(t, mapped, "mapping");
    let address = HOLE.gpa().raw();
    check_eq!(t, cpu::read64(address), Ok(MARK + 3), "the page's bytes");
    check_eq!(t, cpu::write64(address + 8, MARK), Ok(()), "writing");
}
