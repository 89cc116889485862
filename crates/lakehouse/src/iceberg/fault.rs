//! Errors of this module, each said in one place. None quotes a bound or a partition value.

use crate::error::LakeError;

pub(crate) fn bad_statistics(path: &str) -> LakeError {
    LakeError::data(path, "statistics cannot be written to an Iceberg manifest")
}

pub(crate) fn bad_partition(path: &str) -> LakeError {
    LakeError::data(path, "partition values do not have the types of the file's partition spec")
}

pub(crate) fn bad_spec(spec_id: i32) -> LakeError {
    LakeError::data(
        format_args!("partition spec {spec_id}"),
        "does not fit the table's schema, or is not in the Iceberg metadata",
    )
}

pub(crate) fn bad_manifest(path: &str, problem: &str) -> LakeError {
    LakeError::data(path, format_args!("manifest {problem}"))
}
