//! Why a statement goes where it goes, in the words that users see everywhere.

use std::fmt;

use super::pin::PinReason;
use crate::sql::{Cause, administration::Harm};

/// The reason of a route.
///
/// `Display` gives the words shown in logs, metrics, `explain` and the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A read; a replica has every write that the reader must see.
    FreshReplica,
    /// A read; a replica will have every write that the reader must see in a moment, and it waits there.
    SoonFresh,
    /// A read that a hint sends to a replica.
    HintReplica,
    /// A hint asks for the primary.
    HintPrimary,
    /// A hint asks for the server of the statement before.
    HintLastUsed,
    /// A hint names the server.
    HintServer,
    /// A hint names the group.
    HintGroup,
    /// A rule asks for a replica.
    RuleReplica,
    /// A rule asks for the primary.
    RulePrimary,
    /// A rule names the server.
    RuleServer,
    /// A rule names the group.
    RuleGroup,
    /// A read of a session that asks for replicas.
    SessionReplica,
    /// The session asks for the primary.
    SessionPrimary,
    /// It may change data, and the session is set to read only.
    ReadOnlySession,
    /// A read; no server of the group that is asked for may serve it, another replica does.
    NoneOfGroup,
    /// A read, but there is no replica that may serve any.
    NoReplica,
    /// A read, but no replica is within the lag that a rule, the hint or the session allows.
    NoReplicaWithinLag,
    /// A read, but no replica has the reader's last write yet.
    NoFreshReplica,
    /// A read, but the filters of their replication may leave out of each replica what it reads.
    NoReplicaHasTables,
    /// A read, but the configuration sends all reads to the primary.
    StrongConsistency,
    /// A read, but the configuration sends everything to the primary and only observes. Never from [`super::decide`].
    Observing,
    /// In a transaction.
    InTransaction,
    /// It begins a transaction that only reads, and a replica has every write that the reader must see.
    ReadOnlyTransaction,
    /// In a transaction that only reads and is on a replica.
    InReading,
    /// Only the primary can run it; the transaction on a replica has done nothing yet and begins anew there.
    BegunAnew(Cause),
    /// Only the primary can run it, and the transaction on a replica has begun to read.
    NotInReading(Cause),
    /// It would break the cluster, and the configuration forbids that.
    Administration(Harm),
    /// autocommit is off, so the statement begins a transaction.
    AutocommitOff,
    /// The session is tied to its connection.
    Pinned(PinReason),
    /// It asks about the statement before, and the session still has that connection.
    PreviousStatement,
    /// Not a read that a replica may answer.
    Statement(Cause),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FreshReplica => f.write_str("read: a replica has every write it must see"),
            Self::SoonFresh => f.write_str(
                "read: a replica has every write it must see in a moment, and is waited for",
            ),
            Self::HintReplica => f.write_str("read: hint asks for a replica"),
            Self::HintPrimary => f.write_str("hint asks for the primary"),
            Self::HintLastUsed => f.write_str("hint asks for the server used last"),
            Self::HintServer => f.write_str("hint names the server"),
            Self::HintGroup => f.write_str("hint names the server's group"),
            Self::RuleReplica => f.write_str("read: a rule asks for a replica"),
            Self::RulePrimary => f.write_str("a rule asks for the primary"),
            Self::RuleServer => f.write_str("a rule names the server"),
            Self::RuleGroup => f.write_str("a rule names the server's group"),
            Self::SessionReplica => f.write_str("read: the session asks for replicas"),
            Self::SessionPrimary => f.write_str("the session asks for the primary"),
            Self::ReadOnlySession => f.write_str("may write, and the session is set to read only"),
            Self::NoneOfGroup => {
                f.write_str("read: no server of the group may serve it now, this replica may")
            }
            Self::NoReplica => f.write_str("read: no replica may serve reads now"),
            Self::NoReplicaWithinLag => f.write_str(
                "read: no replica is within the lag that a rule, the hint or the session allows",
            ),
            Self::NoFreshReplica => {
                f.write_str("read: no replica is fresh enough for what it must see")
            }
            Self::NoReplicaHasTables => f.write_str(
                "read: by their replication filters no replica surely has what it reads",
            ),
            Self::StrongConsistency => f.write_str("read: consistency is strong"),
            Self::Observing => f.write_str("read: mode is observe"),
            Self::InTransaction => f.write_str("in a transaction"),
            Self::ReadOnlyTransaction => {
                f.write_str("read-only transaction: a replica has every write it must see")
            }
            Self::InReading => f.write_str("in a read-only transaction on a replica"),
            Self::BegunAnew(cause) => write!(
                f,
                "{cause}: the read-only transaction begins anew on the primary"
            ),
            Self::NotInReading(cause) => write!(
                f,
                "{cause}: not in a read-only transaction that has begun to read on a replica"
            ),
            Self::Administration(harm) => {
                write!(f, "it {harm} (cluster.administration = \"refuse\")")
            }
            Self::AutocommitOff => f.write_str("autocommit is off"),
            Self::Pinned(pin) => write!(f, "session is pinned: {pin}"),
            Self::PreviousStatement => f.write_str("asks about the statement before"),
            Self::Statement(cause) => cause.fmt(f),
        }
    }
}
