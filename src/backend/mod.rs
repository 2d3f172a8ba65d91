//! One server connection: login, actual state, applying a state difference.

mod accepted;
mod conn;
mod login;
mod prepared;
mod state;
mod talk;
mod whose;

pub use accepted::Accepted;
pub use conn::BackendConn;
pub use login::{LAYOUT, Login, Target};
pub use prepared::{ServerStatement, StatementKey};
pub use state::{Charset, SessionState};
