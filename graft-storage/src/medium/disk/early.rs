//! Writes with which the disk begins at once.
//!
//! Linux keeps what is written until somebody asks for a sync, and only then gives it to the disk, which has idled
//! until then. Since 6.14 a write may say that it wants no place in the system's cache (`RWF_DONTCACHE`): the disk is
//! given it as soon as the call returns, and what was not in the cache before leaves it once the disk has it. Where the
//! system or the file system does not know that, it is a write like any other.

use std::{
    fs::File,
    io::{self, IoSlice},
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::io::{Errno, ReadWriteFlags, pwritev2};

/// Linux's number of the flag, for which there is no name here yet.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Whether it was refused once: asking again would cost each write a call.
static IS_UNKNOWN: AtomicBool = AtomicBool::new(false);

/// Writes all of `bytes` at `offset`.
pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() && !IS_UNKNOWN.load(Ordering::Relaxed) {
        match pwritev2(file, &[IoSlice::new(bytes)], offset, DONTCACHE) {
            // What is left may find a full disk, which the other way of writing tells.
            Ok(0) => break,
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                IS_UNKNOWN.store(true, Ordering::Relaxed);
            }
            Err(error) => return Err(error.into()),
        }
    }
    file.write_all_at(bytes, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_written_where_it_belongs_whether_or_not_the_system_knows_of_it() {
        let path = std::env::temp_dir().join(format!("graft-early-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let bytes: Vec<u8> = (0..200_003_u32).map(|number| number.to_le_bytes()[1]).collect();
        let before = IS_UNKNOWN.load(Ordering::Relaxed);
        for (is_unknown, offset) in [(before, 5000), (true, 300_001), (before, 1_000_000)] {
            IS_UNKNOWN.store(is_unknown, Ordering::Relaxed);
            write_all_at(&file, &bytes, offset).unwrap();
            write_all_at(&file, &[], offset).unwrap();
            let mut found = vec![0; bytes.len()];
            file.read_exact_at(&mut found, offset).unwrap();
            assert!(found == bytes, "at {offset}");
            assert_eq!(file.metadata().unwrap().len(), offset + bytes.len() as u64);
            file.sync_data().unwrap();
        }
        IS_UNKNOWN.store(before, Ordering::Relaxed);
    }

    #[test]
    fn what_the_disk_says_is_said() {
        let path = std::env::temp_dir().join(format!("graft-early-read-{}", std::process::id()));
        File::create(&path).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(write_all_at(&file, &[1; 5000], 0).unwrap_err().raw_os_error(), Some(9));
    }
}
