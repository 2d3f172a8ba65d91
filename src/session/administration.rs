//! What would break the cluster.

use super::Session;
use crate::{
    config::Administration,
    error::Answer,
    sql::{
        StatementClass,
        administration::{self, Breach, Harm},
    },
};

impl Session {
    /// What of a statement would break the cluster, if the configuration forbids that.
    pub(super) fn breach(&self, class: &StatementClass, text: &[u8]) -> Option<Breach> {
        match self.rules.policy().administration {
            Administration::Refuse => administration::find(text, class.kind, self.dialect),
            Administration::Allow => None,
        }
    }

    /// The answer to a command of the protocol that does the same as such a statement.
    pub(super) fn forbidden(&self, what: &'static str, harm: Harm) -> Option<Answer> {
        let refuses = self.rules.policy().administration == Administration::Refuse;
        refuses.then(|| refused(Breach { what, harm }))
    }
}

/// The answer to what would break the cluster.
pub(super) fn refused(Breach { what, harm }: Breach) -> Answer {
    // ER_OPTION_PREVENTS_STATEMENT
    let text = format!(
        "dbproxy refuses {what}: it {harm}, and dbproxy sends it there whichever server you mean; run it on the server \
         itself, or set cluster.administration = \"allow\""
    );
    Answer::new(1290, b"HY000", text)
}
