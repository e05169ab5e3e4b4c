//! What this machine and this user can do, what not, and how to mend it.
//!
//! [`machine`] and [`process`] gather facts, by looking and by trying; [`checks`] judges them, and is tested on
//! facts that nobody gathered.

pub mod checks;
pub mod machine;
pub mod process;

pub use checks::{Check, Mark};
pub use machine::Machine;
pub use process::Inspected;
