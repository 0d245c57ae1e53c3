//! Parts of pages that open from a file: texts, tables, histograms, and the balance of faces.

use std::fmt::{self, Display};
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest;

use crate::dataset::balance::{Balance, BalanceShare, CapEffect, Grouping};
use crate::dataset::quality_histogram::QualityHistogram;

/// The style of these parts, after that of all pages.
pub const STYLE: &str = include_str!("page.css");

/// The beginning of a page that opens from a file and loads nothing from elsewhere, up to the start of its body.
pub struct PageHead<'a, T> {
    /// Escaped.
    pub title: T,
    /// Where its pictures may be, in the words of a content security policy.
    pub images: &'a str,
    /// The only script that may run.
    pub script: Option<&'a str>,
    /// The page's own style, after that of all pages and of the parts here.
    pub style: &'a str,
}

impl<T: Display> Display for PageHead<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, images, script, style } = self;
        let allowed = |script: &str| format!("script-src 'sha256-{}'; ", STANDARD.encode(sha2::Sha256::digest(script)));
        let scripts = script.map(allowed).unwrap_or_default();
        write!(
            f,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src {images}; \
             style-src 'unsafe-inline'; {scripts}base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <title>{title}</title>\n<style>\n{}{STYLE}{style}</style>\n</head>\n<body>\n",
            super::STYLE,
        )
    }
}

/// Displays untrusted text escaped for HTML, between tags or in a quoted attribute.
pub struct EscapedHtml<'a>(pub &'a str);

impl Display for EscapedHtml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            c => write!(f, "{c}"),
        })
    }
}

/// Displays a count with thousands separators: `1,654,503`.
pub struct Grouped(pub u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        digits.bytes().enumerate().try_for_each(|(i, digit)| {
            let comma = if i > 0 && (digits.len() - i).is_multiple_of(3) { "," } else { "" };
            write!(f, "{comma}{}", char::from(digit))
        })
    }
}

/// Displays a part of a whole in percent: `67.5 %`. Only zero is `0 %`, and only the whole is `100 %`.
pub struct Percent(pub u64, pub u64);

impl Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Percent(part, whole) = *self;
        let percent = share(part, whole);
        match part {
            0 => f.write_str("0 %"),
            _ if part == whole => f.write_str("100 %"),
            _ if percent < 0.1 => f.write_str("< 0.1 %"),
            _ if percent > 99.9 => f.write_str("> 99.9 %"),
            _ => write!(f, "{percent:.1} %"),
        }
    }
}

/// `part` in percent of `whole`, 0 to 100.
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// Begins a section with a table. The first columns have words, the others numbers.
pub fn table(file: &mut dyn Write, id: &str, title: &str, words: &[&str], numbers: &[&str]) -> io::Result<()> {
    table_of_level(file, 2, id, title, words, numbers)
}

fn table_of_level(
    file: &mut dyn Write,
    level: u8,
    id: &str,
    title: &str,
    words: &[&str],
    numbers: &[&str],
) -> io::Result<()> {
    write!(
        file,
        "<section>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\">\n\
         <table class=\"words-{}\">\n<caption><h{level} id=\"{id}\">{title}</h{level}></caption>\n<thead><tr>",
        words.len(),
    )?;
    for name in words.iter().chain(numbers) {
        write!(file, "<th scope=\"col\">{name}</th>")?;
    }
    writeln!(file, "</tr></thead>\n<tbody>")
}

pub fn end_table(file: &mut dyn Write) -> io::Result<()> {
    writeln!(file, "</tbody>\n</table>\n</div>\n</section>")
}

/// Names and values, in columns.
pub fn facts<'a>(file: &mut dyn Write, facts: impl IntoIterator<Item = (&'a str, &'a str)>) -> io::Result<()> {
    writeln!(file, "<dl class=\"settings\">")?;
    for (name, value) in facts {
        writeln!(file, "<div><dt>{}</dt><dd>{}</dd></div>", EscapedHtml(name), EscapedHtml(value))?;
    }
    writeln!(file, "</dl>")
}

