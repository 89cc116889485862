//! The stable codes of errors: what a user meets, looks up and acts on. `siltstone explain` has a page for each, and
//! for each [`RejectReason`](crate::RejectReason). A code exists only if its way out differs from the others'.

use serde::Serialize;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal,)+) => {
        /// What an error is about. Codes are kept from release to release.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode { $($(#[doc = $doc])+ $name,)+ }

        impl ErrorCode {
            /// Every code, in a stable order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable snake_case name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }
        }
    };
}

codes! {
    /// The spec file breaks its grammar.
    SpecInvalid = "spec_invalid",
    /// The arguments of a command are wrong.
    CommandRefused = "command_refused",
    /// A command was told to stop before its end.
    CommandStopped = "command_stopped",
    /// A range of a table's history cannot be replaced.
    ResetRefused = "reset_refused",
    /// The spec has no table of this name.
    UnknownTable = "unknown_table",
    /// The table has no ledger yet.
    TableNotFound = "table_not_found",
    /// The spec names a column that the table does not have.
    UnknownColumn = "unknown_column",
    /// The spec names a column for something that its type or place does not allow.
    ColumnNotUsable = "column_not_usable",
    /// Two partition fields are in each other's way.
    PartitionFieldRefused = "partition_field_refused",

    /// A column of a live table cannot become what the schema wants.
    ColumnChangeRefused = "column_change_refused",
    /// A change would take values from readers' eyes, and nobody said that it may.
    DataLossRefused = "data_loss_refused",
    /// Records have a column that the table gave up by another spec than this worker's.
    ColumnGivenUp = "column_given_up",
    /// The spec renames or retypes columns, and nobody applied it yet.
    ChangesPending = "changes_pending",
    /// A format of a live table cannot be taken away.
    FormatRemoved = "format_removed",
    /// A format has no form for a column, or cannot follow a change.
    FormatCannotShow = "format_cannot_show",

    /// No broker has answered since the start.
    KafkaUnreachable = "kafka_unreachable",
    /// Brokers that answered before do not answer now.
    KafkaUnavailable = "kafka_unavailable",
    /// The brokers refuse the login, the topic or the group.
    KafkaAccessRefused = "kafka_access_refused",
    /// TLS to the brokers cannot be set up.
    KafkaTlsFailed = "kafka_tls_failed",
    /// The Kafka client or the group refuses a setting.
    KafkaSettingRefused = "kafka_setting_refused",
    /// The Kafka client cannot go on and is made anew.
    KafkaClientStopped = "kafka_client_stopped",
    /// The topic does not exist.
    TopicNotFound = "topic_not_found",
    /// The broker deleted records before they were read.
    LostRange = "lost_range",
    /// The table is further than its topic.
    PositionBeyondEnd = "position_beyond_end",
    /// A record was rejected and the spec says to stop.
    RecordRejected = "record_rejected",
    /// The table cannot take records of a schema, and the spec says to stop.
    IncompatibleSchemaStop = "incompatible_schema_stop",

    /// The schema registry does not answer.
    RegistryUnavailable = "registry_unavailable",
    /// The schema registry refuses the credentials.
    RegistryAccessRefused = "registry_access_refused",
    /// The registry's URL or TLS files cannot be used, or no registry answers there.
    RegistrySettingRefused = "registry_setting_refused",
    /// The registry has no such subject, version or id.
    SchemaNotFound = "schema_not_found",
    /// A schema cannot become a table, or cannot be read into it.
    SchemaRefused = "schema_refused",

    /// The object store does not answer.
    StoreUnavailable = "store_unavailable",
    /// The object store refuses the credentials.
    StoreAccessRefused = "store_access_refused",
    /// The bucket or an object of ours is not there.
    StoreNotFound = "store_not_found",
    /// The destination's URL or options cannot be used.
    StoreSettingRefused = "store_setting_refused",
    /// The object store does not honour conditional puts.
    StoreWithoutConditionalPut = "store_without_conditional_put",
    /// An object of ours breaks its format.
    StoredDataBroken = "stored_data_broken",
    /// A file cannot be read in, or a record of it cannot be a row and the spec says to stop.
    SourceFileRefused = "source_file_refused",

    /// The catalog does not answer.
    CatalogUnavailable = "catalog_unavailable",
    /// The catalog refuses the credentials.
    CatalogAccessRefused = "catalog_access_refused",
    /// The catalog refuses the request, or none answers there.
    CatalogSettingRefused = "catalog_setting_refused",
    /// The catalog cannot keep this table.
    CatalogTableRefused = "catalog_table_refused",

    /// A commit may have landed or not.
    CommitOutcomeUnknown = "commit_outcome_unknown",
    /// Others committed first, again and again.
    CommitConflict = "commit_conflict",
    /// Another worker committed these offsets.
    WorkerOvertaken = "worker_overtaken",
    /// Files waited for their commit for so long that they were cleaned up.
    FileSwept = "file_swept",
    /// The ledger does not take a change.
    LedgerChangeRefused = "ledger_change_refused",
    /// Another program changed the table in a way that cannot be taken in.
    ForeignChange = "foreign_change",
    /// A format did not catch up with the ledger in time.
    FormatBehind = "format_behind",
    /// One step would be larger than a bound of the program.
    ChangeTooLarge = "change_too_large",
    /// Rows lack a value where the table requires one.
    NullInRequiredColumn = "null_in_required_column",
    /// A rewrite would have changed rows, and was dropped.
    RewriteDiffers = "rewrite_differs",

    /// The service that opens the table's key does not answer.
    KeyServiceUnavailable = "key_service_unavailable",
    /// The service does not open the table's key.
    KeyServiceRefused = "key_service_refused",

    /// Local disk for sorting cannot be written.
    SpillFailed = "spill_failed",
    /// The address of `--http` cannot be listened on.
    CannotListen = "cannot_listen",
    /// A file, a terminal or a service of this machine failed.
    MachineFailed = "machine_failed",
    /// The settings of the control plane are refused, or it refuses the key.
    ControlPlaneRefused = "control_plane_refused",
    /// The control plane does not answer.
    ControlPlaneUnavailable = "control_plane_unavailable",
    /// The catalog for readers would be open to everybody.
    ReadersCatalogOpen = "readers_catalog_open",
    /// A bug in this program.
    InternalError = "internal_error",
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::RejectReason;

    #[test]
    fn a_code_means_one_thing() {
        let codes = ErrorCode::ALL.iter().map(|code| code.as_str());
        let names: Vec<_> = codes.chain(RejectReason::ALL.iter().map(|reason| reason.as_str())).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).ok(), Some(code.as_str().into()));
        }
    }
}
