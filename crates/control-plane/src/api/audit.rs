//! Reading the audit log.

use super::cursor_number;
use crate::{
    audit,
    endpoints::{Call, Page, Reply},
    problem::Problem,
};

pub(crate) async fn list(call: Call) -> Result<Reply, Problem> {
    let before = cursor_number(call.text("cursor"), i64::MAX)?;
    let page = audit::page(&call.app.store, call.organisation()?, before, call.number("limit")).await?;
    Reply::json(&Page { items: page.entries, next_cursor: page.next.map(|next| next.to_string()) })
}
