//! What happened, counted: plain snapshots, and the files that keep them.

mod file;
mod observed;

pub use file::{FILE, read};
pub use observed::{
    Comparisons, Destination, Difference, Failed, Observations, Statement, Unusable, Verdict,
};
