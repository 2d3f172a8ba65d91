//! Who may log in, what they proved, and what they wrote.
//!
//! [`Directory`] is the list of accounts as a server would search it; `monitor::accounts` keeps it up to date.
//! [`Credentials`] holds in memory what logins proved, for logging in to servers. [`AccountState`] holds what the
//! account's own reads must not miss.

mod credentials;
mod directory;
mod freshness;
mod host;
mod requirement;

pub use credentials::{Credentials, Proof};
pub use directory::{
    Account, AccountKey, ClientAddress, Directory, Expiry, Lookup, Method, Reading, Resolution,
    Verdict, Verifier,
};
pub use freshness::{AccountState, AccountStates};
pub use requirement::{Demand, Named, Requirement, Transport};
