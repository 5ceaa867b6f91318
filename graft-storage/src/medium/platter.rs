//! What survives a crash: what was synced, and what the seed makes of the rest.

use std::sync::Arc;

use super::{
    SECTOR,
    image::{FileId, Image},
    random::Random,
};

/// A change of what the medium holds.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { file: FileId, offset: u64, bytes: Arc<[u8]> },
    SetLen { file: FileId, length: u64 },
    Create { name: Arc<str>, file: FileId },
    Rename { from: Arc<str>, to: Arc<str>, file: FileId },
    Remove { name: Arc<str>, file: FileId },
}

impl Change {
    /// Which file's bytes or length it changes; `None` where it is about names.
    fn file(&self) -> Option<FileId> {
        match self {
            Self::Write { file, .. } | Self::SetLen { file, .. } => Some(*file),
            Self::Create { .. } | Self::Rename { .. } | Self::Remove { .. } => None,
        }
    }

    /// Makes the change. One that is left over from a file or a name that is gone does nothing.
    fn apply(&self, image: &mut Image) {
        match self {
            Self::Write { file, offset, bytes } => {
                if let Some(content) = image.files.get_mut(file) {
                    content.write(*offset, bytes);
                }
            }
            Self::SetLen { file, length } => {
                if let Some(content) = image.files.get_mut(file) {
                    content.set_len(*length);
                }
            }
            Self::Create { name, file } => {
                image.names.insert(name.clone(), *file);
            }
            Self::Rename { from, to, file } => {
                unbind(image, from, *file);
                image.names.insert(to.clone(), *file);
            }
            Self::Remove { name, file } => unbind(image, name, *file),
        }
    }

    /// Makes a part of the change: each sector of a write for itself as `is_kept` says.
    fn tear(&self, image: &mut Image, mut is_kept: impl FnMut() -> bool) {
        let Self::Write { file, offset, bytes } = self else {
            if is_kept() {
                self.apply(image);
            }
            return;
        };
        let Some(content) = image.files.get_mut(file) else { return };
        let mut at = 0;
        while at < bytes.len() {
            let into_sector = usize::try_from((offset + at as u64) % SECTOR as u64).unwrap_or(0);
            let end = bytes.len().min(at + SECTOR - into_sector);
            if is_kept() {
                content.write(offset + at as u64, &bytes[at..end]);
            }
            at = end;
        }
    }
}

/// Takes a name from a file, unless another file has it by now.
fn unbind(image: &mut Image, name: &str, file: FileId) {
    if image.names.get(name) == Some(&file) {
        image.names.remove(name);
    }
}

/// Something that was done to the medium, in the order in which it was done.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Change(Change),
    Sync {
        file: FileId,
    },
    SyncNames,
    /// A sync that reported an error: what it was to make durable is on the disk in part, and the
    /// system believes that there is nothing left to do.
    FailedSync {
        file: Option<FileId>,
        seed: u64,
    },
}

impl Step {
    /// What is done, in words, to a medium that holds `image`.
    pub(super) fn describe(&self, image: &Image) -> String {
        let name = |file: &FileId| {
            let named = image.names.iter().find(|(_, named)| *named == file);
            named.map_or_else(|| format!("file {file}"), |(name, _)| format!("`{name}`"))
        };
        match self {
            Self::Change(Change::Write { file, offset, bytes }) => {
                format!("write {} bytes at {offset} of {}", bytes.len(), name(file))
            }
            Self::Change(Change::SetLen { file, length }) => {
                format!("set the length of {} to {length}", name(file))
            }
            Self::Change(Change::Create { name, .. }) => format!("create `{name}`"),
            Self::Change(Change::Rename { from, to, .. }) => format!("rename `{from}` to `{to}`"),
            Self::Change(Change::Remove { name, .. }) => format!("remove `{name}`"),
            Self::Sync { file } => format!("sync {}", name(file)),
            Self::SyncNames => "sync the names".to_owned(),
            Self::FailedSync { file: Some(file), .. } => format!("fail to sync {}", name(file)),
            Self::FailedSync { file: None, .. } => "fail to sync the names".to_owned(),
        }
    }
}

/// A disk and the cache of the system before it.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    /// What whoever reads sees.
    pub(super) cache: Image,
    /// What certainly survives.
    durable: Image,
    /// What may survive, in the order in which it was done.
    pending: Vec<Change>,
}

