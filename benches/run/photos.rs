//! Photos that a local web server serves, and their list.

use std::path::{Path, PathBuf};

use facemill::demo::host::{HostResponse, Route, Routes, WebHost};

/// Several, so that the pause between two requests to a host does not make the workers wait.
const HOSTS: usize = 16;

/// The photos of some folders. The web server ends when this is dropped.
pub struct Photos {
    files: Vec<PathBuf>,
    /// The folders, which the names of the photos do not have.
    roots: Vec<PathBuf>,
    scratch: tempfile::TempDir,
    host: WebHost,
    _runtime: tokio::runtime::Runtime,
}

impl Photos {
    pub fn serve(folders: &[PathBuf], limit: Option<usize>) -> Self {
        let mut files = Vec::new();
        folders.iter().for_each(|folder| add_pictures(folder, &mut files));
        files.sort();
        if let Some(limit) = limit.filter(|limit| *limit < files.len()) {
            files = (0..limit).map(|number| files[number * files.len() / limit].clone()).collect();
        }
        let mut routes = Routes::new();
        let mut list = String::from("photo_id,photo_url\n");
        for (number, file) in files.iter().enumerate() {
            let body = std::fs::read(file).expect("a photo");
            routes.insert(path(number), Route::new([HostResponse::photo(body)]));
            list += &format!("{number},http://{}{}\n", host_name(number), path(number));
        }
        let scratch = tempfile::tempdir().expect("a folder");
        std::fs::write(scratch.path().join("photos.csv"), list).expect("room for a list");
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        let host = runtime.block_on(WebHost::start("127.0.0.1:0", routes)).expect("a free port");
        Self { files, roots: folders.to_vec(), scratch, host, _runtime: runtime }
    }

    pub fn count(&self) -> usize {
        self.files.len()
    }

    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The path of a photo in its folder.
    pub fn name<'a>(&self, file: &'a Path) -> &'a Path {
        self.roots.iter().find_map(|root| file.strip_prefix(root).ok()).unwrap_or(file)
    }

    /// The table of the photos' URLs.
    pub fn list(&self) -> PathBuf {
        self.scratch.path().join("photos.csv")
    }

    /// The arguments that direct a process to the web server.
    pub fn stage_arguments(&self) -> Vec<String> {
        let entries = (0..HOSTS).map(|number| format!("{}={}", host_name(number), self.host.address()));
        entries.flat_map(|entry| ["--resolve".to_owned(), entry]).collect()
    }
}

fn host_name(number: usize) -> String {
    format!("photos-{}.test", number % HOSTS)
}

fn path(number: usize) -> String {
    format!("/{number}.jpg")
}

fn add_pictures(folder: &Path, files: &mut Vec<PathBuf>) {
    const ENDINGS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            add_pictures(&path, files);
        } else if path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
        {
            files.push(path);
        }
    }
}
