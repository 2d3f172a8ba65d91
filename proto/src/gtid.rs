//! Replication positions: what a server has executed, and what a reader needs it to have executed.
//!
//! MySQL names a transaction `uuid[:tag]:number` and a position is a set of such names
//! (<https://dev.mysql.com/doc/refman/9.4/en/replication-gtids-concepts.html>). MariaDB names it
//! `domain-server-sequence` and a position holds the last sequence of each domain
//! (<https://mariadb.com/docs/server/ha-and-performance/standard-replication/gtid>).
//!
//! All texts come from servers and may be hostile: parsing never panics and never holds more memory than a small
//! multiple of the text.

use std::collections::TryReserveError;
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

/// Highest transaction number that MySQL accepts (`GNO_END - 1`, sql/rpl_gtid.h).
const MAX_NUMBER: u64 = i64::MAX as u64 - 1;

/// Longest tag, and longest text of a uuid (sql/rpl_gtid.h `Tag`, `binary_log::Uuid::TEXT_LENGTH`).
const MAX_TAG: usize = 32;
const UUID_TEXT: usize = 36;

/// Origins (uuid and tag, or domain) that one [`WriteToken`] keeps apart.
///
/// A cluster has about one per server that ever was the primary; the limit bounds what a hostile server can make us
/// keep for each account.
pub const MAX_TOKEN_ORIGINS: usize = 64;

/// Why a position could not be read or combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GtidError {
    /// The text is not what the server's manual promises.
    Malformed,
    /// The token already keeps [`MAX_TOKEN_ORIGINS`] origins apart.
    TooMany,
    /// One position is MySQL's and the other MariaDB's.
    FlavorMismatch,
    /// No memory for the position.
    OutOfMemory,
}

impl Display for GtidError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed GTID",
            Self::TooMany => "GTIDs of too many origins",
            Self::FlavorMismatch => "GTIDs of MySQL and of MariaDB cannot be compared",
            Self::OutOfMemory => "no memory for a GTID set",
        })
    }
}

impl std::error::Error for GtidError {}

impl From<TryReserveError> for GtidError {
    fn from(_: TryReserveError) -> Self {
        Self::OutOfMemory
    }
}

/// A MySQL tag: lower case, empty for untagged transactions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Tag([u8; MAX_TAG]);

impl Tag {
    const NONE: Self = Self([0; MAX_TAG]);

    /// A letter or underscore, then letters, digits, underscores; at most 32 in all.
    fn parse(text: &[u8]) -> Option<Self> {
        let first = *text.first()?;
        if text.len() > MAX_TAG || !(first.is_ascii_alphabetic() || first == b'_') {
            return None;
        }
        let mut tag = [0; MAX_TAG];
        for (to, from) in tag.iter_mut().zip(text) {
            if !(from.is_ascii_alphanumeric() || *from == b'_') {
                return None;
            }
            *to = from.to_ascii_lowercase();
        }
        Some(Self(tag))
    }

    fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl Display for Tag {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .take_while(|byte| **byte != 0)
            .try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

/// Who numbered a transaction: a server's uuid (or a group's name), and a tag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Origin {
    uuid: u128,
    tag: Tag,
}

/// Transaction numbers from `low` to `high`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Interval {
    low: u64,
    high: u64,
}

/// A set of MySQL's transaction names, as in `gtid_executed`.
///
/// Invariant: origins ascend, none is empty; the intervals of an origin ascend and neither overlap nor touch.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct GtidSet {
    origins: Vec<(Origin, Vec<Interval>)>,
}

impl GtidSet {
    /// Reads `uuid[:tag]:interval[:interval…][,…]`, with white space (also newlines) wherever the server puts it.
    ///
    /// The empty text is the empty set.
    pub fn parse(text: &[u8]) -> Result<Self, GtidError> {
        let mut flat: Vec<(Origin, Interval)> = Vec::new();
        each_mysql(text, |origin, interval| {
            flat.try_reserve(1)?;
            flat.push((origin, interval));
            Ok(())
        })?;
        flat.sort_unstable_by_key(|(origin, interval)| (*origin, interval.low));
        let mut set = Self::default();
        for (origin, interval) in flat {
            set.push(origin, interval)?;
        }
        Ok(set)
    }

