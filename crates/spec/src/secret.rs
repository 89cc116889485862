//! Secrets: text that cannot be printed.

/// A secret from the environment or a file.
///
/// It has no `Display` and no `Serialize`, and its `Debug` shows nothing of it:
///
/// ```compile_fail
/// let secret = siltstone_spec::Secret::new("hunter2".to_owned());
/// println!("{secret}");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one call that needs it. Never log it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}
