//! What the servers are: an immutable snapshot and the fold that makes it.