    /// Appends an interval that sorts behind all the others.
    fn push(&mut self, origin: Origin, interval: Interval) -> Result<(), GtidError> {
        match self.origins.last_mut() {
            Some((last, intervals)) if *last == origin => match intervals.last_mut() {
                Some(end) if interval.low <= end.high.saturating_add(1) => {
                    end.high = end.high.max(interval.high);
                }
                _ => {
                    intervals.try_reserve(1)?;
                    intervals.push(interval);
                }
            },
            _ => {
                self.origins.try_reserve(1)?;
                self.origins.push((origin, vec![interval]));
            }
        }
        Ok(())
    }

    /// Is there no transaction in the set?
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Is every transaction of `other` in this set?
    pub fn contains(&self, other: &Self) -> bool {
        other.origins.iter().all(|(origin, intervals)| {
            intervals
                .iter()
                .all(|interval| self.contains_interval(origin, *interval))
        })
    }

    /// Is the one transaction `uuid[:tag]:number` (or each of the few that the text names) in this set?
    pub fn contains_gtid(&self, text: &[u8]) -> Result<bool, GtidError> {
        let mut all = true;
        each_mysql(text, |origin, interval| {
            all &= self.contains_interval(&origin, interval);
            Ok(())
        })?;
        Ok(all)
    }

    fn contains_interval(&self, origin: &Origin, wanted: Interval) -> bool {
        let found = self
            .origins
            .binary_search_by(|(candidate, _)| candidate.cmp(origin))
            .ok()
            .and_then(|at| self.origins.get(at));
        let Some((_, intervals)) = found else {
            return false;
        };
        let after = intervals.partition_point(|interval| interval.low <= wanted.low);
        after
            .checked_sub(1)
            .and_then(|at| intervals.get(at))
            .is_some_and(|interval| interval.high >= wanted.high)
    }

    /// The transactions of this set that are not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (origin, intervals) in &self.origins {
            let removed = other
                .origins
                .binary_search_by(|(candidate, _)| candidate.cmp(origin))
                .ok()
                .and_then(|at| other.origins.get(at))
                .map_or(&[][..], |(_, removed)| removed);
            let mut removed = removed.iter().peekable();
            for interval in intervals {
                let mut low = interval.low;
                while removed.next_if(|gone| gone.high < low).is_some() {}
                while let Some(gone) = removed.peek().filter(|gone| gone.low <= interval.high) {
                    if low < gone.low {
                        let high = gone.low - 1;
                        let _ = left.push(*origin, Interval { low, high });
                    }
                    low = gone.high.saturating_add(1);
                    if low > interval.high {
                        break;
                    }
                    removed.next();
                }
                if low <= interval.high {
                    let high = interval.high;
                    let _ = left.push(*origin, Interval { low, high });
                }
            }
        }
        left
    }

    /// The transactions of this set that the server of this uuid has written; none for a text that is no uuid.
    pub fn of(&self, uuid: &str) -> Self {
        let Ok(one) = Self::parse(format!("{uuid}:1").as_bytes()) else {
            return Self::default();
        };
        let uuid = one.origins.first().map(|(origin, _)| origin.uuid);
        let origins = self.origins.iter();
        let own = origins.filter(|(origin, _)| Some(origin.uuid) == uuid);
        Self {
            origins: own.cloned().collect(),
        }
    }

    /// How many transactions there are in the set.
    pub fn count(&self) -> u64 {
        let intervals = self.origins.iter().flat_map(|(_, intervals)| intervals);
        intervals.fold(0_u64, |sum, interval| {
            let count = (interval.high - interval.low).saturating_add(1);
            sum.saturating_add(count)
        })
    }

    /// Every transaction that is in one of the two sets.
    pub fn union(&self, other: &Self) -> Self {
        let mut flat: Vec<(Origin, Interval)> = [self, other]
            .iter()
            .flat_map(|set| &set.origins)
            .flat_map(|(origin, intervals)| intervals.iter().map(|interval| (*origin, *interval)))
            .collect();
        flat.sort_unstable_by_key(|(origin, interval)| (*origin, interval.low));
        let mut set = Self::default();
        for (origin, interval) in flat {
            // Both inputs are in memory already, so their union cannot be out of proportion.
            let _ = set.push(origin, interval);
        }
        set
    }
}

