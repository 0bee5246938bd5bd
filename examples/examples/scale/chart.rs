//! Keys moved by each event, one bar for each scheme.

use std::{fs, path::Path};

use anyhow::Result;
use plotters::prelude::*;

use super::{Event, Report};

const COLORS: [RGBColor; 3] = [RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)];

pub(crate) fn draw(svg: &Path, events: &[Event], reports: &[Report]) -> Result<()> {
    if let Some(folder) = svg.parent() {
        fs::create_dir_all(folder)?;
    }
    let ratio = |report: &Report, at: usize| report.outcomes[at].moved / report.outcomes[at].needed;
    let most =
        reports.iter().flat_map(|report| (0..events.len()).map(|at| ratio(report, at))).fold(1.0, f64::max);
    let area = SVGBackend::new(svg, (860, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Keys moved, as a multiple of what is needed", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..events.len() as f64, 0.0..most * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_label_formatter(&|ratio| format!("{ratio:.1} ×"))
        .light_line_style(WHITE)
        .draw()?;
    for (nth, (report, color)) in reports.iter().zip(COLORS).enumerate() {
        let left = |at: usize| at as f64 + 0.14 + 0.24 * nth as f64;
        chart
            .draw_series((0..events.len()).map(|at| {
                Rectangle::new([(left(at), 0.0), (left(at) + 0.22, ratio(report, at))], color.filled())
            }))?
            .label(report.name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], color.filled()));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    let width = (860 - 56 - 24) / i32::try_from(events.len())?;
    for (at, event) in (0..).zip(events) {
        area.draw(&Text::new(event.name.clone(), (56 + 12 + at * width + 10, 390), ("sans-serif", 12)))?;
    }
    area.present()?;
    Ok(())
}
