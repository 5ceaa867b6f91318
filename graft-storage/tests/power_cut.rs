//! A real file system is shut down under a redb store at work, as by a power cut: what was synced is
//! kept, what was not is gone. Mounted again, it holds what was acknowledged.
//!
//! This needs root, loop devices, and the tools of ext4 and xfs (Debian: `e2fsprogs`, `xfsprogs`, `mount`).
//! Where one is missing the test says so and shows nothing. With `GRAFT_LONG=1` 500 cuts of each file
//! system instead of 20.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![cfg(all(feature = "redb", target_os = "linux"))]

mod common;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use common::{
    child::{self, BATCHES, Task, Worker},
    directory::Directory,
    is_long,
};
use graft_core::stable_hash;
use graft_storage::conformance::faults::Workload;

#[test]
fn child() {
    child::run_if_asked();
}

#[test]
fn ext4_keeps_what_was_acknowledged() {
    cut_power("ext4", &["mkfs.ext4", "-q", "-F"], 128 << 20);
}

#[test]
fn xfs_keeps_what_was_acknowledged() {
    cut_power("xfs", &["mkfs.xfs", "-q", "-f"], 320 << 20);
}

fn cut_power(kind: &'static str, make: &[&str], size: u64) {
    if let Err(missing) = prerequisites(kind, make[0]) {
        // Past the test framework, which keeps what a test that passes prints.
        let words = format!("SKIPPED: a power cut on {kind} was not tried: {missing}\n");
        std::io::stderr().write_all(words.as_bytes()).unwrap();
        return;
    }
    let cuts = if is_long() { 500 } else { 20 };
    let directory = Directory::new(kind);
    let image = directory.path().join("image");
    File::create(&image).unwrap().set_len(size).unwrap();
    run(Command::new(make[0]).args(&make[1..]).arg(&image)).unwrap();
    let (mut cut, mut poisoned, mut acknowledged) = (0_u64, 0, 0);
    for seed in 0.. {
        let workload = Workload::generate(seed, BATCHES);
        let mut allowed = 0..=0;
        while *allowed.start() < workload.batches() {
            if cut == cuts {
                println!("{kind}: cuts={cut} acknowledged={acknowledged} poisoned={poisoned}");
                assert!(poisoned > cuts / 4, "the cuts hit nobody at work");
                return;
            }
            let before = *allowed.start();
            let mount = Mount::new(kind, &image, directory.path().join("mount")).unwrap();
            let store = mount.at.join(format!("store-{seed}"));
            let path = store.to_str().unwrap().to_owned();
            let mut worker =
                Worker::start("child", Task { directory: path, seed, allowed }, &workload);
            worker.follow(1 + usize::try_from(stable_hash(&cut.to_le_bytes()) % 20).unwrap());
            mount.shut_down();
            // The child's next write fails, and it ends once it has shown that the store refuses service.
            allowed = worker.wait();
            poisoned += u64::from(worker.is_poisoned);
            cut += 1;
            acknowledged += allowed.start() - before;
            mount.unmount();
            let mount = Mount::new(kind, &image, directory.path().join("mount")).unwrap();
            let state = child::alone(|| {
                let state = child::look(&workload, &store, allowed);
                if state == workload.batches() {
                    fs::remove_dir_all(&store).unwrap();
                }
                state
            });
            allowed = state..=state;
            mount.unmount();
        }
    }
}

/// What is missing, if anything.
fn prerequisites(kind: &str, make: &str) -> Result<(), String> {
    let output = run(Command::new("id").arg("-u"))?;
    if output.trim() != "0" {
        return Err("it needs root".to_owned());
    }
    for tool in [make, "xfs_io", "mount", "umount"] {
        let found = run(Command::new("sh").args(["-c", &format!("command -v {tool}")]));
        found.map_err(|_| format!("there is no `{tool}`"))?;
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err("there are no loop devices".to_owned());
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let is_known = known.lines().any(|line| line.split_whitespace().last() == Some(kind));
    if !is_known && run(Command::new("modprobe").arg(kind)).is_err() {
        return Err(format!("the kernel has no {kind}"));
    }
    Ok(())
}

/// A mounted image. Unmounted when dropped, whatever happens.
struct Mount {
    at: PathBuf,
}

impl Mount {
    fn new(kind: &str, image: &Path, at: PathBuf) -> Result<Self, String> {
        fs::create_dir_all(&at).unwrap();
        run(Command::new("mount").args(["-o", "loop", "-t", kind]).arg(image).arg(&at))?;
        Ok(Self { at })
    }

    /// From here on nothing reaches the disk, not even what is in the journal's buffers.
    fn shut_down(&self) {
        run(Command::new("xfs_io").args(["-x", "-c", "shutdown"]).arg(&self.at)).unwrap();
    }

    fn unmount(self) {
        run(Command::new("umount").arg(&self.at)).unwrap();
        std::mem::forget(self);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a process that still has files open there must not keep the mount.
        let _ = run(Command::new("umount").arg("-l").arg(&self.at));
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = child::start(piped).and_then(Child::wait_with_output);
    let output = ended.map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{command:?}: {}: {said}", output.status))
}
