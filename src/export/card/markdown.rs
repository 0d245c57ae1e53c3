//! The card in Markdown.

use std::fmt::Write;

use super::Card;
use crate::dataset::balance::{Balance, BalanceShare, CapEffect, Grouping};

impl Card {
    /// `with_tags`: whether it begins with what Hugging Face reads of a dataset.
    pub fn markdown(&self, with_tags: bool) -> String {
        let mut text = String::new();
        if with_tags {
            text.push_str("---\ntask_categories:\n- image-classification\ntags:\n- faces\n---\n\n");
        }
        let Self { title, summary, terms, facts, balance, .. } = self;
        let _ = write!(text, "# {title}\n\n{summary}\n\n| | |\n| --- | --- |\n");
        for (name, value) in facts {
            let _ = writeln!(text, "| {name} | {} |", escaped(value));
        }
        balance.groupings.iter().for_each(|grouping| shares(&mut text, grouping, balance));
        caps(&mut text, balance);
        let _ = write!(text, "\n## Terms\n\n{terms}\n");
        text
    }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

fn shares(text: &mut String, Grouping { by, values, shares, others }: &Grouping, balance: &Balance) {
    let _ = write!(text, "\n## By {by}: {values}\n\n| {by} | faces | share |\n| --- | ---: | ---: |\n");
    for BalanceShare { name, faces, .. } in shares.iter().chain(others) {
        let _ = writeln!(text, "| {} | {faces} | {} |", escaped(name), percent(*faces, balance.faces));
    }
}

fn caps(text: &mut String, balance: &Balance) {
    if balance.caps.is_empty() {
        return;
    }
    text.push_str(
        "\n## Left by --max-per-label N\n\n| N | faces left | share | labels cut |\n| ---: | ---: | ---: | ---: |\n",
    );
    for CapEffect { limit, left, cut, .. } in &balance.caps {
        let _ = writeln!(text, "| {limit} | {left} | {} | {cut} |", percent(*left, balance.faces));
    }
}

/// Text of strangers in a cell of a table: it ends neither the cell nor the line, and is neither HTML nor a link.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            letter if letter.is_control() => escaped.push(' '),
            '|' | '[' | ']' | '`' | '*' | '_' | '\\' | '!' | '#' | '~' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_stays_text() {
        assert_eq!(escaped("a|b<script>\n![x](y)"), "a\\|b&lt;script&gt; \\!\\[x\\](y)");
    }
}
