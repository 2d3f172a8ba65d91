//! One client: login, command loop, relay, pins, prepared statements.
