//! Idle and active server connections: checkout, limits, fair waiting.
