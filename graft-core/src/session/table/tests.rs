//! The rules of the table, one by one.

use super::*;

const MINUTE: u64 = 60_000;

fn settings(ttl_millis: u64, window: u32, max_sessions: u32) -> SessionSettings {
    SessionSettings { ttl_millis, window, max_sessions }
}

fn open(table: &mut SessionTable, index: u64) -> SessionId {
    table.open(Index(index), SessionSettings::default())
}

fn applied(reply: &str) -> Outcome {
    Outcome::Applied(reply.to_owned().into())
}

fn admit(table: &mut SessionTable, session: SessionId, sequence: u64, floor: u64) -> Admission {
    table.admit(&CommandHeader { session, sequence, floor, version: 0 })
}

/// Sends a command that answers `reply` if it is applied.
fn send(
    table: &mut SessionTable,
    session: SessionId,
    sequence: u64,
    floor: u64,
    reply: &str,
) -> Outcome {
    match admit(table, session, sequence, floor) {
        Admission::Answer(outcome) => outcome,
        Admission::Apply(ticket) => {
            table.keep(ticket, &applied(reply));
            applied(reply)
        }
    }
}

#[test]
fn a_session_is_named_by_the_index_of_its_open_entry() {
    let mut table = SessionTable::new();
    assert_eq!(open(&mut table, 7), SessionId(7));
    assert_eq!(open(&mut table, 12), SessionId(12));
    assert_eq!(table.len(), 2);
}

#[test]
#[should_panic(expected = "opened before")]
fn an_open_entry_cannot_be_applied_twice() {
    let mut table = SessionTable::new();
    open(&mut table, 7);
    open(&mut table, 7);
}

#[test]
fn a_second_copy_is_answered_with_the_first_ones_reply() {
    let mut table = SessionTable::new();
    let session = open(&mut table, 1);
    assert_eq!(send(&mut table, session, 5, 0, "first"), applied("first"));
    assert_eq!(send(&mut table, session, 5, 0, "second"), applied("first"));
}

#[test]
fn a_panic_is_kept_and_repeated_like_any_reply() {
    let mut table = SessionTable::new();
    let session = open(&mut table, 1);
    let panicked = Outcome::Panicked("oh no".into());
    let Admission::Apply(ticket) = admit(&mut table, session, 0, 0) else {
        panic!("a new command is applied");
    };
    table.keep(ticket, &panicked);
    assert_eq!(send(&mut table, session, 0, 0, "again"), panicked);
}

#[test]
fn commands_are_applied_in_whatever_order_they_come() {
    let mut table = SessionTable::new();
    let session = open(&mut table, 1);
    for sequence in [3, 1, 2, 0] {
        assert_eq!(send(&mut table, session, sequence, 0, "once"), applied("once"));
    }
    for sequence in 0..4 {
        assert_eq!(send(&mut table, session, sequence, 0, "twice"), applied("once"));
    }
}

#[test]
fn below_the_floor_nothing_is_applied_and_nothing_kept() {
    let mut table = SessionTable::new();
    let session = open(&mut table, 1);
    send(&mut table, session, 0, 0, "kept");
    assert!(table.reply_bytes() > 0);
    assert_eq!(table.keep_alive(session, 3), Outcome::SessionDone);
    assert_eq!(table.reply_bytes(), 0);
    for sequence in 0..3 {
        assert_eq!(send(&mut table, session, sequence, 0, "late"), Outcome::Forgotten);
    }
    assert_eq!(send(&mut table, session, 3, 0, "on time"), applied("on time"));
}

#[test]
fn a_floor_never_falls() {
    let mut table = SessionTable::new();
    let session = open(&mut table, 1);
    send(&mut table, session, 9, 5, "new");
    assert_eq!(send(&mut table, session, 4, 2, "old copy"), Outcome::Forgotten);
    table.keep_alive(session, 0);
    assert_eq!(send(&mut table, session, 4, 0, "older copy"), Outcome::Forgotten);
}

#[test]
fn a_command_that_raises_the_floor_above_itself_is_forgotten() {
    let mut table = SessionTable::new();
    let session = open(&mut table, 1);
    assert_eq!(send(&mut table, session, 4, 5, "?"), Outcome::Forgotten);
}

#[test]
fn a_sequence_a_window_above_the_floor_is_refused_until_the_floor_moves() {
    let mut table = SessionTable::new();
    let session = table.open(Index(1), settings(MINUTE, 4, 10));
    assert_eq!(send(&mut table, session, 3, 0, "last"), applied("last"));
    assert_eq!(send(&mut table, session, 4, 0, "?"), Outcome::SessionFull);
    assert_eq!(send(&mut table, session, u64::MAX, 0, "?"), Outcome::SessionFull);
    assert_eq!(send(&mut table, session, 4, 1, "next"), applied("next"));
}

