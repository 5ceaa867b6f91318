//! Whether calls on one list can be true. An append is told its place, so the order is known and needs no search: each
//! check takes one pass.

use std::collections::HashMap;

use super::{Call, End};
use crate::machine::{Ask, Told};

/// Whether the calls on one list can be true.
///
/// # Errors
///
/// What cannot, in words.
pub(super) fn check(calls: &[&Call]) -> Result<(), String> {
    let list = last_read(calls)?;
    let appends = appends(calls);
    check_content(list, &appends)?;
    let mut seen = Vec::new();
    for call in calls {
        if let Some(one) = place(call, list)? {
            seen.push(one);
        }
    }
    check_real_time(&mut seen)?;
    check_causes(list, &appends, &seen)
}

/// What was read after everything else had ended.
fn last_read<'a>(calls: &[&'a Call]) -> Result<&'a [u64], String> {
    let last = calls.iter().max_by_key(|call| call.began).ok_or("no calls")?;
    let End::Answered { told: Told::List(list), .. } = &last.end else {
        return Err(format!("it was not read at the end, the last call is {last:?}"));
    };
    let late = calls.iter().find(|call| {
        let at = if let End::Answered { at, .. } = call.end { at } else { call.began };
        call.began != last.began && at > last.began
    });
    late.map_or(Ok(list), |late| Err(format!("{late:?} had not ended when it was read at the end")))
}

/// The appends by their values.
fn appends<'a>(calls: &[&'a Call]) -> HashMap<u64, &'a Call> {
    let appends = calls.iter().filter_map(|call| match call.ask {
        Ask::Append { value, .. } => Some((value, *call)),
        _ => None,
    });
    appends.collect()
}

/// Each value is there once, and somebody wanted it there.
fn check_content(list: &[u64], appends: &HashMap<u64, &Call>) -> Result<(), String> {
    let mut places = HashMap::new();
    for (place, value) in list.iter().enumerate() {
        if let Some(first) = places.insert(*value, place) {
            return Err(format!("{value} was appended twice, at {first} and at {place}"));
        }
        match appends.get(value).map(|call| &call.end) {
            Some(End::Answered { .. } | End::Unknown) => {}
            Some(End::NotApplied) => {
                return Err(format!("{value} is there, and its append ended as not applied"));
            }
            None => return Err(format!("{value} is there, and nobody appended it")),
        }
    }
    Ok(())
}

/// A call that was answered, as what it says of the length of the list.
struct Seen<'a> {
    call: &'a Call,
    ended: u64,
    /// How long the list was when the call came.
    before: usize,
    /// How long it was when the call was done.
    after: usize,
}

/// Where in the list's life a call has its place, if it was answered.
fn place<'a>(call: &'a Call, list: &[u64]) -> Result<Option<Seen<'a>>, String> {
    let End::Answered { at, told } = &call.end else { return Ok(None) };
    let (before, after) = match (&call.ask, told) {
        (Ask::Append { value, .. }, Told::Appended(place)) => {
            let place = usize::try_from(*place).map_err(|error| error.to_string())?;
            match list.get(place) {
                Some(found) if found == value => (place, place + 1),
                found => {
                    return Err(format!(
                        "{value} was acknowledged at {place}, where there is {found:?}"
                    ));
                }
            }
        }
        (Ask::List { .. }, Told::List(read)) => {
            if !list.starts_with(read) {
                let length = read.len();
                let differs = read.iter().zip(list).position(|(one, other)| one != other);
                return Err(format!(
                    "a read of {length} values is not what the list began with: {differs:?}, {call:?}"
                ));
            }
            (read.len(), read.len())
        }
        _ => return Err(format!("{call:?} is of no list")),
    };
    Ok(Some(Seen { call, ended: *at, before, after }))
}

