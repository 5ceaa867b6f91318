//! Whether calls on one register are linearizable (Herlihy and Wing): whether they can be put into an order in which each
//! tells the truth, and in which no call comes after one that began when it had ended.
//!
//! The search is Wing's and Gong's, with Lowe's memory of what was tried: a set of calls done and the value that they
//! leave is tried once. Values are written once each, so few orders are possible, and a history of hundreds of calls
//! takes milliseconds. (todc-utils, which does the same, knows no calls whose end is unknown.)

use std::collections::{HashMap, HashSet};

use super::{Call, End};
use crate::machine::{Ask, Told};

/// Whether the calls on one register can be true.
///
/// # Errors
///
/// The first call that no order can hold, in words.
pub(super) fn check(calls: &[&Call]) -> Result<(), String> {
    let spans = spans(calls);
    Search::new(&spans).run().map_err(|stuck| {
        let Span { call, .. } = spans[stuck.call];
        let (done, all) = (stuck.done, spans.len());
        let beside = spans.iter().filter(|other| spans[stuck.call].overlaps(other)).take(12);
        let beside: Vec<String> = beside.map(|other| format!("{:?}", other.call)).collect();
        format!(
            "not linearizable: at most {done} of {all} calls have an order, and then {call:?} has no place; beside it: {beside:#?}"
        )
    })
}

/// A call that had its effect at some moment between two.
#[derive(Clone, Copy)]
struct Span<'a> {
    call: &'a Call,
    ended: u64,
}

impl Span<'_> {
    const fn overlaps(&self, other: &Self) -> bool {
        let (one, two) = (self.call.began, other.call.began);
        one != two && one < other.ended && two < self.ended
    }
}

/// The calls that had an effect or saw one. What was not answered had an effect that matters only if somebody saw its
/// value, and then it had it before whoever saw that had ended: without this bound it could take effect at any time, and
/// a search would try any subset of such calls again and again.
fn spans<'a>(calls: &[&'a Call]) -> Vec<Span<'a>> {
    // Until when each value was written at the latest, if it was seen.
    let mut seen: HashMap<u64, u64> = HashMap::new();
    for call in calls {
        if let End::Answered { at, told: Told::Value(found) | Told::Swapped { found, .. } } =
            call.end
        {
            note(&mut seen, found, at);
        }
    }
    let unknown = |call: &&&Call| call.end == End::Unknown;
    // A swap whose value was seen saw what it expected.
    let swaps = calls.iter().filter(unknown).filter_map(|call| match call.ask {
        Ask::Swap { expected, value, .. } => Some((expected, value)),
        _ => None,
    });
    let swaps: Vec<_> = swaps.collect();
    let mut is_news = true;
    while is_news {
        is_news = false;
        for (expected, value) in &swaps {
            if let Some(bound) = seen.get(value).copied() {
                is_news |= note(&mut seen, *expected, bound);
            }
        }
    }
    let spans = calls.iter().filter_map(|call| {
        let ended = match (&call.end, &call.ask) {
            (End::Answered { at, .. }, _) => *at,
            (End::Unknown, Ask::Write { value, .. } | Ask::Swap { value, .. }) => {
                *seen.get(value)?
            }
            (End::Unknown | End::NotApplied, _) => return None,
        };
        Some(Span { call, ended })
    });
    spans.collect()
}

/// Takes down that a value was seen by this moment, and says whether that is news.
fn note(seen: &mut HashMap<u64, u64>, value: Option<u64>, moment: u64) -> bool {
    let Some(value) = value else { return false };
    let bound = seen.entry(value).or_insert(u64::MAX);
    let is_news = moment < *bound;
    *bound = moment.min(*bound);
    is_news
}

/// The register after `call` if it may be done now; `None` where what it was told would not be true.
fn apply(call: &Call, value: Option<u64>) -> Option<Option<u64>> {
    match (&call.ask, &call.end) {
        (Ask::Read { .. }, End::Answered { told, .. }) => {
            (*told == Told::Value(value)).then_some(value)
        }
        (Ask::Write { value: new, .. }, _) => Some(Some(*new)),
        (Ask::Swap { expected, value: new, .. }, End::Answered { told, .. }) => {
            let swapped = value == *expected;
            let after = if swapped { Some(*new) } else { value };
            (*told == Told::Swapped { swapped, found: value }).then_some(after)
        }
        // Its value was seen.
        (Ask::Swap { expected, value: new, .. }, _) => (value == *expected).then_some(Some(*new)),
        other => panic!("{other:?} is of no register"),
    }
}

/// Where the search came to an end without an order.
struct Stuck {
    call: usize,
    done: usize,
}

/// A call begins or ends.
#[derive(Clone, Copy)]
struct Event {
    call: usize,
    /// Where in the list the call's other event is.
    other: usize,
    begins: bool,
}

