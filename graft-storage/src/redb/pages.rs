//! Whose a page of a segment is.
//!
//! redb says that a page is not what was written, and not what the page is part of. Whoever reads
//! the error wants to know, so this looks where redb's format has the page. It reads a file in
//! which something is wrong: it trusts nothing, bounds what it reads, and knows less rather than
//! something false. Nothing but the words of an error depends on it.
//!
//! What it knows of the format: the header names the roots of two commits; the root of a commit is
//! a leaf whose values name the roots of the tables; inner pages of a table name the pages below.

use std::{borrow::Cow, fmt, io};

use super::rows;

/// The size of redb's smallest pages.
const PAGE: u64 = 4096;

/// The size of the header: 64 bytes and two commits.
const HEADER: usize = 320;
const COMMITS: [usize; 2] = [64, 192];

/// A page is 4 KiB times a power of two, of which this is the largest exponent that is read.
const MAX_ORDER: u32 = 12;

/// Trees of redb are far flatter.
const MAX_DEPTH: usize = 16;

/// How many inner pages of a commit are looked at.
const MAX_PAGES: u64 = 10_000;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// What of a segment was read or written when something was found wrong in its pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Pages {
    /// Those of this table, and which of its records is wrong or among what it is, as far as that is known.
    Of(Cow<'static, str>, Option<String>),
    /// Those that belong to no table: redb's header, its list of tables, and its list of free
    /// pages.
    Own,
}

impl Pages {
    pub(super) const fn of(table: &'static str) -> Self {
        Self::Of(Cow::Borrowed(table), None)
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(table, None) => write!(f, "pages of table {table}"),
            Self::Of(table, Some(records)) => write!(f, "pages of table {table}, {records}"),
            Self::Own => f.write_str("redb's own pages"),
        }
    }
}

/// Reads bytes of the file, or fails.
type Read<'a> = &'a dyn Fn(u64, &mut [u8]) -> io::Result<()>;

/// Whose the page is that begins at byte `at` of the file that `read` reads.
pub(super) fn owner(at: u64, read: Read<'_>) -> Pages {
    let mut header = [0; HEADER];
    if read(0, &mut header).is_err() {
        return Pages::Own;
    }
    let mut commits = COMMITS.map(|commit| (u64_at(&header, commit + 104), commit));
    // A page that both of them have is the later one's.
    commits.sort_unstable_by(|a, b| b.cmp(a));
    let file = Search { at, layout: Layout::of(&header), read };
    let owner = commits.iter().find_map(|(_, commit)| file.owner_in(&header[*commit..]));
    owner.map_or(Pages::Own, |(table, number)| {
        let records = file.page(number).and_then(|page| records(&table, &page));
        let any = || "any of its records".to_owned();
        let records = (table != "ballast").then(|| records.unwrap_or_else(any));
        Pages::Of(table.into(), records)
    })
}

/// What is wrong in a page of this table, or else what it holds.
fn records(table: &str, page: &[u8]) -> Option<String> {
    match (table, *page.first()?) {
        ("log", LEAF) => rows::of_log(page),
        ("log", BRANCH) => rows::below_log(page),
        ("facts", LEAF) => rows::of_facts(page),
        _ => None,
    }
}

/// Where pages are.
struct Layout {
    region_header: u64,
    region: u64,
}

impl Layout {
    fn of(header: &[u8]) -> Self {
        let pages = |at| u64::from(u32_at(header, at).unwrap_or(0));
        let region_header = pages(16) * PAGE;
        Self { region_header, region: region_header + pages(20) * PAGE }
    }

    /// Where the page with this number begins, and its size.
    fn place(&self, number: u64) -> Option<(u64, u64)> {
        let order = u32::try_from(number >> 59).ok().filter(|order| *order <= MAX_ORDER)?;
        let (region, index) = (number >> 20 & 0xf_ffff, number & (0xf_ffff >> order));
        let size = PAGE << order;
        let before = region.checked_mul(self.region)?.checked_add(PAGE + self.region_header)?;
        Some((before.checked_add(index * size)?, size))
    }
}

/// The search for the page at `at`.
struct Search<'a> {
    at: u64,
    layout: Layout,
    read: Read<'a>,
}

impl Search<'_> {
    /// The table whose page it is in this commit, and the number of the page.
    fn owner_in(&self, commit: &[u8]) -> Option<(String, u64)> {
        if *commit.get(1)? == 0 {
            return None;
        }
        let root = self.page(u64_at(commit, 8))?;
        let tables = tables(&root)?;
        let mut left = MAX_PAGES;
        let mut find = |root: u64| self.find(root, MAX_DEPTH, &mut left);
        tables.into_iter().find_map(|(name, root)| Some((name, find(root)?)))
    }

    /// The bytes of a page, unless it is no page that could be one of ours.
    fn page(&self, number: u64) -> Option<Vec<u8>> {
        let (at, size) = self.layout.place(number)?;
        let mut bytes = vec![0; usize::try_from(size).ok()?];
        (self.read)(at, &mut bytes).ok()?;
        Some(bytes)
    }

    /// The number of the page, if it is the one with this number, or below it. Looks at `left` pages at
    /// most.
    fn find(&self, number: u64, depth: usize, left: &mut u64) -> Option<u64> {
        let (at, _) = self.layout.place(number)?;
        if at == self.at {
            return Some(number);
        }
        let mut kind = [0];
        if depth == 0 || *left == 0 || (self.read)(at, &mut kind).is_err() || kind != [BRANCH] {
            return None;
        }
        *left -= 1;
        let page = self.page(number)?;
        children(&page).find_map(|child| self.find(child, depth - 1, left))
    }
}

/// Names and roots of the tables that a leaf lists.
fn tables(leaf: &[u8]) -> Option<Vec<(String, u64)>> {
    let count = usize::from(u16_at(leaf, 2)?);
    if leaf[0] != LEAF || count == 0 {
        return None;
    }
    let end = |at: usize| Some(u32_at(leaf, 4 + 4 * at)? as usize);
    let mut tables = Vec::new();
    let mut key = 4 + 8 * count;
    let mut value = end(count - 1)?;
    for table in 0..count {
        let name = leaf.get(key..end(table)?)?;
        let definition = leaf.get(value..end(count + table)?)?;
        (key, value) = (end(table)?, end(count + table)?);
        // A kind, a length, whether there is a root, and the root.
        if *definition.get(9)? != 0 {
            let root = u64::from_le_bytes(definition.get(10..18)?.try_into().ok()?);
            tables.push((String::from_utf8_lossy(name).into_owned(), root));
        }
    }
    Some(tables)
}

/// The numbers of the pages below an inner page.
fn children(branch: &[u8]) -> impl Iterator<Item = u64> {
    let count = usize::from(u16_at(branch, 2).unwrap_or(0)) + 1;
    let numbers = branch.get(8 + 16 * count..8 + 24 * count).unwrap_or_default();
    numbers.chunks_exact(8).map(|number| u64_at(number, 0))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Zero, which is no page of a table, where there are not so many bytes.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    found.map_or(0, u64::from_le_bytes)
}
