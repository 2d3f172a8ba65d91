//! What a statement means.
