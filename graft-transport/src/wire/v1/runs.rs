//! What neighbours in a list have in common is written once.
//!
//! Most entries of a batch were taken in within one millisecond, and most requests will wait as long as those
//! beside them: what is the same for so many is a *run*, and beside it an item costs a number and a length.

use graft_core::{
    EntryKind,
    session::{COMMAND_HEADER, following_header},
};

use super::{Frame, WireError, header::ALIGNMENT};

/// What items behind each other have in common, and how many they are.
pub(super) trait Run: PartialEq {
    /// How many it is of.
    fn count(&mut self) -> &mut u32;
}

/// A run whose items have a kind.
pub(super) trait KindRun: Run {
    /// What they are for, or [`CHAIN`].
    fn kind(&mut self) -> &mut u8;
}

/// What stands for the kind of a run that is a chain: commands of one session with one floor and one version, whose
/// sequences count up by one. Of the first all is there, of the others only what is behind the header: theirs is
/// that of the first with the sequence counted up.
pub(super) const CHAIN: u8 = 0x80 | EntryKind::SessionCommand as u8;

/// A command of more bytes is no part of a chain: the header is little of it, and it is best left as it is.
const MAX_CHAINED: usize = 128;

const _: () = assert!(COMMAND_HEADER.is_multiple_of(ALIGNMENT), "what is behind it is aligned too");

/// Looks for chains while payloads pass.
#[derive(Default)]
pub(super) struct Chains<'a> {
    /// The header of the first of what may be a chain, and how many it has so far.
    first: Option<(&'a [u8; COMMAND_HEADER], u64)>,
}

impl<'a> Chains<'a> {
    /// Adds the next item, which is a run of its own, and gives what of its payload is to be written.
    pub(super) fn push<R: KindRun>(
        &mut self,
        runs: &mut Vec<R>,
        mut one: R,
        payload: &'a [u8],
    ) -> &'a [u8] {
        let is_command = *one.kind() == EntryKind::SessionCommand as u8;
        let header = payload.first_chunk().filter(|_| is_command && payload.len() <= MAX_CHAINED);
        if let (Some(header), Some((first, length))) = (header, &mut self.first)
            && *header == following_header(first, *length)
        {
            match join(runs, one) {
                Ok(()) => {
                    *length += 1;
                    return &payload[COMMAND_HEADER..];
                }
                Err(back) => one = back,
            }
        }
        self.first = header.map(|header| (header, 1));
        push(runs, one);
        payload
    }
}

/// Puts an item into a chain with the one before it, which is one of a chain or another command. Gives it back
/// where they have not all else in common.
fn join<R: KindRun>(runs: &mut Vec<R>, mut one: R) -> Result<(), R> {
    let Some(last) = runs.last_mut() else {
        return Err(one);
    };
    let (kind, count) = (*last.kind(), *last.count());
    let own = std::mem::replace(one.kind(), kind);
    *one.count() = count;
    if *last != one {
        *one.kind() = own;
        return Err(one);
    }
    if kind == CHAIN {
        *last.count() = count + 1;
        return Ok(());
    }
    // The one before leaves its run.
    *last.count() = count - 1;
    if count == 1 {
        runs.pop();
    }
    (*one.kind(), *one.count()) = (CHAIN, 2);
    runs.push(one);
    Ok(())
}

/// The payloads of a chain, whole again, by the payload of its first and what is there of the others.
pub(super) struct Links<'a> {
    first: &'a [u8; COMMAND_HEADER],
    by: u64,
}

impl<'a> Links<'a> {
    pub(super) fn of(first: &'a [u8], frame: &Frame) -> Result<Self, WireError> {
        let header = first.first_chunk().filter(|_| first.len() <= MAX_CHAINED);
        let first = header.ok_or_else(|| frame.malformed("a chain begins with no command"))?;
        Ok(Self { first, by: 0 })
    }

    /// How much of a payload of `bytes` bytes is there.
    pub(super) fn rest(bytes: u32, frame: &Frame) -> Result<u32, WireError> {
        const HEADER: u32 = 32;
        const _: () = assert!(HEADER as usize == COMMAND_HEADER);
        let rest = bytes.checked_sub(HEADER).filter(|_| bytes as usize <= MAX_CHAINED);
        rest.ok_or_else(|| frame.malformed("a chain holds what is no small command"))
    }

    /// The header of the next.
    pub(super) fn next(&mut self) -> [u8; COMMAND_HEADER] {
        self.by += 1;
        following_header(self.first, self.by)
    }
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

    #[derive(Clone, Copy, PartialEq, Debug)]
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
