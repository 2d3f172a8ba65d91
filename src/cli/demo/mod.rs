//! `dbproxy demo`: real servers on this machine, and a guided tour through the proxy in front of them.

pub mod cluster;
mod directory;
mod programs;
