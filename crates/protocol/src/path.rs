//! Paths of fields as people read them: names with dots between, `[]` for any element of a list, `{}` for any value of
//! a map, ` (key)` for any key of one. Neither a place nor a key of a record is in them.
//!
//! Specs name columns and members of structs alone, so these are never typed, and cannot be mistaken for what is.

/// An element of a list, in a path.
pub const ELEMENT: &str = "[]";
/// A key of a map, in a path.
pub const MAP_KEY: &str = " (key)";
/// A value of a map, in a path.
pub const MAP_VALUE: &str = "{}";

/// A path as text.
pub fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    let mut text = String::new();
    for part in path {
        let part: &str = part.as_ref();
        if !text.is_empty() && !matches!(part, ELEMENT | MAP_KEY | MAP_VALUE) {
            text.push('.');
        }
        text.push_str(part);
    }
    text
}

/// The path of what is inside the field at `outer`, which is empty for the table itself.
pub fn inside(outer: &str, part: &str) -> String {
    dotted(&[outer, part])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_grows_from_the_outside() {
        assert_eq!(inside(&inside(&inside("", "a"), ELEMENT), "b"), "a[].b");
        assert_eq!(inside(&inside("a.m", MAP_VALUE), ELEMENT), "a.m{}[]");
        assert_eq!(inside(&inside("m", MAP_KEY), "b"), "m (key).b");
    }
}