/// Whoever came after another one had ended found at least what that one had left.
fn check_real_time(seen: &mut [Seen<'_>]) -> Result<(), String> {
    let mut ends: Vec<(u64, usize)> = seen.iter().map(|one| (one.ended, one.after)).collect();
    ends.sort_unstable();
    seen.sort_unstable_by_key(|one| one.call.began);
    let mut ends = ends.into_iter().peekable();
    let mut known = 0;
    for one in seen {
        while let Some((_, after)) = ends.next_if(|(ended, _)| *ended < one.call.began) {
            known = known.max(after);
        }
        if one.before < known {
            return Err(format!(
                "{known} values had been acknowledged or read when this call began, and it found {}: {:?}",
                one.before, one.call
            ));
        }
    }
    Ok(())
}

/// Nobody has seen a value before its append was sent.
fn check_causes(
    list: &[u64],
    appends: &HashMap<u64, &Call>,
    seen: &[Seen<'_>],
) -> Result<(), String> {
    let mut latest = 0;
    // When the last of the appends up to each place was sent.
    let sent = list.iter().map(|value| {
        latest = latest.max(appends.get(value).map_or(0, |call| call.began));
        latest
    });
    let sent: Vec<u64> = sent.collect();
    let early = seen.iter().find(|one| one.after > 0 && sent[one.after - 1] > one.ended);
    early.map_or(Ok(()), |one| {
        Err(format!("it had ended before what it saw was sent: {:?}", one.call))
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{KEY, answered, not_applied, unknown},
        *,
    };

    fn append(began: u64, at: u64, value: u64, place: u64) -> Call {
        answered(began, at, Ask::Append { key: KEY, value }, Told::Appended(place))
    }

    fn read(began: u64, at: u64, values: &[u64]) -> Call {
        answered(began, at, Ask::List { key: KEY }, Told::List(values.to_vec()))
    }

    fn sent(value: u64) -> Ask {
        Ask::Append { key: KEY, value }
    }

    fn verdict(calls: &[Call]) -> Result<(), String> {
        check(&calls.iter().collect::<Vec<_>>())
    }

    fn is_caught(calls: &[Call], as_what: &str) {
        let error = verdict(calls).unwrap_err();
        assert!(error.contains(as_what), "{error}");
    }

    #[test]
    fn a_true_history_passes() {
        let calls = [
            append(0, 5, 10, 1),
            append(1, 4, 11, 0),
            read(2, 9, &[11]),
            read(6, 8, &[11, 10]),
            unknown(7, sent(12)),
            not_applied(8, sent(13)),
            append(10, 11, 14, 3),
            unknown(12, sent(15)),
            read(20, 21, &[11, 10, 12, 14]),
        ];
        assert_eq!(verdict(&calls), Ok(()));
    }

    #[test]
    fn an_acknowledged_append_that_is_lost_is_caught() {
        is_caught(&[append(0, 1, 10, 0), read(2, 3, &[])], "acknowledged at 0");
        let calls = [append(0, 1, 10, 0), append(2, 3, 11, 1), read(4, 5, &[11])];
        is_caught(&calls, "acknowledged at");
    }

    #[test]
    fn an_append_that_was_done_twice_is_caught() {
        is_caught(&[append(0, 1, 10, 0), read(2, 3, &[10, 10])], "appended twice");
        is_caught(&[unknown(0, sent(10)), read(2, 3, &[10, 10])], "appended twice");
    }

    #[test]
    fn an_append_that_was_not_applied_and_is_there_is_caught() {
        is_caught(&[not_applied(0, sent(10)), read(2, 3, &[10])], "not applied");
    }

    #[test]
    fn a_value_of_nobody_is_caught() {
        is_caught(&[read(2, 3, &[10])], "nobody appended");
    }

    #[test]
    fn a_place_that_was_told_wrong_is_caught() {
        let calls = [append(0, 3, 10, 1), append(1, 2, 11, 1), read(4, 5, &[10, 11])];
        is_caught(&calls, "acknowledged at 1");
    }

    #[test]
    fn a_read_of_another_past_is_caught() {
        let calls =
            [append(0, 3, 10, 0), append(1, 4, 11, 1), read(2, 5, &[11]), read(6, 7, &[10, 11])];
        is_caught(&calls, "not what the list began with");
    }

    #[test]
    fn a_stale_read_is_caught() {
        let calls = [append(0, 1, 10, 0), read(2, 3, &[]), read(4, 5, &[10])];
        is_caught(&calls, "1 values had been acknowledged");
        let calls = [append(0, 9, 10, 0), read(2, 3, &[10]), read(4, 5, &[]), read(10, 11, &[10])];
        is_caught(&calls, "1 values had been acknowledged");
    }

    #[test]
    fn appends_in_another_order_than_they_were_acknowledged_in_are_caught() {
        let calls = [append(0, 1, 10, 1), append(2, 3, 11, 0), read(4, 5, &[11, 10])];
        is_caught(&calls, "2 values had been acknowledged");
    }

    #[test]
    fn a_value_that_was_seen_before_it_was_sent_is_caught() {
        let calls = [read(0, 1, &[10]), unknown(2, sent(10)), read(4, 5, &[10])];
        is_caught(&calls, "before what it saw was sent");
        let calls = [append(0, 1, 11, 1), unknown(2, sent(10)), read(4, 5, &[10, 11])];
        is_caught(&calls, "before what it saw was sent");
    }

    #[test]
    fn a_list_that_was_not_read_at_the_end_cannot_be_judged() {
        is_caught(&[append(0, 1, 10, 0)], "not read at the end");
        is_caught(&[append(0, 4, 10, 0), read(2, 3, &[10])], "had not ended");
    }
}
