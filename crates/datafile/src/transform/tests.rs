use arrow::array::{
    Decimal128Array, FixedSizeBinaryArray, Float64Array, Int64Array, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use chrono::Datelike;
use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn ints(array: &ArrayRef) -> Vec<Option<i32>> {
    match array.data_type() {
        DataType::Date32 => array.as_primitive::<Date32Type>().iter().collect(),
        _ => array.as_primitive::<Int32Type>().iter().collect(),
    }
}

fn apply(by: Transform, array: impl Array + 'static) -> ArrayRef {
    let source: ArrayRef = Arc::new(array);
    let result = transform(by, &source).unwrap();
    assert_eq!(result.len(), source.len());
    result
}

/// Bucket of the hashes of appendix B, with every array type.
#[test]
fn buckets_hash_every_type_as_the_spec_does() {
    let n = 1 << 20;
    let wanted = |hash: i32| vec![Some((hash & i32::MAX) % n), None];
    let by = Transform::Bucket(n as u32);
    assert_eq!(ints(&apply(by, Int32Array::from(vec![Some(34), None]))), wanted(2_017_239_379));
    assert_eq!(ints(&apply(by, Int64Array::from(vec![Some(34), None]))), wanted(2_017_239_379));
    let decimal = Decimal128Array::from(vec![Some(1420), None]).with_precision_and_scale(9, 2).unwrap();
    assert_eq!(ints(&apply(by, decimal)), wanted(-500_754_589));
    assert_eq!(ints(&apply(by, Date32Array::from(vec![Some(17_486), None]))), wanted(-653_330_422));
    let time = Time64MicrosecondArray::from(vec![Some(81_068_000_000), None]);
    assert_eq!(ints(&apply(by, time)), wanted(-662_762_989));
    let timestamp = TimestampMicrosecondArray::from(vec![Some(1_510_871_468_000_000), None]);
    assert_eq!(ints(&apply(by, timestamp.clone())), wanted(-2_047_944_441));
    assert_eq!(ints(&apply(by, timestamp.with_timezone("+00:00"))), wanted(-2_047_944_441));
    assert_eq!(ints(&apply(by, StringArray::from(vec![Some("iceberg"), None]))), wanted(1_210_000_089));
    let uuid = 0xf79c_3e09_677c_4bbd_a479_3f34_9cb7_85e7_u128.to_be_bytes();
    let fixed = |value: &[u8]| {
        FixedSizeBinaryArray::try_from_sparse_iter_with_size(
            [Some(value), None].into_iter(),
            value.len() as i32,
        )
        .unwrap()
    };
    assert_eq!(ints(&apply(by, fixed(&uuid))), wanted(1_488_055_340));
    assert_eq!(ints(&apply(by, fixed(&[0, 1, 2, 3]))), wanted(-188_683_207));
    assert_eq!(
        ints(&apply(by, BinaryArray::from(vec![Some([0, 1, 2, 3].as_slice()), None]))),
        wanted(-188_683_207)
    );
}

#[rstest]
#[case(Transform::Year, [Some(47), Some(0), Some(-1), None])]
#[case(Transform::Month, [Some(575), Some(0), Some(-1), None])]
#[case(Transform::Day, [Some(17_501), Some(0), Some(-1), None])]
fn dates(#[case] by: Transform, #[case] wanted: [Option<i32>; 4]) {
    let days = [Some(17_501), Some(0), Some(-1), None];
    assert_eq!(ints(&apply(by, Date32Array::from(days.to_vec()))), wanted);
    let micros = days.map(|day| day.map(|day| i64::from(day) * MICROS_PER_DAY + 5));
    assert_eq!(ints(&apply(by, TimestampMicrosecondArray::from(micros.to_vec()))), wanted);
}

#[test]
fn hours_round_down() {
    let micros = vec![Some(MICROS_PER_HOUR), Some(0), Some(-1), Some(i64::MIN), Some(i64::MAX), None];
    let hours = ints(&apply(Transform::Hour, TimestampMicrosecondArray::from(micros)));
    assert_eq!(hours[..3], [Some(1), Some(0), Some(-1)]);
    assert_eq!(hours[3..], [Some(i32::MIN), Some(i32::MAX), None]);
}

#[test]
fn truncation() {
    let long =
        apply(Transform::Truncate(10), Int64Array::from(vec![Some(1), Some(-1), Some(i64::MIN), None]));
    let wanted = [Some(0), Some(-10), Some(i64::MIN.wrapping_sub(2)), None];
    assert_eq!(long.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), wanted);
    assert_eq!(ints(&apply(Transform::Truncate(10), Int32Array::from(vec![-11, 19]))), [Some(-20), Some(10)]);
    let decimal = Decimal128Array::from(vec![1065, -1]).with_precision_and_scale(9, 2).unwrap();
    let decimal = apply(Transform::Truncate(50), decimal);
    assert_eq!(decimal.as_primitive::<Decimal128Type>().values(), &[1050, -50]);
    assert_eq!(decimal.data_type(), &DataType::Decimal128(9, 2));
    let text = apply(
        Transform::Truncate(3),
        StringArray::from(vec![Some("iceberg"), Some("éü\u{10ffff}x"), Some("a"), None]),
    );
    let wanted = [Some("ice"), Some("éü\u{10ffff}"), Some("a"), None];
    assert_eq!(text.as_string::<i32>().iter().collect::<Vec<_>>(), wanted);
    let bytes = apply(Transform::Truncate(2), BinaryArray::from(vec![b"abc".as_slice(), b""]));
    assert_eq!(bytes.as_binary::<i32>().value(0), b"ab");
}

