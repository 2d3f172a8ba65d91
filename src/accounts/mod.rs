//! Who may log in, what they proved, and what they wrote.
//!
//! [`Directory`] is the list of accounts as a server would search it; `monitor::accounts` keeps it up to date.
//! [`Credentials`] holds in memory what logins proved, for logging in to servers. [`Scope`] holds what reads
//! must not miss: those of an account, of a key, of everybody.

mod credentials;
mod directory;
mod freshness;
mod host;
mod requirement;
mod scopes;
mod seen;

pub use credentials::{Credentials, Proof};
pub use directory::{
    Account, AccountKey, ClientAddress, Directory, Expiry, Lookup, Method, Reading, Resolution,
    Verdict, Verifier,
};
pub use freshness::{Awaited, Scope};
pub use requirement::{Demand, Named, Requirement, Transport};
pub use scopes::Scopes;
pub use seen::Seen;
