//! What the reader of a dump tells the user besides its result.

use std::sync::{Arc, Mutex};

/// Warnings that are kept; the others are counted.
const MAX_KEPT: usize = 20;

/// The warnings of one reading. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Arc<Mutex<WarningLog>>);

#[derive(Debug, Default)]
struct WarningLog {
    kept: Vec<String>,
    more: u64,
    /// Refusals that `--lenient` turned into warnings.
    overruled: u64,
}

impl Warnings {
    pub fn add(&self, warning: impl Into<String>) {
        self.with(|log| {
            if log.kept.len() < MAX_KEPT {
                log.kept.push(warning.into());
            } else {
                log.more += 1;
            }
        });
    }

    /// Adds a refusal that `--lenient` turned into a warning.
    pub fn overrule(&self, refusal: impl Into<String>) {
        self.with(|log| log.overruled += 1);
        self.add(refusal);
    }

    /// The warnings, one line each, with the counts at the end.
    pub fn lines(&self) -> Vec<String> {
        self.with(|log| {
            let mut lines = log.kept.clone();
            match log.more {
                0 => {}
                1 => lines.push("1 more warning".into()),
                n => lines.push(format!("{n} more warnings")),
            }
            match log.overruled {
                0 => {}
                1 => lines.push("1 refusal became a warning (--lenient): the candidates may be wrong".into()),
                n => lines.push(format!("{n} refusals became warnings (--lenient): the candidates may be wrong")),
            }
            lines
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut WarningLog) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_capped_and_refusals_counted() {
        let warnings = Warnings::default();
        assert!(warnings.lines().is_empty());
        for i in 0..MAX_KEPT {
            warnings.clone().add(i.to_string());
        }
        warnings.overrule("refused");
        let lines = warnings.lines();
        assert_eq!(lines.len(), MAX_KEPT + 2);
        assert_eq!(lines[MAX_KEPT], "1 more warning");
        assert!(lines[MAX_KEPT + 1].starts_with("1 refusal became a warning (--lenient)"));
    }
}
