//! Files of fixed pages that are counted from zero: commit log, subtransactions, multixacts. C: access/transam/slru.c.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::{DataDir, read_at};
use crate::input_file;

/// A folder of such files.
pub(super) struct Slru {
    folder: PathBuf,
    page_size: u32,
    pages_per_file: u32,
    /// Digits of a file's name.
    digits: usize,
    /// Pages read lately; `None`: could not be read.
    pages: HashMap<u64, Option<Vec<u8>>>,
    /// Files of which it was said that they cannot be read.
    reported: HashSet<PathBuf>,
}

/// Why a page cannot be read.
pub(super) struct NoPage {
    pub path: PathBuf,
    pub reason: String,
}

/// Pages kept in memory: 1 MB of usual ones, the status of 4 million transactions.
const KEPT: usize = 128;

impl Slru {
    pub fn new(dir: &DataDir, folder: &str, digits: usize) -> Slru {
        let pages_per_file = dir.control().map_or(32, |control| control.slru_pages_per_segment);
        let folder = dir.path().join(folder);
        Slru { folder, page_size: dir.format().block_size, pages_per_file, digits, pages: HashMap::new(), reported: HashSet::new() }
    }

    /// Page number `page`; `None` where its file was reported already.
    pub fn page(&mut self, page: u64) -> Result<Option<&[u8]>, NoPage> {
        if !self.pages.contains_key(&page) {
            if self.pages.len() >= KEPT {
                self.pages.clear();
            }
            let (path, read) = self.read(page);
            let failed = read.as_ref().err().map(|reason| NoPage { path: path.clone(), reason: reason.clone() });
            self.pages.insert(page, read.ok());
            if let Some(failed) = failed.filter(|_| self.reported.insert(path)) {
                return Err(failed);
            }
        }
        Ok(self.pages.get(&page).and_then(|page| page.as_deref()))
    }

    fn read(&self, page: u64) -> (PathBuf, Result<Vec<u8>, String>) {
        let (file, page) = (page / u64::from(self.pages_per_file), page % u64::from(self.pages_per_file)); // at least 1
        let path = self.folder.join(format!("{file:0digits$X}", digits = self.digits));
        let mut bytes = Vec::new();
        let start = page * u64::from(self.page_size); // below 2^64: both fit 32 bits
        let read = match input_file::open(&path).and_then(|file| read_at(&file, start, self.page_size, &mut bytes)) {
            Ok(()) if bytes.len() == self.page_size as usize => Ok(bytes),
            Ok(()) => Err(format!("the file ends before page {page} does")),
            Err(e) => Err(e.to_string()),
        };
        (path, read)
    }
}