#[test]
fn a_session_keeps_no_more_replies_than_its_window() {
    let mut table = SessionTable::new();
    let session = table.open(Index(1), settings(MINUTE, 8, 10));
    for sequence in 0..100 {
        send(&mut table, session, sequence, 0, "");
    }
    assert_eq!(table.reply_bytes(), 8 * 32);
}

#[test]
fn a_session_at_its_bytes_applies_only_what_stands_at_its_floor() {
    let mut table =
        SessionTable::with_limits(Limits { session_bytes: 3 * 132, total_bytes: 1 << 20 });
    let session = open(&mut table, 1);
    let reply = "x".repeat(100);
    for sequence in [1, 2, 3] {
        assert_eq!(send(&mut table, session, sequence, 0, &reply), applied(&reply));
    }
    assert_eq!(send(&mut table, session, 4, 0, &reply), Outcome::SessionFull);
    assert_eq!(send(&mut table, session, 2, 0, "?"), applied(&reply));
    assert_eq!(send(&mut table, session, 0, 0, &reply), applied(&reply));
    assert_eq!(send(&mut table, session, 4, 1, &reply), Outcome::SessionFull);
    assert_eq!(send(&mut table, session, 4, 2, &reply), applied(&reply));
}

#[test]
fn a_client_whose_replies_are_all_too_large_still_gets_on_one_at_a_time() {
    let mut table = SessionTable::with_limits(Limits { session_bytes: 1, total_bytes: 1 << 20 });
    let session = open(&mut table, 1);
    for sequence in 0..100 {
        let reply = "x".repeat(1_000);
        assert_eq!(send(&mut table, session, sequence, sequence, &reply), applied(&reply));
        assert_eq!(table.reply_bytes(), 1_032);
    }
}

#[test]
fn too_many_bytes_in_all_end_the_sessions_idle_for_longest_that_keep_any() {
    let mut table =
        SessionTable::with_limits(Limits { session_bytes: 1 << 20, total_bytes: 4 * 132 });
    let [empty, oldest, busy, newest] = [1, 2, 3, 4].map(|index| open(&mut table, index));
    let reply = "x".repeat(100);
    for session in [oldest, busy, newest] {
        send(&mut table, session, 0, 0, &reply);
    }
    send(&mut table, busy, 1, 0, &reply);
    assert_eq!(table.len(), 4);
    // The fifth reply passes the bound. What keeps nothing and what is being served stay.
    send(&mut table, busy, 2, 0, &reply);
    let alive = [empty, oldest, busy, newest].map(|session| table.contains(session));
    assert_eq!(alive, [true, false, true, false]);
    assert_eq!(send(&mut table, oldest, 0, 0, "again"), Outcome::SessionExpired);
    assert_eq!(send(&mut table, busy, 0, 0, "again"), applied(&reply));
}

#[test]
fn one_session_alone_may_keep_more_than_all_may() {
    let mut table = SessionTable::with_limits(Limits { session_bytes: 1 << 20, total_bytes: 100 });
    let session = open(&mut table, 1);
    let reply = "x".repeat(1_000);
    assert_eq!(send(&mut table, session, 0, 0, &reply), applied(&reply));
    assert_eq!(send(&mut table, session, 0, 0, "again"), applied(&reply));
}

#[test]
fn an_unknown_session_applies_nothing() {
    let mut table = SessionTable::new();
    open(&mut table, 1);
    for session in [0, 2, u64::MAX].map(SessionId) {
        assert_eq!(send(&mut table, session, 0, 0, "?"), Outcome::SessionExpired);
        assert_eq!(table.keep_alive(session, 0), Outcome::SessionExpired);
    }
}

#[test]
fn a_closed_session_is_gone_and_closing_again_is_fine() {
    let mut table = SessionTable::new();
    let session = open(&mut table, 1);
    send(&mut table, session, 0, 0, "kept");
    assert_eq!(table.close(session), Outcome::SessionDone);
    assert!(table.is_empty());
    assert_eq!(table.reply_bytes(), 0);
    assert_eq!(send(&mut table, session, 0, 0, "?"), Outcome::SessionExpired);
    assert_eq!(table.close(session), Outcome::SessionDone);
    assert_eq!(table.close(SessionId(99)), Outcome::SessionDone);
}

#[test]
fn a_slot_that_is_used_again_answers_for_its_new_session_alone() {
    let mut table = SessionTable::new();
    let old = open(&mut table, 1);
    send(&mut table, old, 0, 0, "old");
    table.close(old);
    let new = open(&mut table, 2);
    assert_eq!(send(&mut table, old, 0, 0, "?"), Outcome::SessionExpired);
    assert_eq!(send(&mut table, new, 0, 0, "new"), applied("new"));
}

