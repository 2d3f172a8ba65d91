//! Taking over a configuration that was read again.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::{
    config::{Config, Difference},
    session::{AnswerCache, Policy},
};

/// Puts configurations into force as they come: what can be changed while the proxy runs, all of it at once.
pub(super) async fn follow(
    mut running: Config,
    mut news: mpsc::Receiver<Config>,
    policy: watch::Sender<Arc<Policy>>,
    answers: Arc<AnswerCache>,
) {
    while let Some(config) = news.recv().await {
        let difference = Difference::between(&running, &config);
        if difference.is_empty() {
            info!("the configuration was read again: nothing has changed");
            continue;
        }
        if config.rules.iter().any(|rule| rule.then.cache.is_some()) {
            answers.turn_on();
        }
        policy.send_modify(|policy| *policy = Arc::new(Policy::new(&config, Some(policy))));
        info!(changes = ?difference.at_once, "the configuration was read again");
        if !difference.at_restart.is_empty() {
            warn!(
                sections = ?difference.at_restart,
                "these have changed too, but only a restart puts them into force"
            );
        }
        // Not the rest: it is told again as long as it waits for a restart.
        running.cluster.consistency = config.cluster.consistency;
        running.cluster.balance = config.cluster.balance;
        running.cluster.read_only_transactions = config.cluster.read_only_transactions;
        running.cluster.administration = config.cluster.administration;
        running.rules = config.rules;
    }
    // Nobody can bring another one: what counts now stays for as long as sessions look at it.
    std::future::pending::<()>().await;
}
