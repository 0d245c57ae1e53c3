//! The page of an evaluation: one file that loads nothing from elsewhere.

use std::fmt::{self, Display, Write as _};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::domain::calendar;
use crate::services::evaluation::{Consistency, ModelEvaluation};
use crate::training::evaluation::{CalibrationBin, CurvePoint, Figure, Slice};
use crate::training::learning_curve::LearningPoint;
use crate::web::html::{EscapedHtml, PageHead};

const STYLE: &str = include_str!("evaluation.css");
/// Width and height of a chart in its own units.
const CHART: f64 = 300.0;

/// The page. `made_at`: seconds since 1970, UTC.
pub fn evaluation_page(found: &ModelEvaluation, made_at: u64) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_page(&mut page, found, made_at);
    page
}

fn write_page(page: &mut String, found: &ModelEvaluation, made_at: u64) -> fmt::Result {
    let name = EscapedHtml(&found.model);
    let title = format_args!("facemill: {name}");
    let head = PageHead { title, images: "data:", script: None, style: STYLE };
    writeln!(page, "{head}<main>\n<header>\n<p class=\"brand\">facemill</p>\n<h1>{name}</h1>")?;
    let evaluation = &found.evaluation;
    writeln!(
        page,
        "<p>Measured on {}: {} crops of {} people or photos, {} of them OK; {} UTC. Intervals are 95 % bootstrap \
         intervals over people.</p>",
        EscapedHtml(&found.measured_on),
        evaluation.crops,
        evaluation.groups,
        evaluation.ok,
        calendar::minute(made_at),
    )?;
    if found.unreadable > 0 {
        writeln!(page, "<p><strong>{} crops could not be read or decoded.</strong></p>", found.unreadable)?;
    }
    writeln!(page, "</header>")?;
    figures(page, found)?;
    charts(page, &evaluation.curve, &evaluation.calibration)?;
    mistakes(page, found)?;
    slices(page, "By size", &evaluation.by_size)?;
    slices(page, "By mirrored share", &evaluation.by_mirrored)?;
    slices(page, "Labels with the most mistakes", &evaluation.by_label)?;
    if let Some(random) = &evaluation.random {
        slices(page, "Crops chosen at random: the collection as a whole", std::slice::from_ref(random))?;
    }
    learning(page, &found.learning)?;
    consistency(page, &found.consistency)?;
    write!(page, "</main>\n</body>\n</html>\n")
}

/// A share as `0.947`, or a dash.
struct Share(Option<f64>);

impl Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(share) => write!(f, "{share:.3}"),
            None => f.write_str("–"),
        }
    }
}

fn table(page: &mut String, title: &str, columns: &[&str]) -> fmt::Result {
    write!(
        page,
        "<section>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\">\n\
         <table class=\"words-1\">\n<caption><h2>{title}</h2></caption>\n<thead><tr>"
    )?;
    for column in columns {
        write!(page, "<th scope=\"col\">{column}</th>")?;
    }
    writeln!(page, "</tr></thead>\n<tbody>")
}

fn end_table(page: &mut String) -> fmt::Result {
    writeln!(page, "</tbody>\n</table>\n</div>\n</section>")
}

fn figure_row(page: &mut String, name: &str, figure: &Figure) -> fmt::Result {
    let Figure { value, low, high } = *figure;
    writeln!(page, "<tr><td>{name}</td><td>{}</td><td>{}</td><td>{}</td></tr>", Share(value), Share(low), Share(high))
}

