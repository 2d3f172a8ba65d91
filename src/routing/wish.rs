//! What is asked for beyond what a statement needs, by whoever may ask.

use std::time::Duration;

use crate::config::Consistency;
use crate::config::rule::{Actions, RouteTo};
use crate::sql::setting::{Access, Settings};
use crate::sql::{Hint, Name};

/// Where a read should go, and what it must see there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wish {
    /// Where.
    pub place: Place,
    /// Who says so.
    pub author: Author,
    /// What it must see.
    pub consistency: Consistency,
    /// How far behind the replica may be, if less than the configuration allows.
    pub max_lag: Option<Duration>,
    /// Nothing is to be changed.
    pub reads_only: bool,
}

/// Where a read should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Place {
    /// Wherever it is best.
    #[default]
    Any,
    /// The primary.
    Primary,
    /// A replica.
    Replica,
    /// The server of the statement before.
    LastUsed,
    /// The server of this name.
    Server(Name),
    /// A server of this group.
    Group(Name),
}

/// Who says where a read should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Author {
    /// The statement, in a comment.
    #[default]
    Hint,
    /// The configuration.
    Rule,
    /// The session, in a statement of its own.
    Session,
}

impl Wish {
    /// What a statement's hint asks for, else the session's settings, else the configuration.
    pub fn new(hint: Hint, settings: &Settings, configured: Consistency) -> Self {
        let mut wish = Self {
            place: match settings.access {
                None => Place::Any,
                Some(Access::ReadOnly) => Place::Replica,
                Some(Access::ReadWrite) => Place::Primary,
            },
            author: Author::Session,
            consistency: settings.consistency.unwrap_or(configured),
            max_lag: settings.max_lag.map(millis),
            reads_only: settings.access == Some(Access::ReadOnly),
        };
        let place = match hint {
            Hint::None | Hint::Unknown => return wish,
            Hint::Primary => Place::Primary,
            Hint::Replica => Place::Replica,
            Hint::LastUsed => Place::LastUsed,
            Hint::Server(name) => Place::Server(name),
            Hint::Group(name) => Place::Group(name),
            Hint::Consistency(consistency) => {
                wish.consistency = consistency;
                return wish;
            }
            Hint::MaxLag(lag) => {
                wish.max_lag = Some(millis(lag));
                return wish;
            }
        };
        (wish.place, wish.author) = (place, Author::Hint);
        wish
    }

    /// The same, but for what a rule says of it.
    #[must_use]
    pub fn under(mut self, rule: &Actions) -> Self {
        let place = rule.route.as_ref().and_then(|route| match route {
            RouteTo::Primary => Some(Place::Primary),
            RouteTo::Replica => Some(Place::Replica),
            RouteTo::Server(name) => Some(Place::Server(Name::new(name.as_bytes()))),
            RouteTo::Group(name) => Some(Place::Group(Name::new(name.as_bytes()))),
            // Within the cluster it is as without the rule.
            RouteTo::Cluster(_) => None,
        });
        if let Some(place) = place {
            (self.author, self.place) = (Author::Rule, place);
        }
        self.consistency = rule.consistency.unwrap_or(self.consistency);
        self.max_lag = rule.max_lag.or(self.max_lag);
        self
    }
}

fn millis(millis: u32) -> Duration {
    Duration::from_millis(u64::from(millis))
}
