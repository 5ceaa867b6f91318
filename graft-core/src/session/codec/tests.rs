//! The stored bytes, and what the door refuses.

use super::*;

const HEADER: CommandHeader = CommandHeader {
    session: SessionId(0x0102_0304_0506_0708),
    sequence: 0x1112_1314_1516_1718,
    floor: 0x0a0b,
    version: 0x2122,
};

/// These bytes are in logs: a change of any of them makes every log unreadable.
#[test]
fn stored_payloads_of_today_are_read_for_ever() {
    let command = [
        &[8, 7, 6, 5, 4, 3, 2, 1][..],
        &[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11],
        &[0x0b, 0x0a, 0, 0, 0, 0, 0, 0],
        &[0x22, 0x21, 0, 0, 0, 0, 0, 0],
        b"body",
    ]
    .concat();
    let body = &b"body"[..];
    let plain = [&[0x22, 0x21][..], &[0; 14], body].concat();
    let open = [0x10, 0x27, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 9, 1, 0, 0];
    let keep_alive = [5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
    let close = [5, 0, 0, 0, 0, 0, 0, 0];
    let blank = [0, 1, 0, 0, 0, 0, 0, 0];
    let settings = SessionSettings { ttl_millis: 10_000, window: 7, max_sessions: 265 };

    assert_eq!(encode_command(&HEADER, body), command);
    assert_eq!(encode_plain(HEADER.version, body), plain);
    assert_eq!(settings.encode(), &open[..]);
    assert_eq!(encode_keep_alive(SessionId(5), 6), &keep_alive[..]);
    assert_eq!(encode_close(SessionId(5)), &close[..]);
    assert_eq!(encode_blank(256), &blank[..]);

    let stored: [(EntryKind, &[u8], Payload<'_>); 6] = [
        (EntryKind::SessionCommand, &command, Payload::SessionCommand { header: HEADER, body }),
        (EntryKind::Plain, &plain, Payload::Plain { version: HEADER.version, body }),
        (EntryKind::SessionOpen, &open, Payload::SessionOpen(settings)),
        (
            EntryKind::SessionKeepAlive,
            &keep_alive,
            Payload::SessionKeepAlive { session: SessionId(5), floor: 6 },
        ),
        (EntryKind::SessionClose, &close, Payload::SessionClose { session: SessionId(5) }),
        (EntryKind::Blank, &blank, Payload::Blank { unix_millis: 256 }),
    ];
    for (kind, bytes, payload) in stored {
        assert_eq!(Payload::parse(kind, bytes), Ok(payload), "{kind:?}");
    }
}

#[test]
fn a_body_begins_at_a_multiple_of_16() {
    assert_eq!(COMMAND_HEADER % 16, 0);
    assert_eq!(PLAIN_HEADER % 16, 0);
}

#[test]
fn a_header_written_in_place_overwrites_whatever_was_there() {
    let mut buffer = [0xff; COMMAND_HEADER + 4];
    buffer[COMMAND_HEADER..].copy_from_slice(b"body");
    write_command_header(&mut buffer, &HEADER);
    assert_eq!(&buffer[..], &encode_command(&HEADER, b"body")[..]);
    let mut buffer = [0xff; PLAIN_HEADER];
    write_plain_header(&mut buffer, 3);
    assert_eq!(&buffer[..], &encode_plain(3, b"")[..]);
}

#[test]
fn the_door_refuses_every_truncation_of_a_header() {
    let whole: [(EntryKind, Bytes); 5] = [
        (EntryKind::Plain, encode_plain(1, b"")),
        (EntryKind::SessionOpen, SessionSettings::default().encode()),
        (EntryKind::SessionKeepAlive, encode_keep_alive(SessionId(1), 1)),
        (EntryKind::SessionClose, encode_close(SessionId(1))),
        (EntryKind::SessionCommand, encode_command(&HEADER, b"")),
    ];
    for (kind, bytes) in whole {
        assert_eq!(check_payload(kind, &bytes), Ok(()), "{kind:?}");
        for length in 0..bytes.len() {
            let cut = check_payload(kind, &bytes[..length]);
            assert!(cut.is_err(), "{kind:?} of {length} bytes was accepted");
        }
    }
}

#[test]
fn the_door_refuses_trailing_bytes_where_the_size_is_fixed() {
    for (kind, length) in [
        (EntryKind::SessionOpen, 16),
        (EntryKind::SessionKeepAlive, 16),
        (EntryKind::SessionClose, 8),
    ] {
        assert_eq!(
            check_payload(kind, &vec![0; length + 1]),
            Err(PayloadError::WrongLength { kind, length: length + 1, expected: length })
        );
    }
}

#[test]
fn the_door_refuses_header_bytes_that_have_no_meaning_yet() {
    for (kind, whole, reserved) in [
        (EntryKind::Plain, encode_plain(u16::MAX, b"x"), 2..16),
        (EntryKind::SessionCommand, encode_command(&HEADER, b"x"), 26..32),
    ] {
        for at in reserved {
            let mut bytes = whole.to_vec();
            bytes[at] = 1;
            assert_eq!(
                check_payload(kind, &bytes),
                Err(PayloadError::ReservedBytes { kind }),
                "byte {at}"
            );
        }
    }
}

#[test]
fn the_door_refuses_a_command_below_its_own_floor() {
    let header = CommandHeader { sequence: 4, floor: 5, ..HEADER };
    assert_eq!(
        check_payload(EntryKind::SessionCommand, &encode_command(&header, b"")),
        Err(PayloadError::BelowItsFloor { sequence: 4, floor: 5 })
    );
}

#[test]
fn the_door_refuses_the_leaders_own_kinds() {
    for kind in [EntryKind::Blank, EntryKind::Membership] {
        assert_eq!(check_payload(kind, &[]), Err(PayloadError::NotForClients { kind }));
    }
}

#[test]
fn a_blank_entry_of_any_length_is_read_and_a_strange_one_knows_no_time() {
    for length in (0..20).filter(|length| *length != 8) {
        let payload = vec![1; length];
        assert_eq!(
            Payload::parse(EntryKind::Blank, &payload),
            Ok(Payload::Blank { unix_millis: 0 })
        );
    }
}

#[test]
fn settings_are_moved_into_their_ranges() {
    let low = SessionSettings { ttl_millis: 0, window: 0, max_sessions: 0 };
    let high = SessionSettings { ttl_millis: u64::MAX, window: u32::MAX, max_sessions: u32::MAX };
    assert_eq!(
        low.clamped(),
        SessionSettings { ttl_millis: SessionSettings::MIN_TTL_MILLIS, window: 1, max_sessions: 1 }
    );
    assert_eq!(
        high.clamped(),
        SessionSettings {
            ttl_millis: SessionSettings::MAX_TTL_MILLIS,
            window: SessionSettings::MAX_WINDOW,
            max_sessions: SessionSettings::MAX_SESSIONS
        }
    );
    let default = SessionSettings::default();
    assert_eq!(default.clamped(), default);
}
