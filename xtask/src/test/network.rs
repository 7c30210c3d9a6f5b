//! Guests that talk to each other over the hypervisor's networks.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::disks;
use super::linux::{PROMPT, answer, ask, domain, show_console, start, wish};
use super::{Case, Scenario, Script, Tier};
use crate::setup::for_tests;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "linux-network",
    tier: Tier::Bochs,
    about: "two Debian guests ping, and send TCP both ways; a third hears nothing; spoofing and \
            a filter; jumbo frames and two queues; kernels 6.1 and 6.12; a unikernel serves pages",
    limit: Duration::from_secs(900),
    run: linux_network,
}];

/// Bytes that go to the peer by TCP and come back.
const TRANSFER: u32 = 64 << 20;

/// The kernel of the second guest, so that each talks to one of another age.
const OTHER_KERNEL: &str = "cloud-6.12";

/// It has two vCPUs, and so two queues of its interface.
const OTHER_KEYS: &str = "vcpus = 2\n";

/// A Debian guest with an interface, which it brings up with this address; then it runs `then`.
fn guest(
    (name, kernel): (&str, &str),
    (address, network): (&str, &str),
    rules: &str,
    then: &str,
) -> String {
    let up = format!("ip addr add {address}/24 dev eth0; ip link set eth0 up; {then}");
    let keys = if kernel == OTHER_KERNEL {
        OTHER_KEYS
    } else {
        ""
    };
    domain(name, kernel, "192M", keys).replace(
        "cmdline = \"console=hvc0\"",
        &format!("cmdline = 'console=hvc0 tessera.run=\"{up}\"'"),
    ) + &format!("[[domain.vif]]\nnetwork = \"{network}\"\nrules = [{rules}]\n")
}

/// A disk of the domain before it.
const SCRATCH: &str = "[[domain.disk]]\nname = \"xvda\"\nsize = \"8M\"\n";

/// Kilobytes of the disk that the unikernel serves.
const SERVED_KIB: usize = 1024;

/// A disk of the domain before it: what is served.
fn served(image: &Path) -> String {
    format!(
        "[[domain.disk]]\nname = \"xvda\"\nimage = {:?}\nread_only = true\n",
        image.display().to_string()
    )
}

/// The unikernel, with as much of the network as it needs.
fn unikernel(image: &Path) -> String {
    let rules = "\"allow arp\", \"allow icmp\", \"allow in tcp port 80\", \
                 \"allow out tcp from 10.0.0.8 port 80\"";
    format!(
        "[[domain]]\nname = \"web\"\nkernel = \"guest:unikernel\"\nmemory = \"16M\"\n\
         cmdline = \"ip=10.0.0.8/24\"\n[[domain.vif]]\nnetwork = \"lan\"\nrules = [{rules}]\n\
         otherwise = \"deny\"\n{}",
        served(image)
    )
}

/// It answers ping, tells of itself, and serves its disk; the guest that asks has the same disk.
fn ask_unikernel(script: &mut Script) -> Result<()> {
    ask(script, "ping -c 5 -A -q 10.0.0.8", "5 packets received")?;
    let get = |path: &str| format!("wget -q -O - http://10.0.0.8{path}");
    let memory = answer(script, &format!("{} | grep memory", get("/")))?;
    // As the toolstack counts it, with the domain's own few pages.
    ensure!(memory.starts_with("memory 163"), "its page says {memory:?}");
    let sums = format!("sha256sum </dev/xvda; {} | sha256sum", get("/disk"));
    let sums = answer(script, &sums)?;
    let [own, _, served, _] = sums.split(' ').collect::<Vec<_>>()[..] else {
        bail!("no two sums: {sums}");
    };
    ensure!(own == served && own.len() == 64, "it serves {sums}");
    // Several at a time, one after the other, and what is not there.
    let sector = format!(
        "for n in 1 2 3 4 5 6; do {} & done | wc -c; wait",
        get("/sector/7")
    );
    ask(script, &format!("echo $({sector}) \"byt\"es"), "3072 bytes")?;
    let missing = format!("{} || echo \"no\" page", get("/nothing"));
    ask(script, &missing, "no page")
}

/// Frames of 9000 bytes, which nobody cuts: as many packets as answers, to the other side and back.
fn jumbo(script: &mut Script) -> Result<()> {
    let mtu = |script: &mut Script, mtu: u32| {
        let set = format!("ip link set eth0 mtu {mtu}; cat /sys/class/net/eth0/mtu");
        let set = answer(script, &set)?;
        ensure!(set == mtu.to_string(), "the MTU is {set}");
        Ok(())
    };
    let show = |script: &mut Script, number, name| {
        show_console(script, number, name)?;
        script.type_line("")?;
        script.expect(PROMPT)
    };
    show(script, 2, "two")?;
    let kernel = answer(script, "uname -r")?;
    ensure!(kernel.starts_with("6.12."), "the second guest has {kernel}");
    mtu(script, 9000)?;
    two_queues(script)?;
    disks::filesystem(script, "/dev/xvda")?;
    show(script, 1, "one")?;
    mtu(script, 9000)?;
    let count = "cat /sys/class/net/eth0/statistics/rx_packets";
    let ping = "ping -c 5 -W 1 -A -q -s 8900 10.0.0.2 | grep -o '[0-9]* packets received'";
    let counts = answer(script, &format!("{count}; {ping}; {count}"))?;
    let [before, "5", "packets", "received", after] = counts.split(' ').collect::<Vec<_>>()[..]
    else {
        bail!("large pings: {counts}");
    };
    let heard = after.parse::<u64>()?.saturating_sub(before.parse()?);
    // The answers, and perhaps a question of ARP.
    ensure!((5..10).contains(&heard), "{heard} packets for 5 answers");
    Ok(())
}