#[test]
fn void_is_null_and_other_types_are_refused() {
    assert_eq!(apply(Transform::Void, Int64Array::from(vec![1, 2])).null_count(), 2);
    let double: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
    for by in [Transform::Bucket(4), Transform::Truncate(4), Transform::Day, Transform::Hour] {
        assert!(transform(by, &double).is_err());
        assert!(result_type(by, PrimitiveType::Double).is_err());
    }
    assert_eq!(result_type(Transform::Day, PrimitiveType::Timestamptz), Ok(PrimitiveType::Date));
    assert!(result_type(Transform::Hour, PrimitiveType::Date).is_err());
}

proptest! {
    /// chrono's calendar, as far as it goes.
    #[test]
    fn months_follow_the_calendar(day in -90_000_000_i32..90_000_000) {
        let date = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap()
            .checked_add_signed(chrono::TimeDelta::days(day.into()));
        prop_assume!(date.is_some());
        let date = date.unwrap();
        prop_assert_eq!(months_since_1970(day), (date.year() - 1970) * 12 + date.month0() as i32);
    }

    /// The `iceberg` crate, where it is right.
    #[test]
    fn agrees_with_the_iceberg_crate(
        value in any::<i64>(),
        day in -100_000_i32..100_000,
        text in ".{0,20}",
        n in 1_u32..1000,
    ) {
        let micros = |per_day: i64| TimestampMicrosecondArray::from(vec![i64::from(day) * per_day]);
        let triple = Decimal128Array::from(vec![i128::from(value) * 3]);
        use iceberg::{spec::Transform as Theirs, transform::create_transform_function};
        let cases: Vec<(Transform, Theirs, ArrayRef)> = vec![
            (Transform::Bucket(n), Theirs::Bucket(n), Arc::new(Int64Array::from(vec![value]))),
            (Transform::Bucket(n), Theirs::Bucket(n), Arc::new(StringArray::from(vec![text.clone()]))),
            (Transform::Bucket(n), Theirs::Bucket(n), Arc::new(triple)),
            (Transform::Truncate(n), Theirs::Truncate(n), Arc::new(StringArray::from(vec![text]))),
            (Transform::Truncate(n), Theirs::Truncate(n), Arc::new(Int64Array::from(vec![value / 2]))),
            (Transform::Year, Theirs::Year, Arc::new(Date32Array::from(vec![day]))),
            (Transform::Month, Theirs::Month, Arc::new(Date32Array::from(vec![day]))),
            (Transform::Day, Theirs::Day, Arc::new(micros(43_200_000_000))),
            (Transform::Hour, Theirs::Hour, Arc::new(micros(1_800_000_000))),
        ];
        for (ours, theirs, array) in cases {
            let wanted = create_transform_function(&theirs).unwrap().transform(Arc::clone(&array)).unwrap();
            prop_assert_eq!(&transform(ours, &array).unwrap(), &wanted);
        }
    }
}
