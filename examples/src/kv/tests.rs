//! The machine, by itself.

use graft::Machine;

use super::*;

fn get(key: &str) -> KvEntry {
    KvEntry::Get { key: key.into() }
}

fn put(key: &str, value: &str) -> KvEntry {
    KvEntry::Put { key: key.into(), value: value.into() }
}

fn delete(key: &str) -> KvEntry {
    KvEntry::Delete { key: key.into() }
}

fn swap(key: &str, expected: Option<&str>, value: &str) -> KvEntry {
    let expected = expected.map(Into::into);
    KvEntry::CompareAndSwap { key: key.into(), expected, value: value.into() }
}

fn text(text: &str) -> Option<String> {
    Some(text.into())
}

/// All pages of a list.
fn list(kv: &mut Kv, prefix: &str) -> Vec<Vec<(String, String)>> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let entry = KvEntry::List { prefix: prefix.into(), after: after.clone() };
        let KvReply::Page { pairs, more } = kv.handle_entry(entry) else {
            panic!("a list is answered with a page");
        };
        after = pairs.last().map(|(key, _)| key.clone());
        pages.push(pairs);
        if !more {
            return pages;
        }
    }
}

fn keys(pages: &[Vec<(String, String)>]) -> Vec<&str> {
    pages.iter().flatten().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn every_change_answers_with_what_was_there_before() {
    let mut kv = Kv::default();
    for (entry, reply) in [
        (get("a"), KvReply::Found(None)),
        (put("a", "1"), KvReply::Previous(None)),
        (get("a"), KvReply::Found(text("1"))),
        (put("a", "2"), KvReply::Previous(text("1"))),
        (delete("a"), KvReply::Previous(text("2"))),
        (delete("a"), KvReply::Previous(None)),
        (get("a"), KvReply::Found(None)),
    ] {
        assert_eq!(kv.handle_entry(entry.clone()), reply, "{entry:?}");
    }
}

#[test]
fn a_swap_is_made_only_where_the_expected_value_is_found() {
    let mut kv = Kv::default();
    for (entry, swapped, found) in [
        (swap("a", Some("1"), "2"), false, None),
        (swap("a", None, "1"), true, None),
        (swap("a", None, "2"), false, text("1")),
        (swap("a", Some("0"), "2"), false, text("1")),
        (swap("a", Some("1"), "2"), true, text("1")),
        (swap("a", Some(""), "3"), false, text("2")),
    ] {
        let reply = KvReply::Compared { swapped, found };
        assert_eq!(kv.handle_entry(entry.clone()), reply, "{entry:?}");
    }
    assert_eq!(kv.handle_entry(get("a")), KvReply::Found(text("2")));
}

#[test]
fn a_list_has_the_keys_of_its_prefix_and_no_others() {
    let mut kv = Kv::default();
    for key in ["b", "ab", "a", "abc", "ac", "aé", ""] {
        kv.handle_entry(put(key, "x"));
    }
    for (prefix, expected) in [
        ("", &["", "a", "ab", "abc", "ac", "aé", "b"][..]),
        ("a", &["a", "ab", "abc", "ac", "aé"]),
        ("ab", &["ab", "abc"]),
        ("aé", &["aé"]),
        ("c", &[]),
    ] {
        assert_eq!(keys(&list(&mut kv, prefix)), expected, "{prefix}");
    }
    let before = KvEntry::List { prefix: "ab".into(), after: text("a") };
    let KvReply::Page { pairs, .. } = kv.handle_entry(before) else { panic!() };
    assert_eq!(keys(&[pairs]), ["ab", "abc"], "a place before the prefix is its beginning");
}

#[test]
fn a_long_list_comes_in_pages_that_miss_and_repeat_nothing() {
    let mut kv = Kv::default();
    for number in 0..PAGE_PAIRS * 2 + 1 {
        kv.handle_entry(put(&format!("k{number:05}"), "x"));
    }
    let pages = list(&mut kv, "k");
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [PAGE_PAIRS, PAGE_PAIRS, 1]);
    assert!(keys(&pages).is_sorted_by(|one, next| one < next));

    let mut kv = Kv::default();
    let large = "x".repeat(PAGE_BYTES * 2);
    for key in ["a", "b", "c"] {
        kv.handle_entry(put(key, &large));
    }
    let pages = list(&mut kv, "");
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
}

#[test]
fn a_full_map_refuses_what_would_make_it_larger_and_counts_right() {
    let mut kv = Kv::new(8);
    let full = KvReply::Refused(KvRefusal::Full { limit: 8 });
    assert_eq!(kv.handle_entry(put("aa", "11")), KvReply::Previous(None));
    assert_eq!(kv.handle_entry(put("bb", "22")), KvReply::Previous(None));
    assert_eq!(kv.handle_entry(put("c", "")), full);
    assert_eq!(kv.handle_entry(swap("aa", Some("11"), "111")), full);
    assert_eq!(kv.handle_entry(get("aa")), KvReply::Found(text("11")));
    assert_eq!(kv.handle_entry(put("aa", "1")), KvReply::Previous(text("11")));
    assert_eq!(kv.handle_entry(put("c", "")), KvReply::Previous(None));
    for key in ["aa", "bb", "c"] {
        kv.handle_entry(delete(key));
    }
    assert_eq!(kv.bytes, 0);
}

#[test]
fn a_key_that_is_too_long_is_refused_and_changes_nothing() {
    let mut kv = Kv::default();
    let long = "k".repeat(MAX_KEY_BYTES + 1);
    let refused = KvReply::Refused(KvRefusal::KeyTooLong { bytes: MAX_KEY_BYTES as u64 + 1 });
    for entry in [get(&long), put(&long, ""), delete(&long), swap(&long, None, "")] {
        assert_eq!(kv.handle_entry(entry), refused);
    }
    assert_eq!(keys(&list(&mut kv, "")), Vec::<&str>::new());
    kv.handle_entry(put(&"k".repeat(MAX_KEY_BYTES), ""));
    assert_eq!(list(&mut kv, "").iter().flatten().count(), 1);
}
