//! CPU time of processes, from the kernel's books.

/// User and system time of a process and all that it has started, in seconds: those that are there and those that were
/// waited for.
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

struct Book {
    pid: u32,
    parent: u32,
    seconds: f64,
}

impl Book {
    /// None: it has just ended.
    fn of(pid: u32) -> Option<Self> {
        /// What Linux counts in, on all machines of today.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before may hold anything: the fields of proc(5) from number 3 on.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let parent = fields.get(1)?.parse().ok()?;
        Some(Self { pid, parent, seconds: (ticks(14)? + ticks(15)? + ticks(16)? + ticks(17)?) / TICKS_PER_SECOND })
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
