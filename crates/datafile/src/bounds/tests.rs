use parquet::data_type::{ByteArray, FixedLenByteArray};
use proptest::prelude::*;
use siltstone_protocol::PrimitiveType as P;

use super::*;

fn text_group(min: &str, max: &str) -> Statistics {
    Statistics::byte_array(Some(ByteArray::from(min)), Some(ByteArray::from(max)), None, Some(0), false)
}

fn bounds(primitive: P, groups: &[(Option<Statistics>, u64)]) -> (Option<Datum>, Option<Datum>) {
    let mut bounds = Bounds::new(primitive);
    groups.iter().for_each(|(statistics, values)| bounds.add(statistics.as_ref(), *values));
    bounds.finish()
}

#[test]
fn a_group_without_statistics_takes_the_bounds_away() {
    let group = || (Some(text_group("b", "c")), 2);
    let (lower, upper) = bounds(P::String, &[group(), group()]);
    assert_eq!((lower, upper), (Some(Datum::string("b")), Some(Datum::string("c"))));
    for unknown in [None, Some(Statistics::byte_array(None, None, None, Some(1), false))] {
        assert_eq!(bounds(P::String, &[group(), (unknown.clone(), 2)]), (None, None));
        assert_eq!(bounds(P::String, &[(unknown, 2), group()]), (None, None));
    }
    let half = Statistics::byte_array(Some(ByteArray::from("a")), None, None, Some(0), false);
    assert_eq!(bounds(P::String, &[group(), (Some(half), 2)]), (Some(Datum::string("a")), None));
}

#[test]
fn a_group_of_nulls_changes_nothing() {
    let nulls = (Some(Statistics::byte_array(None, None, None, Some(5), false)), 5);
    let (lower, upper) = bounds(P::String, &[nulls.clone(), (Some(text_group("b", "c")), 2)]);
    assert_eq!((lower, upper), (Some(Datum::string("b")), Some(Datum::string("c"))));
    assert_eq!(bounds(P::String, &[nulls]), (None, None));
}

#[test]
fn long_strings_are_cut_the_safe_way() {
    let long = "éa".repeat(20);
    let (lower, upper) = bounds(P::String, &[(Some(text_group(&long, &long)), 1)]);
    assert_eq!(lower, Some(Datum::string("éa".repeat(8))));
    assert_eq!(upper, Some(Datum::string(format!("{}éb", "éa".repeat(7)))));
    let top = format!("x{}", "\u{10ffff}".repeat(20));
    let (_, upper) = bounds(P::String, &[(Some(text_group("", &top)), 1)]);
    assert_eq!(upper, Some(Datum::string("y")));
    let (lower, upper) = bounds(P::String, &[(Some(text_group("", &"\u{10ffff}".repeat(17))), 1)]);
    assert_eq!((lower, upper), (Some(Datum::string("")), None));
    let surrogate = "\u{d7ff}".repeat(17);
    let (_, upper) = bounds(P::String, &[(Some(text_group("", &surrogate)), 1)]);
    assert_eq!(upper, Some(Datum::string(format!("{}\u{e000}", "\u{d7ff}".repeat(15)))));
}

#[test]
fn binary_is_cut_the_safe_way() {
    let group = |min: &[u8], max: &[u8]| {
        Statistics::byte_array(Some(min.to_vec().into()), Some(max.to_vec().into()), None, Some(0), false)
    };
    let (lower, upper) =
        bounds(P::Binary, &[(Some(group(&[7; 20], &[[9; 15].as_slice(), &[0xff; 5]].concat())), 1)]);
    assert_eq!(lower, Some(Datum::binary([7; 16])));
    assert_eq!(upper, Some(Datum::binary([[9; 14].as_slice(), &[10]].concat())));
    assert_eq!(bounds(P::Binary, &[(Some(group(&[], &[0xff; 17])), 1)]), (Some(Datum::binary([])), None));
}

