//! The fault matrix: what a fault leads to, fault by fault, on both families.

use super::faults::{Fault, Who};
use super::servers::Mood;
use super::setup::{SemiSync, Setup};
use super::{MILLI, SECOND, Time};

/// What is to come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Another primary, by itself.
    Replaced,
    /// By itself, and this server follows.
    By(usize),
    /// The primary is left alone.
    Kept,
    /// It goes on in a new reign.
    Reopened,
    /// An operator changes it.
    Switched,
    /// That depends on who comes back first.
    Open,
}

/// A row of the matrix.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) change: fn(&mut Setup),
    pub(crate) faults: Vec<(Time, Fault)>,
    pub(crate) then: Then,
    /// What the journal has to say.
    pub(crate) says: &'static str,
}

fn row(name: &'static str, faults: &[(Time, Fault)], then: Then, says: &'static str) -> Row {
    let faults = faults
        .iter()
        .map(|(at, fault)| (5 * SECOND + at, *fault))
        .collect();
    Row {
        name,
        change: |_| {},
        faults,
        then,
        says,
    }
}

fn with(row: Row, change: fn(&mut Setup)) -> Row {
    Row { change, ..row }
}

const P: Who = Who::Primary;
const R1: Who = Who::Server(1);
const R2: Who = Who::Server(2);

pub(crate) fn rows() -> Vec<Row> {
    let mut all = crashes();
    all.extend(networks());
    all.extend(loads());
    all.extend(replicas());
    all.extend(people());
    all
}

fn crashes() -> Vec<Row> {
    use Then::{Kept, Reopened, Replaced};
    vec![
        row(
            "1 primary killed",
            &[(0, Fault::Kill(P, None))],
            Replaced,
            "dead process",
        ),
        row(
            "2 primary killed and back before anybody is sure",
            &[(0, Fault::Kill(P, Some(40 * MILLI)))],
            Reopened,
            "was restarted",
        ),
        row(
            "3 primary stopped by SIGSTOP",
            &[(0, Fault::Stop(P, 30 * SECOND))],
            Replaced,
            "hung",
        ),
        row(
            "4 primary stopped and woken after the promotion",
            &[(0, Fault::Stop(P, 8 * SECOND))],
            Replaced,
            "takes writes, and",
        ),
        row(
            "3 a stop of a second",
            &[(0, Fault::Stop(P, SECOND))],
            Kept,
            "",
        ),
        row(
            "5 the primary's host loses power",
            &[(0, Fault::Power(P, 30 * SECOND))],
            Replaced,
            "dead host",
        ),
        row(
            "35 all but one replica die",
            &[
                (0, Fault::Kill(R1, None)),
                (100 * MILLI, Fault::Kill(P, None)),
            ],
            Then::Open,
            "isolated",
        ),
        row(
            "71 all lose power",
            &[
                (0, Fault::Power(R1, 3 * SECOND)),
                (0, Fault::Power(R2, 3 * SECOND)),
                (0, Fault::Power(P, 3 * SECOND)),
            ],
            Reopened,
            "was restarted",
        ),
        row(
            "a replica dies",
            &[(0, Fault::Kill(R1, Some(5 * SECOND)))],
            Kept,
            "",
        ),
        row(
            "41 old primary returns writable",
            &[(0, Fault::Kill(P, Some(4 * SECOND)))],
            Replaced,
            "takes writes, and",
        ),
    ]
}

fn networks() -> Vec<Row> {
    use Then::{Kept, Replaced};
    vec![
        row(
            "7 the way from the proxy to the primary",
            &[(0, Fault::CutProxy(P, false, 12 * SECOND))],
            Kept,
            "link only",
        ),
        row(
            "7 in one direction",
            &[(0, Fault::CutProxy(P, true, 12 * SECOND))],
            Kept,
            "link only",
        ),
        row(
            "8 the proxy from everything",
            &[(0, Fault::Split(7, 12 * SECOND))],
            Kept,
            "",
        ),
        row(
            "9 the primary from everything",
            &[(0, Fault::Isolate(P, 14 * SECOND))],
            Replaced,
            "dead host",
        ),
        row(
            "10 the primary from its replicas",
            &[
                (0, Fault::Cut(P, R1, false, 12 * SECOND)),
                (0, Fault::Cut(P, R2, false, 12 * SECOND)),
            ],
            Kept,
            "",
        ),
        row(
            "11 the primary with one replica from the others",
            &[(0, Fault::Split(4, 12 * SECOND))],
            Kept,
            "",
        ),
        row(
            "12 primary and a replica fall silent together",
            &[
                (0, Fault::Isolate(P, 12 * SECOND)),
                (0, Fault::CutProxy(R1, false, 12 * SECOND)),
            ],
            Kept,
            "isolated",
        ),
        row(
            "13 three seconds of loss",
            &[(0, Fault::Lossy(P, 60, 3 * SECOND))],
            Kept,
            "",
        ),
        row(
            "16 loss of 40 percent",
            &[(0, Fault::Lossy(P, 40, 14 * SECOND))],
            Kept,
            "",
        ),
        row(
            "14 a link that comes and goes",
            &[
                (0, Fault::CutProxy(P, false, 2 * SECOND)),
                (4 * SECOND, Fault::CutProxy(P, false, 2 * SECOND)),
                (8 * SECOND, Fault::CutProxy(P, false, 2 * SECOND)),
            ],
            Kept,
            "",
        ),
    ]
}

