//! A web server that is a kernel of its own: it answers ping, and HTTP on port 80, from a network
//! interface, a disk if it has one, and nothing else but the public ABI.
//!
//! `ip=ADDRESS/BITS` and `gateway=ADDRESS` on the command line say who it is. It sleeps in
//! `SCHEDOP_poll` until one of its event channels or a timer of TCP has something for it, takes no
//! interrupts, and powers off when the toolstack asks for that by `control/shutdown`. Return on its
//! console shows how it is.
#![no_std]
#![no_main]

mod connection;
mod disk;
mod page;

use core::str::FromStr;

use guests::memory::{self, Page};
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, console, cpu, grants, runtime, say};
use heapless::Vec;
use pv_drivers::guest::pending::Pending;
use pv_drivers::net::stack::{Buffers, Device};
use pv_drivers::net::{self, InterfaceFront, Pages};
use pv_drivers::ring::Broken;
use pv_drivers::shared_page::SharedPage;
use pv_drivers::xenbus::{self, front::Phase};
use pv_drivers::xenstore::{Client, Text};
use smoltcp::iface::{Config, Interface, PollResult, SocketSet, SocketStorage};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};
use static_cell::ConstStaticCell;

use connection::CONNECTIONS;
use disk::Disk;
use page::Facts;

guests::main!(run);

/// Pages for frames, each way.
const SLOTS: usize = 64;
/// The longest sleep, in nanoseconds.
const NAP: u64 = 1_000_000_000;
/// The token of the watch on what the toolstack wants.
const SHUTDOWN: &str = "shutdown";

static NET: [Page; 2 + 2 * SLOTS] = [const { Page::new() }; 2 + 2 * SLOTS];
static BUFFERS: ConstStaticCell<Buffers> = ConstStaticCell::new(Buffers::new());

type Bus = xenbus::Bus<[SharedPage; 1]>;
type Port = InterfaceFront<SLOTS, SLOTS>;

/// An address with the length of its network's part.
struct Cidr(Ipv4Cidr);

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').ok_or(())?;
        let address = address.parse().map_err(|_| ())?;
        let bits = bits.parse().ok().filter(|bits| *bits <= 32).ok_or(())?;
        Ok(Self(Ipv4Cidr::new(address, bits)))
    }
}

/// The guest's side of the hypervisor.
struct Machine {
    bus: Bus,
    pending: Pending,
    clock: SharedInfo,
    net: Port,
    disk: Option<Disk>,
}

fn run(t: &mut Report) {
    let Some(Cidr(address)) = runtime::option("ip") else {
        check!(t, false, "ip=ADDRESS/BITS on the command line");
        return;
    };
    match Machine::start() {
        Ok(mut machine) => {
            let end = machine.serve(address);
            check!(t, end.is_ok(), "serving ends in order ({end:?})");
        }
        Err(why) => {
            check!(t, false, "a store, grants and vif 0 ({why:?})");
        }
    }
}

impl Machine {
    fn start() -> Result<Self, xenbus::Error> {
        let clock = SharedInfo::map();
        let pending = Pending::masked(clock.page());
        let no_store = xenbus::Error::Key("store");
        let frame = Client::frame().ok_or(no_store)?;
        let store = Client::connect(memory::view(frame))?;
        let grants = grants::table().map_err(|_| xenbus::Error::NoGrant)?;
        let mut bus = Bus { store, grants };
        let page = |number: usize| NET[number].own();
        let front = net::Front::new(Pages {
            rings: [page(0), page(1)],
            rx: core::array::from_fn(|slot| page(2 + slot)),
            tx: core::array::from_fn(|slot| page(2 + SLOTS + slot)),
        });
        let net = Port::new(&mut bus, 0, front)?;
        bus.store.watch("control/shutdown", SHUTDOWN)?;
        Ok(Self {
            disk: Disk::find(&mut bus),
            bus,
            pending,
            clock,
            net,
        })
    }

    /// Serves until the toolstack wants an end.
    fn serve(&mut self, address: Ipv4Cidr) -> Result<(), xenbus::Error> {
        while self.net.phase() != Phase::Connected {
            self.sleep(None);
            if self.wants_end()? {
                return Ok(());
            }
        }
        let buffers = BUFFERS.take();
        let mut stack = self.stack(address, buffers)?;
        let mut sockets = [const { SocketStorage::EMPTY }; CONNECTIONS];
        let mut sockets = SocketSet::new(&mut sockets[..]);
        let mut connections = connection::all(&mut sockets);
        let facts = Facts::learn(&mut self.bus.store, address.address());
        facts.show(self);
        loop {
            self.look_at_devices(&facts);
            if self.wants_end()? {
                return self.end();
            }
            let now = self.now();
            loop {
                let served = self.exchange(&mut stack, &mut sockets, buffers, now)?;
                let mut moved = false;
                for connection in &mut connections {
                    moved |= connection.serve(&mut sockets, self, &facts);
                }
                if served == PollResult::None && !moved {
                    break;
                }
            }
            connection::keep_listening(&connections, &mut sockets);
            let next = stack.poll_at(now, &sockets);
            self.sleep(next);
        }
    }

