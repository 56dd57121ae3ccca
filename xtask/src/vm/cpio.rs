//! An archive that the kernel unpacks as its first file system: the "new ASCII" format of `cpio(5)`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CONSOLE: u32 = 0o020_600;

/// An archive in the making.
pub struct Archive {
    out: BufWriter<File>,
    number: u32,
}

impl Archive {
    /// An empty archive.
    pub fn create(path: &Path) -> io::Result<Archive> {
        Ok(Archive { out: BufWriter::new(File::create(path)?), number: 0 })
    }

    /// A folder; those around it come first.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, FOLDER, &[], (0, 0))
    }

    /// A file that may be run.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, PROGRAM, content, (0, 0))
    }

    /// A file of this machine under another path.
    pub fn copy(&mut self, path: &str, from: &Path) -> io::Result<()> {
        self.file(path, &fs::read(from)?)
    }

    /// The device that the first program writes to.
    pub fn console(&mut self) -> io::Result<()> {
        self.entry("dev/console", CONSOLE, &[], (5, 1))
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, &[], (0, 0))?;
        self.out.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) -> io::Result<()> {
        self.number += 1;
        let count = |length: usize| u32::try_from(length).map_err(io::Error::other);
        let (size, name) = (count(content.len())?, count(path.len() + 1)?);
        let fields = [self.number, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name, 0];
        let header: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        self.put(format!("070701{header}{path}\0").as_bytes())?;
        self.put(content)
    }

    /// Every part starts at a multiple of four.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; 3][..padding])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_starts_at_a_multiple_of_four() {
        let path = std::env::temp_dir().join(format!("cpio-{}", std::process::id()));
        let mut archive = Archive::create(&path).expect("a file can be made");
        archive.folder("dev").expect("it is written");
        archive.file("dev/one", b"12345").expect("it is written");
        archive.finish().expect("it is written");
        let bytes = fs::read(&path).expect("it is there");
        fs::remove_file(&path).expect("it goes");
        let starts: Vec<usize> =
            bytes.windows(6).enumerate().filter(|(_, w)| *w == b"070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 3);
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
        // The file's size is the seventh field, its name's length the twelfth.
        let field = |start: usize, at: usize| std::str::from_utf8(&bytes[start + 6 + 8 * at..][..8]).expect("text");
        assert_eq!((field(starts[1], 6), field(starts[1], 11)), ("00000005", "00000008"));
    }
}
