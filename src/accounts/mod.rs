//! Who may log in: accounts read from the servers or the configuration, verification, cached credentials.
