//! The pages of the error codes, as `siltstone explain` prints them: one Markdown file a code in `crates/cli/errors`.
//!
//! A page is a title, a summary of one paragraph, and the same five sections as every other. The tests hold the pages
//! to the codes, to the spec's grammar and to the command line, so that no page names what is not there.

use siltstone_protocol::RejectReason;

/// One page.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    pub code: &'static str,
    pub text: &'static str,
}

/// Pages that belong together.
#[derive(Debug)]
pub struct Group {
    pub title: &'static str,
    pub pages: &'static [Page],
}

macro_rules! groups {
    ($($title:literal: $($code:ident)+;)+) => {
        /// Every page, in the order in which `explain` lists them.
        pub const GROUPS: &[Group] = &[$(Group {
            title: $title,
            pages: &[$(Page {
                code: stringify!($code),
                text: include_str!(concat!("../errors/", stringify!($code), ".md")),
            },)+],
        },)+];
    };
}

groups! {
    "The command and the spec":
        spec_invalid command_refused command_stopped reset_refused unknown_table table_not_found unknown_column
        column_not_usable partition_field_refused;
    "Changes of a table":
        column_change_refused data_loss_refused changes_pending column_given_up format_removed format_cannot_show;
    "Kafka":
        kafka_unreachable kafka_unavailable kafka_access_refused kafka_tls_failed kafka_setting_refused
        kafka_client_stopped topic_not_found lost_range position_beyond_end;
    "Schemas and the registry":
        registry_unavailable registry_access_refused registry_setting_refused schema_not_found schema_refused
        incompatible_schema_stop;
    "Rejected records: why a record is a dead letter":
        record_rejected null_value bad_framing unknown_schema_id wrong_schema_format incompatible_schema truncated
        trailing_bytes malformed invalid_utf8 wrong_type missing_field unknown_field out_of_range bad_timestamp
        bad_length too_large too_deep transform_failed filtered other_event_type;
    "The bucket":
        store_unavailable store_access_refused store_not_found store_setting_refused
        store_without_conditional_put stored_data_broken source_file_refused;
    "The Iceberg catalog":
        catalog_unavailable catalog_access_refused catalog_setting_refused catalog_table_refused;
    "Commits and formats":
        commit_outcome_unknown commit_conflict worker_overtaken file_swept ledger_change_refused foreign_change
        format_behind change_too_large null_in_required_column rewrite_differs;
    "Protected columns":
        key_service_unavailable key_service_refused;
    "This machine and the control plane":
        spill_failed cannot_listen machine_failed control_plane_refused control_plane_unavailable
        readers_catalog_open internal_error;
}

impl Page {
    /// The paragraph below the title, as one line: what it is and what would change it.
    pub fn summary(&self) -> String {
        let lines = self.text.lines().skip(1).skip_while(|line| line.is_empty());
        lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// The page of this code.
pub fn page(code: &str) -> Option<Page> {
    GROUPS.iter().flat_map(|group| group.pages).copied().find(|page| page.code == code)
}

/// What a reason means and what would change it.
pub fn advice(reason: RejectReason) -> String {
    page(reason.as_str()).map(|page| page.summary()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
