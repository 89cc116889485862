//! What endpoints do, once a request's right was granted. Each module has the answers' shapes and the handlers.

pub mod access;
pub mod allow_lists;
pub mod audit;
pub mod commands;
pub mod meta;
pub mod people;
pub mod sign_on;
pub mod tables;
pub mod tenants;
pub mod worker;

use crate::problem::Problem;

/// A name that people give: 1 to 100 characters, none a control character.
fn name(name: &str) -> Result<&str, Problem> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Problem::invalid("name: 1 to 100 characters, none of them a control character"));
    }
    Ok(name)
}

/// A number in a cursor.
fn cursor_number(cursor: Option<&str>, start: i64) -> Result<i64, Problem> {
    let Some(cursor) = cursor else { return Ok(start) };
    cursor.parse().map_err(|_| Problem::invalid("query: cursor is none that was given out"))
}