impl Display for GtidSet {
    /// The server's own normal form: ascending, `uuid:1-5:7`, tags behind the untagged numbers of their uuid.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for (origin, intervals) in &self.origins {
            if last != Some(origin.uuid) {
                if last.is_some() {
                    f.write_str(",")?;
                }
                fmt_uuid(origin.uuid, f)?;
                last = Some(origin.uuid);
            }
            if !origin.tag.is_none() {
                write!(f, ":{}", origin.tag)?;
            }
            for interval in intervals {
                write!(f, ":{}", interval.low)?;
                if interval.high != interval.low {
                    write!(f, "-{}", interval.high)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for GtidSet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "GtidSet({self})")
    }
}

/// The last transaction of one MariaDB domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Last {
    domain: u32,
    server: u32,
    sequence: u64,
}

/// A MariaDB position: the last transaction of each domain, as in `gtid_slave_pos`.
///
/// Invariant: domains ascend, each occurs once.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct GtidPosition {
    domains: Vec<Last>,
}

impl GtidPosition {
    /// Reads `domain-server-sequence[,…]`; of several entries of one domain (`gtid_binlog_state`) the highest
    /// sequence counts. The empty text is the empty position.
    pub fn parse(text: &[u8]) -> Result<Self, GtidError> {
        let mut domains = Vec::new();
        each_maria(text, |last| {
            domains.try_reserve(1)?;
            domains.push(last);
            Ok(())
        })?;
        Ok(Self::from_lasts(domains))
    }

    fn from_lasts(mut domains: Vec<Last>) -> Self {
        // Highest sequence first, so that dedup keeps it.
        domains.sort_by_key(|last| (last.domain, std::cmp::Reverse(last.sequence)));
        domains.dedup_by_key(|last| last.domain);
        Self { domains }
    }

    /// Is there no transaction before this position?
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// How many domains it names.
    pub fn domains(&self) -> usize {
        self.domains.len()
    }

    /// Has this position reached `other` in each of `other`'s domains?
    pub fn covers(&self, other: &Self) -> bool {
        other
            .domains
            .iter()
            .all(|last| self.reached(last.domain, last.sequence))
    }

    fn reached(&self, domain: u32, sequence: u64) -> bool {
        self.domains
            .binary_search_by_key(&domain, |last| last.domain)
            .ok()
            .and_then(|at| self.domains.get(at))
            .is_some_and(|last| last.sequence >= sequence)
    }

    /// The domains in which this position is ahead of `other`.
    pub fn difference(&self, other: &Self) -> Self {
        let ahead = |last: &&Last| !other.reached(last.domain, last.sequence);
        Self {
            domains: self.domains.iter().filter(ahead).copied().collect(),
        }
    }

    /// How many numbers lie between `earlier` and this position in all domains.
    pub fn count_since(&self, earlier: &Self) -> u64 {
        let ahead = self.domains.iter().map(|last| {
            let known = earlier
                .domains
                .iter()
                .find(|known| known.domain == last.domain);
            last.sequence
                .saturating_sub(known.map_or(0, |known| known.sequence))
        });
        ahead.fold(0, u64::saturating_add)
    }

    /// The further of the two in each domain.
    pub fn union(&self, other: &Self) -> Self {
        let mut domains = self.domains.clone();
        domains.extend_from_slice(&other.domains);
        Self::from_lasts(domains)
    }
}

impl Display for GtidPosition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, last) in self.domains.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(
                f,
                "{comma}{}-{}-{}",
                last.domain, last.server, last.sequence
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for GtidPosition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "GtidPosition({self})")
    }
}

/// What is in a MariaDB server's binary log: the last transaction of each server in each domain, as in
/// `gtid_binlog_state`.
///
/// A position names only the last transaction of a domain, whoever wrote it: of two servers that went apart it cannot
/// say so.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GtidHistory {
    lasts: Vec<Last>,
}

impl GtidHistory {
    /// Reads `domain-server-sequence[,…]`. The empty text is the empty history.
    pub fn parse(text: &[u8]) -> Result<Self, GtidError> {
        let mut lasts = Vec::new();
        each_maria(text, |last| {
            lasts.try_reserve(1)?;
            lasts.push(last);
            Ok(())
        })?;
        Ok(Self { lasts })
    }

    /// Of each server and domain the last transaction, where that is not in `other`.
    pub fn beyond(&self, other: &Self) -> Self {
        let known = |last: &Last| {
            other.lasts.iter().any(|known| {
                (known.domain, known.server) == (last.domain, last.server)
                    && known.sequence >= last.sequence
            })
        };
        let lasts = self.lasts.iter().filter(|last| !known(last));
        Self {
            lasts: lasts.copied().collect(),
        }
    }