/// All events in order as a list in which calls that are done can be taken out and put back.
struct Search<'a> {
    calls: &'a [Span<'a>],
    events: Vec<Event>,
    /// The place before and after each; the last place stands for both ends of the list.
    before: Vec<usize>,
    after: Vec<usize>,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Span<'a>]) -> Self {
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (at, span) in calls.iter().enumerate() {
            moments.push((span.call.began, true, at));
            moments.push((span.ended, false, at));
        }
        moments.sort_unstable();
        let mut places = vec![[0; 2]; calls.len()];
        for (place, (_, begins, call)) in moments.iter().enumerate() {
            places[*call][usize::from(*begins)] = place;
        }
        let events = moments.iter().map(|(_, begins, call)| Event {
            call: *call,
            other: places[*call][usize::from(!begins)],
            begins: *begins,
        });
        let events: Vec<Event> = events.collect();
        let end = events.len();
        let before = (0..=end).map(|place| if place == 0 { end } else { place - 1 }).collect();
        let after = (0..=end).map(|place| if place == end { 0 } else { place + 1 }).collect();
        Self { calls, events, before, after }
    }

    fn take_out(&mut self, place: usize) {
        let (before, after) = (self.before[place], self.after[place]);
        self.after[before] = after;
        self.before[after] = before;
    }

    fn put_back(&mut self, place: usize) {
        let (before, after) = (self.before[place], self.after[place]);
        self.after[before] = place;
        self.before[after] = place;
    }

    fn run(mut self) -> Result<(), Stuck> {
        let end = self.events.len();
        let mut value = None;
        let mut done = vec![0_u64; self.calls.len().div_ceil(64)];
        let mut order: Vec<(usize, Option<u64>)> = Vec::new();
        let mut tried: HashSet<(Vec<u64>, Option<u64>)> = HashSet::new();
        let mut stuck = Stuck { call: 0, done: 0 };
        let mut place = self.after[end];
        while place != end {
            let event = self.events[place];
            if event.begins {
                if let Some(next) = apply(self.calls[event.call].call, value) {
                    flip(&mut done, event.call);
                    if tried.insert((done.clone(), next)) {
                        order.push((place, value));
                        value = next;
                        self.take_out(place);
                        self.take_out(event.other);
                        place = self.after[end];
                        continue;
                    }
                    flip(&mut done, event.call);
                }
                place = self.after[place];
                continue;
            }
            // It has ended and could not be done before: something done earlier must be done later.
            if order.len() >= stuck.done {
                stuck = Stuck { call: event.call, done: order.len() };
            }
            let Some((last, former)) = order.pop() else { return Err(stuck) };
            value = former;
            let event = self.events[last];
            flip(&mut done, event.call);
            self.put_back(event.other);
            self.put_back(last);
            place = self.after[last];
        }
        Ok(())
    }
}

