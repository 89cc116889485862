//! Murmur3 32-bit (x86 variant, seed 0), the hash of Iceberg's bucket transform.

/// The hash of these bytes.
pub(super) fn murmur3(bytes: &[u8]) -> u32 {
    const C1: u32 = 0xcc9e_2d51;
    const C2: u32 = 0x1b87_3593;
    let mix = |block: u32| block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = blocks.iter().fold(0_u32, |hash, block| {
        (hash ^ mix(u32::from_le_bytes(*block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    if !tail.is_empty() {
        let block = tail.iter().rev().fold(0_u32, |block, byte| block << 8 | u32::from(*byte));
        hash ^= mix(block);
    }
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::murmur3;

    /// Appendix B of the Iceberg spec.
    #[test]
    fn spec_vectors() {
        let long = |value: i64| murmur3(&value.to_le_bytes()) as i32;
        assert_eq!(long(34), 2_017_239_379, "int and long");
        assert_eq!(
            murmur3(crate::partition::least_bytes(&1420_i128.to_be_bytes())) as i32,
            -500_754_589,
            "decimal"
        );
        assert_eq!(long(17_486), -653_330_422, "date 2017-11-16");
        assert_eq!(long(81_068_000_000), -662_762_989, "time 22:31:08");
        assert_eq!(long(1_510_871_468_000_000), -2_047_944_441, "timestamp 2017-11-16T22:31:08");
        assert_eq!(long(1_510_871_468_000_001), -1_207_196_810, "timestamp with a microsecond");
        assert_eq!(murmur3(b"iceberg") as i32, 1_210_000_089, "string");
        let uuid = 0xf79c_3e09_677c_4bbd_a479_3f34_9cb7_85e7_u128.to_be_bytes();
        assert_eq!(murmur3(&uuid) as i32, 1_488_055_340, "uuid");
        assert_eq!(murmur3(&[0, 1, 2, 3]) as i32, -188_683_207, "fixed and binary");
    }
}
