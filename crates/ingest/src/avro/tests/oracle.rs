#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use apache_avro::{Schema as Oracle, from_avro_datum, to_avro_datum};
use arrow::array::RecordBatch;
use proptest::prelude::*;
use siltstone_protocol::{Field, RejectReason, Schema, Type};
use siltstone_spec::evolve::{Merge, Rules, merge};

use super::model::{Avro, Cell, Random, any_type, leaf, read, record};
use crate::{
    avro::{AvroProgram, AvroSchema, table_schema},
    columns::Columns,
};

const RULES: Rules =
    Rules { renames: true, widens: true, grows_in_maps: true, variants: false, last_field_id: 0 };

struct Case {
    avro: Avro,
    writer: AvroSchema,
    oracle: Oracle,
    table: Schema,
    program: AvroProgram,
}

impl Case {
    fn new(avro: Avro) -> Self {
        let text = avro.json(&mut 0).to_string();
        let writer = AvroSchema::parse(&text, []).unwrap();
        let table = table_schema(&writer).unwrap();
        let program = AvroProgram::compile(&writer, &table).unwrap();
        Self { oracle: Oracle::parse_str(&text).unwrap(), avro, writer, table, program }
    }

    /// An encoded record and the cells that it should become.
    fn record(&self, seed: u64) -> (Vec<u8>, Vec<Cell>) {
        let value = self.avro.value(&mut Random(seed));
        let bytes = to_avro_datum(&self.oracle, value).unwrap();
        let back = from_avro_datum(&self.oracle, &mut bytes.as_slice(), None).unwrap();
        match self.avro.cell(&back) {
            Cell::Struct(cells) if matches!(self.avro, Avro::Record(_)) => (bytes, cells),
            cell => (bytes, vec![cell]),
        }
    }

    fn columns(&self) -> Columns {
        Columns::new(&self.table).unwrap()
    }
}

fn row(batch: &RecordBatch, row: usize) -> Vec<Cell> {
    batch.columns().iter().map(|column| read(column, row)).collect()
}

fn corrupt(bytes: &mut Vec<u8>, (at, byte): (u16, u8)) {
    match at as usize % (bytes.len() + 1) {
        at if at < bytes.len() && byte.is_multiple_of(2) => bytes.truncate(at),
        at if at < bytes.len() => bytes[at] ^= byte,
        _ => bytes.push(byte),
    }
}

/// Some of the fields, and of the members of structs.
fn some_of(fields: &[Field], random: &mut Random) -> Vec<Field> {
    let mut some = Vec::new();
    for field in fields {
        let mut field = field.clone();
        if let Type::Struct(members) = &mut field.data_type {
            *members = some_of(members, random);
            if members.is_empty() {
                continue;
            }
        }
        if !random.next().is_multiple_of(3) {
            some.push(field);
        }
    }
    some
}