    /// Is nothing in the log?
    pub fn is_empty(&self) -> bool {
        self.lasts.is_empty()
    }
}

impl Display for GtidHistory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, last) in self.lasts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(
                f,
                "{comma}{}-{}-{}",
                last.domain, last.server, last.sequence
            )?;
        }
        Ok(())
    }
}

/// What a server has executed, in its flavour's terms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Position {
    /// A set of transactions.
    MySql(GtidSet),
    /// The last transaction of each domain.
    MariaDb(GtidPosition),
}

impl Position {
    /// Does a server at this position show everything that a server at `other` shows?
    ///
    /// Positions of different flavours never cover each other.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MySql(ours), Self::MySql(theirs)) => ours.contains(theirs),
            (Self::MariaDb(ours), Self::MariaDb(theirs)) => ours.covers(theirs),
            _ => false,
        }
    }

    /// Adds everything of `other`; of different flavours: an error, and nothing changes.
    pub fn merge(&mut self, other: &Self) -> Result<(), GtidError> {
        match (&mut *self, other) {
            (Self::MySql(ours), Self::MySql(theirs)) => *ours = ours.union(theirs),
            (Self::MariaDb(ours), Self::MariaDb(theirs)) => *ours = ours.union(theirs),
            _ => return Err(GtidError::FlavorMismatch),
        }
        Ok(())
    }

    /// What a server executed between `earlier` and this position; everything if they are of different flavours.
    pub fn since(&self, earlier: &Self) -> Self {
        match (self, earlier) {
            (Self::MySql(ours), Self::MySql(theirs)) => Self::MySql(ours.difference(theirs)),
            (Self::MariaDb(ours), Self::MariaDb(theirs)) => Self::MariaDb(ours.difference(theirs)),
            _ => self.clone(),
        }
    }

    /// How many transactions lie between `earlier` and this position. On MariaDB by their numbers: at most so many.
    pub fn count_since(&self, earlier: &Self) -> u64 {
        match (self, earlier) {
            (Self::MySql(ours), Self::MySql(theirs)) => ours.difference(theirs).count(),
            (Self::MariaDb(ours), Self::MariaDb(theirs)) => ours.count_since(theirs),
            _ => u64::MAX,
        }
    }

    /// Is nothing executed?
    pub fn is_empty(&self) -> bool {
        match self {
            Self::MySql(set) => set.is_empty(),
            Self::MariaDb(position) => position.is_empty(),
        }
    }
}

impl Display for Position {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(set) => set.fmt(f),
            Self::MariaDb(position) => position.fmt(f),
        }
    }
}

/// What a reader needs a server to have executed: the writes that were added.
///
/// Memory is bounded: of each uuid and tag (MySQL) the lowest and the highest number are kept, so a token asks for all
/// numbers between them, also for those of other writers; of each domain (MariaDB) the highest sequence.
#[derive(Clone, Debug, Default)]
pub struct WriteToken {
    ranges: Vec<(Origin, Interval)>,
    domains: Vec<(u32, u64)>,
    floor: Option<Arc<Position>>,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        fmt_uuid(self.uuid, f)?;
        write!(f, ":{}", self.tag)
    }
}