/// The guest shown has two queues, and both have been used: each flow by one of them.
fn two_queues(script: &mut Script) -> Result<()> {
    let queues = answer(script, "ls /sys/class/net/eth0/queues")?;
    ensure!(queues == "rx-0 rx-1 tx-0 tx-1", "queues: {queues}");
    let used = "grep 'q[01]-rx' /proc/interrupts | awk '$2 + $3 > 3 {n++} END {print n}'";
    let used = answer(script, used)?;
    ensure!(used == "2", "{used} queues received something");
    Ok(())
}

/// The toolstack asks it to end, and it does.
fn end_unikernel(script: &mut Script) -> Result<()> {
    show_console(script, 4, "web")?;
    script.type_line("")?;
    script.expect("web: http://10.0.0.8/, up ")?;
    wish(script, b'p', "asked for poweroff")?;
    script.expect("verdict: pass")?;
    script.expect("tessera: console: one")?;
    script.type_line("")?;
    script.expect(PROMPT)
}

fn ping(more: &str) -> String {
    format!("ping -W 1 -q {more} 10.0.0.2")
}

/// Ping, and TCP both ways.
fn talk(script: &mut Script) -> Result<()> {
    // The peer may still be starting.
    let wait = format!("until {} >/tmp/log; do sleep 1; done", ping("-c 1"));
    ask(script, &format!("{wait}; echo \"up\" now"), "up now")?;
    ask(script, &ping("-c 20 -A"), "20 packets received")?;
    // The peer fetches it, and then has it to be fetched.
    let serve = format!("head -c {TRANSFER} /dev/urandom >/tmp/y; mv /tmp/y /tmp/x; httpd -h /tmp");
    let until = "until wget -q -O /tmp/z http://10.0.0.2/ready; do sleep 1; done";
    ask(
        script,
        &format!("{serve}; {until}; echo \"fetch\"ed"),
        "fetched",
    )?;
    // Many flows, for the queues of the other.
    let many = "for n in $(seq 24); do wget -q -O /tmp/z http://10.0.0.2/; done 2>/tmp/log; \
                echo \"ma\"ny";
    ask(script, many, "many")?;
    let back = "wc -c </tmp/x; wget -q -O - http://10.0.0.2/x | cmp - /tmp/x && echo same";
    let back = answer(script, back)?;
    ensure!(back == format!("{TRANSFER} same"), "what came back: {back}");
    Ok(())
}

/// What the peer's filter denies, and what the hypervisor does.
fn deny(script: &mut Script) -> Result<()> {
    let own = answer(script, "cat /sys/class/net/eth0/address")?;
    // A packet that the peer's filter denies.
    let other = "ip addr add 10.0.0.7/24 dev eth0";
    let denied = ping("-c 2 -I 10.0.0.7");
    ask(script, &format!("{other}; {denied}"), "0 packets received")?;
    // Frames from an address that is not its own.
    let set = |mac: &str| {
        format!("ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up")
    };
    let spoof = set("02:00:00:00:00:09");
    ask(
        script,
        &format!("{spoof}; {}", ping("-c 2")),
        "0 packets received",
    )?;
    let honest = format!("{}; {}", set(&own), ping("-c 2"));
    ask(script, &honest, "2 packets received")
}

fn linux_network(case: &Case<'_>) -> Result<()> {
    for_tests::newer_kernel(case.artifacts.workspace())?;
    let image = disks::image(case.artifacts, case.scenario.name, SERVED_KIB)?;
    let serve = "httpd -h /tmp; until wget -q -O /tmp/y http://10.0.0.1/x; do sleep 1; done; \
                 mv /tmp/y /tmp/x; touch /tmp/ready";
    let filter = "\"deny in icmp from 10.0.0.7\"";
    let toml = "[[network]]\nname = \"lan\"\n[[network]]\nname = \"other\"\n".to_owned()
        + &guest(("one", "cloud"), ("10.0.0.1", "lan"), "", "true")
        + &served(&image)
        + &guest(("two", OTHER_KERNEL), ("10.0.0.2", "lan"), filter, serve)
        + SCRATCH
        + &guest(("three", "cloud"), ("10.0.0.3", "other"), "", "true")
        + &unikernel(&image);
    let mut script = start(case, 1, 1024, &toml)?;
    script.expect("tessera.run: exit status 0")?;
    script.expect(PROMPT)?;
    talk(&mut script)?;
    ask_unikernel(&mut script)?;
    end_unikernel(&mut script)?;
    jumbo(&mut script)?;
    deny(&mut script)?;
    script.type_line("poweroff")?;
    script.expect("tessera: console: two")?;
    script.type_line("")?;
    script.expect(PROMPT)?;
    show_console(&mut script, 2, "three")?;
    let heard = "cat /sys/class/net/eth0/statistics/rx_packets";
    let heard = answer(&mut script, heard)?;
    ensure!(heard == "0", "the third guest heard {heard} packets");
    let alone = "ping -c 2 -W 1 -q 10.0.0.1";
    ask(&mut script, alone, "0 packets received")?;
    script.type_line("poweroff")?;
    script.expect("tessera: console: two")?;
    script.type_line("poweroff")?;
    let said = script.finish()?;
    said.line_with(&["one: vif0: sent", "spoofed="])?;
    said.line_with(&["two: vif0: sent", "received", "filtered="])?;
    said.ended_well()
}
