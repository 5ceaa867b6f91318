//! Which record of a page is not what was written.
//!
//! redb's checksum says it of a page, the store's own of each record: so what a page with a wrong bit holds can be
//! gone through, to name what is damaged. Like all that [looks](super::pages) at such a page this trusts nothing, and
//! knows less rather than something false.

use graft_core::Index;

use super::{
    codec::unseal,
    facts::{Fact, Head},
    record::{Chunk, ChunkHeader},
    tables::{GROUP, HEAD, place_of},
};

/// The rows of a leaf whose keys have `KEY` bytes, and its values any number.
fn rows<const KEY: usize>(leaf: &[u8]) -> Option<Vec<(&[u8; KEY], &[u8])>> {
    let count = usize::from(u16::from_le_bytes(*leaf.get(2..)?.first_chunk()?));
    let keys = leaf.get(4 + 4 * count..4 + (4 + KEY) * count)?;
    let mut begin = 4 + (4 + KEY) * count;
    let mut rows = Vec::with_capacity(count);
    for (at, key) in keys.chunks_exact(KEY).enumerate() {
        let end = u32::from_le_bytes(*leaf.get(4 + 4 * at..)?.first_chunk()?) as usize;
        rows.push((key.first_chunk()?, leaf.get(begin..end)?));
        begin = end;
    }
    (!rows.is_empty()).then_some(rows)
}

/// What is wrong in a leaf of the table `log`, or what it holds where no record in it is.
pub(super) fn of_log(leaf: &[u8]) -> Option<String> {
    let rows = rows::<20>(leaf)?;
    let mut firsts = Vec::new();
    for (key, value) in &rows {
        let (group, index, part) = place_of(key);
        if **key == HEAD || group != GROUP {
            if Head::decode(value).is_err() {
                return Some("head".to_owned());
            }
            continue;
        }
        // The header of a chunk says it as well. Where it is whole, and the key is not, it is right.
        let first =
            if part == 0 { ChunkHeader::first(GROUP, value).unwrap_or(index) } else { index };
        firsts.push(first);
        if part != 0 {
            continue;
        }
        let Ok(header) = ChunkHeader::decode(GROUP, first, value) else {
            return Some(format!("entry {first}"));
        };
        // One of several parts is known by its first entry.
        if value.len() == header.length
            && let Ok(chunk) = Chunk::assemble(GROUP, first, header, &[value])
            && let Some(bad) = chunk.entries().find_map(Result::err)
        {
            return Some(format!("entry {}", bad.index));
        }
    }
    among(&firsts)
}

/// What the pages below an inner page of the table `log` hold.
pub(super) fn below_log(branch: &[u8]) -> Option<String> {
    let children = usize::from(u16::from_le_bytes(*branch.get(2..)?.first_chunk()?)) + 1;
    let begin = 8 + 24 * children;
    let keys = branch.get(begin..begin + 20 * (children - 1))?;
    let keys = keys.chunks_exact(20).filter_map(<[u8]>::first_chunk);
    let places = keys.map(place_of).filter(|(group, ..)| *group == GROUP);
    among(&places.map(|(_, first, _)| first).collect::<Vec<_>>())
}

fn among(firsts: &[Index]) -> Option<String> {
    let (lowest, highest) = (firsts.iter().min()?, firsts.iter().max()?);
    Some(if lowest == highest {
        format!("entries from {lowest} on")
    } else {
        format!("entries from {lowest} to those stored with {highest}")
    })
}

/// What is wrong in a leaf of the table `facts`, or what it holds where no fact in it is.
pub(super) fn of_facts(leaf: &[u8]) -> Option<String> {
    let rows = rows::<9>(leaf)?;
    let mut names = Vec::new();
    for (key, value) in rows {
        let named = Fact::ALL.into_iter().find(|fact| fact.key(GROUP) == *key);
        // Where the key is wrong, the value knows where it belongs.
        let is_of = |fact: &Fact| unseal(&fact.key(GROUP), value).is_ok();
        let Some(fact) = named.filter(is_of) else {
            let fact = named.or_else(|| Fact::ALL.into_iter().find(is_of))?;
            return Some(format!("record {}", fact.name()));
        };
        names.push(fact.name());
    }
    Some(format!("records {}", names.join(", ")))
}
