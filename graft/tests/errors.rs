//! The table of `RequestError`, a row at a time: what is known of the entry, and whether sending it again is
//! safe and may help.

use std::time::Duration;

use graft::{Outcome, RequestError};

const WAITED: Duration = Duration::from_secs(5);

/// Checks one row, and that the message says something on one line.
fn row(error: &RequestError, outcome: Outcome, is_retryable: bool) {
    assert_eq!(error.outcome(), outcome, "{error}");
    assert_eq!(error.is_retryable(), is_retryable, "{error}");
    let text = error.to_string();
    assert!(text.len() > 20 && !text.contains('\n'), "{text}");
    assert!(!text.ends_with('.') && text.starts_with(char::is_lowercase), "{text}");
}

macro_rules! rows {
    ($($claim:ident: $error:expr => $outcome:ident, $retryable:literal;)*) => {
        $(
            #[test]
            fn $claim() {
                row(&$error, Outcome::$outcome, $retryable);
            }
        )*
    };
}

rows! {
    an_unknown_server_has_applied_nothing:
        RequestError::UnknownServer { name: "a".into() } => NotApplied, false;
    an_ambiguous_server_has_applied_nothing:
        RequestError::AmbiguousServer { name: "a".into() } => NotApplied, false;
    a_wrong_entry_was_not_applied:
        RequestError::WrongEntry { expected: "A".into(), found: "B".into() } => NotApplied, false;
    an_invalid_entry_was_not_applied:
        RequestError::InvalidEntry { reason: "cut short".into() } => NotApplied, false;
    an_entry_that_is_too_large_was_not_applied:
        RequestError::EntryTooLarge { bytes: 2, limit: 1 } => NotApplied, false;
    what_is_not_a_query_was_not_applied:
        RequestError::NotAQuery => NotApplied, false;
    without_a_leader_nothing_was_applied_and_it_may_be_sent_again:
        RequestError::NoLeader { waited: WAITED } => NotApplied, true;
    what_was_too_much_was_not_applied_and_may_be_sent_again:
        RequestError::Overloaded => NotApplied, true;
    a_timeout_before_anybody_had_it_may_be_sent_again:
        RequestError::Timeout { waited: WAITED, outcome: Outcome::NotApplied } => NotApplied, true;
    a_timeout_after_it_was_proposed_leaves_it_unknown:
        RequestError::Timeout { waited: WAITED, outcome: Outcome::Unknown } => Unknown, false;
    an_expired_session_leaves_it_unknown:
        RequestError::SessionExpired => Unknown, false;
    what_the_machine_panicked_over_was_applied:
        RequestError::MachinePanicked { message: "no".into() } => Applied, false;
    what_has_an_unreadable_response_was_applied:
        RequestError::UnreadableResponse { reason: "no".into() } => Applied, false;
    a_shutdown_before_it_was_sent_may_be_sent_again:
        RequestError::Shutdown { outcome: Outcome::NotApplied } => NotApplied, true;
    a_shutdown_after_it_was_sent_leaves_it_unknown:
        RequestError::Shutdown { outcome: Outcome::Unknown } => Unknown, false;
}
