//! `report.html`: one file that loads no outside resources and opens from a folder.
//!
//! The faces come first, as JSON that is not displayed. The visible part follows when all photos are counted.
//! The page's script sorts, filters and shows the faces. The content security policy allows no other script.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};

use super::pictures::{Pictures, RejectedPhotos};
use super::records::FaceRecord;
use super::tally::{Funnel, HostTally, ReportTally};
use crate::dataset::placeholder::{Placeholder, Placeholders};
use crate::domain::{Id, RunName, calendar};
use crate::objects::ObjectKey;
use crate::web::html::{self, EscapedHtml, Grouped, PageHead, Percent, end_table, share, table};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const HOSTS_SHOWN: usize = 30;

/// Facts about the run that the report shows besides its photos.
#[derive(Debug, Clone)]
pub struct About {
    pub run: RunName,
    /// The name of the run's folder; none for a run on servers.
    pub folder: Option<String>,
    pub pictures: Pictures,
    /// When the report was made, in seconds since 1970, UTC.
    pub made_at: u64,
    /// A crop is OK when its P(OK) is at least this. None: the threshold of the run's current classifier.
    pub ok_threshold: Option<f64>,
    /// Names and values of the run's settings, in display order.
    pub settings: Vec<(String, String)>,
}

impl About {
    /// The folder, or the run on servers.
    fn title(&self) -> String {
        match &self.folder {
            Some(folder) => format!("folder {}", EscapedHtml(folder)),
            None => format!("run {}", EscapedHtml(self.run.as_str())),
        }
    }
}

/// The page while it is written.
pub struct ReportPage {
    faces: u64,
}

impl ReportPage {
    pub fn begin(file: &mut dyn Write, about: &About) -> io::Result<Self> {
        let title = format_args!("facemill: {}", about.title());
        let head = PageHead { title, images: "'self' file:", script: Some(SCRIPT), style: STYLE };
        write!(file, "{head}<script type=\"application/json\" id=\"faces\">[")?;
        Ok(Self { faces: 0 })
    }

    /// Adds a face. `page.js` reads the fields in the same order. The photo's id is a string: JavaScript numbers are
    /// exact only up to 2^53.
    pub fn face(&mut self, file: &mut dyn Write, face: &FaceRecord, original: &ObjectKey) -> io::Result<()> {
        let fields = (
            (face.photo_id.as_str(), &face.file, original.as_str(), face.label_name.as_deref()),
            (face.p_ok.map(short), face.size, short(face.angle), short(face.score)),
            (short(face.mirrored), short(face.mirrored_head), short(face.blur), short(face.exposure)),
        );
        let mut json = serde_json::to_string(&fields)?;
        // JSON has `<` only in strings. It is escaped, so that a label can neither end the script nor open a comment.
        if json.contains('<') {
            json = json.replace('<', "\\u003c");
        }
        let comma = if self.faces > 0 { ",\n" } else { "\n" };
        self.faces += 1;
        write!(file, "{comma}{json}")
    }

    pub fn finish(
        &self,
        file: &mut dyn Write,
        about: &About,
        tally: &ReportTally,
        rejected: &[RejectedPhotos],
    ) -> io::Result<()> {
        writeln!(file, "\n]</script>\n<main>")?;
        head(file, about, tally)?;
        funnel(file, &tally.funnel, tally.ok_threshold())?;
        contact_sheet(file, about.pictures, tally)?;
        quality(file, tally)?;
        html::balance(file, &tally.balance)?;
        placeholders(file, tally)?;
        reasons(file, tally)?;
        pictures_by_cause(file, about.pictures, rejected)?;
        hosts(file, tally)?;
        settings(file, about)?;
        write!(file, "</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n")
    }
}

