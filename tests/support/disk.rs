//! A disk of a few megabytes that only its own processes see: a tmpfs in a mount namespace. Needs no root where users may
//! make namespaces of their own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::run::{Outhaul, program};
use super::{eventually, within};

const LIMIT: Duration = Duration::from_secs(20);

/// A mounted disk, gone with this handle.
pub(crate) struct Disk {
    /// Keeps the namespace.
    holder: Child,
    mounted: TempDir,
}

impl Disk {
    /// An empty one of so many mebibytes.
    pub(crate) async fn new(mebibytes: u32) -> Self {
        let mounted = tempfile::tempdir().unwrap();
        let script = r#"mount -t tmpfs -o "size=$1m" tmpfs "$2" && exec sleep 600"#;
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--map-root-user", "sh", "-c", script, "sh", &mebibytes.to_string()]);
        let holder = unshare.arg(mounted.path()).stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        let disk = Self { holder, mounted };
        let marker = disk.seen().join("ready");
        // Only in the namespace is there something to write to; outside, the folder is never entered.
        eventually(LIMIT, "a mounted disk", async || {
            let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", disk.pid())).unwrap_or_default();
            mounts.contains(disk.folder().to_str().unwrap()).then_some(())
        })
        .await;
        std::fs::write(&marker, "").unwrap();
        std::fs::remove_file(&marker).unwrap();
        disk
    }

    fn pid(&self) -> u32 {
        self.holder.id().unwrap()
    }

    /// Where it is mounted, for processes of its own.
    pub(crate) fn folder(&self) -> &Path {
        self.mounted.path()
    }

    /// Where it is for everybody else.
    pub(crate) fn seen(&self) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.pid())).join(self.folder().strip_prefix("/").unwrap())
    }

    fn enter(&self, command: &[&str]) -> Vec<String> {
        let fixed = ["--user", "--mount", "--preserve-credentials", "--target"];
        let pid = self.pid().to_string();
        fixed.into_iter().chain([pid.as_str()]).chain(command.iter().copied()).map(str::to_owned).collect()
    }

    /// The binary with these arguments, as a process of its own.
    pub(crate) fn outhaul(&self, args: &[&str]) -> Outhaul {
        let command = [&[env!("CARGO_BIN_EXE_outhaul")][..], args].concat();
        program("nsenter", self.enter(&command))
    }

    /// Mounts it anew: `ro`, `rw`, `size=20m`.
    pub(crate) async fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        let arguments = self.enter(&["mount", "-o", &option, self.folder().to_str().unwrap()]);
        let mounted = within(LIMIT, "mounting", Command::new("nsenter").args(arguments).status()).await.unwrap();
        assert!(mounted.success(), "mount -o {option}: {mounted}");
    }

    /// Fills what is free.
    pub(crate) fn fill(&self) {
        let mut filler = std::fs::File::create(self.seen().join("filler")).unwrap();
        let full = std::io::copy(&mut std::io::repeat(1), &mut filler).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }
}
