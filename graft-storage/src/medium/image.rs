//! What a disk holds: names, files and their bytes, in a form that is cheap to copy.

use std::{collections::BTreeMap, fmt, io, sync::Arc};

/// The unit in which bytes are shared between copies, and in which space is taken.
pub(super) const PAGE: usize = 4096;
const EXTENT_PAGES: usize = 256;

type Page = Arc<[u8; PAGE]>;

/// The number of a file, which stays the same through renames.
pub(super) type FileId = u64;

/// The content of a [`FaultyMedium`](super::FaultyMedium) at one moment.
///
/// A copy shares its pages with the original until either changes, so keeping one for every moment of
/// a test costs little more than the bytes that differ.
#[derive(Clone, Default)]
pub struct Image {
    pub(super) names: BTreeMap<Arc<str>, FileId>,
    pub(super) files: BTreeMap<FileId, Content>,
}

impl Image {
    /// The names of its files, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(AsRef::as_ref)
    }

    /// The length of a file in bytes, or `None` where there is none of this name.
    #[must_use]
    pub fn len(&self, name: &str) -> Option<u64> {
        self.file(name).map(|content| content.length)
    }

    /// Whether it holds no file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All bytes of a file, or `None` where there is none of this name.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let content = self.file(name)?;
        let mut bytes = vec![0; usize::try_from(content.length).ok()?];
        content.read(0, &mut bytes).ok()?;
        Some(bytes)
    }

    /// Makes a file hold exactly these bytes, whatever it held before.
    pub fn replace(&mut self, name: &str, bytes: &[u8]) {
        let unused = self.files.keys().next_back().map_or(0, |last| last + 1);
        let file = *self.names.entry(name.into()).or_insert(unused);
        let content = self.files.entry(file).or_default();
        *content = Content::default();
        content.write(0, bytes);
    }

    /// Turns one bit of a file around, and says whether there is such a bit. Bit 8 is the lowest of the
    /// second byte.
    pub fn flip(&mut self, name: &str, bit: u64) -> bool {
        let Some(file) = self.names.get(name) else { return false };
        self.files.get_mut(file).is_some_and(|content| content.flip(bit))
    }

    pub(super) fn file(&self, name: &str) -> Option<&Content> {
        self.files.get(self.names.get(name)?)
    }

    /// Forgets the files without a name, but for those that `is_open` says somebody still uses.
    pub(super) fn forget_unnamed(&mut self, is_open: impl Fn(FileId) -> bool) {
        let Self { names, files } = self;
        files.retain(|file, _| is_open(*file) || names.values().any(|named| named == file));
    }

    /// The space that its files take, in bytes: what was never written takes none.
    #[must_use]
    pub fn space(&self) -> u64 {
        self.files.values().map(|content| content.pages * PAGE as u64).sum()
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.names().map(|name| (name, self.len(name).unwrap_or(0)));
        f.debug_map().entries(files).finish()
    }
}

/// The bytes of a file. What was never written is a hole: it reads as zeros and takes no space.
///
/// Invariant: every byte at and beyond `length` is zero, so that growing is a matter of the length alone.
#[derive(Clone, Default)]
pub(super) struct Content {
    length: u64,
    extents: Vec<Option<Arc<Extent>>>,
    /// How many pages are no holes.
    pages: u64,
}

