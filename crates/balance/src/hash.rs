//! Hashes that choose endpoints. The same in every process and every version of one major release, so that several
//! proxies send a key to the same endpoint.

/// The hash of a key, such as a field value, a cookie or an address: FNV-1a, then [`mix`], as FNV alone leaves the upper
/// bits of short keys nearly equal.
#[inline]
pub fn key(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    mix(bytes.iter().fold(start, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// Spreads every bit of `n` over all bits (the finaliser of SplitMix64).
#[inline]
pub fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_never_change() {
        // Values of the first release: a different result sends every key elsewhere during an upgrade.
        assert_eq!(key(b""), 0xc381_7c01_6ba4_ff30);
        assert_eq!(key(b"10.0.0.1:80|"), 0x2cf4_839a_3345_144e);
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn similar_keys_differ_in_the_upper_bits() {
        let mut buckets = [0u32; 16];
        for i in 0..1600 {
            buckets[(key(format!("user-{i}").as_bytes()) >> 60) as usize] += 1;
        }
        assert!(buckets.iter().all(|&n| (60..150).contains(&n)), "{buckets:?}");
    }
}
