//! Progress: bars on a terminal, and a line a minute elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::cli::output::print_note;
use crate::cli::progress_lines::{ProgressLines, Total, time_left};
use crate::domain::{Ending, StageName};
use crate::ledger::{Counts, EventKind};
use crate::pipeline::event::{Observer, PhotoEvent};
use crate::source::Progress;
use crate::telemetry::Sink;

/// All progress bars of a command. Log lines do not disturb them.
#[derive(Debug, Clone)]
pub struct Bars {
    drawn: MultiProgress,
    /// None: the bars are drawn, or not wanted.
    lines: Option<Arc<ProgressLines>>,
}

impl Bars {
    /// How often standard error gets a line if it is no terminal.
    const PERIOD: Duration = Duration::from_secs(60);

    /// Bars on standard error if that is a terminal, else lines. Neither if they are not `wanted`.
    pub fn new(wanted: bool) -> Self {
        let is_drawn = wanted && io::stderr().is_terminal();
        let target = if is_drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let lines = (wanted && !is_drawn).then(|| ProgressLines::start(Self::PERIOD, |line| print_note(line)));
        Self { drawn: MultiProgress::with_draw_target(target), lines }
    }

    /// The sink for log lines while bars are drawn.
    pub fn sink(&self) -> Sink {
        let bars = self.drawn.clone();
        Arc::new(move |line| {
            let _ = bars.suspend(|| io::stderr().write_all(line));
        })
    }

    /// A bar of `total` things, with rate and time left.
    pub fn count(&self, what: &'static str, total: u64) -> ProgressBar {
        let bar = self.add(ProgressBar::new(total), what, Total::Known);
        bar.set_style(style("{prefix:9} {wide_bar} {human_pos} of {human_len}{pace} {msg}"));
        bar
    }

    /// A bar of what has arrived so far, with the rate. How long it takes depends on what is still to come.
    fn arriving(&self, what: &'static str) -> ProgressBar {
        let bar = self.add(ProgressBar::no_length(), what, Total::Grows);
        bar.set_style(style("{prefix:9} {wide_bar} {human_pos} of {human_len}{rate} {msg}"));
        bar
    }

    fn add(&self, bar: ProgressBar, what: &'static str, total: Total) -> ProgressBar {
        let bar = self.drawn.add(bar.with_prefix(what));
        if let Some(lines) = &self.lines {
            lines.add(&bar, total);
        }
        bar
    }

    /// A bar for reading a dump.
    pub fn reading(&self) -> Reading {
        Reading { bar: self.add(ProgressBar::no_length(), "dump", Total::Known) }
    }

    pub fn clear(&self) {
        // A hidden bar needs no redraw.
        let _ = self.drawn.clear();
        if let Some(lines) = &self.lines {
            lines.clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates are valid")
        .with_key("pace", |state: &ProgressState, text: &mut dyn fmt::Write| {
            let _ = text.write_str(&pace(state.per_sec(), is_unfinished(state).then(|| state.eta())));
        })
        .with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
            let _ = if is_unfinished(state) { write!(text, ", {:.1}/s", state.per_sec()) } else { Ok(()) };
        })
        .progress_chars("━╸─")
}

fn is_unfinished(state: &ProgressState) -> bool {
    state.len().is_some_and(|len| len > state.pos())
}

/// The rate, and the time left where something is left: `, 3.2/s, 40s left`. While nothing moves, no time is known.
fn pace(rate: f64, left: Option<Duration>) -> String {
    match left {
        None => String::new(),
        Some(_) if rate < 0.01 => ", waiting".to_owned(),
        Some(left) => format!(", {rate:.1}/s, {} left", time_left(left)),
    }
}

/// The progress of reading a dump.
pub struct Reading {
    bar: ProgressBar,
}

impl Reading {
    pub fn show(&self, progress: Progress) {
        if self.bar.position() == 0 && !self.bar.is_hidden() {
            self.bar.set_style(style(match progress.total {
                Some(_) => "{prefix:9} {wide_bar} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left, {msg}",
                None => "{prefix:9} {spinner} {bytes}, {binary_bytes_per_sec}, {msg}",
            }));
        }
        if let Some(total) = progress.total {
            self.bar.set_length(total);
        }
        self.bar.set_position(progress.bytes);
        self.bar.set_message(format!("{} rows", progress.rows));
    }

    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

/// One bar for each stage, and one for the photos that have ended.
pub struct Board {
    stages: BTreeMap<StageName, StageRow>,
    ended: ProgressBar,
}

struct StageRow {
    bar: ProgressBar,
    tally: Mutex<BTreeMap<&'static str, u64>>,
    arrived: AtomicU64,
}

impl StageRow {
    /// A bar of nothing has no length: with the length 0 it would be full.
    fn arrive(&self, photos: u64) {
        let arrived = self.arrived.fetch_add(photos, Ordering::Relaxed) + photos;
        if arrived > 0 {
            self.bar.set_length(arrived);
        }
    }

    fn note(&self, what: &'static str, photos: u64) {
        let mut tally = self.tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *tally.entry(what).or_default() += photos;
        let words: Vec<String> = tally.iter().map(|(what, count)| format!("{count} {what}")).collect();
        self.bar.set_message(words.join(", "));
    }
}

impl Board {
    /// Starts from the counts of the ledger.
    pub fn new(bars: &Bars, counts: &Counts) -> Self {
        let row = |stage: StageName| {
            let bar = bars.arriving(stage.as_str());
            (stage, StageRow { bar, tally: Mutex::default(), arrived: AtomicU64::new(0) })
        };
        let stages: BTreeMap<_, _> = StageName::ALL.into_iter().map(row).collect();
        let ended = bars.count("photos", counts.candidates);
        ended.inc(counts.ended.values().sum());
        let mut arrived = counts.candidates;
        for (stage, row) in &stages {
            row.arrive(arrived);
            let waiting = counts.waiting.get(stage).copied().unwrap_or(0);
            row.bar.inc(arrived - waiting);
            let mut left = 0;
            for cause in counts.causes.iter().filter(|cause| cause.stage == *stage) {
                left += cause.count;
                row.note(cause.ending.as_str(), cause.count);
            }
            arrived -= waiting + left;
        }
        if let (Some(classify), Some(&predicted)) =
            (stages.get(&StageName::Classify), counts.ended.get(&Ending::Predicted))
        {
            classify.note(Ending::Predicted.as_str(), predicted);
        }
        // Photos that ended earlier do not count in the rate.
        stages.values().map(|row| &row.bar).chain([&ended]).for_each(ProgressBar::reset_eta);
        Self { stages, ended }
    }
}

impl Observer for Board {
    fn on_event(&self, event: &PhotoEvent<'_>) {
        let event = event.event;
        let Some(row) = self.stages.get(&event.stage) else { return };
        match event.what {
            EventKind::Enqueued => {}
            EventKind::Advanced => {
                row.bar.inc(1);
                if let Some(next) = event.stage.next().and_then(|next| self.stages.get(&next)) {
                    next.arrive(1);
                }
            }
            EventKind::Retried => row.note("tried again", 1),
            ended => {
                row.bar.inc(1);
                row.note(ended.as_str(), 1);
                self.ended.inc(1);
            }
        }
    }
}
