//! Crash points: named places between two steps where a test can end the process.
//!
//! `crash_point!("commit.after_put")` compiles to nothing unless this crate's feature `failpoints` is on.
//! With it, `FAILPOINTS="commit.after_put=3*off->1*return"` aborts at the fourth pass (the grammar
//! is the `fail` crate's; `return` means abort here; several are separated by `;`).
//!
//! Absent on purpose: unwinding. A crash runs no destructor, as a killed process runs none.

/// Aborts the process when the environment armed this point. Nothing without feature `failpoints`.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        $crate::crash::pass($name)
    };
}

/// Aborts the process when the environment armed this point. Nothing without feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {{}};
}

/// One pass over a crash point.
#[cfg(feature = "failpoints")]
pub fn pass(name: &'static str) {
    static ARM: std::sync::Once = std::sync::Once::new();
    ARM.call_once(|| {
        let points = std::env::var("FAILPOINTS").unwrap_or_default();
        for (name, actions) in points.split(';').filter_map(|point| point.trim().split_once('=')) {
            if fail::cfg(name.trim(), actions.trim()).is_err() {
                tracing::error!(point = name, "crash point actions cannot be read");
            }
        }
    });
    if fail::eval(name, |_| ()).is_some() {
        tracing::error!(point = name, "crash point reached");
        std::process::abort();
    }
}