impl Display for WriteToken {
    /// As servers read it, also in the functions that wait for a position: `uuid:low-high` or `uuid:tag:low-high` (MySQL),
    /// `domain-0-sequence` (MariaDB, for which the server's number does not matter), with commas between them.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        match self.floor.as_deref() {
            Some(Position::MariaDb(floor)) => {
                for Last {
                    domain, sequence, ..
                } in &floor.domains
                {
                    let later = self.sequence_of(*domain).unwrap_or_default();
                    let sequence = later.max(*sequence);
                    write!(f, "{separator}{domain}-0-{sequence}")?;
                    separator = ",";
                }
            }
            Some(Position::MySql(floor)) if !floor.is_empty() => {
                write!(f, "{floor}")?;
                separator = ",";
            }
            _ => {}
        }
        for (origin, Interval { low, high }) in &self.ranges {
            f.write_str(separator)?;
            fmt_uuid(origin.uuid, f)?;
            if !origin.tag.is_none() {
                write!(f, ":{}", origin.tag)?;
            }
            write!(f, ":{low}-{high}")?;
            separator = ",";
        }
        let is_in_floor = |domain: &u32| match self.floor.as_deref() {
            Some(Position::MariaDb(floor)) => floor.reached(*domain, 0),
            _ => false,
        };
        for (domain, sequence) in &self.domains {
            // A domain stands there once.
            if !is_in_floor(domain) {
                write!(f, "{separator}{domain}-0-{sequence}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}

impl WriteToken {
    /// Does every server cover this token?
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.domains.is_empty() && self.floor.is_none()
    }

    /// Adds the transactions that an OK packet named: MySQL's `session_track_gtids` or MariaDB's `last_gtid`.
    ///
    /// On an error the token may hold a part of the text; the caller has to treat the write's position as unknown.
    pub fn add(&mut self, text: &[u8]) -> Result<(), GtidError> {
        if text.contains(&b':') {
            each_mysql(text, |origin, interval| self.add_interval(origin, interval))
        } else {
            each_maria(text, |last| self.add_sequence(last.domain, last.sequence))
        }
    }

    fn add_interval(&mut self, origin: Origin, added: Interval) -> Result<(), GtidError> {
        if let Some((_, range)) = self.ranges.iter_mut().find(|(known, _)| *known == origin) {
            range.low = range.low.min(added.low);
            range.high = range.high.max(added.high);
            return Ok(());
        }
        if self.ranges.len() >= MAX_TOKEN_ORIGINS {
            return Err(GtidError::TooMany);
        }
        self.ranges.push((origin, added));
        Ok(())
    }

    fn sequence_of(&self, domain: u32) -> Option<u64> {
        let found = self.domains.iter().find(|(known, _)| *known == domain);
        found.map(|(_, sequence)| *sequence)
    }

    fn add_sequence(&mut self, domain: u32, sequence: u64) -> Result<(), GtidError> {
        if let Some((_, highest)) = self.domains.iter_mut().find(|(known, _)| *known == domain) {
            *highest = sequence.max(*highest);
            return Ok(());
        }
        if self.domains.len() >= MAX_TOKEN_ORIGINS {
            return Err(GtidError::TooMany);
        }
        self.domains.push((domain, sequence));
        Ok(())
    }

    /// Adds what another token asks for.
    ///
    /// On an error the token may ask for a part of it; the caller has to treat the position as unknown.
    pub fn merge(&mut self, other: &Self) -> Result<(), GtidError> {
        for (origin, interval) in &other.ranges {
            self.add_interval(*origin, *interval)?;
        }
        for (domain, sequence) in &other.domains {
            self.add_sequence(*domain, *sequence)?;
        }
        self.floor = match (self.floor.take(), &other.floor) {
            (Some(ours), Some(theirs)) if !Arc::ptr_eq(&ours, theirs) => {
                let mut both = Position::clone(&ours);
                both.merge(theirs)?;
                Some(Arc::new(both))
            }
            (ours, theirs) => ours.or_else(|| theirs.clone()),
        };
        Ok(())
    }

    /// Forgets what was added and asks for `position` instead.
    ///
    /// Right when `position` was read from the primary after all the writes: it has those that survived.
    pub fn rebase(&mut self, position: Arc<Position>) {
        self.ranges.clear();
        self.domains.clear();
        self.floor = Some(position);
    }

    /// Does a server at `position` show all the writes of this token?
    pub fn covered_by(&self, position: &Position) -> bool {
        let writes = match position {
            Position::MySql(set) => {
                self.domains.is_empty()
                    && self
                        .ranges
                        .iter()
                        .all(|(origin, range)| set.contains_interval(origin, *range))
            }
            Position::MariaDb(reached) => {
                self.ranges.is_empty()
                    && self
                        .domains
                        .iter()
                        .all(|(domain, sequence)| reached.reached(*domain, *sequence))
            }
        };
        writes
            && self
                .floor
                .as_ref()
                .is_none_or(|floor| position.covers(floor))
    }
}

/// Calls `found` for each interval of a MySQL GTID set's text.
fn each_mysql(
    text: &[u8],
    mut found: impl FnMut(Origin, Interval) -> Result<(), GtidError>,
) -> Result<(), GtidError> {
    for entry in text.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        // The server itself prints and accepts empty entries, as in "uuid:1,\n".
        if entry.is_empty() {
            continue;
        }
        let mut parts = entry.split(|byte| *byte == b':').map(<[u8]>::trim_ascii);
        let uuid = parts
            .next()
            .and_then(parse_uuid)
            .ok_or(GtidError::Malformed)?;
        let mut origin = Origin {
            uuid,
            tag: Tag::NONE,
        };
        // A uuid or tag must be followed by a number.
        let mut complete = false;
        for part in parts {
            if part.first().is_some_and(u8::is_ascii_digit) {
                found(origin, parse_interval(part).ok_or(GtidError::Malformed)?)?;
                complete = true;
            } else {
                if !complete && !origin.tag.is_none() {
                    return Err(GtidError::Malformed);
                }
                origin.tag = Tag::parse(part).ok_or(GtidError::Malformed)?;
                complete = false;
            }
        }
        if !complete {
            return Err(GtidError::Malformed);
        }
    }
    Ok(())
}

/// Calls `found` for each entry of a MariaDB position's text.
fn each_maria(
    text: &[u8],
    mut found: impl FnMut(Last) -> Result<(), GtidError>,
) -> Result<(), GtidError> {
    for entry in text.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if entry.is_empty() {
            continue;
        }
        let mut parts = entry.split(|byte| *byte == b'-').map(parse_number);
        let mut next = || parts.next().flatten().ok_or(GtidError::Malformed);
        let domain = u32::try_from(next()?).map_err(|_| GtidError::Malformed)?;
        let server = u32::try_from(next()?).map_err(|_| GtidError::Malformed)?;
        let sequence = next()?;
        if parts.next().is_some() {
            return Err(GtidError::Malformed);
        }
        found(Last {
            domain,
            server,
            sequence,
        })?;
    }
    Ok(())
}