/// A histogram of each number.
pub fn histograms(file: &mut dyn Write, histograms: &[QualityHistogram]) -> io::Result<()> {
    writeln!(file, "<div class=\"histograms\">")?;
    for one in histograms {
        let QualityHistogram { name, meaning, ends: (low, high), counts, .. } = one;
        let faces = one.faces();
        let highest = counts.iter().copied().max().unwrap_or(0).max(1);
        let width = 300.0 / counts.len() as f64;
        write!(
            file,
            "<figure><svg class=\"histogram\" viewBox=\"0 0 300 60\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"Histogram of {name}: {faces} faces\">"
        )?;
        for (bin, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = 60.0 * *count as f64 / highest as f64;
            let (x, y) = (bin as f64 * width + 0.5, 60.0 - height);
            let title = Grouped(*count);
            write!(
                file,
                "<rect class=\"ok\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\">\
                 <title>{title}</title></rect>",
                width - 1.0
            )?;
        }
        let faces = Grouped(faces);
        writeln!(
            file,
            "</svg><span class=\"ends\"><span>{low}</span><span>{high}</span></span>\
             <figcaption><code>{name}</code>, {faces} faces: {}</figcaption></figure>",
            EscapedHtml(meaning)
        )?;
    }
    writeln!(file, "</div>")
}

/// How faces are spread, and what caps would do to that.
pub fn balance(file: &mut dyn Write, balance: &Balance) -> io::Result<()> {
    writeln!(file, "<section aria-labelledby=\"balance\">\n<h2 id=\"balance\">Balance</h2>\n<div class=\"shares\">")?;
    for Grouping { by, values, shares, others } in &balance.groupings {
        let title = format!("By {by}: {}", Grouped(*values));
        table_of_level(file, 3, &format!("by-{by}"), &title, &[by], &["faces", "share"])?;
        for BalanceShare { name, faces, .. } in shares.iter().chain(others) {
            let of = balance.faces;
            let bar = format!("<span class=\"meter\"><span style=\"width:{:.2}%\"></span></span>", share(*faces, of));
            let (name, faces, percent) = (EscapedHtml(name), Grouped(*faces), Percent(*faces, of));
            writeln!(file, "<tr><td title=\"{name}\">{name}</td><td>{faces}</td><td>{percent} {bar}</td></tr>")?;
        }
        end_table(file)?;
    }
    for of in ["label", "identity"] {
        let effects: Vec<&CapEffect> = balance.caps.iter().filter(|effect| effect.of == of).collect();
        if effects.is_empty() {
            continue;
        }
        let title = format!("Left by --max-per-{of} N");
        table_of_level(file, 3, &format!("cap-{of}"), &title, &["N"], &["faces left", "share", "cut"])?;
        for CapEffect { limit, left, cut, .. } in effects {
            let (percent, left) = (Percent(*left, balance.faces), Grouped(*left));
            writeln!(file, "<tr><td>{limit}</td><td>{left}</td><td>{percent}</td><td>{}</td></tr>", Grouped(*cut))?;
        }
        end_table(file)?;
    }
    writeln!(file, "</div>\n</section>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_allows_its_own_script_only() {
        let page = |script| {
            PageHead { title: EscapedHtml("a<b"), images: "data:", script, style: "p { margin: 0; }" }.to_string()
        };
        let without = page(None);
        assert!(without.contains("img-src data:; style-src 'unsafe-inline'; base-uri 'none'"), "{without}");
        assert!(without.contains("<title>a&lt;b</title>") && without.contains("p { margin: 0; }</style>"), "{without}");
        // printf 'abc' | openssl dgst -sha256 -binary | base64
        let script = "script-src 'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='; base-uri 'none'";
        assert!(page(Some("abc")).contains(script));
    }

    #[test]
    fn counts_and_percents_are_formatted() {
        let grouped: Vec<String> = [0, 999, 1000, 1_654_503].map(|n| Grouped(n).to_string()).into();
        assert_eq!(grouped, ["0", "999", "1,000", "1,654,503"]);
        let percents: Vec<String> = [(0, 0), (0, 5), (5, 5), (1, 3), (1, 100_000), (99_999, 100_000)]
            .map(|(a, b)| Percent(a, b).to_string())
            .into();
        assert_eq!(percents, ["0 %", "0 %", "100 %", "33.3 %", "< 0.1 %", "> 99.9 %"]);
    }
}