/// The cells of these fields, of those of all.
fn cells_of(some: &[Field], all: &[Field], cells: &[Cell]) -> Vec<Cell> {
    let one = |field: &Field| {
        let at = all.iter().position(|known| known.id == field.id).unwrap();
        match (&field.data_type, &all[at].data_type, &cells[at]) {
            (Type::Struct(some), Type::Struct(all), Cell::Struct(cells)) => {
                Cell::Struct(cells_of(some, all, cells))
            }
            (.., cell) => cell.clone(),
        }
    };
    some.iter().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// What apache-avro reads is what the columns hold.
    #[test]
    fn columns_hold_what_the_oracle_reads(
        avro in record(),
        seeds in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let case = Case::new(avro);
        let mut columns = case.columns();
        let records: Vec<_> = seeds.iter().map(|seed| case.record(*seed)).collect();
        for (bytes, _) in &records {
            prop_assert_eq!(case.program.decode(&mut columns, bytes), Ok(()));
        }
        let batch = columns.finish().unwrap();
        for (index, (_, cells)) in records.iter().enumerate() {
            prop_assert_eq!(&row(&batch, index), cells);
        }
    }

    /// A schema that is no record is one column.
    #[test]
    fn a_bare_type_is_one_column(avro in any_type(), seed: u64) {
        let case = Case::new(avro);
        let mut columns = case.columns();
        let (bytes, cells) = case.record(seed);
        prop_assert_eq!(case.program.decode(&mut columns, &bytes), Ok(()));
        prop_assert_eq!(row(&columns.finish().unwrap(), 0), cells);
    }

    /// Broken records anywhere among good ones: the batch is that of the good ones alone.
    #[test]
    fn broken_records_leave_no_trace(
        avro in record(),
        records in prop::collection::vec(
            (any::<u64>(), prop::option::weighted(0.4, any::<(u16, u8)>())),
            1..30,
        ),
    ) {
        let case = Case::new(avro);
        let (mut columns, mut good) = (case.columns(), case.columns());
        for (seed, corruption) in records {
            let (mut bytes, _) = case.record(seed);
            if let Some(corruption) = corruption {
                corrupt(&mut bytes, corruption);
            }
            let before = columns.rows();
            if case.program.decode(&mut columns, &bytes).is_ok() {
                prop_assert_eq!(case.program.decode(&mut good, &bytes), Ok(()));
            } else {
                prop_assert_eq!(columns.rows(), before);
            }
        }
        prop_assert_eq!(columns.finish().unwrap(), good.finish().unwrap());
    }

    /// A program for some of the fields reads the same of those, and rejects no record that one for all takes.
    #[test]
    fn fields_without_a_column_are_passed_over(
        avro in record(),
        choice in any::<u64>(),
        records in prop::collection::vec(
            (any::<u64>(), prop::option::weighted(0.4, any::<(u16, u8)>())),
            1..20,
        ),
    ) {
        let case = Case::new(avro);
        let table = Schema::new(0, some_of(&case.table.fields, &mut Random(choice)));
        let program = AvroProgram::compile_some(&case.writer, &table).unwrap();
        let (mut columns, mut fewer) = (case.columns(), Columns::new(&table).unwrap());
        for (seed, corruption) in records {
            let (mut bytes, _) = case.record(seed);
            if let Some(corruption) = corruption {
                corrupt(&mut bytes, corruption);
            }
            let decoded = case.program.decode(&mut columns, &bytes);
            let passed = program.decode(&mut fewer, &bytes);
            let (all, some) = (columns.finish().unwrap(), fewer.finish().unwrap());
            match (decoded, passed) {
                (Ok(()), passed) => {
                    prop_assert_eq!(passed, Ok(()));
                    let expected = cells_of(&table.fields, &case.table.fields, &row(&all, 0));
                    prop_assert_eq!(row(&some, 0), expected);
                    prop_assert_eq!(program.skip_first(&bytes), Ok(bytes.len()));
                }
                (Err(reason), Ok(())) => {
                    use RejectReason::{TooDeep, TrailingBytes, Truncated};
                    prop_assert!(!matches!(reason, Truncated | TrailingBytes | TooDeep), "{}", reason);
                }
                (Err(_), Err(_)) => {}
            }
        }
    }

    /// A record cut anywhere is refused, and a record with a tail too.
    #[test]
    fn every_truncation_is_found(avro in record(), seed: u64) {
        let case = Case::new(avro);
        let mut columns = case.columns();
        let (mut bytes, _) = case.record(seed);
        for end in 0..bytes.len() {
            let outcome = case.program.decode(&mut columns, &bytes[..end]);
            prop_assert!(matches!(outcome, Err(RejectReason::Truncated)), "{:?} at {}", outcome, end);
        }
        bytes.push(0);
        prop_assert_eq!(case.program.decode(&mut columns, &bytes), Err(RejectReason::TrailingBytes));
        prop_assert_eq!(columns.rows(), 0);
        prop_assert!(columns.columns().iter().all(|column| column.is_empty()));
    }

    /// Bytes of any kind: an answer, and nothing left behind on a reject.
    #[test]
    fn any_bytes_get_an_answer(avro in record(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let case = Case::new(avro);
        let mut columns = case.columns();
        let decoded = case.program.decode(&mut columns, &bytes).is_ok();
        prop_assert_eq!(columns.finish().unwrap().num_rows(), usize::from(decoded));
    }

    /// Once a table follows, records of the old schema and of the new one go into it, in turn.
    #[test]
    fn an_evolved_table_takes_both_schemas(
        old in record(),
        new in record(),
        seeds in prop::collection::vec(any::<u64>(), 8),
    ) {
        let (old, new) = (Case::new(old), Case::new(new));
        let table = match merge(&old.table, &new.table, RULES) {
            Merge::Same { .. } => old.table.clone(),
            Merge::Evolves(schema) => schema,
            Merge::Refused(_) => return Ok(()),
        };
        let mut columns = Columns::new(&table).unwrap();
        let mut rows = 0;
        for case in [&old, &new] {
            let Merge::Same { view } = merge(&table, &case.table, RULES) else {
                return Err(TestCaseError::fail("the table does not take it"));
            };
            let program = AvroProgram::compile(&case.writer, &view).unwrap();
            for seed in &seeds {
                match program.decode(&mut columns, &case.record(*seed).0) {
                    Ok(()) => rows += 1,
                    Err(reason) => prop_assert!(
                        matches!(reason, RejectReason::OutOfRange | RejectReason::InvalidUtf8),
                        "{}", reason
                    ),
                }
            }
        }
        prop_assert_eq!(columns.finish().unwrap().num_rows(), rows);
    }

    /// Every leaf, many values.
    #[test]
    fn leaves_value_by_value(avro in leaf(), seeds in prop::collection::vec(any::<u64>(), 50)) {
        let case = Case::new(Avro::Record(vec![avro]));
        let mut columns = case.columns();
        let expected: Vec<_> = seeds.iter().map(|seed| {
            let (bytes, cells) = case.record(*seed);
            assert_eq!(case.program.decode(&mut columns, &bytes), Ok(()));
            cells
        }).collect();
        let batch = columns.finish().unwrap();
        for (index, cells) in expected.iter().enumerate() {
            prop_assert_eq!(&row(&batch, index), cells);
        }
    }
}