#[test]
fn zeros_widen_and_nan_is_no_bound() {
    let group =
        |min: f64, max: f64| (Some(Statistics::double(Some(min), Some(max), None, Some(0), false)), 1);
    let (lower, upper) = bounds(P::Double, &[group(0.0, -0.0)]);
    let bytes = |datum: Option<Datum>| datum.unwrap().to_bytes().unwrap().to_vec();
    assert_eq!(bytes(lower), (-0.0_f64).to_le_bytes());
    assert_eq!(bytes(upper), 0.0_f64.to_le_bytes());
    assert_eq!(bounds(P::Double, &[group(f64::NAN, 1.0)]), (None, Some(Datum::double(1.0))));
}

#[test]
fn decimals_are_exact_in_every_width() {
    let wide = |value: i128| FixedLenByteArray::from(value.to_be_bytes().to_vec());
    let most = 10_i128.pow(38) - 1;
    let group = |min, max| {
        (Some(Statistics::fixed_len_byte_array(Some(wide(min)), Some(wide(max)), None, Some(0), false)), 1)
    };
    let decimal = P::Decimal { precision: 38, scale: 10 };
    let (lower, upper) = bounds(decimal, &[group(-5, 3), group(-most, -most), group(1, most)]);
    let literal = |datum: Option<Datum>| datum.unwrap().literal().clone();
    assert_eq!(literal(lower), iceberg::spec::PrimitiveLiteral::Int128(-most));
    assert_eq!(literal(upper), iceberg::spec::PrimitiveLiteral::Int128(most));
}

proptest! {
    /// Java's `UUID.compareTo` has both halves signed.
    #[test]
    fn no_uuid_lies_outside_in_either_order(
        uuids in prop::collection::vec(prop_oneof![any::<u128>(), (0..1_u128 << 66)], 1..8),
        sign in any::<bool>(),
    ) {
        let uuids: Vec<u128> = uuids.into_iter().map(|uuid| if sign { uuid >> 1 } else { uuid }).collect();
        let bytes = |uuid: &u128| FixedLenByteArray::from(uuid.to_be_bytes().to_vec());
        let (min, max) = (uuids.iter().min().map(bytes), uuids.iter().max().map(bytes));
        let group = Statistics::fixed_len_byte_array(min, max, None, Some(0), false);
        if let (Some(lower), Some(upper)) = bounds(P::Uuid, &[(Some(group), 1)]) {
            let value = |datum: &Datum| match datum.literal() {
                iceberg::spec::PrimitiveLiteral::UInt128(value) => *value,
                _ => unreachable!(),
            };
            let signed = |uuid: u128| ((uuid >> 64) as i64, uuid as i64);
            for uuid in uuids {
                prop_assert!((value(&lower)..=value(&upper)).contains(&uuid));
                prop_assert!((signed(value(&lower))..=signed(value(&upper))).contains(&signed(uuid)));
            }
        } else {
            let (min, max) = (uuids.iter().min().unwrap() >> 64, uuids.iter().max().unwrap() >> 64);
            // Only where the signs differ, or a half cannot be widened.
            let ends = [0, (1 << 63) - 1, 1 << 63, u128::from(u64::MAX)];
            prop_assert!(min >> 63 != max >> 63 || ends.contains(&min) || ends.contains(&max));
        }
    }

    #[test]
    fn no_text_lies_outside(texts in prop::collection::vec("[a\u{7f}é\u{d7ff}\u{10ffff}]{0,40}", 1..8)) {
        let (min, max) = (texts.iter().min().unwrap(), texts.iter().max().unwrap());
        let (lower, upper) = bounds(P::String, &[(Some(text_group(min, max)), 1)]);
        for text in &texts {
            let text = Datum::string(text);
            prop_assert!(lower.as_ref().unwrap() <= &text);
            prop_assert!(upper.as_ref().is_none_or(|upper| &text <= upper));
        }
    }
}
