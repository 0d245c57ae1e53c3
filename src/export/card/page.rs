//! The card as a page: one file that loads nothing from elsewhere.

use std::collections::HashMap;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Card, Sheet, SheetFace};
use crate::domain::ContentHash;
use crate::web::html::{self, EscapedHtml, PageHead};

/// Width and height of a face on a sheet, pixels.
pub const THUMBNAIL: u32 = 96;

impl Card {
    /// `thumbnails`: JPEG files of the crops of the sheets.
    pub fn page(&self, thumbnails: &HashMap<ContentHash, Vec<u8>>) -> Vec<u8> {
        let mut page = Vec::new();
        // Writing to memory does not fail.
        let _ = self.write_page(&mut page, thumbnails);
        page
    }

    fn write_page(&self, file: &mut dyn Write, thumbnails: &HashMap<ContentHash, Vec<u8>>) -> io::Result<()> {
        let Self { title, summary, terms, facts, balance, histograms, sheets } = self;
        let title = EscapedHtml(title);
        let (head, summary) =
            (PageHead { title: &title, images: "data:", script: None, style: "" }, EscapedHtml(summary));
        writeln!(
            file,
            "{head}<main>\n<header>\n<p class=\"brand\">facemill</p>\n<h1>{title}</h1>\n<p>{summary}</p>\n</header>\n<section>"
        )?;
        html::facts(file, facts.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
        writeln!(file, "</section>")?;
        sheets.iter().try_for_each(|one| sheet(file, one, thumbnails))?;
        writeln!(
            file,
            "<section aria-labelledby=\"quality\">\n<h2 id=\"quality\">Quality</h2>\n<p>How many faces have which value, \
             measured on the crops before they were resized; the first and the last bar also have what is beyond.</p>"
        )?;
        html::histograms(file, histograms)?;
        writeln!(file, "</section>")?;
        html::balance(file, balance)?;
        writeln!(
            file,
            "<section aria-labelledby=\"terms\">\n<h2 id=\"terms\">Terms</h2>\n<p>{}</p>\n</section>\n</main>\n</body>\n</html>",
            EscapedHtml(terms)
        )
    }
}

fn sheet(
    file: &mut dyn Write,
    Sheet { title, number, faces }: &Sheet,
    thumbnails: &HashMap<ContentHash, Vec<u8>>,
) -> io::Result<()> {
    writeln!(file, "<section>\n<h2>{title}</h2>\n<div class=\"faces\">")?;
    for SheetFace { photo_id, label, crop, value, .. } in faces {
        let Some(picture) = thumbnails.get(crop) else { continue };
        let name = if label.is_empty() { "no label" } else { label };
        let (id, name) = (EscapedHtml(photo_id.as_str()), EscapedHtml(name));
        let caption = match number {
            Some(number) if *value >= 10.0 => format!("<figcaption>{number} {value:.0}</figcaption>"),
            Some(number) => format!("<figcaption>{number} {value:.3}</figcaption>"),
            None => String::new(),
        };
        let data = STANDARD.encode(picture);
        writeln!(
            file,
            "<figure title=\"{name}, photo {id}\"><img src=\"data:image/jpeg;base64,{data}\" width=\"{THUMBNAIL}\" \
             height=\"{THUMBNAIL}\" alt=\"{name}\">{caption}</figure>"
        )?;
    }
    writeln!(file, "</div>\n</section>")
}
