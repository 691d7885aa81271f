//! Hash slots: computes the slot of a key, and decodes the reply to `CLUSTER SLOTS`.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

use crate::cache::address::Address;
use crate::cache::client::Reply;

/// The number of hash slots of a cluster.
pub(super) const SLOTS: u16 = 16_384;

/// The slot of a key: CRC16/XMODEM modulo 16,384. Keys of Pennon have no hash tag, because neither names of
/// environments nor `CACHE_KEY_PREFIX` can contain braces.
pub(in crate::cache) fn slot(key: &str) -> u16 {
    let crc = key.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _bit| {
            if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            }
        })
    });
    crc % SLOTS
}

/// A range of slots and the addresses of the nodes that serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) primary: Address,
    pub(super) replicas: Vec<Address>,
}

/// Decodes the reply to `CLUSTER SLOTS`: for each range its first and last slot, its primary and its
/// replicas; for each node host, port, id and more. A node without a host gets that of the node that replied. A
/// malformed range is skipped.
pub(super) fn decode(reply: &Reply, replied: &Address) -> Vec<SlotRange> {
    let Reply::List(ranges) = reply else {
        return Vec::new();
    };
    ranges
        .iter()
        .filter_map(|range| range_of(range, replied))
        .collect()
}

fn range_of(reply: &Reply, replied: &Address) -> Option<SlotRange> {
    let Reply::List(parts) = reply else {
        return None;
    };
    let [
        Reply::Number(first),
        Reply::Number(last),
        primary,
        replicas @ ..,
    ] = parts.as_slice()
    else {
        return None;
    };
    let address = |reply: &Reply| Some(address_of(reply)?.or_host_of(replied));
    Some(SlotRange {
        first: u16::try_from(*first).ok()?,
        last: u16::try_from(*last).ok()?,
        primary: address(primary)?,
        replicas: replicas.iter().filter_map(address).collect(),
    })
}

/// Host and port of a node. The host is empty if the node does not know it.
fn address_of(reply: &Reply) -> Option<Address> {
    let Reply::List(parts) = reply else {
        return None;
    };
    match parts.as_slice() {
        [Reply::Text(host), Reply::Number(port), ..] => {
            Some(Address::new(host, u16::try_from(*port).ok()?))
        }
        [Reply::Nothing, Reply::Number(port), ..] => {
            Some(Address::new("", u16::try_from(*port).ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As returned by `CLUSTER KEYSLOT`.
        for (key, expected) in [
            ("feature_flags:production", 16_114),
            ("foo", 12_182),
            ("123456789", 12_739),
            ("", 0),
        ] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }
}
