//! `MurmurHash3` (x86, 32 bits, seed 0), which `fractional` uses. Public domain, by Austin Appleby. It hashes its
//! input in pieces, without copying them together.

const FIRST: u32 = 0xcc9e_2d51;
const SECOND: u32 = 0x1b87_3593;

/// The state of a hash.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Murmur {
    hash: u32,
    /// The bytes of an incomplete block, the first one lowest.
    pending: u64,
    /// The number of pending bytes.
    held: usize,
    length: usize,
}

impl Murmur {
    #[inline]
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.length = self.length.wrapping_add(bytes.len());
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            self.pending |= u64::from(u32::from_le_bytes(*word)) << (8 * self.held);
            self.block();
        }
        for byte in rest {
            self.pending |= u64::from(*byte) << (8 * self.held);
            self.held += 1;
            if self.held == 4 {
                self.block();
                self.held = 0;
            }
        }
    }

    /// Hashes the first four pending bytes.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the other bytes stay pending"
    )]
    fn block(&mut self) {
        self.hash ^= scramble(self.pending as u32);
        self.hash = self
            .hash
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
        self.pending >>= 32;
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "fewer than four bytes are pending, and the hash includes the lower half of the length"
    )]
    #[inline]
    pub(super) fn finish(self) -> u32 {
        let mut hash = self.hash;
        if self.held > 0 {
            hash ^= scramble(self.pending as u32);
        }
        hash ^= self.length as u32;
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    }
}

fn scramble(block: u32) -> u32 {
    block
        .wrapping_mul(FIRST)
        .rotate_left(15)
        .wrapping_mul(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_equal_published_ones_however_the_input_is_split() {
        let known: [(&str, u32); 6] = [
            ("", 0),
            ("a", 0x3c25_69b2),
            ("aaa", 0xb4d0_5fb7),
            ("aaaa", 0x7eee_d987),
            ("abc", 0xb3dd_93fa),
            ("Hello, world!", 0xc036_3e43),
        ];
        for (text, expected) in known {
            for cut in 0..=text.len() {
                let mut hash = Murmur::default();
                hash.write(&text.as_bytes()[..cut]);
                hash.write(&text.as_bytes()[cut..]);
                assert_eq!(hash.finish(), expected, "{text:?} cut at {cut}");
            }
        }
    }
}
