//! Partition values: from transformed columns to Iceberg literals, and their forms.
//!
//! In the footer (in the user's bucket) values are written in Iceberg's single-value serialization as hex.
//! In ledger entries, which are reported, stands only a keyed digest of that text.

use arrow::{
    array::{Array, AsArray},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
        Time64MicrosecondType, TimestampMicrosecondType,
    },
};
use hmac::{Hmac, Mac};
use iceberg::spec::{Datum, Literal, PrimitiveType as IcebergType};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use siltstone_protocol::{PartitionSpec, PrimitiveType, Schema};

use crate::{
    column::source_column,
    error::{DataFileError, Result},
    transform::result_type,
};

/// Iceberg's own type for one of ours.
pub fn iceberg_type(primitive: PrimitiveType) -> IcebergType {
    match primitive {
        PrimitiveType::Boolean => IcebergType::Boolean,
        PrimitiveType::Int => IcebergType::Int,
        PrimitiveType::Long => IcebergType::Long,
        PrimitiveType::Float => IcebergType::Float,
        PrimitiveType::Double => IcebergType::Double,
        PrimitiveType::Decimal { precision, scale } => {
            IcebergType::Decimal { precision: precision.into(), scale: scale.into() }
        }
        PrimitiveType::Date => IcebergType::Date,
        PrimitiveType::Time => IcebergType::Time,
        PrimitiveType::Timestamp => IcebergType::Timestamp,
        PrimitiveType::Timestamptz => IcebergType::Timestamptz,
        PrimitiveType::String => IcebergType::String,
        PrimitiveType::Uuid => IcebergType::Uuid,
        PrimitiveType::Fixed(length) => IcebergType::Fixed(length.into()),
        PrimitiveType::Binary => IcebergType::Binary,
    }
}

/// The types of a spec's partition values, in field order.
pub(crate) fn partition_types(spec: &PartitionSpec, schema: &Schema) -> Result<Vec<PrimitiveType>> {
    let result = |field: &siltstone_protocol::PartitionField| {
        result_type(field.transform, source_column(schema, field.source_id)?.primitive)
    };
    spec.fields.iter().map(result).collect()
}

/// Partition values in single-value serialization: the one form that is compared, digested and stored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct PartitionValues {
    pub(crate) spec_id: i32,
    /// Lower-case hex of the bytes; null for null.
    pub(crate) values: Vec<Option<String>>,
}

impl PartitionValues {
    pub(crate) fn new(spec_id: i32, values: &[Option<Vec<u8>>]) -> Self {
        Self { spec_id, values: values.iter().map(|value| value.as_deref().map(hex)).collect() }
    }

    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|_| DataFileError::encode("partition values"))
    }

    pub(crate) fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Equal for equal values of one spec, and no value. `None` without partition fields.
    pub(crate) fn token(&self, key: &[u8; 32]) -> Result<Option<String>> {
        if self.values.is_empty() {
            return Ok(None);
        }
        let mut mac =
            Hmac::<Sha256>::new_from_slice(key).map_err(|_| DataFileError::encode("partition token"))?;
        mac.update(self.to_json()?.as_bytes());
        Ok(Some(hex(&mac.finalize().into_bytes())))
    }

    /// The values as literals, `None` when the text does not hold values of these types.
    pub(crate) fn literals(&self, types: &[PrimitiveType]) -> Option<Vec<Option<Literal>>> {
        if self.values.len() != types.len() {
            return None;
        }
        let literal = |(value, primitive): (&Option<String>, &PrimitiveType)| match value {
            None => Some(None),
            Some(text) => {
                let datum = Datum::try_from_bytes(&unhex(text)?, iceberg_type(*primitive)).ok()?;
                Some(Some(Literal::from(datum)))
            }
        };
        self.values.iter().zip(types).map(literal).collect()
    }
}

/// One value of an array in Iceberg's single-value serialization; `None` for null.
pub(crate) fn value_bytes(array: &dyn Array, row: usize) -> Result<Option<Vec<u8>>> {
    if array.is_null(row) {
        return Ok(None);
    }
    Ok(Some(match array.data_type() {
        DataType::Boolean => vec![u8::from(array.as_boolean().value(row))],
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_le_bytes().to_vec(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_le_bytes().to_vec(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).to_le_bytes().to_vec(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_le_bytes().to_vec(),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row).to_le_bytes().to_vec(),
        DataType::Time64(_) => {
            array.as_primitive::<Time64MicrosecondType>().value(row).to_le_bytes().to_vec()
        }
        DataType::Timestamp(..) => {
            array.as_primitive::<TimestampMicrosecondType>().value(row).to_le_bytes().to_vec()
        }
        DataType::Decimal128(..) => {
            let value = array.as_primitive::<Decimal128Type>().value(row).to_be_bytes();
            least_bytes(&value).to_vec()
        }
        DataType::Utf8 => array.as_string::<i32>().value(row).as_bytes().to_vec(),
        DataType::Binary => array.as_binary::<i32>().value(row).to_vec(),
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(row).to_vec(),
        _ => return Err(DataFileError::compute("taking a partition value")),
    }))
}

/// A two's-complement big-endian number without bytes that only repeat its sign.
pub(crate) fn least_bytes(bytes: &[u8]) -> &[u8] {
    let redundant = |pair: &[u8]| {
        matches!(pair, [0x00, next] if next & 0x80 == 0) || matches!(pair, [0xff, next] if next & 0x80 != 0)
    };
    let start = bytes.windows(2).take_while(|pair| redundant(pair)).count();
    &bytes[start..]
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn least_bytes_keep_the_sign() {
        for (value, length) in [(0_i128, 1), (127, 1), (128, 2), (-1, 1), (-128, 1), (-129, 2), (1 << 64, 9)]
        {
            assert_eq!(least_bytes(&value.to_be_bytes()).len(), length, "{value}");
        }
    }

    #[test]
    fn values_round_trip_and_the_token_hides_them() {
        let types =
            [PrimitiveType::String, PrimitiveType::Decimal { precision: 38, scale: 2 }, PrimitiveType::Int];
        let minus_five = (-5_i128).to_be_bytes();
        let values = PartitionValues::new(
            2,
            &[Some("Zürich".as_bytes().to_vec()), Some(least_bytes(&minus_five).to_vec()), None],
        );
        let again = PartitionValues::from_json(&values.to_json().unwrap()).unwrap();
        let literals = again.literals(&types).unwrap();
        assert_eq!(literals, [Some(Literal::string("Zürich")), Some(Literal::decimal(-5)), None]);
        let token = values.token(&[1; 32]).unwrap().unwrap();
        assert_eq!(token.len(), 64);
        assert_ne!(Some(token), values.token(&[2; 32]).unwrap());
        assert_eq!(PartitionValues::new(0, &[]).token(&[1; 32]).unwrap(), None);
        assert!(values.literals(&types[..2]).is_none());
    }
}
