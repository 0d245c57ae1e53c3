//! CPU time of processes, as the kernel counts it.

use facemill::telemetry::process::Stat;

/// User and system time of a process and its children, in seconds. Ended children count once they were waited for.
pub fn seconds_of_tree(pid: u32) -> f64 {
    let books: Vec<Book> = processes().filter_map(Book::of).collect();
    let mut family = vec![pid];
    let mut seconds = 0.0;
    while let Some(pid) = family.pop() {
        seconds += books.iter().filter(|book| book.pid == pid).map(|book| book.seconds).sum::<f64>();
        family.extend(books.iter().filter(|book| book.parent == pid).map(|book| book.pid));
    }
    seconds
}

/// User and system time of this process, without its children, in seconds.
pub fn own_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let stat = Stat::of(&text).expect("the kernel's fields");
    [Stat::USER, Stat::SYSTEM].iter().map(|field| stat.seconds(*field).expect("ticks")).sum()
}

struct Book {
    pid: u32,
    parent: u32,
    seconds: f64,
}

impl Book {
    /// `None` if the process has ended.
    fn of(pid: u32) -> Option<Self> {
        /// Times of the process, and of its children that it has waited for.
        const TIMES: [usize; 4] = [Stat::USER, Stat::SYSTEM, Stat::SYSTEM + 1, Stat::SYSTEM + 2];
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let stat = Stat::of(&text)?;
        let parent = stat.field(Stat::PARENT)?.parse().ok()?;
        Some(Self { pid, parent, seconds: TIMES.iter().map(|field| stat.seconds(*field)).sum::<Option<f64>>()? })
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
