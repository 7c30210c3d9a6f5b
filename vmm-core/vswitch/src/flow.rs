//! Which of a receiver's queues a frame goes to.

use core::net::IpAddr;

use crate::Packet;

/// The prime and the start of FNV-1a, 32 bits.
const PRIME: u32 = 0x0100_0193;
const START: u32 = 0x811c_9dc5;

/// A number that all frames of one flow have and that differs between most flows: made of addresses
/// and ports, or of whatever else the frame says. `window` are the first of its `length` bytes.
#[must_use]
pub fn flow(window: &[u8], length: usize) -> u32 {
    let mut hash = Hash(START);
    match Packet::parse(window, length) {
        Ok(Packet {
            addresses: Some((from, to)),
            protocol,
            ports,
            ..
        }) => {
            hash.address(from);
            hash.address(to);
            hash.bytes(&[protocol.unwrap_or(0)]);
            let (from, to) = ports.unwrap_or((0, 0));
            hash.bytes(&from.to_be_bytes());
            hash.bytes(&to.to_be_bytes());
        }
        // Both addresses of Ethernet.
        _ => hash.bytes(window.get(..12).unwrap_or(window)),
    }
    // The low bits of the product depend on few bits of what went in.
    hash.0 ^ hash.0 >> 16
}

struct Hash(u32);

impl Hash {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(PRIME);
        }
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::flow;
    use std::vec::Vec;

    /// TCP over IPv4, from this port.
    fn frame(port: u16, payload: u8) -> Vec<u8> {
        let mut frame = std::vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(port.to_be_bytes());
        frame.extend([0, 80]);
        frame.resize(74, payload);
        frame
    }

    #[test]
    fn a_flow_stays_together_and_flows_spread() {
        let mut counts = [0; 4];
        for port in 40_000..40_064 {
            let queue = |payload| flow(&frame(port, payload), 74) % 4;
            assert_eq!(queue(1), queue(2));
            counts[queue(1) as usize] += 1;
        }
        assert!(counts.iter().all(|count| *count >= 8), "{counts:?}");
    }

    #[test]
    fn what_is_no_packet_has_a_number_too() {
        let mut frame = frame(1, 1);
        frame[14] = 0;
        assert_eq!(flow(&frame, 74), flow(&frame, 74));
        assert_ne!(flow(&frame, 74), flow(&frame[1..], 73));
        let _ = flow(&[], 0);
    }
}