fn loads() -> Vec<Row> {
    use Then::Kept;
    vec![
        row(
            "19 too many connections",
            &[(0, Fault::Mood(P, Mood::Overloaded, 12 * SECOND))],
            Kept,
            "overloaded",
        ),
        row(
            "20 the monitor's password",
            &[(0, Fault::Mood(P, Mood::Denies, 12 * SECOND))],
            Kept,
            "overloaded",
        ),
        row(
            "20 the monitor's password everywhere",
            &[
                (0, Fault::Mood(P, Mood::Denies, 12 * SECOND)),
                (0, Fault::Mood(R1, Mood::Denies, 12 * SECOND)),
                (0, Fault::Mood(R2, Mood::Denies, 12 * SECOND)),
            ],
            Kept,
            "overloaded",
        ),
        row(
            "17 22 a write stall",
            &[(0, Fault::Stall(14 * SECOND))],
            Kept,
            "",
        ),
        row(
            "23 slow answers",
            &[(0, Fault::Mood(P, Mood::Slow, 14 * SECOND))],
            Kept,
            "link only",
        ),
    ]
}

fn replicas() -> Vec<Row> {
    use Then::{By, Kept, Reopened, Replaced};
    let killed = [(2 * SECOND, Fault::Kill(P, None))];
    let late = [(12 * SECOND, Fault::Kill(P, None))];
    vec![
        row(
            "25 appliers stopped",
            &[
                (0, Fault::StopApplier(R1)),
                (0, Fault::StopApplier(R2)),
                (2 * SECOND, Fault::Kill(P, None)),
            ],
            Replaced,
            "dead process",
        ),
        row(
            "27 a replica without its threads",
            &[
                (0, Fault::StopReplication(R1)),
                (12 * SECOND, Fault::Kill(P, None)),
            ],
            By(2),
            "broken already",
        ),
        with(
            row("27 a replica that is months old", &late, By(2), ""),
            |setup| setup.months_old = Some(1),
        ),
        with(
            row(
                "28 only a delayed replica",
                &killed,
                Reopened,
                "late on purpose",
            ),
            |setup| {
                (setup.servers, setup.delayed) = (2, Some(1));
            },
        ),
        with(row("29 a filter", &killed, By(2), ""), |setup| {
            setup.filtered = Some(1)
        }),
        with(row("32 a newer version", &killed, By(2), ""), |setup| {
            setup.newer = Some(1)
        }),
        row(
            "30 an errant transaction",
            &[(0, Fault::Errant(R1)), (2 * SECOND, Fault::Kill(P, None))],
            Then::Open,
            "",
        ),
        with(
            row("38 asynchronous, with leave", &killed, Replaced, ""),
            |setup| {
                (setup.semi_sync, setup.max_loss) = (SemiSync::Off, 1000);
            },
        ),
        with(
            row(
                "44 a ring whose active one dies",
                &killed,
                By(1),
                "dead process",
            ),
            |setup| {
                (setup.servers, setup.ring) = (2, true);
            },
        ),
        with(
            row("two servers", &killed, By(1), "wait for no replica"),
            |setup| setup.servers = 2,
        ),
        row(
            "73 the replicas lose their source",
            &[
                (0, Fault::StopReplication(R1)),
                (0, Fault::StopReplication(R2)),
            ],
            Kept,
            "",
        ),
    ]
}

fn people() -> Vec<Row> {
    use Then::{Kept, Replaced, Switched};
    vec![
        row(
            "a switchover",
            &[(0, Fault::Switchover(Some(R2)))],
            Switched,
            "switchover",
        ),
        row(
            "64 the primary dies in a switchover",
            &[
                (0, Fault::Switchover(Some(R2))),
                (8 * MILLI, Fault::Kill(P, None)),
            ],
            Replaced,
            "",
        ),
        row(
            "65 a switchover in a failover",
            &[
                (0, Fault::Kill(P, None)),
                (600 * MILLI, Fault::Switchover(Some(R2))),
            ],
            Replaced,
            "",
        ),
        row(
            "68 read_only by hand",
            &[(0, Fault::ReadOnly)],
            Kept,
            "not done here",
        ),
        row(
            "40 a replica is opened",
            &[(0, Fault::Open(R1))],
            Kept,
            "takes writes, and",
        ),
        row(
            "55 the proxy dies in a failover",
            &[(0, Fault::ProxyDies(4)), (10 * MILLI, Fault::Kill(P, None))],
            Replaced,
            "",
        ),
        row(
            "58 the proxy dies after a promotion",
            &[
                (0, Fault::ProxyDies(14)),
                (10 * MILLI, Fault::Kill(P, None)),
            ],
            Replaced,
            "",
        ),
        row(
            "61 the proxy stands still",
            &[(0, Fault::PauseProxy(8 * SECOND))],
            Kept,
            "",
        ),
        row(
            "frozen",
            &[(0, Fault::Freeze(true)), (SECOND, Fault::Kill(P, None))],
            Then::Open,
            "failover is frozen",
        ),
    ]
}
