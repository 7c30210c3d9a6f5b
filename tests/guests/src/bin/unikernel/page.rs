//! What the server has to say.

use core::fmt::Write as _;

use guests::{say, xen};
use heapless::String;
use pv_drivers::xenstore::{Client, Text};
use smoltcp::wire::Ipv4Address;

use crate::Machine;

/// A page, with the head in front of it.
pub(crate) type Answer = String<1024>;
/// The page at `/`, which leaves room for a head.
type Page = String<768>;

/// What does not change.
#[derive(Debug)]
pub(crate) struct Facts {
    name: Text,
    address: Ipv4Address,
}

impl Facts {
    /// Asks the store.
    pub(crate) fn learn(store: &mut Client, address: Ipv4Address) -> Self {
        let name = store.read("name").unwrap_or_default();
        Self { name, address }
    }

    /// A line on the console.
    pub(crate) fn show(&self, machine: &Machine) {
        let up = machine.clock.now() / 1_000_000_000;
        let Self { name, address } = self;
        say!("{name}: http://{address}/, up {up} s");
    }

    /// The page at `/`.
    pub(crate) fn page(&self, machine: &mut Machine) -> Page {
        let Self { name, address } = self;
        let up = machine.clock.now() / 1_000_000;
        let memory = machine.bus.store.read("memory/target").unwrap_or_default();
        let mut page = Page::new();
        // It fits, and what would not is cut.
        let _ = write!(
            page,
            "<!DOCTYPE html>\n<title>{name}</title>\n<h1>{name} at {address}</h1>\n<pre>\n\
             domain  {}\nup      {}.{:03} s\nmemory  {memory} KiB\n",
            xen::domid(),
            up / 1000,
            up % 1000,
        );
        let disk = machine.disk.as_ref().and_then(|disk| disk.sectors());
        let _ = match disk {
            Some(sectors) => writeln!(
                page,
                "disk    {sectors} sectors: <a href=/disk>all</a>, <a href=/sector/0>the first</a>"
            ),
            None => writeln!(page, "disk    none"),
        };
        let _ = page.push_str("</pre>\n");
        page
    }
}
