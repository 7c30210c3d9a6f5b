//! What front ends of a guest have in common: its memory and grants, its ports, its way to the
//! xenstore.

use abi::event_channel::{ALLOC_UNBOUND, AllocUnbound, CLOSE, Port, SEND};
use abi::grant_table::{flags, v1};
use abi::hvm::{GET_PARAM, Param, param};
use abi::hypercall::{EVENT_CHANNEL_OP, HVM_OP, MEMORY_OP};
use abi::memory::{ADD_TO_PHYSMAP, AddToPhysmap, SPACE_GRANT_TABLE};
use abi::xs_wire::{MsgHeader, REQ_PROD, RING_SIZE, RSP, RSP_CONS, RSP_PROD, kind};
use abi::{DomId, PAGE_SIZE};
use vmm_core::testing::{Guest, TestMachine};
use vmm_core::{backend, leftovers};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Where arguments of hypercalls lie.
const ARGUMENT: u64 = 0x9000;
/// The page at which the guest has its grant table.
const TABLE: u64 = 0x20;
/// Rounds of left-over work that there may be for what a guest can ask at once.
const ROUNDS: u32 = 10_000;

/// What domain 0 may do with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rights {
    None,
    Read,
    Write,
}

/// A guest with devices.
#[derive(Debug)]
pub(super) struct Front<'m> {
    pub(super) guest: Guest<'m>,
    id: u16,
    /// Its ring to the xenstore, and the port that goes with it.
    store: u64,
    store_port: u32,
}

impl<'m> Front<'m> {
    /// The guest with this number; its domain's id is one more.
    pub(super) fn new(machine: &'m TestMachine, number: usize) -> Self {
        let id = u16::try_from(number + 1).expect("few guests");
        let guest = Guest::with_devices(machine, number, id).expect("room for a guest");
        let mut front = Self {
            guest,
            id,
            store: 0,
            store_port: 0,
        };
        front.store = front.param(param::STORE_PFN) << abi::PAGE_SHIFT;
        front.store_port = u32::try_from(front.param(param::STORE_EVTCHN)).expect("a port");
        let mut place = AddToPhysmap::new_zeroed();
        place.domid = DomId::SELF.0;
        place.space = SPACE_GRANT_TABLE;
        place.gpfn = TABLE;
        assert_eq!(front.command(MEMORY_OP, ADD_TO_PHYSMAP, &mut place), 0);
        front
    }

    fn param(&self, index: u32) -> u64 {
        let mut request = Param::new_zeroed();
        request.domid = DomId::SELF.0;
        request.index = index;
        assert_eq!(self.command(HVM_OP, GET_PARAM, &mut request), 0);
        request.value
    }

    /// Makes a hypercall with a command and its argument.
    fn command<T>(&self, number: u64, command: u64, argument: &mut T) -> u64
    where
        T: FromBytes + IntoBytes + Immutable,
    {
        assert!(self.guest.write(ARGUMENT, argument.as_bytes()));
        let result = self
            .guest
            .hypercall(0, number, [command, ARGUMENT, 0, 0, 0]);
        assert!(self.guest.read(ARGUMENT, argument.as_mut_bytes()));
        result.expect("the guest lives")
    }

    pub(super) fn read<T: FromBytes + IntoBytes>(&self, at: u64) -> T {
        let mut value = T::new_zeroed();
        assert!(self.guest.read(at, value.as_mut_bytes()), "{at:#x}");
        value
    }

    pub(super) fn write<T: IntoBytes + Immutable + ?Sized>(&self, at: u64, value: &T) {
        assert!(self.guest.write(at, value.as_bytes()), "{at:#x}");
    }

    /// Writes an entry of the grant table.
    pub(super) fn grant(&self, gref: u32, page: u64, rights: Rights) {
        let flags = match rights {
            Rights::None => 0,
            Rights::Read => flags::PERMIT_ACCESS | flags::READONLY,
            Rights::Write => flags::PERMIT_ACCESS,
        };
        let at = (TABLE << abi::PAGE_SHIFT) + u64::from(gref) * v1::ENTRY_SIZE as u64;
        let frame = u32::try_from(page).expect("a small frame");
        self.write(at + v1::FRAME as u64, &frame);
        self.write(at + v1::DOMID as u64, &DomId::CONTROL.0);
        self.write(at + v1::FLAGS as u64, &flags);
    }

