//! Which cluster a session belongs to.

use std::fmt;

use crate::config::{Glob, Serves};

/// By what a session was found to belong to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The name that the client asked for by TLS.
    ServerName,
    /// The user's name.
    Account,
    /// The schema that it begins in.
    Schema,
    /// Nothing: no other cluster serves it.
    Nothing,
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerName => "by the name asked for by TLS",
            Self::Account => "by its account",
            Self::Schema => "by its schema",
            Self::Nothing => "no other serves it",
        })
    }
}

/// The place of a session's cluster among all of them: the one that serves the name that the client asked for by TLS, else the
/// user, else the schema; else the first.
pub fn choose<'s>(
    all: impl Iterator<Item = &'s Serves> + Clone,
    server_name: Option<&str>,
    user: Option<&[u8]>,
    schema: Option<&[u8]>,
) -> (usize, By) {
    let fits = |globs: &[Glob], name: Option<&[u8]>| {
        name.is_some_and(|name| globs.iter().any(|glob| glob.fits(name)))
    };
    let place = |fits: &dyn Fn(&Serves) -> bool| all.clone().position(fits);
    let server_name = server_name.map(str::as_bytes);
    let by_server_name = place(&|serves| fits(&serves.server_names, server_name));
    let by_account = || place(&|serves| fits(&serves.accounts, user));
    let by_schema = || place(&|serves| fits(&serves.schemas, schema));
    by_server_name
        .map(|at| (at, By::ServerName))
        .or_else(|| by_account().map(|at| (at, By::Account)))
        .or_else(|| by_schema().map(|at| (at, By::Schema)))
        .unwrap_or((0, By::Nothing))
}