#[test]
fn a_session_lives_through_its_time_and_ends_after_it() {
    let mut table = SessionTable::new();
    table.advance(LogTime(1_000));
    let session = table.open(Index(1), settings(MINUTE, 8, 10));
    table.advance(LogTime(1_000 + MINUTE));
    assert!(table.contains(session));
    table.advance(LogTime(1_001 + MINUTE));
    assert!(!table.contains(session));
    assert_eq!(send(&mut table, session, 0, 0, "?"), Outcome::SessionExpired);
}

#[test]
fn everything_that_names_a_session_keeps_it_alive() {
    let step = MINUTE / 2;
    let mut table = SessionTable::new();
    let session = table.open(Index(1), settings(MINUTE, 2, 10));
    type Act = fn(&mut SessionTable, SessionId);
    let acts: [Act; 5] = [
        |table, session| assert_eq!(send(table, session, 1, 1, "new"), applied("new")),
        |table, session| assert_eq!(send(table, session, 1, 1, "copy"), applied("new")),
        |table, session| assert_eq!(send(table, session, 0, 0, "late"), Outcome::Forgotten),
        |table, session| assert_eq!(send(table, session, 9, 1, "far"), Outcome::SessionFull),
        |table, session| assert_eq!(table.keep_alive(session, 1), Outcome::SessionDone),
    ];
    for (at, act) in (1..).zip(acts.iter().cycle().take(20)) {
        table.advance(LogTime(at * step));
        act(&mut table, session);
    }
    table.advance(LogTime(20 * step + MINUTE));
    assert!(table.contains(session));
    table.advance(LogTime(20 * step + MINUTE + 1));
    assert!(table.is_empty());
}

#[test]
fn sessions_end_each_after_its_own_time() {
    let mut table = SessionTable::new();
    let ids: Vec<_> = [5, 1, 3, 2, 4]
        .into_iter()
        .map(|minutes| (minutes, table.open(Index(minutes), settings(minutes * MINUTE, 8, 10))))
        .collect();
    for now in 0..7 {
        table.advance(LogTime(now * MINUTE + 1));
        for (minutes, id) in &ids {
            assert_eq!(table.contains(*id), *minutes > now, "{minutes} after {now}");
        }
    }
}

#[test]
fn time_does_not_go_back() {
    let mut table = SessionTable::new();
    table.advance(LogTime(MINUTE));
    let session = table.open(Index(1), settings(MINUTE, 8, 10));
    table.advance(LogTime(5));
    assert_eq!(table.now(), LogTime(MINUTE));
    table.advance(LogTime(2 * MINUTE));
    assert!(table.contains(session));
}

#[test]
fn a_full_table_ends_the_session_idle_for_longest() {
    let mut table = SessionTable::new();
    let full = settings(MINUTE, 8, 3);
    let [one, two, three] = [1, 2, 3].map(|index| table.open(Index(index), full));
    send(&mut table, one, 0, 0, "active");
    let four = table.open(Index(4), full);
    let alive = [one, two, three, four].map(|session| table.contains(session));
    assert_eq!(alive, [true, false, true, true]);
}

#[test]
fn a_smaller_table_is_reached_a_session_at_a_time() {
    let mut table = SessionTable::new();
    for index in 1..=10 {
        table.open(Index(index), settings(MINUTE, 8, 10));
    }
    let lengths: Vec<_> = (11..20)
        .map(|index| {
            table.open(Index(index), settings(MINUTE, 8, 4));
            table.len()
        })
        .collect();
    assert_eq!(lengths, [9, 8, 7, 6, 5, 4, 4, 4, 4]);
    table.open(Index(20), settings(MINUTE, 8, 10));
    assert_eq!(table.len(), 5);
}

#[test]
fn settings_out_of_range_cannot_make_a_session_useless() {
    let mut table = SessionTable::new();
    let session = table.open(Index(1), settings(0, 0, 0));
    table.advance(LogTime(SessionSettings::MIN_TTL_MILLIS));
    assert_eq!(send(&mut table, session, 0, 0, "reply"), applied("reply"));
    table.open(Index(2), settings(u64::MAX, u32::MAX, u32::MAX));
    table.advance(LogTime(SessionSettings::MAX_TTL_MILLIS + SessionSettings::MIN_TTL_MILLIS + 1));
    assert!(table.is_empty());
}

#[test]
fn a_hundred_thousand_sessions_come_and_go() {
    let mut table = SessionTable::new();
    for index in 1..=150_000 {
        table.advance(LogTime(index));
        open(&mut table, index);
        assert!(table.len() <= 100_000);
    }
    assert_eq!(table.len(), 100_000);
    assert!(!table.contains(SessionId(50_000)) && table.contains(SessionId(50_001)));
    table.advance(LogTime(150_000 + 10 * MINUTE + 1));
    assert!(table.is_empty());
    assert_eq!(table.slots.len(), 100_000, "slots are used again");
}
