//! What an operator writes, read: text in, an order for one cluster or several out. Pure.

use std::time::Duration;

use crate::config::{self, Cluster, Failover};
use crate::failover::Order;
use crate::topology::ServerId;

/// Every order, as it is written.
pub const USAGE: &str = "\
SWITCHOVER [TO server] [TIMEOUT 5s]   another primary, with nothing lost
FAILOVER [TO server] [ACCEPT LOSS]    another primary, whatever became of this one
REJOIN server                         make a server a replica of the primary
MAINTENANCE server ON | OFF           leave a server alone, or look after it again
FREEZE | THAW                         nothing without being asked, or again by itself
STATUS                                how things stand
PLAN order                            what SWITCHOVER, FAILOVER or REJOIN would do
Each of them may end with: IN cluster";

/// The first words.
const VERBS: [&str; 8] = [
    "SWITCHOVER",
    "FAILOVER",
    "REJOIN",
    "MAINTENANCE",
    "FREEZE",
    "THAW",
    "STATUS",
    "PLAN",
];

/// Those that can stand behind `PLAN`.
const PLANNED: [&str; 3] = ["SWITCHOVER", "FAILOVER", "REJOIN"];

/// Open transactions get no more than this.
const LONGEST: Duration = Duration::from_secs(3600);

/// Reads one order. What comes out has an entry for each cluster, by its number, that the order is for: several only for
/// `STATUS`.
///
/// # Errors
/// What is wrong, in words, and what there is instead.
pub fn read(text: &str, clusters: &[Cluster]) -> Result<Vec<(u8, Order)>, String> {
    let text = text.trim().trim_end_matches(';');
    let mut words = Words {
        words: text.split_whitespace().map(bare).collect(),
        at: 0,
    };
    let written = words.written()?;
    let named = match words.take("IN") {
        true => Some(cluster(words.next("the name of a cluster")?, clusters)?),
        false => None,
    };
    if let Some(word) = words.peek() {
        let near = config::closest(word, written.options().iter().copied());
        let near = near.map_or_else(String::new, |near| format!(", did you mean {near}?"));
        return Err(format!("\"{word}\" is not understood{near}"));
    }
    let mut watched = clusters
        .iter()
        .filter(|cluster| cluster.failover != Failover::Off);
    if let (Written::Status, None) = (&written, named) {
        let all: Vec<_> = watched
            .by_ref()
            .map(|cluster| (cluster.number, Order::Status))
            .collect();
        if !all.is_empty() {
            return Ok(all);
        }
    }
    let cluster = named.or_else(|| clusters.first()).ok_or("no cluster")?;
    if cluster.failover == Failover::Off {
        return Err(off(cluster, watched));
    }
    let order = written.order(&Names { cluster, clusters })?;
    Ok(vec![(cluster.number, order)])
}

/// Without the quotes that a name may stand in.
fn bare(word: &str) -> &str {
    let quoted = ['\'', '"', '`'].into_iter().find_map(|quote| {
        let inner = word.strip_prefix(quote)?.strip_suffix(quote)?;
        Some(inner)
    });
    quoted.unwrap_or(word)
}

fn off<'c>(cluster: &Cluster, watched: impl Iterator<Item = &'c Cluster>) -> String {
    let key = match cluster.number {
        0 => "cluster.failover".to_owned(),
        _ => format!("clusters.{}.failover", cluster.name),
    };
    let mut text = format!(
        "{key} is \"off\": dbproxy changes nothing on the servers of {}; set it to \"manual\" or \"automatic\" and restart \
         dbproxy",
        cluster.name
    );
    let others: Vec<&str> = watched.map(|cluster| cluster.name.as_str()).collect();
    if !others.is_empty() {
        text.push_str(&format!(
            " (orders for another cluster end with IN {})",
            others.join(" or IN ")
        ));
    }
    text
}

