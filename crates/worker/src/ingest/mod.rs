//! From a topic to full buffers, on one thread per table.

mod bounds;
mod flushing;
mod group;
mod intake;
mod lane;
mod poller;
mod schemas;
mod undecided;

pub use intake::{Halt, Intake, Wanting};
pub use lane::Lane;
pub use poller::{Ended, Poller, PollerParts};
pub(crate) use schemas::silent;
