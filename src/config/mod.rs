//! Configuration: the file's shape, its checks, and the typed result.
