//! One server connection: login, actual state, applying a state difference.
