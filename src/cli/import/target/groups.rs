//! What belongs together.

use std::collections::BTreeMap;

/// Sets that share an element, directly or by others, belong together: the numbers of the sets, group by group, in order.
pub(in crate::cli::import) fn groups<T: Ord>(sets: &[Vec<T>]) -> Vec<Vec<usize>> {
    let mut leader: Vec<usize> = (0..sets.len()).collect();
    let mut seen: BTreeMap<&T, usize> = BTreeMap::new();
    for (at, set) in sets.iter().enumerate() {
        for element in set {
            let other = *seen.entry(element).or_insert(at);
            let (one, other) = (find(&mut leader, at), find(&mut leader, other));
            if let Some(slot) = leader.get_mut(one.max(other)) {
                *slot = one.min(other);
            }
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in 0..sets.len() {
        groups.entry(find(&mut leader, at)).or_default().push(at);
    }
    groups.into_values().collect()
}

fn find(leader: &mut [usize], mut at: usize) -> usize {
    while let Some(up) = leader.get(at).copied().filter(|up| *up != at) {
        let above = leader.get(up).copied().unwrap_or(up);
        if let Some(slot) = leader.get_mut(at) {
            *slot = above;
        }
        at = above;
    }
    at
}