fn head(file: &mut dyn Write, about: &About, tally: &ReportTally) -> io::Result<()> {
    let made_at = calendar::minute(about.made_at);
    write!(
        file,
        "<header>\n<p class=\"brand\">facemill</p>\n<h1>{}</h1>\n\
         <p>{} candidate photos, as of <time datetime=\"{}Z\">{made_at} UTC</time>",
        capitalized(&about.title()),
        Grouped(tally.funnel.candidates),
        made_at.replace(' ', "T"),
    )?;
    match tally.waiting() {
        0 => writeln!(file, ". All photos have ended.</p>")?,
        waiting => writeln!(file, ". <strong>{} have not ended.</strong></p>", Grouped(waiting))?,
    }
    if tally.unscored > 0 {
        writeln!(file, "<p>Faces without a P(OK) of the run's classifier: {}.</p>", Grouped(tally.unscored))?;
    }
    let Placeholders { originals, photos, faces, .. } = tally.placeholders;
    if originals > 0 {
        writeln!(
            file,
            "<p><strong>Placeholders: {} photos with {} faces</strong> share {} {}, such as a host's picture for \
             removed photos. Exports leave these faces out. <a href=\"#placeholders\">List</a></p>",
            Grouped(photos),
            Grouped(faces),
            Grouped(originals),
            if originals == 1 { "original" } else { "originals" },
        )?;
    }
    let (unrecorded, ids) = &tally.unrecorded;
    if *unrecorded > 0 {
        let ids: Vec<&str> = ids.iter().map(Id::as_str).collect();
        let more = if *unrecorded > ids.len() as u64 { ", ..." } else { "" };
        writeln!(
            file,
            "<p><strong>Photos that ended without a record: {}</strong> (ids: {}{more}). Run <code>facemill audit</code>.</p>",
            Grouped(*unrecorded),
            EscapedHtml(&ids.join(", ")),
        )?;
    }
    writeln!(file, "<p>Judge the crops with <code>facemill curate</code>.</p>")?;
    writeln!(
        file,
        "<nav aria-label=\"On this page\"><a href=\"#sheet\">Contact sheet</a> \
         <a href=\"#quality\">Quality</a> <a href=\"#balance\">Balance</a> <a href=\"#causes\">Outcomes by cause</a> \
         <a href=\"#hosts\">Outcomes by host</a> <a href=\"#settings\">Settings</a></nav>\n</header>"
    )
}

fn funnel(file: &mut dyn Write, funnel: &Funnel, ok_threshold: f64) -> io::Result<()> {
    let rows = [
        ("Candidates", "photos with one labelled face".to_owned(), funnel.candidates, None),
        ("Downloaded", "originals that could be fetched".to_owned(), funnel.downloaded, Some(funnel.candidates)),
        ("Faces", "aligned crops of one face".to_owned(), funnel.faces, Some(funnel.downloaded)),
        ("OK", format!("P(OK) of {} or more", short(ok_threshold)), funnel.ok, Some(funnel.faces)),
    ];
    writeln!(file, "<section aria-labelledby=\"funnel\">\n<h2 id=\"funnel\">From candidates to faces</h2>")?;
    writeln!(file, "<ol class=\"funnel\">")?;
    for (name, meaning, count, before) in rows {
        let step = match before {
            Some(before) if before > 0 => format!("{} of the previous step", Percent(count, before)),
            _ => String::new(),
        };
        writeln!(
            file,
            "<li><span class=\"name\">{name}</span><span class=\"meaning\">{meaning}</span>\
             <span class=\"bar\"><span style=\"width:{:.2}%\"></span></span>\
             <span class=\"count\">{}</span><span class=\"share\">{step}</span></li>",
            share(count, funnel.candidates),
            Grouped(count),
        )?;
    }
    writeln!(file, "</ol>\n</section>")
}

/// Writes the controls without content; the script fills them.
fn contact_sheet(file: &mut dyn Write, pictures: Pictures, tally: &ReportTally) -> io::Result<()> {
    let histogram = serde_json::to_string(&tally.histogram)?;
    let Pictures { linked, thumbnails } = pictures;
    write!(
        file,
        include_str!("sheet.html"),
        threshold = tally.ok_threshold(),
        histogram = histogram,
        linked = linked,
        thumbnails = thumbnails
    )?;
    if !linked && !thumbnails {
        writeln!(file, "<p>This report has no pictures: <code>facemill report --with-faces</code> adds them.</p>")?;
    }
    writeln!(file, "</section>")
}

/// Photos that ended without a face, for people who look for good ones among them.
fn pictures_by_cause(file: &mut dyn Write, pictures: Pictures, rejected: &[RejectedPhotos]) -> io::Result<()> {
    let shown = |of_cause: &&RejectedPhotos| !of_cause.originals.is_empty();
    if !rejected.iter().any(|of_cause| shown(&of_cause)) {
        return Ok(());
    }
    writeln!(
        file,
        "<section aria-labelledby=\"rejected\">\n<h2 id=\"rejected\">Photos without a face</h2>\n\
         <p>The first ones of each cause. <code>facemill why</code> tells the history of one.</p>"
    )?;
    for RejectedPhotos { ending, originals } in rejected.iter().filter(shown) {
        let cause = ending.cause.as_ref().map_or(Cow::Borrowed("no cause"), |cause| cause.as_str());
        writeln!(
            file,
            "<h3>{} <span class=\"outcome {1}\">{1} at {2}</span></h3>\n<ul class=\"rejected\">",
            EscapedHtml(&cause),
            ending.ending.as_str(),
            ending.stage.as_str(),
        )?;
        for (id, key) in originals {
            let (Some(source), Some(target)) = (pictures.source(key), pictures.target(key)) else { continue };
            let id = EscapedHtml(id.as_str());
            writeln!(
                file,
                "<li><a href=\"{target}\" title=\"photo {id}\"><img loading=\"lazy\" decoding=\"async\" \
                 src=\"{source}\" alt=\"photo {id}\"></a></li>"
            )?;
        }
        writeln!(file, "</ul>")?;
    }
    writeln!(file, "</section>")
}

