//! The fuzzer's bytes, as decisions.

/// Decisions in the order of the bytes; when they are used up there are no more.
#[derive(Debug, Default)]
pub(super) struct Script {
    bytes: Vec<u8>,
    at: usize,
}

impl Script {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            at: 0,
        }
    }

    /// The next decision.
    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    /// Whether nothing is left to decide.
    pub(super) fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next decision, or 0.
    pub(super) fn byte_or_0(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    /// A run of bytes behind its length in one byte; fewer if they are used up.
    pub(super) fn run(&mut self) -> Vec<u8> {
        let wanted = usize::from(self.byte_or_0());
        let end = self.bytes.len().min(self.at + wanted);
        let run = self.bytes.get(self.at..end).unwrap_or_default().to_vec();
        self.at = end;
        run
    }
}