fn figures(page: &mut String, found: &ModelEvaluation) -> fmt::Result {
    let evaluation = &found.evaluation;
    table(page, "Figures", &["Figure", "Value", "From", "To"])?;
    for (name, figure) in [
        ("Accuracy", &evaluation.accuracy),
        ("Precision of OK", &evaluation.precision),
        ("Recall of OK", &evaluation.recall),
        ("F1 of OK", &evaluation.f1),
        ("Area under precision and recall", &evaluation.average_precision),
        ("Area under the ROC curve", &evaluation.auc),
        ("Calibration error", &evaluation.calibration_error),
    ] {
        figure_row(page, name, figure)?;
    }
    end_table(page)?;
    let measures = &evaluation.measures;
    let title = format!("At the threshold {:.3}", found.threshold);
    table(page, &title, &["Person", "Model: OK", "Model: NG"])?;
    writeln!(page, "<tr><td>OK</td><td>{}</td><td>{}</td></tr>", measures.ok_as_ok, measures.ok_as_ng)?;
    writeln!(page, "<tr><td>NG</td><td>{}</td><td>{}</td></tr>", measures.ng_as_ok, measures.ng_as_ng)?;
    end_table(page)
}

/// A square chart of points with coordinates from 0 to 1.
fn chart(page: &mut String, title: &str, across: &str, up: &str, points: &[(f64, f64)], diagonal: bool) -> fmt::Result {
    let place = |(x, y): (f64, f64)| format!("{:.1},{:.1}", 40.0 + CHART * x, 10.0 + CHART * (1.0 - y));
    let line: Vec<String> = points.iter().map(|point| place(*point)).collect();
    write!(
        page,
        "<figure>\n<svg class=\"chart\" viewBox=\"0 0 350 350\" role=\"img\" aria-label=\"{title}\">\n\
         <rect class=\"frame\" x=\"40\" y=\"10\" width=\"{CHART}\" height=\"{CHART}\"/>\n"
    )?;
    if diagonal {
        writeln!(page, "<polyline class=\"diagonal\" points=\"{} {}\"/>", place((0.0, 0.0)), place((1.0, 1.0)))?;
    }
    writeln!(page, "<polyline class=\"line\" points=\"{}\"/>", line.join(" "))?;
    for share in [0.0, 0.5, 1.0] {
        let (x, y) = (40.0 + CHART * share, 10.0 + CHART * (1.0 - share));
        writeln!(
            page,
            "<text class=\"x\" x=\"{x}\" y=\"326\">{share}</text><text class=\"y\" x=\"34\" y=\"{y}\">{share}</text>"
        )?;
    }
    write!(
        page,
        "<text class=\"x\" x=\"190\" y=\"344\">{across}</text>\n\
         <text class=\"x\" transform=\"rotate(-90)\" x=\"-160\" y=\"12\">{up}</text>\n</svg>\n\
         <figcaption>{title}</figcaption>\n</figure>\n"
    )
}

fn charts(page: &mut String, curve: &[CurvePoint], calibration: &[CalibrationBin]) -> fmt::Result {
    writeln!(page, "<section class=\"charts\">")?;
    let points: Vec<(f64, f64)> = curve.iter().map(|point| (point.recall, point.precision)).collect();
    chart(page, "Precision over recall", "recall", "precision", &points, false)?;
    let bins = calibration.iter().filter(|bin| bin.crops > 0).map(|bin| (bin.p_ok, bin.ok)).collect::<Vec<_>>();
    chart(page, "Share of OK over P(OK)", "P(OK)", "share of OK", &bins, true)?;
    writeln!(page, "</section>")
}

fn mistakes(page: &mut String, found: &ModelEvaluation) -> fmt::Result {
    let shown =
        found.evaluation.mistakes.iter().filter_map(|mistake| Some((mistake, found.pictures.get(&mistake.crop)?)));
    writeln!(page, "<section>\n<h2>Worst mistakes</h2>\n<div class=\"mistakes\">")?;
    for (mistake, picture) in shown {
        let (person, label) = (if mistake.ok { "OK" } else { "NG" }, EscapedHtml(&mistake.label));
        writeln!(
            page,
            "<figure><img src=\"data:image/jpeg;base64,{}\" alt=\"{label}\" width=\"160\" height=\"160\">\
             <figcaption>person {person}, P(OK) {:.3}<br>{label}</figcaption></figure>",
            STANDARD.encode(picture),
            mistake.p_ok,
        )?;
    }
    writeln!(page, "</div>\n</section>")
}