    fn stack(
        &mut self,
        address: Ipv4Cidr,
        buffers: &mut Buffers,
    ) -> Result<Interface, xenbus::Error> {
        let mut config = Config::new(EthernetAddress(self.net.mac()).into());
        config.random_seed = cpu::rdtsc();
        let now = self.now();
        let broken = |Broken| xenbus::Error::Key("ring");
        let mut device = Device::new(&mut self.net, buffers).map_err(broken)?;
        let mut stack = Interface::new(config, &mut device, now);
        stack.update_ip_addrs(|addresses| {
            // There is room for two.
            let _ = addresses.push(IpCidr::Ipv4(address));
        });
        if let Some(gateway) = runtime::option::<Ipv4Address>("gateway") {
            // There is room for one.
            let _ = stack.routes_mut().add_default_ipv4_route(gateway);
        }
        Ok(stack)
    }

    /// Takes frames that came and sends what sockets have.
    fn exchange(
        &mut self,
        stack: &mut Interface,
        sockets: &mut SocketSet<'_>,
        buffers: &mut Buffers,
        now: Instant,
    ) -> Result<PollResult, xenbus::Error> {
        let result = Device::new(&mut self.net, buffers).and_then(|mut device| {
            let result = stack.poll(now, &mut device, sockets);
            device.finish().map(|()| result)
        });
        match result {
            Ok(result) => Ok(result),
            Err(Broken) => {
                self.net.restart(&mut self.bus)?;
                Ok(PollResult::None)
            }
        }
    }

    /// Forgets the devices' events, before looking at what is behind them: who has more to say after
    /// that makes another one.
    fn look_at_devices(&mut self, facts: &Facts) {
        if let Some(mut console) = console::client()
            && self.pending.take(console.port())
        {
            let mut typed = [0; 16];
            let mut asked = false;
            while let Ok(count @ 1..) = console.read(&mut typed) {
                asked |= typed[..count].contains(&b'\r');
            }
            if asked {
                facts.show(self);
            }
        }
        if let Some(port) = self.net.port() {
            // What came is taken in any case.
            let _ = self.pending.take(port);
        }
        if let Some(disk) = &mut self.disk
            && disk.port().is_some_and(|port| self.pending.take(port))
        {
            disk.complete(&mut self.bus);
        }
    }

    /// Hears what the store has to tell; true when the toolstack wants the guest to end.
    fn wants_end(&mut self) -> Result<bool, xenbus::Error> {
        let store = &mut self.bus.store;
        // Asking for it makes events, too.
        if !self.pending.take(store.port()) {
            return Ok(false);
        }
        store.poll()?;
        let mut asked = false;
        let mut changed = false;
        while let Some(event) = store.event() {
            asked |= event.token == SHUTDOWN;
            changed |= event.token != SHUTDOWN;
        }
        if changed {
            self.net.look(&mut self.bus)?;
            if let Some(disk) = &mut self.disk {
                disk.look(&mut self.bus);
            }
        }
        let store = &mut self.bus.store;
        let wish: Text = if asked {
            store.read("control/shutdown").unwrap_or_default()
        } else {
            Text::new()
        };
        if !wish.is_empty() {
            say!("unikernel: asked for {wish}");
            store.write("control/shutdown", "")?;
        }
        Ok(matches!(wish.as_str(), "poweroff" | "halt" | "reboot"))
    }

    /// Sleeps until there is an event, or `next`.
    fn sleep(&self, next: Option<Instant>) {
        let disk = self.disk.as_ref().and_then(Disk::port);
        let console = console::client().map(|console| console.port());
        let store = Some(self.bus.store.port());
        let ports: Vec<_, 4> = [store, self.net.port(), disk, console]
            .into_iter()
            .flatten()
            .collect();
        let nap = self.clock.now() + NAP;
        let next = next.and_then(|next| u64::try_from(next.total_micros()).ok());
        let deadline = next.map_or(nap, |next| nap.min(next * 1000));
        // At worst it looks around for nothing.
        let _ = self.pending.wait(&ports, deadline);
    }

    fn end(&mut self) -> Result<(), xenbus::Error> {
        self.net.close(&mut self.bus)?;
        if let Some(disk) = &mut self.disk {
            disk.close(&mut self.bus);
        }
        Ok(())
    }

    fn now(&self) -> Instant {
        let micros = self.clock.now() / 1000;
        Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}