/// `5` or `5-9`; numbers start at 1 and ascend.
fn parse_interval(text: &[u8]) -> Option<Interval> {
    let mut ends = text.splitn(2, |byte| *byte == b'-').map(<[u8]>::trim_ascii);
    let low = parse_number(ends.next()?)?;
    let high = match ends.next() {
        Some(end) => parse_number(end)?,
        None => low,
    };
    (low >= 1 && low <= high && high <= MAX_NUMBER).then_some(Interval { low, high })
}

fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The canonical form only (8-4-4-4-12 hexadecimal digits): it is the only one that servers print.
fn parse_uuid(text: &[u8]) -> Option<u128> {
    if text.len() != UUID_TEXT {
        return None;
    }
    let mut uuid = 0_u128;
    for (at, byte) in text.iter().enumerate() {
        if matches!(at, 8 | 13 | 18 | 23) {
            if *byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return None,
        };
        uuid = uuid << 4 | u128::from(digit);
    }
    Some(uuid)
}

fn fmt_uuid(uuid: u128, f: &mut Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        uuid >> 96,
        uuid >> 80 & 0xffff,
        uuid >> 64 & 0xffff,
        uuid >> 48 & 0xffff,
        uuid & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4f22fb58-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        GtidSet::parse(text.replace('A', A).replace('B', B).as_bytes()).unwrap()
    }

    fn maria(text: &str) -> GtidPosition {
        GtidPosition::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn prints_the_normal_form() {
        for (text, normal) in [
            ("", ""),
            (" \n", ""),
            ("A:1", "A:1"),
            ("A:1-5:7,\nB:3", "A:1-5:7,B:3"),
            ("B:3, A:7:1-5", "A:1-5:7,B:3"),
            ("A:1-3:4-6:6:8-9", "A:1-6:8-9"),
            ("A:1,A:2", "A:1-2"),
            ("A:tag_1:5:1-3:Zed:4", "A:tag_1:1-3:5:zed:4"),
            ("A:1:tag:2:3,B:4", "A:1:tag:2-3,B:4"),
            ("A:9223372036854775806", "A:9223372036854775806"),
        ] {
            let normal = normal.replace('A', A).replace('B', B);
            assert_eq!(set(text).to_string(), normal, "{text:?}");
        }
        let upper = GtidSet::parse(format!("{}:1", A.to_uppercase()).as_bytes()).unwrap();
        assert_eq!(upper, set("A:1"));
    }

    #[test]
    fn refuses_what_no_server_prints() {
        for text in [
            "A",
            "A:",
            "A:0",
            "A:1-",
            "A:-1",
            "A:5-4",
            "A:1-2-3",
            "A:x",
            "A:tag",
            "A:tag:tog:1",
            "A:1:tag",
            "A::1",
            "A:9223372036854775807",
            "A:99999999999999999999999",
            "A:1 B:1",
            "x:1",
            "A1:1",
            "A:tag-1:1",
            "A:abcdefghijabcdefghijabcdefghijabc:1",
            "3e11fa4771ca11e19e33c80aa9429562:1",
            "0-1-5",
        ] {
            let text = text.replace('A', A).replace('B', B);
            assert_eq!(
                GtidSet::parse(text.as_bytes()),
                Err(GtidError::Malformed),
                "{text:?}"
            );
        }
        for text in [
            "0",
            "0-1",
            "0-1-2-3",
            "-1-2",
            "0--2",
            "a-1-2",
            "4294967296-1-1",
            "0-4294967296-1",
            "0-1-18446744073709551616",
            "0-1-2;",
            "A:1",
        ] {
            assert_eq!(
                GtidPosition::parse(text.as_bytes()),
                Err(GtidError::Malformed),
                "{text:?}"
            );
        }
    }

    #[test]
    fn containment_of_sets() {
        for (outer, inner, contained) in [
            ("", "", true),
            ("A:1", "", true),
            ("", "A:1", false),
            ("A:1-10", "A:3-5", true),
            ("A:1-10", "A:1-11", false),
            ("A:1-4:6-10", "A:3-7", false),
            ("A:1-4:6-10", "A:1:4:6:10", true),
            ("A:5-9", "A:4", false),
            ("A:1-9,B:1-9", "B:9", true),
            ("A:1-9", "A:1-9,B:1", false),
            ("A:1-9", "A:tag:1", false),
            ("A:1-9:tag:1-3", "A:tag:2", true),
        ] {
            assert_eq!(
                set(outer).contains(&set(inner)),
                contained,
                "{outer} {inner}"
            );
            let gtid = inner.replace('A', A).replace('B', B);
            assert_eq!(set(outer).contains_gtid(gtid.as_bytes()), Ok(contained));
        }
    }

    #[test]
    fn positions_of_domains() {
        assert_eq!(maria("1-2-5,0-1-100").to_string(), "0-1-100,1-2-5");
        assert_eq!(maria("0-1-100,0-2-101,0-3-7").to_string(), "0-2-101");
        assert_eq!(
            maria("0-1-5").union(&maria("0-2-4,1-1-1")).to_string(),
            "0-1-5,1-1-1"
        );
        for (ahead, behind, covers) in [
            ("0-1-5", "0-1-5", true),
            ("0-1-5", "0-1-6", false),
            ("0-2-7", "0-1-6", true),
            ("0-2-7", "1-1-1", false),
            ("0-2-7,1-1-1", "", true),
            ("", "0-1-1", false),
        ] {
            assert_eq!(
                maria(ahead).covers(&maria(behind)),
                covers,
                "{ahead} {behind}"
            );
        }
    }

    #[test]
    fn flavours_do_not_mix() {
        let mut mysql = Position::MySql(set("A:1"));
        let maria = Position::MariaDb(maria(""));
        assert!(!mysql.covers(&maria));
        assert_eq!(mysql.merge(&maria), Err(GtidError::FlavorMismatch));
        assert_eq!(mysql.merge(&Position::MySql(set("A:2"))), Ok(()));
        assert_eq!(mysql, Position::MySql(set("A:1-2")));

        let mut token = WriteToken::default();
        assert!(token.covered_by(&maria) && token.covered_by(&mysql));
        token.add(b"0-1-5").unwrap();
        assert!(!token.covered_by(&mysql));
    }

    #[test]
    fn token_asks_for_the_range_of_its_writes() {
        let mut token = WriteToken::default();
        for text in ["A:7", "A:5", "B:1-3", "A:tag:9"] {
            token
                .add(text.replace('A', A).replace('B', B).as_bytes())
                .unwrap();
        }
        for (position, covered) in [
            ("A:5-7:tag:9,B:1-3", true),
            ("A:1-9:tag:1-9,B:1-9", true),
            ("A:5:7:tag:9,B:1-3", false),
            ("A:5-7:tag:9,B:1-2", false),
            ("A:5-7,B:1-3", false),
        ] {
            assert_eq!(
                token.covered_by(&Position::MySql(set(position))),
                covered,
                "{position}"
            );
        }
        token.rebase(Arc::new(Position::MySql(set("A:5:7"))));
        assert!(token.covered_by(&Position::MySql(set("A:5:7"))));
        assert!(!token.covered_by(&Position::MySql(set("A:5"))));

        let mut token = WriteToken::default();
        token.add(b"0-1-7").unwrap();
        token.add(b"0-2-6,3-1-1").unwrap();
        assert!(token.covered_by(&Position::MariaDb(maria("0-5-7,3-2-1"))));
        assert!(!token.covered_by(&Position::MariaDb(maria("0-5-6,3-2-1"))));
    }

    #[test]
    fn a_token_reads_as_servers_write_positions() {
        let mut token = WriteToken::default();
        assert_eq!(token.to_string(), "");
        token.add(b"0-1-7,3-1-1").unwrap();
        assert_eq!(token.to_string(), "0-0-7,3-0-1");
        token.rebase(Arc::new(Position::MariaDb(maria("0-5-9,1-5-2"))));
        token.add(b"0-1-8,4-1-1").unwrap();
        assert_eq!(token.to_string(), "0-0-9,1-0-2,4-0-1");
        let mut token = WriteToken::default();
        token.rebase(Arc::new(Position::MySql(set("A:1-5"))));
        assert_eq!(token.to_string(), set("A:1-5").to_string());
        token.add(set("B:tag:7").to_string().as_bytes()).unwrap();
        let mut again = WriteToken::default();
        again.add(token.to_string().as_bytes()).unwrap();
        assert!(again.covered_by(&Position::MySql(set("A:1-5,B:tag:7"))));
        assert!(!again.covered_by(&Position::MySql(set("A:1-5,B:tag:6"))));
    }

    #[test]
    fn merged_tokens_ask_for_what_both_ask_for() {
        let token = |added: &str, floor: Option<&str>| {
            let mut token = WriteToken::default();
            if let Some(floor) = floor {
                token.rebase(Arc::new(Position::MariaDb(maria(floor))));
            }
            token.add(added.as_bytes()).unwrap();
            token
        };
        let mut both = token("0-1-7", None);
        both.merge(&token("1-1-3", Some("2-1-5"))).unwrap();
        both.merge(&token("0-1-6", Some("2-1-9"))).unwrap();
        let covered = |position: &str| both.covered_by(&Position::MariaDb(maria(position)));
        assert!(covered("0-1-7,1-1-3,2-1-9"));
        for lacks in [
            "0-1-6,1-1-3,2-1-9",
            "0-1-7,1-1-2,2-1-9",
            "0-1-7,1-1-3,2-1-8",
        ] {
            assert!(!covered(lacks), "{lacks}");
        }
    }

    #[test]
    fn token_is_bounded() {
        let mut token = WriteToken::default();
        for domain in 0..MAX_TOKEN_ORIGINS {
            token.add(format!("{domain}-1-1").as_bytes()).unwrap();
        }
        assert_eq!(token.add(b"1000-1-1"), Err(GtidError::TooMany));
        assert_eq!(token.add(b"1-1-2"), Ok(()));
        assert_eq!(token.add(b"junk"), Err(GtidError::Malformed));
    }

    fn text_of(numbers: &BTreeSet<(bool, u64)>) -> String {
        let each: Vec<_> = numbers
            .iter()
            .map(|(first, number)| format!("{}:{number}", if *first { A } else { B }))
            .collect();
        each.join(",")
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = GtidSet::parse(&bytes);
            let _ = GtidPosition::parse(&bytes);
            let _ = WriteToken::default().add(&bytes);
        }

        #[test]
        fn likely_bytes_are_read_or_refused(text in "[-0-9a-f:, \n]{0,80}", tail in "(:[a-z0-9-]{0,4}){0,4}") {
            let text = format!("{A}{tail},{text}");
            if let Ok(set) = GtidSet::parse(text.as_bytes()) {
                prop_assert_eq!(GtidSet::parse(set.to_string().as_bytes()), Ok(set));
            }
            let _ = GtidPosition::parse(text.as_bytes());
        }

        #[test]
        fn sets_are_sets(
            left in prop::collection::btree_set((any::<bool>(), 1..40_u64), 0..30),
            right in prop::collection::btree_set((any::<bool>(), 1..40_u64), 0..30),
        ) {
            let (a, b) = (set(&text_of(&left)), set(&text_of(&right)));
            let both = a.union(&b);
            prop_assert_eq!(a.contains(&b), left.is_superset(&right));
            prop_assert!(both.contains(&a) && both.contains(&b));
            prop_assert_eq!(&a.difference(&b), &set(&text_of(&left.difference(&right).copied().collect())));
            prop_assert_eq!(&both, &set(&text_of(&left.union(&right).copied().collect())));
            prop_assert_eq!(GtidSet::parse(both.to_string().as_bytes()), Ok(both));
        }
    }
}
