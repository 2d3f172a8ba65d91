//! One server connection: login, actual state, applying a state difference.

mod accepted;
mod conn;
mod login;
mod prepared;
mod state;
mod talk;
mod user_variables;
mod whose;

pub use accepted::Accepted;
pub use conn::BackendConn;
pub use login::{Fault, LAYOUT, Login, Target, Unconnected};
pub use prepared::{ServerStatement, StatementKey};
pub use state::{Charset, SessionState};
