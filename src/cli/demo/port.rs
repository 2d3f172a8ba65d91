//! TCP ports that are ours for as long as we want them.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use crate::cli::demo::directory;

/// A TCP port on loopback that nobody else takes while this lives.
///
/// It lies below the range from which the system takes ports for outgoing connections: a server that was killed must
/// find its port free when it comes back.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    /// Keeps our other processes from it.
    _lock: File,
}

impl ReservedPort {
    /// Finds a port on which nobody listens.
    ///
    /// # Errors
    /// What the system says, and that no free port was found.
    pub fn take() -> io::Result<Self> {
        let locks = directory::shared()?.join("ports");
        fs::create_dir_all(&locks)?;
        for _ in 0..1000 {
            let random = RandomState::new().build_hasher().finish();
            let number = 12_000 + u16::try_from(random % 20_000).unwrap_or_default();
            let lock = File::create(locks.join(number.to_string()))?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "no free port found",
        ))
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
