//! Who gets the next connection of one server.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use crate::{accounts::AccountKey, config::rule::Priority};

/// What speaks for a statement that waits for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Claim {
    /// What rules say counts above everything.
    pub priority: Priority,
    /// Its session is in the middle of a transaction: others may be waiting for that to end.
    pub underway: bool,
}

impl Claim {
    /// Nobody waits for it.
    pub const LAST: Self = Self {
        priority: Priority::Low,
        underway: false,
    };
}

/// Those who wait, and how many connections each account has.
///
/// Next is one of the best claims; among those one of the account that has the fewest connections, or, where several have,
/// of the one that was served longest ago; of an account the one that came first. Every [`SENIORITY`]th of them it is who has
/// waited longest, so that nobody waits for ever behind accounts whose share is smaller.
#[derive(Debug)]
pub(super) struct Line<T> {
    accounts: HashMap<AccountKey, Share<T>>,
    waiting: usize,
    arrivals: u64,
    served: u64,
    /// How many of each rank.
    turns: BTreeMap<Rank, u64>,
}

/// One account.
#[derive(Debug)]
struct Share<T> {
    held: usize,
    /// The turn in which it was served last.
    served: u64,
    waiting: BTreeMap<Ticket, T>,
}

/// A place in the line; the lowest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    rank: Rank,
    number: u64,
}

/// A claim; the lowest comes first.
type Rank = (Reverse<Priority>, Reverse<bool>);

const SENIORITY: u64 = 8;

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            accounts: HashMap::new(),
            waiting: 0,
            arrivals: 0,
            served: 0,
            turns: BTreeMap::new(),
        }
    }
}

impl<T> Default for Share<T> {
    fn default() -> Self {
        Self {
            held: 0,
            served: 0,
            waiting: BTreeMap::new(),
        }
    }
}

impl<T> Line<T> {
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many connections an account has.
    pub(super) fn held(&self, account: &AccountKey) -> usize {
        self.accounts.get(account).map_or(0, |share| share.held)
    }

    /// The account has one connection more.
    pub(super) fn hold(&mut self, account: &AccountKey) {
        self.share(account).held += 1;
    }

    /// The account has one connection less.
    pub(super) fn release(&mut self, account: &AccountKey) {
        if let Some(share) = self.accounts.get_mut(account) {
            share.held = share.held.saturating_sub(1);
        }
        self.forget(account);
    }

    /// Takes a place: the one that it had before, if what it got there was of no use.
    pub(super) fn join(
        &mut self,
        account: &AccountKey,
        claim: Claim,
        before: Option<Ticket>,
        waiter: T,
    ) -> Ticket {
        let ticket = before.unwrap_or(Ticket {
            rank: (Reverse(claim.priority), Reverse(claim.underway)),
            number: self.arrivals,
        });
        self.arrivals += 1;
        self.waiting += 1;
        self.share(account).waiting.insert(ticket, waiter);
        ticket
    }

    /// Gives up a place; it may have been taken out already.
    pub(super) fn leave(&mut self, account: &AccountKey, ticket: Ticket) {
        let share = self.accounts.get_mut(account);
        if share.is_some_and(|share| share.waiting.remove(&ticket).is_some()) {
            self.waiting -= 1;
            self.forget(account);
        }
    }

    /// Takes out who is next, and gives its account one connection more.
    pub(super) fn serve(&mut self) -> Option<(AccountKey, T)> {
        let firsts = || {
            self.accounts.iter().filter_map(|(account, share)| {
                let (ticket, _) = share.waiting.first_key_value()?;
                Some((account, share, *ticket))
            })
        };
        let rank = firsts().map(|(_, _, ticket)| ticket.rank).min()?;
        let turns = self.turns.entry(rank).or_default();
        *turns += 1;
        let senior = turns.is_multiple_of(SENIORITY);
        let rivals = firsts().filter(|(_, _, ticket)| ticket.rank == rank);
        let next = if senior {
            rivals.min_by_key(|(_, _, ticket)| ticket.number)
        } else {
            rivals.min_by_key(|(_, share, ticket)| (share.held, share.served, ticket.number))
        };
        let account = next?.0.clone();
        self.served += 1;
        let share = self.accounts.get_mut(&account)?;
        let (_, waiter) = share.waiting.pop_first()?;
        share.held += 1;
        share.served = self.served;
        self.waiting -= 1;
        Some((account, waiter))
    }

    /// Takes out everybody.
    pub(super) fn dismiss(&mut self) -> Vec<T> {
        self.waiting = 0;
        let shares = self.accounts.values_mut();
        let all = shares
            .flat_map(|share| std::mem::take(&mut share.waiting).into_values())
            .collect();
        self.accounts.retain(|_, share| share.held > 0);
        all
    }

    fn share(&mut self, account: &AccountKey) -> &mut Share<T> {
        self.accounts.entry(account.clone()).or_default()
    }