/// An order whose names are not looked up yet.
enum Written<'t> {
    Switchover {
        to: Option<&'t str>,
        drain: Option<Duration>,
    },
    Failover {
        to: Option<&'t str>,
        accept_loss: bool,
    },
    Rejoin(&'t str),
    Maintenance(&'t str, bool),
    Freeze(bool),
    Status,
    Plan(Box<Self>),
}

impl Written<'_> {
    /// Words that may stand behind it.
    fn options(&self) -> &'static [&'static str] {
        match self {
            Self::Switchover { .. } => &["TO", "TIMEOUT", "IN"],
            Self::Failover { .. } => &["TO", "ACCEPT", "IN"],
            Self::Plan(planned) => planned.options(),
            _ => &["IN"],
        }
    }

    fn order(&self, names: &Names<'_>) -> Result<Order, String> {
        let server = |name: &&str| names.server(name);
        Ok(match self {
            Self::Switchover { to, drain } => Order::Switchover {
                to: to.as_ref().map(server).transpose()?,
                drain: *drain,
            },
            Self::Failover { to, accept_loss } => Order::Failover {
                to: to.as_ref().map(server).transpose()?,
                accept_loss: *accept_loss,
            },
            Self::Rejoin(name) => Order::Rejoin(server(name)?),
            Self::Maintenance(name, on) => Order::Maintenance(server(name)?, *on),
            Self::Freeze(frozen) => Order::Freeze(*frozen),
            Self::Status => Order::Status,
            Self::Plan(planned) => Order::Plan(Box::new(planned.order(names)?)),
        })
    }
}

/// The words of an order, one after the other.
struct Words<'t> {
    words: Vec<&'t str>,
    at: usize,
}

impl<'t> Words<'t> {
    fn peek(&self) -> Option<&'t str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self, what: &str) -> Result<&'t str, String> {
        let word = self.peek();
        self.at += 1;
        word.ok_or_else(|| format!("{what} is missing at the end"))
    }

    /// Goes on behind this word, if it is the next.
    fn take(&mut self, word: &str) -> bool {
        let is_next = self
            .peek()
            .is_some_and(|next| next.eq_ignore_ascii_case(word));
        self.at += usize::from(is_next);
        is_next
    }

    fn written(&mut self) -> Result<Written<'t>, String> {
        let verb = self.next("an order")?;
        Ok(match verb.to_ascii_uppercase().as_str() {
            "SWITCHOVER" => {
                let (mut to, mut drain) = (None, None);
                loop {
                    if to.is_none() && self.take("TO") {
                        to = Some(self.next("the name of a server")?);
                    } else if drain.is_none() && self.take("TIMEOUT") {
                        drain = Some(timeout(self.next("a duration, such as 5s,")?)?);
                    } else {
                        break Written::Switchover { to, drain };
                    }
                }
            }
            "FAILOVER" => {
                let (mut to, mut accept_loss) = (None, false);
                loop {
                    if to.is_none() && self.take("TO") {
                        to = Some(self.next("the name of a server")?);
                    } else if !accept_loss && self.take("ACCEPT") {
                        let word = self.next("LOSS")?;
                        if !word.eq_ignore_ascii_case("LOSS") {
                            return Err(format!("ACCEPT LOSS, not ACCEPT {word}"));
                        }
                        accept_loss = true;
                    } else {
                        break Written::Failover { to, accept_loss };
                    }
                }
            }
            "REJOIN" => Written::Rejoin(self.next("the name of a server")?),
            "MAINTENANCE" => {
                let server = self.next("the name of a server")?;
                let word = self.next("ON or OFF")?;
                match word.to_ascii_uppercase().as_str() {
                    "ON" => Written::Maintenance(server, true),
                    "OFF" => Written::Maintenance(server, false),
                    _ => return Err(format!("MAINTENANCE {server} ON or OFF, not {word}")),
                }
            }
            "FREEZE" => Written::Freeze(true),
            "THAW" => Written::Freeze(false),
            "STATUS" => Written::Status,
            "PLAN" => {
                let verb = self.peek().unwrap_or_default();
                if !PLANNED.iter().any(|known| verb.eq_ignore_ascii_case(known)) {
                    return Err(unknown("a plan", verb, &PLANNED));
                }
                Written::Plan(Box::new(self.written()?))
            }
            _ => return Err(unknown("an order", verb, &VERBS)),
        })
    }
}

