//! What neighbours in a list have in common is written once.
//!
//! Most entries of a batch were taken in within one millisecond, and most requests will wait as long as those
//! beside them: what is the same for so many is a *run*, and beside it an item costs a number and a length.

use super::{Frame, WireError};

/// What items behind each other have in common, and how many they are.
pub(super) trait Run: PartialEq {
    /// How many it is of.
    fn count(&mut self) -> &mut u32;
}

/// Adds one item, which is a run of its own.
pub(super) fn push<R: Run>(runs: &mut Vec<R>, mut one: R) {
    if let Some(last) = runs.last_mut() {
        let count = *last.count();
        *one.count() = count;
        if *last == one {
            *last.count() = count + 1;
            return;
        }
    }
    *one.count() = 1;
    runs.push(one);
}

/// Checks that runs of so many are what `items` items have in common, each of them a part of one.
pub(super) fn check(
    counts: impl Iterator<Item = u32>,
    items: usize,
    frame: &Frame,
) -> Result<(), WireError> {
    let mut left = items;
    for count in counts {
        let count = count as usize;
        if count == 0 || count > left {
            return Err(frame.malformed("its runs are not those of its items"));
        }
        left -= count;
    }
    if left == 0 { Ok(()) } else { Err(frame.malformed("its runs are fewer than its items")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(PartialEq, Debug)]
    struct Colour(char, u32);

    impl Run for Colour {
        fn count(&mut self) -> &mut u32 {
            &mut self.1
        }
    }

    #[test]
    fn only_neighbours_that_are_alike_are_a_run() {
        let mut runs = Vec::new();
        "rrgrbb".chars().for_each(|name| push(&mut runs, Colour(name, 1)));
        assert_eq!(runs, [Colour('r', 2), Colour('g', 1), Colour('r', 1), Colour('b', 2)]);
    }
}