    fn forget(&mut self, account: &AccountKey) {
        let share = self.accounts.get(account);
        if share.is_some_and(|share| share.held == 0 && share.waiting.is_empty()) {
            self.accounts.remove(account);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    fn account(number: usize) -> AccountKey {
        AccountKey {
            user: number.to_string().into(),
            host: "%".into(),
        }
    }

    const NEW: Claim = Claim {
        priority: Priority::Normal,
        underway: false,
    };

    fn underway(priority: Priority) -> Claim {
        Claim {
            priority,
            underway: true,
        }
    }

    fn order(line: &mut Line<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| line.serve().map(|(_, who)| who)).collect()
    }

    #[test]
    fn claims_count_above_shares() {
        let mut line = Line::default();
        let (one, other) = (account(1), account(2));
        line.join(&one, NEW, None, "new");
        line.join(&one, underway(Priority::Low), None, "low");
        line.join(&one, underway(Priority::Normal), None, "in a transaction");
        line.hold(&other);
        let high = Claim {
            priority: Priority::High,
            ..NEW
        };
        line.join(&other, high, None, "high");
        line.join(&other, NEW, None, "larger share");
        let expected = ["high", "in a transaction", "new", "larger share", "low"];
        assert_eq!(order(&mut line), expected);
    }

    #[test]
    fn one_connection_is_shared_by_turns() {
        let mut line = Line::default();
        let (hot, quiet) = (account(1), account(2));
        for _ in 0..6 {
            line.join(&hot, NEW, None, "hot");
        }
        line.join(&quiet, NEW, None, "quiet");
        let turns = std::iter::from_fn(|| {
            let (served, who) = line.serve()?;
            line.release(&served);
            Some(who)
        });
        let turns: Vec<_> = turns.take(3).collect();
        assert_eq!(turns.iter().filter(|who| **who == "quiet").count(), 1);
    }

    #[test]
    fn who_got_what_was_of_no_use_waits_where_it_was() {
        let mut line = Line::default();
        let first = line.join(&account(1), NEW, None, "first");
        line.join(&account(1), NEW, None, "second");
        let (served, who) = line.serve().unwrap();
        assert_eq!(who, "first");
        line.release(&served);
        line.join(&account(1), NEW, Some(first), "first");
        assert_eq!(order(&mut line), ["first", "second"]);
    }

    #[test]
    fn nothing_is_remembered_of_those_who_left() {
        let mut line = Line::default();
        let tickets: Vec<_> = (0..9)
            .map(|number| (account(number), line.join(&account(number), NEW, None, ())))
            .collect();
        let (served, ()) = line.serve().unwrap();
        line.hold(&account(100));
        for (account, ticket) in &tickets {
            line.leave(account, *ticket);
        }
        assert_eq!((line.len(), line.accounts.len()), (0, 2));
        line.release(&served);
        line.release(&account(100));
        assert!(line.accounts.is_empty());
        line.join(&served, NEW, None, ());
        assert_eq!(line.dismiss().len(), 1);
        assert!(line.is_empty() && line.accounts.is_empty());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Join(usize, u8),
        Return(usize),
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => (0_usize..5, 0_u8..6).prop_map(|(account, claim)| Step::Join(account * account, claim)),
            4 => any::<usize>().prop_map(Step::Return),
            1 => any::<usize>().prop_map(Step::Leave),
        ];
        proptest::collection::vec(step, 1..400)
    }

    /// One that waits, as the test sees it.
    struct Waiting {
        number: u64,
        account: AccountKey,
        ticket: Ticket,
        /// How often somebody was served whose claim was as good.
        passed_by: u64,
        /// Those who came before with a claim as good, when it came.
        before: u64,
    }

    proptest! {
        /// A server with a few connections and five accounts that come, are served, return and give up at random.
        #[test]
        fn shares_hold_and_nobody_starves(cap in 1_usize..8, steps in steps()) {
            let mut line = Line::default();
            let mut waiting: Vec<Waiting> = Vec::new();
            let mut lent: Vec<AccountKey> = Vec::new();
            let mut number = 0;
            for step in steps {
                match step {
                    Step::Join(of, claim) => {
                        let account = account(of);
                        let priority = match claim % 3 {
                            0 => Priority::Low,
                            1 => Priority::Normal,
                            _ => Priority::High,
                        };
                        let ticket = line.join(&account, Claim { priority, underway: claim > 2 }, None, number);
                        let before = waiting.iter().filter(|other| other.ticket.rank == ticket.rank).count() as u64;
                        waiting.push(Waiting { number, account, ticket, passed_by: 0, before });
                        number += 1;
                    }
                    Step::Return(which) if !lent.is_empty() => {
                        let account = lent.swap_remove(which % lent.len());
                        line.release(&account);
                    }
                    Step::Leave(which) if !waiting.is_empty() => {
                        let left = waiting.swap_remove(which % waiting.len());
                        line.leave(&left.account, left.ticket);
                    }
                    Step::Return(_) | Step::Leave(_) => {}
                }
                while lent.len() < cap && !line.is_empty() {
                    let held: Vec<_> = waiting.iter().map(|one| line.held(&one.account)).collect();
                    let (account, who) = line.serve().unwrap();
                    let at = waiting.iter().position(|one| one.number == who).unwrap();
                    let (of, ticket) = (&waiting[at].account, waiting[at].ticket);
                    prop_assert_eq!(&account, of);
                    for (other, has) in waiting.iter().zip(&held) {
                        // Claims always count, and an account's statements are served as they came.
                        prop_assert!(ticket.rank <= other.ticket.rank);
                        prop_assert!(other.account != account || ticket <= other.ticket);
                        // Only the turn of those who wait longest looks at no share.
                        let rivals = other.ticket.rank == ticket.rank;
                        let senior = line.turns[&ticket.rank].is_multiple_of(SENIORITY);
                        prop_assert!(senior || !rivals || held[at] <= *has);
                        prop_assert!(!senior || !rivals || ticket <= other.ticket);
                    }
                    waiting.remove(at);
                    for other in waiting.iter_mut().filter(|other| other.ticket.rank == ticket.rank) {
                        other.passed_by += 1;
                        prop_assert!(other.passed_by < SENIORITY * (other.before + 1));
                    }
                    lent.push(account);
                }
                prop_assert_eq!(line.len(), waiting.len());
            }
        }
    }
}
