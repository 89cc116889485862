//! What of a file's statistics the user's spec discloses: values as the protocol's messages hold them.
//!
//! A [`Disclosure`] decides; here values only take their form. A value that has no form is left out.

use arrow::datatypes::{Decimal128Type, DecimalType};
use iceberg::spec::{Literal, PrimitiveLiteral};
use siltstone_protocol::{
    PartitionSpec, PrimitiveType, Schema, Type,
    disclosed::{Disclosure, FileStatistics, Value},
};

use uuid::Uuid;

use crate::{details::FileDetails, transform::result_type};

impl FileDetails {
    /// What may cross of this file; `None`: nothing. `schema` and `spec` are those that its entry names.
    pub fn disclosed(
        &self,
        disclosure: &Disclosure,
        schema: &Schema,
        spec: &PartitionSpec,
    ) -> Option<FileStatistics> {
        if disclosure.is_nothing() {
            return None;
        }
        // Only what the spec names is looked at.
        let bounds = disclosure.columns().iter().filter_map(|column| {
            let field = schema.field_at(column)?;
            let Type::Primitive(primitive) = &field.data_type else { return None };
            let stats = self.columns.get(&field.id)?;
            let least = value(*primitive, stats.lower.as_ref()?.literal())?;
            let greatest = value(*primitive, stats.upper.as_ref()?.literal())?;
            Some((column.as_str(), least, greatest))
        });
        let partition = spec.fields.iter().zip(&self.partition).filter_map(|(field, literal)| {
            let column = *schema.path_of(field.source_id)?.last()?;
            let Type::Primitive(source) = &column.data_type else { return None };
            let primitive = result_type(field.transform, *source).ok()?;
            let value = match literal {
                None => None,
                Some(Literal::Primitive(literal)) => Some(value(primitive, literal)?),
                Some(_) => return None,
            };
            Some((field.name.as_str(), value))
        });
        disclosure.statistics(&self.path, bounds, partition)
    }
}

fn value(primitive: PrimitiveType, literal: &PrimitiveLiteral) -> Option<Value> {
    use PrimitiveLiteral as L;
    use PrimitiveType as P;
    Some(match (primitive, literal) {
        (P::Boolean, L::Boolean(value)) => Value::Boolean(*value),
        (P::Int, L::Int(value)) => Value::Int(*value),
        (P::Long, L::Long(value)) => Value::Long(*value),
        // Written before the column was widened.
        (P::Long, L::Int(value)) => Value::Long((*value).into()),
        (P::Float, L::Float(value)) => Value::Float(value.0),
        (P::Double, L::Double(value)) => Value::Double(value.0),
        (P::Double, L::Float(value)) => Value::Double(value.0.into()),
        (P::Decimal { precision, scale }, L::Int128(unscaled)) => {
            let scale = i8::try_from(scale).ok()?;
            Value::Decimal(Decimal128Type::format_decimal(*unscaled, precision, scale))
        }
        (P::Date, L::Int(days)) => Value::Date(*days),
        (P::Time, L::Long(micros)) => Value::Time(*micros),
        (P::Timestamp, L::Long(micros)) => Value::Timestamp(*micros),
        (P::Timestamptz, L::Long(micros)) => Value::Timestamptz(*micros),
        (P::String, L::String(text)) => Value::String(text.clone()),
        (P::Uuid, L::UInt128(bits)) => Value::Uuid(Uuid::from_u128(*bits).to_string()),
        (P::Fixed(_) | P::Binary, L::Binary(bytes)) => Value::Binary(hex(bytes)),
        _ => return None,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use iceberg::spec::Datum;
    use siltstone_protocol::{Field, PartitionField, Transform};

    use super::*;
    use crate::details::ColumnStats;

    fn details() -> FileDetails {
        let stats = |lower: Datum, upper: Datum| ColumnStats {
            lower: Some(lower),
            upper: Some(upper),
            ..ColumnStats::default()
        };
        FileDetails {
            path: "data/a.parquet".to_owned(),
            rows: 1,
            bytes: 1,
            spec_id: 0,
            partition: vec![Some(Literal::int(19_000)), None],
            columns: BTreeMap::from([
                (1, stats(Datum::string("a@x"), Datum::string("z@x"))),
                (2, stats(Datum::timestamptz_micros(5), Datum::timestamptz_micros(9))),
                (4, stats(Datum::long(-1), Datum::long(7))),
            ]),
            split_offsets: Vec::new(),
            key_range: None,
        }
    }

    fn schema() -> Schema {
        let inner = Type::Struct(vec![Field::optional(4, "n", PrimitiveType::Long.into())]);
        let fields = vec![
            Field::optional(1, "email", PrimitiveType::String.into()),
            Field::optional(2, "at", PrimitiveType::Timestamptz.into()),
            Field::optional(3, "inner", inner),
        ];
        Schema::new(0, fields)
    }

    fn spec() -> PartitionSpec {
        let field = |source_id, field_id, name: &str, transform| PartitionField {
            source_id,
            field_id,
            name: name.to_owned(),
            transform,
        };
        let fields =
            vec![field(2, 1000, "at_day", Transform::Day), field(1, 1001, "email", Transform::Identity)];
        PartitionSpec { spec_id: 0, fields }
    }

    #[test]
    fn only_what_is_named_takes_a_form() {
        let of = |columns: &[&str], partition_values| {
            let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
            // The one other maker of a disclosure is the spec's parser.
            let disclosure = Disclosure::of_spec(&columns, partition_values);
            details().disclosed(&disclosure, &schema(), &spec())
        };
        assert_eq!(of(&[], false), None);
        assert_eq!(of(&["no_such", "inner"], false), None);
        let some = of(&["at", "inner.n"], false).unwrap();
        let bounds: Vec<_> = some.bounds().iter().map(|b| (b.column(), b.least(), b.greatest())).collect();
        assert_eq!(
            bounds,
            [
                ("at", &Value::Timestamptz(5), &Value::Timestamptz(9)),
                ("inner.n", &Value::Long(-1), &Value::Long(7))
            ]
        );
        assert!(some.partition().is_empty());
        let some = of(&[], true).unwrap();
        assert!(some.bounds().is_empty());
        let partition: Vec<_> = some.partition().iter().map(|p| (p.field(), p.value())).collect();
        assert_eq!(partition, [("at_day", Some(&Value::Date(19_000))), ("email", None)]);
    }

    #[test]
    fn values_keep_every_digit() {
        let decimal = |unscaled, scale| {
            value(PrimitiveType::Decimal { precision: 38, scale }, &PrimitiveLiteral::Int128(unscaled))
        };
        let text = |text: &str| text.to_owned();
        assert_eq!(decimal(-5, 3), Some(Value::Decimal(text("-0.005"))));
        assert_eq!(decimal(12_345, 0), Some(Value::Decimal(text("12345"))));
        let bits = PrimitiveLiteral::UInt128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let uuid = Some(Value::Uuid(text("01234567-89ab-cdef-0123-456789abcdef")));
        assert_eq!(value(PrimitiveType::Uuid, &bits), uuid);
        assert_eq!(hex(&[0, 255]), "00ff");
    }
}
