//! Paths of fields as people read them: names with dots between, `[]` for any element of a list, `{}` for any value of
//! a map. Neither a place nor a key of a record is in them.

/// An element of a list, in a path.
pub const ELEMENT: &str = "[]";
/// A value of a map, in a path.
pub const MAP_VALUE: &str = "{}";

/// A path as text.
pub fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    let mut text = String::new();
    for part in path {
        let part: &str = part.as_ref();
        if !text.is_empty() && part != ELEMENT && part != MAP_VALUE {
            text.push('.');
        }
        text.push_str(part);
    }
    text
}
