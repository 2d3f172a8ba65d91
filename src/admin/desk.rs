//! Who takes an order to whom it is for, and waits for what becomes of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::orders;
use crate::config::Cluster;
use crate::control::{Asked, Orders};
use crate::failover::{Order, Reply};

/// No plan takes as long as this.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Was it carried out?
    pub ok: bool,
    /// In words.
    pub text: String,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        let ok = reply.is_ok();
        let (Ok(text) | Err(text)) = reply;
        Self { ok, text }
    }
}

/// The clusters that orders can be for.
pub struct Desk {
    clusters: Vec<Cluster>,
    /// By the clusters' numbers; `None` where somebody else replaces the primary.
    orders: Vec<Option<Orders>>,
}

impl Desk {
    /// The clusters in the order of their numbers, and where orders for each of them go.
    pub fn new(clusters: impl IntoIterator<Item = (Cluster, Option<Orders>)>) -> Self {
        let (clusters, orders) = clusters.into_iter().unzip();
        Self { clusters, orders }
    }

    /// Carries an order out, and answers when that is done.
    pub async fn take(&self, text: &str) -> Answer {
        let orders = match orders::read(text, &self.clusters) {
            Ok(orders) => orders,
            Err(text) => return Err(text).into(),
        };
        if let [(cluster, order)] = orders.as_slice() {
            return self.ask(*cluster, order.clone()).await.into();
        }
        let mut all = Answer {
            ok: true,
            text: String::new(),
        };
        for (cluster, order) in orders {
            let Answer { ok, text } = self.ask(cluster, order).await.into();
            let name = self.clusters.get(usize::from(cluster));
            let name = name.map_or("", |cluster| cluster.name.as_str());
            all.ok &= ok;
            all.text.push_str(&format!("cluster {name}\n{text}\n"));
        }
        all
    }

    async fn ask(&self, cluster: u8, order: Order) -> Reply {
        let gone = || "dbproxy is about to end".to_owned();
        let orders = self
            .orders
            .get(usize::from(cluster))
            .and_then(Option::as_ref);
        let orders = orders.ok_or_else(gone)?;
        let (reply, answer) = oneshot::channel();
        let asked = Asked { order, reply };
        let answered = timeout(LONGEST, async {
            orders.send(asked).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        });
        let late = || "it is under way, and has not ended yet: see STATUS".to_owned();
        answered.await.unwrap_or_else(|_| Err(late()))
    }
}