#[derive(Clone)]
struct Extent([Option<Page>; EXTENT_PAGES]);

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(into.len() as u64).filter(|end| *end <= self.length);
        if end.is_none() {
            let problem = format!("the file ends at byte {}", self.length);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        }
        let mut rest = into;
        let mut place = Place::of(offset);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at_mut(rest.len().min(PAGE - place.byte));
            match self.page(place) {
                Some(page) => piece.copy_from_slice(&page[place.byte..place.byte + piece.len()]),
                None => piece.fill(0),
            }
            rest = after;
            place = place.next_page();
        }
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut rest = bytes;
        let mut place = Place::of(offset);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(PAGE - place.byte));
            self.page_mut(place)[place.byte..place.byte + piece.len()].copy_from_slice(piece);
            rest = after;
            place = place.next_page();
        }
        self.length = self.length.max(offset + bytes.len() as u64);
    }

    pub(super) fn set_len(&mut self, length: u64) {
        if length < self.length {
            self.cut(length);
        }
        self.length = length;
    }

    /// Whether writing the byte at `offset` would take a page more.
    pub(super) fn is_hole(&self, offset: u64) -> bool {
        self.page(Place::of(offset)).is_none()
    }

    fn flip(&mut self, bit: u64) -> bool {
        let offset = bit / 8;
        if offset >= self.length {
            return false;
        }
        let place = Place::of(offset);
        self.page_mut(place)[place.byte] ^= 1 << (bit % 8);
        true
    }

    /// Zeroes what is at and beyond `length`.
    fn cut(&mut self, length: u64) {
        let keep = Place::of(length);
        if keep.byte > 0 && self.page(keep).is_some() {
            self.page_mut(keep)[keep.byte..].fill(0);
        }
        let first = if keep.byte > 0 { keep.next_page() } else { keep };
        self.extents.truncate(first.extent + usize::from(first.page > 0));
        if let (1.., Some(Some(extent))) = (first.page, self.extents.get_mut(first.extent)) {
            Arc::make_mut(extent).0[first.page..].fill(None);
        }
        let extents = self.extents.iter().flatten();
        self.pages = extents.map(|extent| extent.0.iter().flatten().count() as u64).sum();
    }

    fn page(&self, place: Place) -> Option<&Page> {
        self.extents.get(place.extent)?.as_ref()?.0[place.page].as_ref()
    }

    fn page_mut(&mut self, place: Place) -> &mut [u8; PAGE] {
        if self.extents.len() <= place.extent {
            self.extents.resize(place.extent + 1, None);
        }
        let extent = self.extents[place.extent]
            .get_or_insert_with(|| Arc::new(Extent([const { None }; EXTENT_PAGES])));
        let page = &mut Arc::make_mut(extent).0[place.page];
        if page.is_none() {
            self.pages += 1;
        }
        Arc::make_mut(page.get_or_insert_with(|| Arc::new([0; PAGE])))
    }
}

/// Where a byte is.
#[derive(Clone, Copy)]
struct Place {
    extent: usize,
    page: usize,
    byte: usize,
}

impl Place {
    fn of(offset: u64) -> Self {
        // A file in memory is never larger than memory.
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let page = offset / PAGE;
        Self { extent: page / EXTENT_PAGES, page: page % EXTENT_PAGES, byte: offset % PAGE }
    }

    fn next_page(self) -> Self {
        let page = self.extent * EXTENT_PAGES + self.page + 1;
        Self { extent: page / EXTENT_PAGES, page: page % EXTENT_PAGES, byte: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::medium::random::Random;

    /// Random writes, cuts and growths, against a plain vector.
    #[test]
    fn content_is_what_a_vector_would_be() {
        let mut random = Random::new(1);
        let mut content = Content::default();
        let mut expected: Vec<u8> = Vec::new();
        for step in 0..2000_u32 {
            let before = (content.clone(), expected.clone());
            let at = random.index(3 << 20);
            if random.percent(20) {
                expected.resize(at, 0);
                content.set_len(at as u64);
            } else {
                let bytes = vec![step.to_le_bytes()[0] | 1; random.index(20_000)];
                let end = if bytes.is_empty() { 0 } else { at + bytes.len() };
                expected.resize(expected.len().max(end), 0);
                if !bytes.is_empty() {
                    expected[at..end].copy_from_slice(&bytes);
                }
                content.write(at as u64, &bytes);
            }
            if step % 50 == 0 {
                for (content, expected) in [(&content, &expected), (&before.0, &before.1)] {
                    let mut found = vec![7; expected.len()];
                    assert_eq!(content.len(), expected.len() as u64);
                    content.read(0, &mut found).unwrap();
                    assert!(found == *expected, "after step {step}");
                    let pages = content.extents.iter().flatten();
                    let pages = pages.map(|extent| extent.0.iter().flatten().count() as u64);
                    assert_eq!(content.pages, pages.sum::<u64>());
                }
            }
        }
        assert!(content.read(content.len(), &mut [0]).is_err(), "a read past the end");
    }

    #[test]
    fn a_flip_changes_one_bit_and_the_second_brings_it_back() {
        let mut image = Image::default();
        image.replace("a", &[0, 0b100]);
        let before = image.clone();
        assert!(image.flip("a", 10));
        assert_eq!(image.read("a"), Some(vec![0, 0]));
        assert_eq!(before.read("a"), Some(vec![0, 0b100]), "a copy is a copy");
        assert!(image.flip("a", 10));
        assert_eq!(image.read("a"), before.read("a"));
        assert!(!image.flip("a", 16) && !image.flip("b", 0), "there is no such bit");
    }
}
