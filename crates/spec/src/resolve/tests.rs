//! The table of Iceberg's transforms, and ids beside a table's history.

use super::*;
use crate::write_by;

fn table(partition_by: &[&str], sort_by: &[&str]) -> TableSpec {
    let text = "source_clusters: [{name: c, bootstrap_brokers: ['b:9092']}]\ndestination_bucket_url: \
     file:///lake\n\
                tables: [{name: t, source_cluster_name: c, source_topic: t, source_format: raw}]\n";
    let mut table = crate::parse(text, "spec.yaml", &|_| None).unwrap().tables.remove(0);
    table.partition_by = partition_by.iter().map(|text| write_by::partition(text).unwrap()).collect();
    table.sort_by = sort_by.iter().map(|text| write_by::sort(text).unwrap()).collect();
    table
}

fn schema() -> Schema {
    use PrimitiveType as P;
    let types = [
        P::Boolean,
        P::Int,
        P::Long,
        P::Float,
        P::Double,
        P::Decimal { precision: 9, scale: 2 },
        P::Date,
        P::Time,
        P::Timestamp,
        P::Timestamptz,
        P::String,
        P::Uuid,
        P::Fixed(4),
        P::Binary,
    ];
    let column = |(id, kind): (i32, &P)| {
        let name = kind.to_string();
        Field::optional(id, name.split(['(', '[']).next().unwrap_or_default(), (*kind).into())
    };
    let mut fields: Vec<Field> = (1..).zip(&types).map(column).collect();
    let inner = vec![Field::optional(21, "deep", P::Timestamp.into())];
    fields.push(Field::optional(20, "outer", Type::Struct(inner)));
    let element = Box::new(Type::Struct(vec![Field::optional(32, "x", P::Int.into())]));
    fields.push(Field::optional(
        30,
        "items",
        Type::List { element_id: 31, element_required: false, element },
    ));
    Schema::new(0, fields)
}

#[test]
fn transforms_take_the_types_of_icebergs_table() {
    let all = [
        "boolean",
        "int",
        "long",
        "float",
        "double",
        "decimal",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "string",
        "uuid",
        "fixed",
        "binary",
    ];
    let takes: [(&str, &[&str]); 8] = [
        ("identity({})", &all),
        ("void({})", &all),
        ("year({})", &["date", "timestamp", "timestamptz"]),
        ("month({})", &["date", "timestamp", "timestamptz"]),
        ("day({})", &["date", "timestamp", "timestamptz"]),
        ("hour({})", &["timestamp", "timestamptz"]),
        ("truncate(4, {})", &["int", "long", "decimal", "string", "binary"]),
        (
            "bucket(4, {})",
            &[
                "int",
                "long",
                "decimal",
                "date",
                "time",
                "timestamp",
                "timestamptz",
                "string",
                "uuid",
                "fixed",
                "binary",
            ],
        ),
    ];
    for (transform, taken) in takes {
        for column in all {
            let made = partition_spec(&table(&[&transform.replace("{}", column)], &[]), &schema());
            assert_eq!(made.is_ok(), taken.contains(&column), "{transform} of {column}");
        }
    }
}

#[test]
fn names_become_ids() {
    let table = table(
        &["day(timestamp)", "bucket(16, long)", "hour(outer.deep)", "string"],
        &["int desc", "outer.deep"],
    );
    let spec = partition_spec(&table, &schema()).unwrap();
    let fields: Vec<_> = spec.fields.iter().map(|f| (f.source_id, f.field_id, f.name.as_str())).collect();
    assert_eq!(spec.spec_id, 0);
    assert_eq!(
        fields,
        [
            (9, 1000, "timestamp_day"),
            (3, 1001, "long_bucket"),
            (21, 1002, "outer_deep_hour"),
            (11, 1003, "string"),
        ]
    );
    let order = sort_order(&table, &schema()).unwrap();
    assert_eq!((order.order_id, order.fields[0].source_id, order.fields[1].source_id), (1, 2, 21));
    let none = table_without_layout();
    assert_eq!(partition_spec(&none, &schema()).unwrap(), PartitionSpec::default());
    assert_eq!(sort_order(&none, &schema()).unwrap(), SortOrder::default());
}

fn table_without_layout() -> TableSpec {
    table(&[], &[])
}

#[test]
fn what_does_not_fit_is_refused() {
    let of = |partition: &[&str], sort: &[&str]| {
        let table = table(partition, sort);
        let spec = partition_spec(&table, &schema()).err();
        spec.or(sort_order(&table, &schema()).err()).unwrap().to_string()
    };
    assert_eq!(
        of(&["day(timestmp)"], &[]),
        "table t: partition_by names the unknown column timestmp; did you mean timestamp?"
    );
    assert_eq!(
        of(&["items.element.x"], &[]),
        "table t: partition_by names items.element.x, which lies inside a list or map; only columns and \
         struct members \
         can be named"
    );
    assert_eq!(
        of(&["outer"], &[]),
        "table t: partition_by cannot use identity on outer of type struct; it takes any primitive type"
    );
    assert_eq!(
        of(&["day(date) as string"], &[]),
        "table t: partition field name string is taken by a column or another partition field; add `as \
         <name>`"
    );
    assert_eq!(
        of(&["day(date)", "year(date)"], &[]),
        "table t: partition_by uses date twice with year, which splits nothing further; remove one"
    );
    assert_eq!(
        of(&[], &["items"]),
        "table t: sort_by cannot use identity on items of type list; it takes any primitive type"
    );
    assert_eq!(of(&[], &["nope"]), "table t: sort_by names the unknown column nope");
}

#[test]
fn changed_specs_get_ids_beside_the_history() {
    let spec = |texts: &[&str]| partition_spec(&table(texts, &[]), &schema()).unwrap();
    let first = spec(&["day(date)", "int"]);
    let second = adopt_partition_spec(&spec(&["bucket(4, long)", "int"]), std::slice::from_ref(&first));
    let ids: Vec<i32> = second.fields.iter().map(|field| field.field_id).collect();
    assert_eq!((second.spec_id, ids), (1, vec![1002, 1001]));
    let history = [first.clone(), second];
    assert_eq!(adopt_partition_spec(&spec(&["day(date)", "int"]), &history), first);
    assert_eq!(adopt_partition_spec(&spec(&[]), &history), PartitionSpec { spec_id: 2, fields: vec![] });
    let order = |texts: &[&str]| sort_order(&table(&[], texts), &schema()).unwrap();
    let history = [order(&["int"]), SortOrder::default()];
    assert_eq!(adopt_sort_order(&order(&["long"]), &history).order_id, 2);
    assert_eq!(adopt_sort_order(&order(&["int"]), &history).order_id, 1);
    assert_eq!(adopt_sort_order(&SortOrder::default(), &history).order_id, 0);
}