fn timeout(word: &str) -> Result<Duration, String> {
    match config::duration(word)? {
        long if long > LONGEST => Err(format!("TIMEOUT {word} is too long: at most 1h")),
        drain => Ok(drain),
    }
}

/// Servers and clusters by their names.
struct Names<'c> {
    cluster: &'c Cluster,
    clusters: &'c [Cluster],
}

impl Names<'_> {
    fn server(&self, name: &str) -> Result<ServerId, String> {
        let servers = &self.cluster.servers;
        let exact = servers.iter().position(|server| server.name == name);
        let place = exact.or_else(|| {
            let same = |server: &config::ServerConfig| server.name.eq_ignore_ascii_case(name);
            let place = servers.iter().position(same)?;
            (!servers.iter().skip(place + 1).any(same)).then_some(place)
        });
        if let Some(place) = place.and_then(|place| u8::try_from(place).ok()) {
            return Ok(ServerId::new(self.cluster.number, place));
        }
        let elsewhere = self.clusters.iter().find(|cluster| {
            let mut servers = cluster.servers.iter();
            servers.any(|server| server.name == name)
        });
        if let Some(other) = elsewhere {
            return Err(format!(
                "{name} is a server of the cluster {}: end the order with IN {}",
                other.name, other.name
            ));
        }
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        Err(unknown("a server", name, &names))
    }
}

fn cluster<'c>(name: &str, clusters: &'c [Cluster]) -> Result<&'c Cluster, String> {
    let found = clusters.iter().find(|cluster| cluster.name == name);
    let found = found.or_else(|| {
        let mut clusters = clusters.iter();
        clusters.find(|cluster| cluster.name.eq_ignore_ascii_case(name))
    });
    found.ok_or_else(|| {
        let names: Vec<&str> = clusters
            .iter()
            .map(|cluster| cluster.name.as_str())
            .collect();
        unknown("a cluster", name, &names)
    })
}

fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    let end = match config::closest(word, known.iter().copied()) {
        Some(near) => format!(", did you mean {near}?"),
        None => ".".to_owned(),
    };
    let word = match word {
        "" => "nothing".to_owned(),
        word => format!("\"{word}\""),
    };
    format!("{word} is not {what}{end} There is: {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::config::{Process, parse};

    fn clusters(failover: &str) -> Vec<Cluster> {
        let text = format!(
            r#"
            monitor = {{ user = "watch", password = "" }}
            [cluster]
            servers = ["db1=10.0.0.1", "db2=10.0.0.2", "Old=10.0.0.3", "10.0.0.4"]
            {failover}
            [clusters.archive]
            accounts = ["archiver"]
            servers = ["a1=10.0.1.1", "a2=10.0.1.2"]
            failover = "manual"
            [clusters.followed]
            accounts = ["other"]
            servers = ["f1=10.0.2.1"]
            "#
        );
        let config = parse(&text, "", &Process::default()).unwrap().config;
        config.all_clusters().cloned().collect()
    }

    fn id(cluster: u8, place: u8) -> ServerId {
        ServerId::new(cluster, place)
    }

    #[test]
    fn orders_are_read() {
        let clusters = clusters("failover = \"automatic\"");
        let switchover = |to, drain| Order::Switchover { to, drain };
        let five = Some(Duration::from_secs(5));
        for (text, cluster, order) in [
            ("SWITCHOVER", 0, switchover(None, None)),
            ("switchover to db2;", 0, switchover(Some(id(0, 1)), None)),
            (
                "SWITCHOVER TIMEOUT 5s TO 'db2' ;",
                0,
                switchover(Some(id(0, 1)), five),
            ),
            (
                "SWITCHOVER TO 10.0.0.4:3306",
                0,
                switchover(Some(id(0, 3)), None),
            ),
            ("Switchover To OLD", 0, switchover(Some(id(0, 2)), None)),
            (
                "SWITCHOVER TO a2 IN archive",
                1,
                switchover(Some(id(1, 1)), None),
            ),
            (
                "FAILOVER TO db2 ACCEPT LOSS",
                0,
                Order::Failover {
                    to: Some(id(0, 1)),
                    accept_loss: true,
                },
            ),
            (
                "FAILOVER IN ARCHIVE",
                1,
                Order::Failover {
                    to: None,
                    accept_loss: false,
                },
            ),
            ("REJOIN db1", 0, Order::Rejoin(id(0, 0))),
            ("MAINTENANCE db1 on", 0, Order::Maintenance(id(0, 0), true)),
            (
                "MAINTENANCE a1 OFF IN archive",
                1,
                Order::Maintenance(id(1, 0), false),
            ),
            ("FREEZE", 0, Order::Freeze(true)),
            ("thaw in archive", 1, Order::Freeze(false)),
            ("STATUS IN archive", 1, Order::Status),
            (
                "PLAN SWITCHOVER TO db2",
                0,
                Order::Plan(Box::new(switchover(Some(id(0, 1)), None))),
            ),
        ] {
            assert_eq!(read(text, &clusters), Ok(vec![(cluster, order)]), "{text}");
        }
        let all = vec![(0, Order::Status), (1, Order::Status)];
        assert_eq!(read("STATUS", &clusters), Ok(all));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let clusters = clusters("failover = \"automatic\"");
        for (text, parts) in [
            ("", &["an order is missing"][..]),
            (";", &["an order is missing"]),
            ("SWITCHOVR", &["did you mean SWITCHOVER?", "STATUS, PLAN"]),
            (
                "SELECT 1",
                &["\"SELECT\" is not an order. There is: SWITCHOVER"],
            ),
            ("SWITCHOVER db2", &["\"db2\" is not understood"]),
            ("SWITCHOVER TO", &["the name of a server is missing"]),
            (
                "SWITCHOVER TO db22",
                &["did you mean db2?", "db1, db2, Old, 10.0.0.4:3306"],
            ),
            (
                "SWITCHOVER TO a1",
                &["a1 is a server of the cluster archive", "IN archive"],
            ),
            ("SWITCHOVER TIMEOUT 5", &["needs a unit"]),
            ("SWITCHOVER TIMEOUT 5h", &["too long"]),
            ("SWITCHOVER TO db2 TIMOUT 5s", &["did you mean TIMEOUT?"]),
            ("SWITCHOVER TO db2 TO db1", &["\"TO\" is not understood"]),
            ("FAILOVER ACCEPT IT", &["ACCEPT LOSS, not ACCEPT IT"]),
            ("REJOIN", &["the name of a server is missing"]),
            ("MAINTENANCE db1", &["ON or OFF is missing"]),
            ("MAINTENANCE db1 YES", &["not YES"]),
            (
                "STATUS IN archiv",
                &["did you mean archive?", "main, archive, followed"],
            ),
            ("STATUS IN", &["the name of a cluster is missing"]),
            ("STATUS NOW", &["\"NOW\" is not understood"]),
            (
                "PLAN STATUS",
                &["is not a plan", "SWITCHOVER, FAILOVER, REJOIN"],
            ),
            ("PLAN", &["nothing is not a plan"]),
            ("PLAN PLAN SWITCHOVER", &["is not a plan"]),
            (
                "FREEZE IN followed",
                &[
                    "clusters.followed.failover is \"off\"",
                    "IN main or IN archive",
                ],
            ),
        ] {
            let error = read(text, &clusters).unwrap_err();
            for part in parts {
                assert!(error.contains(part), "{text}: {error}");
            }
        }
    }

    #[test]
    fn a_cluster_that_somebody_else_looks_after_takes_no_orders() {
        let clusters = clusters("");
        let error = read("SWITCHOVER", &clusters).unwrap_err();
        assert!(error.starts_with("cluster.failover is \"off\""), "{error}");
        assert!(error.contains("IN archive"), "{error}");
        assert_eq!(read("STATUS", &clusters), Ok(vec![(1, Order::Status)]));
        let only = clusters.get(..1).unwrap();
        assert!(read("STATUS", only).unwrap_err().contains("manual"));
    }
}