fn flip(set: &mut [u64], at: usize) {
    set[at / 64] ^= 1 << (at % 64);
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::{
        super::samples::{KEY, answered, not_applied, unknown},
        *,
    };

    fn read(began: u64, at: u64, value: Option<u64>) -> Call {
        answered(began, at, Ask::Read { key: KEY }, Told::Value(value))
    }

    fn write(began: u64, at: u64, value: u64) -> Call {
        answered(began, at, Ask::Write { key: KEY, value }, Told::Done)
    }

    fn swap(began: u64, at: u64, [expected, value]: [u64; 2], found: u64) -> Call {
        let told = Told::Swapped { swapped: expected == found, found: Some(found) };
        answered(began, at, Ask::Swap { key: KEY, expected: Some(expected), value }, told)
    }

    fn is_linearizable(calls: &[Call]) -> bool {
        check(&calls.iter().collect::<Vec<_>>()).is_ok()
    }

    #[test]
    fn what_one_client_does_in_turn_is_linearizable_if_it_is_true() {
        let good = [read(0, 1, None), write(2, 3, 5), swap(4, 5, [5, 6], 5), read(6, 7, Some(6))];
        assert!(is_linearizable(&good));
        for wrong in
            [read(6, 7, Some(5)), read(6, 7, None), swap(6, 7, [5, 8], 5), swap(6, 7, [6, 8], 5)]
        {
            let calls = [&good[..3], &[wrong]].concat();
            assert!(!is_linearizable(&calls), "{calls:?}");
        }
    }

    #[test]
    fn calls_at_the_same_time_may_have_any_order_that_all_agree_on() {
        let writes = [write(0, 10, 5), write(1, 9, 6)];
        let both = |one: Call, other: Call| is_linearizable(&[&writes[..], &[one, other]].concat());
        assert!(both(read(2, 3, Some(5)), read(4, 5, Some(6))));
        assert!(both(read(2, 3, Some(6)), read(4, 5, Some(5))));
        assert!(both(read(2, 3, None), read(4, 5, None)));
        assert!(!both(read(2, 3, Some(6)), read(4, 5, None)), "the past comes back");
        let [one, other] = [read(11, 13, Some(5)), read(12, 14, Some(6))];
        assert!(!both(one, other), "both are over, and one of them was the last");
    }

    #[test]
    fn a_stale_read_is_caught() {
        assert!(!is_linearizable(&[write(0, 1, 5), write(2, 3, 6), read(4, 5, Some(5))]));
    }

    #[test]
    fn a_lost_write_is_caught() {
        assert!(!is_linearizable(&[write(0, 1, 5), read(2, 3, None)]));
    }

    #[test]
    fn a_swap_that_two_clients_win_is_caught() {
        let calls = [write(0, 1, 5), swap(2, 5, [5, 6], 5), swap(3, 4, [5, 7], 5)];
        assert!(!is_linearizable(&calls));
    }

    #[test]
    fn a_write_that_is_done_twice_is_caught() {
        // Sent again and applied again, after another one had come between.
        let calls = [write(0, 1, 5), write(2, 3, 6), read(4, 5, Some(6)), read(6, 7, Some(5))];
        assert!(!is_linearizable(&calls));
    }

    #[test]
    fn what_is_unknown_may_be_seen_late_or_never_but_not_before_it_began() {
        let lost = unknown(2, Ask::Write { key: KEY, value: 6 });
        let with = |calls: &[Call]| is_linearizable(&[calls, slice::from_ref(&lost)].concat());
        assert!(with(&[write(0, 1, 5), read(3, 4, Some(5)), read(5, 6, Some(6))]));
        assert!(with(&[write(0, 1, 5), read(3, 4, Some(5)), read(5, 6, Some(5))]));
        assert!(!with(&[read(0, 1, Some(6))]), "seen before it was sent");
        assert!(!with(&[read(3, 4, Some(6)), read(5, 6, None)]), "seen and gone");
    }

    #[test]
    fn an_unknown_swap_has_its_effect_or_none() {
        let lost = unknown(2, Ask::Swap { key: KEY, expected: Some(5), value: 6 });
        let with = |calls: &[Call]| is_linearizable(&[calls, slice::from_ref(&lost)].concat());
        assert!(with(&[write(0, 1, 5), read(3, 4, Some(6))]));
        assert!(with(&[write(0, 1, 5), write(3, 4, 8), read(5, 6, Some(8))]));
        assert!(!with(&[write(0, 1, 8), read(3, 4, Some(6))]), "it found another value");
    }

    #[test]
    fn what_was_not_applied_is_never_seen() {
        let refused = not_applied(0, Ask::Write { key: KEY, value: 6 });
        assert!(is_linearizable(&[refused.clone(), read(1, 2, None)]));
        assert!(!is_linearizable(&[refused, read(1, 2, Some(6))]));
    }

    /// A true history of `clients` that run side by side, in which about one call in 20 is not known to have ended.
    fn random_history(seed: u64, clients: usize, length: usize) -> Vec<Call> {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut clock, mut value, mut next) = (0, None, 1);
        let mut open: Vec<Option<(Call, u64)>> = vec![None; clients];
        let mut calls = Vec::new();
        while calls.len() < length {
            clock += 1;
            let client = random.usize(..clients);
            let Some((mut call, doing)) = open[client].take() else {
                let ask = match random.u8(..3) {
                    0 => Ask::Read { key: KEY },
                    1 => Ask::Write { key: KEY, value: next },
                    _ => Ask::Swap { key: KEY, expected: value, value: next },
                };
                next += 1;
                open[client] = Some((unknown(clock, ask), 0));
                continue;
            };
            if doing == 0 {
                let truth = match &call.ask {
                    Ask::Read { .. } => Told::Value(value),
                    Ask::Write { value: new, .. } => {
                        value = Some(*new);
                        Told::Done
                    }
                    Ask::Swap { expected, value: new, .. } => {
                        let found = value;
                        let swapped = found == *expected;
                        value = if swapped { Some(*new) } else { value };
                        Told::Swapped { swapped, found }
                    }
                    other => panic!("{other:?}"),
                };
                call.end = End::Answered { at: 0, told: truth };
                open[client] = Some((call, 1));
                continue;
            }
            if random.u8(..20) == 0 {
                call.end = End::Unknown;
            } else if let End::Answered { at, .. } = &mut call.end {
                *at = clock;
            }
            calls.push(call);
        }
        // What is open now is unknown.
        calls
            .extend(open.into_iter().flatten().map(|(call, _)| Call { end: End::Unknown, ..call }));
        calls
    }

    #[test]
    fn true_histories_of_any_kind_pass_and_one_false_answer_in_them_does_not() {
        for seed in 0..40 {
            let mut calls = random_history(seed, 8, 400);
            assert!(is_linearizable(&calls), "seed {seed}");
            let read = calls.iter_mut().rev().find_map(|call| match &mut call.end {
                End::Answered { told: Told::Value(value), .. } => Some(value),
                _ => None,
            });
            *read.unwrap() = Some(u64::MAX);
            assert!(!is_linearizable(&calls), "seed {seed}");
        }
    }
}
