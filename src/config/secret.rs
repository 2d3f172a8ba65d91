//! Secrets, and where they come from.

use std::fmt;
use std::io;
use std::path::Path;
use std::path::PathBuf;

use zeroize::Zeroizing;

/// A password: overwritten when dropped, never shown by `Debug`, and without `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the plain text over.
    pub fn new(plain: impl Into<String>) -> Self {
        Self(Zeroizing::new(plain.into()))
    }

    /// The plain text, for proving it to a server or checking a client's proof; never for a log.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl From<&str> for Secret {
    fn from(plain: &str) -> Self {
        Self::new(plain)
    }
}

/// What the checks ask of the world around them, so that they themselves stay pure.
pub trait Sources {
    /// The value of an environment variable; `None` if it is not set or not UTF-8.
    fn variable(&self, name: &str) -> Option<String>;

    /// The content of a secret's file.
    ///
    /// # Errors
    /// What the operating system says.
    fn file(&self, path: &Path) -> io::Result<SecretFile>;

    /// Where a path of the text leads: a relative one starts at the text's own directory.
    fn resolve(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    /// Whether a program can be run; the error says why not.
    ///
    /// # Errors
    /// In words, behind the program's path.
    fn program(&self, path: &Path) -> Result<(), String> {
        let _ = path;
        Ok(())
    }

    /// Processor cores this process may use; at least 1.
    fn cores(&self) -> usize;
}

/// A file that holds one secret.
pub struct SecretFile {
    /// All of it.
    pub text: Zeroizing<String>,
    /// Whether every local account may read it.
    pub world_readable: bool,
}
