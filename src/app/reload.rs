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
    policies: Vec<watch::Sender<Arc<Policy>>>,
    answers: Arc<AnswerCache>,
) {
    while let Some(config) = news.recv().await {
        let difference = Difference::between(&running, &config);
        if difference.is_empty() {
            info!("the configuration was read again: nothing has changed");
            continue;
        }
        answers.attend(&config.rules);
        // Not the rest: it is told again as long as it waits for a restart.
        running.take_policy_of(&config);
        let before: Vec<_> = policies
            .iter()
            .map(|policy| Arc::clone(&policy.borrow()))
            .collect();
        for (sender, policy) in policies.iter().zip(Policy::of_all(&running, &before)) {
            sender.send_replace(Arc::new(policy));
        }
        info!(changes = ?difference.at_once, "the configuration was read again");
        if !difference.at_restart.is_empty() {
            warn!(
                sections = ?difference.at_restart,
                "these have changed too, but only a restart puts them into force"
            );
        }
    }
    // Nobody can bring another one: what counts now stays for as long as sessions look at it.
    std::future::pending::<()>().await;
}
