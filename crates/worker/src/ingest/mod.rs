//! From a topic to full buffers, on one thread per table.

mod intake;
mod lane;
mod poller;

pub use intake::{Halt, Intake};
pub use lane::Lane;
pub use poller::{Ended, Poller, PollerParts};