impl Machine {
    /// One on whose disk is `image` and nothing is on the way.
    pub(super) fn new(image: Image) -> Self {
        Self { cache: image.clone(), durable: image, pending: Vec::new() }
    }

    /// Whoever may still use a file without a name is asked through `is_open`.
    pub(super) fn perform(&mut self, step: &Step, is_open: impl Fn(FileId) -> bool) {
        match step {
            Step::Change(change) => {
                if let Change::Create { file, .. } = change {
                    self.cache.files.entry(*file).or_default();
                    self.durable.files.entry(*file).or_default();
                }
                change.apply(&mut self.cache);
                self.pending.push(change.clone());
            }
            Step::Sync { file } => self.settle(Some(*file), Change::apply),
            Step::SyncNames => {
                self.settle(None, Change::apply);
                self.durable.forget_unnamed(|_| false);
                let known = &self.durable.files;
                let is_known = |file| known.contains_key(&file);
                self.pending.retain(|change| change.file().is_none_or(is_known));
                self.cache.forget_unnamed(is_open);
            }
            Step::FailedSync { file, seed } => {
                let mut random = Random::new(*seed);
                self.settle(*file, |change, disk| change.tear(disk, || random.percent(50)));
            }
        }
    }

    /// The number of no file, past or present.
    pub(super) fn unused_file(&self) -> FileId {
        let last = |image: &Image| image.files.keys().next_back().copied();
        last(&self.cache).max(last(&self.durable)).map_or(0, |last| last + 1)
    }

    /// Ends the doubt about a file's content, or about the names.
    fn settle(&mut self, file: Option<FileId>, mut settle: impl FnMut(&Change, &mut Image)) {
        let disk = &mut self.durable;
        self.pending.retain(|change| {
            let is_meant = change.file() == file;
            if is_meant {
                settle(change, disk);
            }
            !is_meant
        });
    }

    /// The process ends, the system goes on: everything is as it was seen, and what was not synced
    /// still is not.
    pub(super) fn exit(mut self) -> Self {
        self.cache.forget_unnamed(|_| false);
        self
    }

    /// The power goes. What is found on the disk afterwards.
    pub(super) fn crash(&self, seed: u64) -> Image {
        let mut random = Random::new(seed);
        let mut disk = self.durable.clone();
        let of_files = Fate::draw(&mut random, self.pending.len());
        let of_names = if random.percent(50) {
            of_files.clone()
        } else {
            Fate::draw(&mut random, self.pending.len())
        };
        for (at, change) in self.pending.iter().enumerate() {
            let fate = if change.file().is_some() { &of_files } else { &of_names };
            match fate.of(at, &mut random) {
                Kept::Whole => change.apply(&mut disk),
                Kept::Not => {}
                Kept::Torn(chance) => change.tear(&mut disk, || random.percent(chance)),
            }
        }
        disk.forget_unnamed(|_| false);
        disk
    }
}

/// What becomes of everything that was on its way when the power went. All of these have been seen on
/// real disks, and each finds mistakes that the others find seldom.
#[derive(Clone)]
enum Fate {
    Everything,
    Nothing,
    /// The first so many, in order; the next is torn.
    Beginning(usize),
    AllBut(usize),
    Only(usize),
    /// Each for itself, with this chance in a hundred.
    Some(u64),
    /// Each sector for itself, with this chance in a hundred.
    Sectors(u64),
}

enum Kept {
    Whole,
    Not,
    Torn(u64),
}

impl Fate {
    fn draw(random: &mut Random, count: usize) -> Self {
        let chance = [10, 50, 90][random.index(3)];
        let one = random.index(count.max(1));
        match random.below(8) {
            0 => Self::Everything,
            1 => Self::Nothing,
            2 => Self::Beginning(one),
            3 => Self::AllBut(one),
            4 => Self::Only(one),
            5 => Self::Some(chance),
            _ => Self::Sectors(chance),
        }
    }

    fn of(&self, at: usize, random: &mut Random) -> Kept {
        let whole = |kept| if kept { Kept::Whole } else { Kept::Not };
        match *self {
            Self::Everything => Kept::Whole,
            Self::Nothing => Kept::Not,
            Self::Beginning(next) if at == next => Kept::Torn(50),
            Self::Beginning(next) => whole(at < next),
            Self::AllBut(one) => whole(at != one),
            Self::Only(one) => whole(at == one),
            Self::Some(chance) => whole(random.percent(chance)),
            Self::Sectors(chance) => Kept::Torn(chance),
        }
    }
}