fn slices(page: &mut String, title: &str, slices: &[Slice]) -> fmt::Result {
    if slices.is_empty() {
        return Ok(());
    }
    table(page, title, &["Part", "Crops", "OK", "Accuracy", "Precision", "Recall"])?;
    for Slice { name, crops, ok, accuracy, precision, recall } in slices {
        writeln!(
            page,
            "<tr><td>{}</td><td>{crops}</td><td>{ok}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            EscapedHtml(name),
            Share(*accuracy),
            Share(*precision),
            Share(*recall),
        )?;
    }
    end_table(page)
}

fn learning(page: &mut String, points: &[LearningPoint]) -> fmt::Result {
    if points.is_empty() {
        return Ok(());
    }
    let columns = ["Verdicts for training", "Accuracy", "From", "To", "Area (precision, recall)", "From", "To"];
    table(page, "With fewer verdicts", &columns)?;
    for LearningPoint { verdicts, accuracy, average_precision } in points {
        write!(page, "<tr><td>{verdicts}</td>")?;
        for Figure { value, low, high } in [accuracy, average_precision] {
            write!(page, "<td>{}</td><td>{}</td><td>{}</td>", Share(*value), Share(*low), Share(*high))?;
        }
        writeln!(page, "</tr>")?;
    }
    end_table(page)
}

fn consistency(page: &mut String, people: &[Consistency]) -> fmt::Result {
    if people.is_empty() {
        return Ok(());
    }
    table(page, "How often people agree with themselves: the ceiling", &["Person", "Pairs", "Same", "Share"])?;
    for Consistency { person, pairs, same } in people {
        let share = (*pairs > 0).then(|| *same as f64 / *pairs as f64);
        let person = EscapedHtml(person);
        writeln!(page, "<tr><td>{person}</td><td>{pairs}</td><td>{same}</td><td>{}</td></tr>", Share(share))?;
    }
    end_table(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ContentHash;
    use crate::training::evaluation::{EvaluatedCrop, Evaluation};

    #[test]
    fn the_page_has_all_figures_loads_nothing_and_escapes_labels() {
        let crop = ContentHash::of(b"crop");
        let crops = [(crop, "<script>alert(1)</script>", false, 0.9), (ContentHash::of(b"other"), "Ada", true, 0.8)]
            .map(|(crop, label, ok, p_ok)| EvaluatedCrop {
                crop,
                group: label.into(),
                label: label.into(),
                ok,
                p_ok,
                size: Some(300),
                mirrored: 0.2,
                random: true,
            });
        let found = ModelEvaluation {
            model: "facemill-okng-1@0123abcd".into(),
            sha256: crop,
            threshold: 0.5,
            measured_on: "run main".into(),
            unreadable: 3,
            evaluation: Evaluation::of(&crops, 0.5, 1),
            learning: vec![LearningPoint {
                verdicts: 100,
                accuracy: Figure::default(),
                average_precision: Figure::default(),
            }],
            consistency: vec![Consistency { person: "ada".into(), pairs: 4, same: 3 }],
            pictures: [(crop, b"jpeg".to_vec())].into(),
        };
        let page = evaluation_page(&found, 1_700_000_000);
        for part in [
            "<tr><td>Accuracy</td><td>0.500</td>",
            "<tr><td>NG</td><td>1</td><td>0</td></tr>",
            "3 crops could not be read",
            "<tr><td>256 to 511</td><td>2</td>",
            "data:image/jpeg;base64,anBlZw==",
            "<tr><td>100</td><td>–</td>",
            "<tr><td>ada</td><td>4</td><td>3</td><td>0.750</td></tr>",
            "&lt;script&gt;",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains("http://") && !page.contains("https://"), "{page}");
    }
}
