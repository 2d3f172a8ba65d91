//! The ways between the servers and to the proxy.

use super::rng::Rng;
use super::{MILLI, Time};

/// Directed links between the servers and the proxy, which has the last place.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    nodes: usize,
    cut: Vec<bool>,
    /// Percent of the packets that have to be sent again.
    loss: Vec<u64>,
    latency: Vec<Time>,
}

impl Network {
    pub(crate) fn new(servers: usize, rng: &mut Rng) -> Self {
        let nodes = servers + 1;
        Self {
            nodes,
            cut: vec![false; nodes * nodes],
            loss: vec![0; nodes * nodes],
            latency: (0..nodes * nodes).map(|_| rng.between(100, 900)).collect(),
        }
    }

    pub(crate) fn proxy(&self) -> usize {
        self.nodes - 1
    }

    pub(crate) fn set(&mut self, from: usize, to: usize, cut: bool) {
        let nodes = self.nodes;
        if let Some(link) = self.cut.get_mut(from * nodes + to) {
            *link = cut;
        }
    }

    pub(crate) fn set_loss(&mut self, from: usize, to: usize, loss: u64) {
        let nodes = self.nodes;
        if let Some(link) = self.loss.get_mut(from * nodes + to) {
            *link = loss;
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.fill(false);
        self.loss.fill(0);
    }

    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        !self.cut[from * self.nodes + to]
    }

    /// Both directions: without them there is no conversation.
    pub(crate) fn reaches(&self, one: usize, other: usize) -> bool {
        self.passes(one, other) && self.passes(other, one)
    }

    /// How long one message takes: what is lost is sent again.
    pub(crate) fn latency(&self, from: usize, to: usize, rng: &mut Rng) -> Time {
        let link = from * self.nodes + to;
        let mut time = self.latency[link] + rng.below(200);
        let mut again = 200 * MILLI;
        while self.loss[link] > 0 && rng.percent(self.loss[link]) && again < 4000 * MILLI {
            time += again;
            again *= 2;
        }
        time
    }
}
