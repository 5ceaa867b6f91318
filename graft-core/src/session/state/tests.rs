//! The stored bytes, and what is refused.

use proptest::prelude::*;

use super::*;
use crate::{
    Entry, EntryKind,
    session::{CommandHeader, encode_blank, encode_command},
};

/// Two sessions: the first was active last and keeps a short reply, a long one and a panic.
fn example() -> Applier {
    let mut applier = Applier::new();
    let settings = SessionSettings { ttl_millis: 60_000, window: 16, max_sessions: 9 };
    let command = |sequence, body| {
        let header = CommandHeader { session: SessionId(2), sequence, floor: 3, version: 0 };
        (EntryKind::SessionCommand, encode_command(&header, body))
    };
    let log = [
        (EntryKind::Blank, encode_blank(1_000_000)),
        (EntryKind::SessionOpen, settings.encode()),
        (EntryKind::SessionOpen, settings.encode()),
        command(5, b"a reply of more than 16 bytes"),
        command(3, b"short"),
        command(9, b"panic"),
    ];
    for (index, (kind, payload)) in (1..).zip(log) {
        let (log_id, time) = (LogId::new(7, index), LogTime(100 * index));
        let entry = Entry { log_id, time, kind, payload };
        let machine = |command: &crate::Command<'_>| match command.body {
            b"panic" => panic!("told to"),
            body => Ok(bytes::Bytes::copy_from_slice(body)),
        };
        applier.apply_with(&entry, machine).unwrap();
    }
    applier
}

fn reason(bytes: &[u8]) -> &'static str {
    match Applier::decode(bytes) {
        Err(StateError::Malformed { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stored_state_of_today_is_read_for_ever() {
    let applier = example();
    let u64 = u64::to_le_bytes;
    let u32 = u32::to_le_bytes;
    let stored = [
        &[1][..],
        &[u64(7), u64(6), u64(0xa3fe_4057_44bd_3126)].concat(),
        &[u64(1_000_000), u64(100), u64(1_000_500), u64(600)].concat(),
        &u32(2),
        &[u64(3), u64(0), u64(300), u64(60_000)].concat(),
        &[u32(16), u32(0)].concat(),
        &[u64(2), u64(3), u64(600), u64(60_000)].concat(),
        &[u32(16), u32(3)].concat(),
        &[&u64(3)[..], &[0], &u64(5), b"short"].concat(),
        &[&u64(5)[..], &[0], &u64(29), b"a reply of more than 16 bytes"].concat(),
        &[&u64(9)[..], &[1], &u64(7), b"told to"].concat(),
    ]
    .concat();
    assert_eq!(applier.encode(), stored);
    assert_eq!(Applier::decode(&stored).unwrap().encode(), stored);
}

#[test]
fn a_new_applier_survives_its_encoding() {
    let bytes = Applier::new().encode();
    assert_eq!(Applier::decode(&bytes).unwrap().encode(), bytes);
}

#[test]
fn a_state_of_another_format_asks_for_an_upgrade() {
    let mut bytes = example().encode();
    bytes[0] = 2;
    let error = Applier::decode(&bytes).unwrap_err();
    assert_eq!(error, StateError::UnknownFormat { found: 2, known: 1 });
}

#[test]
fn every_truncation_is_refused_and_so_are_trailing_bytes() {
    let bytes = example().encode();
    for length in 0..bytes.len() {
        assert_eq!(reason(&bytes[..length]), "it ends too early", "{length} bytes");
    }
    assert_eq!(reason(&[&bytes[..], &[0]].concat()), "trailing bytes");
}

#[test]
fn what_contradicts_itself_is_refused() {
    let changes: [(usize, &[u8], &str); 13] = [
        (57, &[0xff; 4], "more sessions than a table holds"),
        (61, &[0; 8], "an id not in the log"),
        (61, &[7, 0, 0, 0, 0, 0, 0, 0], "an id not in the log"),
        (101, &[3, 0, 0, 0, 0, 0, 0, 0], "a session twice"),
        (77, &[0x59, 2], "sessions out of order"),
        (117, &[0x2b, 1], "sessions out of order"),
        (85, &[0; 8], "settings out of range"),
        (93, &[0; 4], "settings out of range"),
        (133, &[1, 64], "settings out of range"),
        (141, &[2], "a reply outside its window"),
        (141, &[5], "a reply outside its window"),
        (141, &[3 + 16], "a reply outside its window"),
        (149, &[2], "a reply of an unknown kind"),
    ];
    for (at, change, expected) in changes {
        let mut bytes = example().encode();
        bytes[at..at + change.len()].copy_from_slice(change);
        assert_eq!(reason(&bytes), expected, "{change:?} at {at}");
    }
    // The log's time, moved beyond the deadline of the session that has been idle for longest.
    let mut bytes = example().encode();
    bytes[49..57].copy_from_slice(&(300_u64 + 60_001).to_le_bytes());
    assert_eq!(reason(&bytes), "a session past its time");
}

#[test]
fn a_length_that_the_bytes_do_not_back_is_refused() {
    let mut bytes = example().encode();
    bytes[150..158].fill(0xff);
    assert_eq!(reason(&bytes), "it ends too early");
    let mut bytes = example().encode();
    bytes[137..141].fill(0xff);
    assert!(Applier::decode(&bytes).is_err());
}

proptest! {
    /// There are no two spellings of one state, so equal tables give equal bytes.
    #[test]
    fn bytes_that_are_accepted_are_what_writing_the_state_again_gives(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = example().encode();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(applier) = Applier::decode(&bytes) {
            prop_assert_eq!(applier.encode(), bytes);
        }
    }
}
