//! Reading the audit log.

use super::cursor_number;
use crate::{
    audit,
    endpoints::{Call, Page, Reply},
    problem::Problem,
};

pub(crate) async fn list(call: Call) -> Result<Reply, Problem> {
    let before = cursor_number(call.text("cursor"), i64::MAX)?;
    let limit = call.number("limit");
    let entries = audit::before(&call.app.store, call.organisation()?, before, limit + 1).await?;
    Reply::json(&Page::first(entries, limit, |last| last.sequence.to_string()))
}
