//! Draws the chart of picks from the last `cargo bench -p benches --bench rendezvous`, and prints its figures as a table:
//! `cargo run -p benches --bin chart [CRITERION-DIR [SVG]]`, by default from `target/criterion` to
//! `ws-routing/docs/owner.svg`.
//!
//! A figure is the fastest of a benchmark's samples: whatever else the machine does can only add to it.

#![allow(clippy::print_stdout)]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use plotters::prelude::*;
use serde::Deserialize;

/// What is drawn, in the legend's order.
const CRATES: [(&str, RGBColor); 10] = [
    ("ws-routing", RGBColor(214, 39, 40)),
    ("hrw-hash", RGBColor(31, 119, 180)),
    ("rendezvous_hash", RGBColor(23, 190, 207)),
    ("hash-rings", RGBColor(0, 60, 120)),
    ("hashring", RGBColor(44, 160, 44)),
    ("pingora-ketama", RGBColor(110, 190, 60)),
    ("maglev", RGBColor(148, 103, 189)),
    ("hash-rings-maglev", RGBColor(190, 140, 220)),
    ("jump-consistent-hash", RGBColor(255, 127, 14)),
    ("anchorhash", RGBColor(127, 127, 127)),
];

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace has a folder")?;
    let mut args = env::args_os().skip(1).map(PathBuf::from);
    let criterion = args.next().unwrap_or_else(|| root.join("target/criterion"));
    let svg = args.next().unwrap_or_else(|| root.join("ws-routing/docs/owner.svg"));

    let lines = CRATES
        .iter()
        .map(|&(name, color)| Ok(Line { name, color, points: read(&criterion.join("owner").join(name))? }))
        .collect::<Result<Vec<_>>>()?;
    if let Some(folder) = svg.parent() {
        fs::create_dir_all(folder)?;
    }
    print(&lines);
    draw(&svg, &lines)
}

/// The fastest samples of one crate.
fn read(folder: &Path) -> Result<Vec<(f64, f64)>> {
    let mut points = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("{}: run the bench first", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let Some(n) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let sample: Sample = serde_json::from_slice(&fs::read(entry.path().join("new/sample.json"))?)?;
        let each = sample.times.iter().zip(&sample.iters).map(|(time, iters)| time / iters);
        points.push((f64::from(n), each.fold(f64::INFINITY, f64::min)));
    }
    ensure!(!points.is_empty(), "{}: no sizes", folder.display());
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(points)
}

/// What criterion writes down: nanoseconds, and how many iterations took them.
#[derive(Deserialize)]
struct Sample {
    times: Vec<f64>,
    iters: Vec<f64>,
}

fn print(lines: &[Line]) {
    let sizes = || lines.iter().flat_map(|line| line.points.iter().take(5).map(|point| point.0)).take(5);
    println!("| ns per pick, by nodes | {} |", sizes().map(thousands).collect::<Vec<_>>().join(" | "));
    println!("| --- |{}", " ---: |".repeat(sizes().count()));
    for Line { name, points, .. } in lines {
        println!(
            "| {name} | {} |",
            points.iter().map(|point| thousands(point.1)).collect::<Vec<_>>().join(" | ")
        );
    }
}

struct Line {
    name: &'static str,
    color: RGBColor,
    /// Number of nodes, nanoseconds a pick.
    points: Vec<(f64, f64)>,
}

fn draw(svg: &Path, lines: &[Line]) -> Result<()> {
    let area = SVGBackend::new(svg, (860, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Owner of a key: time per pick, by number of nodes", ("sans-serif", 20))
        .margin(12)
        .margin_right(190)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((3.0..10_000.0).log_scale(), (3.0..3_000_000.0).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("nodes")
        .y_desc("nanoseconds per pick")
        .x_label_formatter(&|n| format!("{n:.0}"))
        .y_label_formatter(&|ns| format!("{ns:.0}"))
        .light_line_style(WHITE)
        .draw()?;
    for Line { name, color, points } in lines {
        let style = color.stroke_width(if *name == "ws-routing" { 4 } else { 2 });
        chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
    }
    legend(&area, lines)?;
    area.present()?;
    Ok(())
}

/// Beside the chart, where it covers no line, in the order in which the lines end.
fn legend(area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>, lines: &[Line]) -> Result<()> {
    let end = |points: &[(f64, f64)]| points.last().map_or(0.0, |point| point.1);
    let mut order: Vec<_> = lines.iter().collect();
    order.sort_by(|a, b| end(&b.points).total_cmp(&end(&a.points)));
    for (row, Line { name, color, points }) in (0..).zip(order) {
        let y = 60 + row * 24;
        area.draw(&PathElement::new([(684, y), (708, y)], color.stroke_width(3)))?;
        let text = format!("{name}: {} ns", thousands(end(points)));
        area.draw(&Text::new(text, (714, y - 6), ("sans-serif", 12)))?;
    }
    area.draw(&Text::new("at 10,000 nodes:", (684, 34), ("sans-serif", 12)))?;
    Ok(())
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|g| str::from_utf8(g).ok()).collect();
    groups.join(",")
}