/// A histogram of each number.
fn quality(file: &mut dyn Write, tally: &ReportTally) -> io::Result<()> {
    writeln!(
        file,
        "<section aria-labelledby=\"quality\">\n<h2 id=\"quality\">Quality</h2>\n\
         <p>How many faces have which value; the first and the last bar also have what is beyond. The names are those of the \
         query language: <code>facemill faces --where \"outlier&lt;3 and jpeg_quality&gt;=75\"</code>.</p>"
    )?;
    html::histograms(file, &tally.quality)?;
    writeln!(file, "</section>")
}

/// Originals that are probably no photos of the labelled people, if there are any.
fn placeholders(file: &mut dyn Write, tally: &ReportTally) -> io::Result<()> {
    let all = &tally.placeholders;
    if all.originals == 0 {
        return Ok(());
    }
    let columns = ["Photos", "Labels", "Faces"];
    table(file, "placeholders", "Originals that many photos share", &["Original"], &columns)?;
    for Placeholder { original, photos, labels, faces } in &all.largest {
        let [photos, labels, faces] = [photos, labels, faces].map(|number| Grouped(*number));
        writeln!(file, "<tr><td>{original}</td><td>{photos}</td><td>{labels}</td><td>{faces}</td></tr>")?;
    }
    if let Some(more @ 1..) = all.originals.checked_sub(all.largest.len() as u64) {
        writeln!(file, "<tr><td>{} more</td><td></td><td></td><td></td></tr>", Grouped(more))?;
    }
    end_table(file)
}

fn reasons(file: &mut dyn Write, tally: &ReportTally) -> io::Result<()> {
    let total = tally.funnel.candidates;
    table(file, "causes", "Outcomes by cause", &["Outcome", "At", "Cause"], &["Photos", "Share"])?;
    for (reason, count) in tally.reasons() {
        let cause = if reason.cause.is_empty() { "–" } else { &reason.cause };
        writeln!(
            file,
            "<tr><td><span class=\"outcome {0}\">{0}</span></td><td>{1}</td><td>{2}</td><td>{3}</td>\
             <td>{5} <span class=\"meter\"><span style=\"width:{4:.2}%\"></span></span></td></tr>",
            reason.outcome.as_str(),
            reason.step.as_str(),
            EscapedHtml(cause),
            Grouped(count),
            share(count, total),
            Percent(count, total),
        )?;
    }
    end_table(file)
}

fn hosts(file: &mut dyn Write, tally: &ReportTally) -> io::Result<()> {
    let (hosts, rest, others) = tally.hosts(HOSTS_SHOWN);
    let columns = ["Photos", "Gone", "Rejected", "Failed", "Waiting", "Faces", "Yield"];
    table(file, "hosts", "Outcomes by host", &["Host"], &columns)?;
    for (host, tally) in &hosts {
        let name = if host.is_empty() { "(no host)" } else { host };
        host_row(file, EscapedHtml(name), tally)?;
    }
    if others > 0 {
        host_row(file, format_args!("{} more", Grouped(others as u64)), &rest)?;
    }
    end_table(file)
}

fn host_row(file: &mut dyn Write, name: impl Display, tally: &HostTally) -> io::Result<()> {
    write!(file, "<tr><td>{name}</td>")?;
    for count in [tally.candidates, tally.gone, tally.rejected, tally.failed, tally.waiting, tally.faces] {
        write!(file, "<td>{}</td>", Grouped(count))?;
    }
    writeln!(file, "<td>{}</td></tr>", Percent(tally.faces, tally.candidates))
}

fn settings(file: &mut dyn Write, about: &About) -> io::Result<()> {
    writeln!(file, "<section aria-labelledby=\"settings\">\n<h2 id=\"settings\">Settings</h2>")?;
    let settings = about.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    html::facts(file, settings.chain([("facemill", env!("CARGO_PKG_VERSION"))]))?;
    writeln!(file, "</section>")
}

fn capitalized(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    first.to_uppercase() + rest
}

/// Rounds to four decimals, which suffice for display and keep the page small.
fn short(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}
