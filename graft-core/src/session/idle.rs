//! Sessions in the order of their last activity.

/// Slots from the one idle for longest to the one that was active last: a doubly linked list over
/// slot numbers, so that every change is a few writes however many sessions there are.
///
/// Invariant: a slot is linked at most once; unlinked slots have no neighbours.
#[derive(Clone, Default)]
pub(super) struct IdleOrder {
    links: Vec<Link>,
    oldest: Option<Slot>,
    newest: Option<Slot>,
}

/// The number of a slot. Half a machine word, so that a link is 16 bytes.
pub(super) type Slot = u32;

#[derive(Clone, Copy, Default)]
struct Link {
    older: Option<Slot>,
    newer: Option<Slot>,
}

impl IdleOrder {
    /// Links a slot that is not linked as the one that was active last.
    #[inline]
    pub(super) fn push(&mut self, slot: Slot) {
        let at = slot as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, Link::default());
        }
        self.links[at] = Link { older: self.newest, newer: None };
        match self.newest {
            Some(newest) => self.links[newest as usize].newer = Some(slot),
            None => self.oldest = Some(slot),
        }
        self.newest = Some(slot);
    }

    /// Unlinks a slot that is linked.
    #[inline]
    pub(super) fn remove(&mut self, slot: Slot) {
        let link = std::mem::take(&mut self.links[slot as usize]);
        match link.older {
            Some(older) => self.links[older as usize].newer = link.newer,
            None => self.oldest = link.newer,
        }
        match link.newer {
            Some(newer) => self.links[newer as usize].older = link.older,
            None => self.newest = link.older,
        }
    }

    /// Makes a linked slot the one that was active last.
    #[inline]
    pub(super) fn touch(&mut self, slot: Slot) {
        if self.newest != Some(slot) {
            self.remove(slot);
            self.push(slot);
        }
    }

    /// The slot that has been idle for longest.
    pub(super) const fn oldest(&self) -> Option<Slot> {
        self.oldest
    }

    /// The slot that became active next after `slot`.
    pub(super) fn newer(&self, slot: Slot) -> Option<Slot> {
        self.links[slot as usize].newer
    }

    /// All linked slots, the one idle for longest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Slot> {
        std::iter::successors(self.oldest, |slot| self.newer(*slot))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Change {
        Push(Slot),
        Remove(Slot),
        Touch(Slot),
    }

    fn change() -> impl Strategy<Value = Change> {
        (0..3, 0..8_u32).prop_map(|(which, slot)| match which {
            0 => Change::Push(slot),
            1 => Change::Remove(slot),
            _ => Change::Touch(slot),
        })
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_a_plain_list(changes in prop::collection::vec(change(), 0..60)) {
            let (mut order, mut list) = (IdleOrder::default(), Vec::<Slot>::new());
            for change in changes {
                match change {
                    Change::Push(slot) if !list.contains(&slot) => {
                        order.push(slot);
                        list.push(slot);
                    }
                    Change::Remove(slot) if list.contains(&slot) => {
                        order.remove(slot);
                        list.retain(|other| *other != slot);
                    }
                    Change::Touch(slot) if list.contains(&slot) => {
                        order.touch(slot);
                        list.retain(|other| *other != slot);
                        list.push(slot);
                    }
                    _ => {}
                }
                prop_assert_eq!(order.iter().collect::<Vec<_>>(), list.clone());
                prop_assert_eq!(order.oldest(), list.first().copied());
            }
        }
    }
}
