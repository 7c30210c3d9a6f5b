//! Guests that talk to the world outside: to a server of this process, through the emulated network
//! card and the network that the emulator plays behind it.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::linux::{PROMPT, answer, ask, domain};
use super::{Case, Scenario, Script, Tier};
use crate::machine::{Boot, Kind, NIC_ADDRESS, Spec};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "linux-uplink",
    tier: Tier::Bochs,
    about: "two Debian guests reach a server outside the machine and send it back what they got",
    limit: Duration::from_secs(900),
    run: linux_uplink,
}];

/// Bytes that a guest gets from the server and sends back.
const TRANSFER: usize = 2 << 20;

/// A guest on the network `lan`, with this address.
fn guest(name: &str, address: &str) -> String {
    let up =
        format!("modprobe xen-netfront; ip addr add {address}/24 dev eth0; ip link set eth0 up");
    domain(name, "cloud", "192M", "").replace(
        "cmdline = \"console=hvc0\"",
        &format!("cmdline = 'console=hvc0 tessera.run=\"{up}\"'"),
    ) + "[[domain.vif]]\nnetwork = \"lan\"\n"
}

/// What a connection brought: its bytes are those that were served.
fn serve(mut stream: TcpStream, bytes: &[u8]) -> Result<bool> {
    let mut first = [0; 4];
    stream.read_exact(&mut first)?;
    if &first == b"GET " {
        let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(bytes)?;
        stream.shutdown(Shutdown::Write)?;
        // What is left unread would end the connection before its time.
        stream.read_to_end(&mut Vec::new())?;
        return Ok(false);
    }
    let mut got = first.to_vec();
    stream.read_to_end(&mut got)?;
    ensure!(got == bytes, "{} other bytes came back", got.len());
    Ok(true)
}

/// Serves until the bytes have come back twice.
fn listen(listener: &TcpListener, bytes: &[u8]) -> Result<()> {
    let mut back = 0;
    while back < 2 {
        let (stream, _) = listener.accept().context("nobody came")?;
        back += u32::from(serve(stream, bytes)?);
    }
    Ok(())
}

fn linux_uplink(case: &Case<'_>) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
    let port = listener.local_addr()?.port();
    // No part of it is like another.
    let words =
        (0..u32::try_from(TRANSFER / 4)?).map(|n| n.wrapping_mul(0x9e37_79b1).to_le_bytes());
    let bytes: Vec<u8> = words.flatten().collect();
    let server = thread::spawn(move || listen(&listener, &bytes));

    let toml = "[[network]]\nname = \"lan\"\nuplink = \"first\"\n\
                rules = [\"deny out icmp from 10.0.2.16\"]\n\
                [[network]]\nname = \"spare\"\nuplink = \"00:1f.7\"\n"
        .to_owned()
        + &guest("one", "10.0.2.15")
        + &guest("two", "10.0.2.16");
    let iso = case.artifacts.iso(case.scenario.name, &toml)?;
    let spec = Spec {
        nic: true,
        ..Spec::new(Kind::Bochs, Boot::Iso(iso))
    };
    let mut script = Script::for_case(case, &spec)?;
    script.expect("network spare: no network card that has a driver here is 0000:00:1f.7")?;
    script.expect("network lan: uplink 0000:00:02.0")?;
    script.expect(NIC_ADDRESS)?;
    script.expect("tessera.run: exit status 0")?;
    script.expect(PROMPT)?;
    let ping = |address: &str| format!("ping -c 3 -W 5 -q {address}");
    ask(&mut script, &ping("10.0.2.2"), "3 packets received")?;
    exchange(&mut script, port)?;
    // The neighbour is there as before.
    let wait = format!("until {} >/tmp/log; do sleep 1; done", ping("10.0.2.16"));
    ask(&mut script, &format!("{wait}; echo \"up\" now"), "up now")?;
    script.type_line("poweroff")?;
    script.expect("tessera: console: two")?;
    script.type_line("")?;
    script.expect(PROMPT)?;
    let denied = ping("10.0.2.2").replace("-W 5", "-W 1");
    ask(&mut script, &denied, "0 packets received")?;
    exchange(&mut script, port)?;
    script.type_line("poweroff")?;
    let said = script.finish()?;
    said.line_with(&[
        "network lan: uplink 0000:00:02.0: sent",
        "filtered=3",
        "received",
    ])?;
    said.ended_well()?;
    let served = server.join();
    served.map_err(|_| anyhow::anyhow!("the server panicked"))?
}

/// Has a guest fetch the bytes and send them back.
fn exchange(script: &mut Script, port: u16) -> Result<()> {
    let fetch = format!("wget -q -O /tmp/x http://10.0.2.2:{port}/x");
    let got = answer(script, &format!("{fetch}; wc -c </tmp/x"))?;
    ensure!(got == TRANSFER.to_string(), "the guest got {got} bytes");
    let send = format!("nc 10.0.2.2 {port} </tmp/x && echo \"sent\" all");
    ask(script, &send, "sent all")
}