    /// A port that waits for domain 0.
    pub(super) fn new_port(&self) -> u32 {
        let mut request = AllocUnbound::new_zeroed();
        request.dom = DomId::SELF.0;
        request.remote_dom = DomId::CONTROL.0;
        let made = self.command(EVENT_CHANNEL_OP, ALLOC_UNBOUND, &mut request);
        assert_eq!(made, 0, "a port");
        request.port
    }

    pub(super) fn close_port(&self, port: u32) {
        self.command(EVENT_CHANNEL_OP, CLOSE, &mut Port { port });
    }

    /// Sends an event, and lets the back end finish what it is about.
    pub(super) fn send(&self, port: u32) {
        self.command(EVENT_CHANNEL_OP, SEND, &mut Port { port });
        finish();
    }

    /// Asks the xenstore something; the body of the answer, or `None` for a refusal.
    fn ask(&self, kind: u32, body: &[u8]) -> Option<Vec<u8>> {
        let header = MsgHeader {
            kind,
            req_id: 0,
            tx_id: 0,
            len: u32::try_from(body.len()).expect("a short one"),
        };
        let mut prod: u32 = self.read(self.store + REQ_PROD as u64);
        for byte in header.as_bytes().iter().chain(body) {
            self.write(self.store + u64::from(prod % RING_SIZE), byte);
            prod = prod.wrapping_add(1);
        }
        self.write(self.store + REQ_PROD as u64, &prod);
        self.send(self.store_port);
        self.answer()
    }

    fn answer(&self) -> Option<Vec<u8>> {
        let mut cons: u32 = self.read(self.store + RSP_CONS as u64);
        let mut take = |count: usize| -> Vec<u8> {
            let at = |index: u32| self.store + RSP as u64 + u64::from(index % RING_SIZE);
            let bytes = (0..count).map(|_| {
                let byte = self.read(at(cons));
                cons = cons.wrapping_add(1);
                byte
            });
            bytes.collect()
        };
        let header = MsgHeader::read_from_bytes(&take(size_of::<MsgHeader>())).expect("a header");
        let body = take(header.len as usize);
        self.write(self.store + RSP_CONS as u64, &cons);
        let prod: u32 = self.read(self.store + RSP_PROD as u64);
        assert_eq!(cons, prod, "one answer to each question");
        (header.kind != kind::ERROR).then_some(body)
    }

    /// Sets a key of its own.
    pub(super) fn say(&self, path: &str, value: impl std::fmt::Display) {
        let body = format!("{path}\0{value}");
        assert!(self.ask(kind::WRITE, body.as_bytes()).is_some(), "{path}");
    }

    /// Removes one.
    pub(super) fn forget(&self, path: &str) {
        let _ = self.ask(kind::RM, format!("{path}\0").as_bytes());
    }

    /// The state of a back end.
    pub(super) fn state_of_back(&self, kind: &str, number: u32) -> u8 {
        let path = format!(
            "/local/domain/0/backend/{kind}/{}/{number}/state\0",
            self.id
        );
        let value = self.ask(kind::READ, path.as_bytes());
        let state = match value.as_deref() {
            Some([digit @ b'1'..=b'8']) => Some(digit - b'0'),
            _ => None,
        };
        state.expect("a back end says its state")
    }
}

/// Does what guests have left over, which comes to an end.
pub(super) fn finish() {
    for _ in 0..ROUNDS {
        if !leftovers::any() {
            return;
        }
        leftovers::serve();
    }
    assert!(!backend::has_more(), "back ends come to an end");
}

/// The address of a page.
pub(super) const fn address(page: u64) -> u64 {
    page * PAGE_SIZE as u64
}
