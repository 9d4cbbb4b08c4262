//! The report as pictures.

use std::path::Path;

use plotters::prelude::*;

use crate::Row;

const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x5f, 0xa3),
    RGBColor(0xc0, 0x39, 0x2b),
    RGBColor(0x2e, 0x8b, 0x57),
    RGBColor(0xd3, 0x8b, 0x00),
    RGBColor(0x7d, 0x3c, 0x98),
    RGBColor(0x80, 0x80, 0x80),
];

/// Draws the throughput by size of one group of rows, this library and its peers, as SVG.
///
/// # Errors
/// When the file cannot be written.
pub fn by_size(
    rows: &[Row],
    (group, peers): (&str, &[&str]),
    title: &str,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let point = |row: &Row| -> Option<(f64, String)> {
        let mut parts = row.name.strip_prefix(group)?.strip_prefix('/')?.split('/');
        Some((parts.next()?.parse().ok()?, parts.next()?.to_owned()))
    };
    let mut series: Vec<(&str, Vec<(f64, f64)>)> = vec![("atrest", Vec::new())];
    series.extend(peers.iter().map(|peer| (*peer, Vec::new())));
    for row in rows {
        let Some((size, peer)) = point(row) else { continue };
        if let Some((_, points)) = series.iter_mut().find(|(name, _)| **name == peer) {
            points.push((size, row.peer));
        }
        if Some(&*peer) == peers.first().copied() {
            series[0].1.push((size, row.atrest));
        }
    }
    let lowest = series.iter().flat_map(|(_, points)| points).map(|(x, _)| *x);
    let lowest = lowest.fold(1_048_576_f64, f64::min);
    let highest = series.iter().flat_map(|(_, points)| points).map(|(_, y)| *y).fold(1.0, f64::max);
    let root = SVGBackend::new(path, (860, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d((lowest..1_048_576_f64).log_scale(), 0_f64..highest * 1.1)?;
    chart
        .configure_mesh()
        .x_desc("bytes in one call")
        .y_desc("GB/s")
        .x_label_formatter(&|size| match *size as u64 {
            size if size >= 1 << 20 => format!("{} MiB", size >> 20),
            size if size >= 1 << 10 => format!("{} KiB", size >> 10),
            size => format!("{size} B"),
        })
        .draw()?;
    for (index, (name, points)) in series.into_iter().enumerate() {
        let style = COLOURS[index].stroke_width(if index == 0 { 3 } else { 2 });
        chart
            .draw_series(LineSeries::new(points.clone(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
        chart.draw_series(
            points.into_iter().map(|point| Circle::new(point, 3, COLOURS[index].filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

/// The bar of a row of files against plain ones: operation and way, and the ratio.
fn bar(row: &Row) -> Option<(String, f64)> {
    let (operation, way) = row.name.strip_prefix("file/")?.split_once("/plain")?;
    let way = way.strip_prefix('/').unwrap_or("suite-1");
    row.unit.ends_with("/s").then(|| (format!("{operation} {way}"), row.ratio))
}

/// Draws ratios to plain files as bars, as SVG.
///
/// # Errors
/// When the file cannot be written.
pub fn files(rows: &[Row], machine: &str, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let bars: Vec<(String, f64)> = rows.iter().filter_map(bar).collect();
    let longest = bars.iter().map(|(_, ratio)| *ratio).fold(1.1, f64::max);
    let root = SVGBackend::new(path, (860, 90 + 28 * bars.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Throughput over plain, {machine}"), ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(180)
        .build_cartesian_2d(0_f64..longest * 1.1, (0..bars.len()).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len().max(1))
        .y_label_formatter(&|segment| match segment {
            SegmentValue::CenterOf(index) => {
                bars.get(*index).map_or(String::new(), |(name, _)| name.clone())
            }
            _ => String::new(),
        })
        .draw()?;
    chart.draw_series(bars.iter().enumerate().map(|(index, (_, ratio))| {
        let from = (0.0, SegmentValue::Exact(index));
        let to = (*ratio, SegmentValue::Exact(index + 1));
        let mut bar = Rectangle::new([from, to], COLOURS[0].mix(0.8).filled());
        bar.set_margin(4, 4, 0, 0);
        bar
    }))?;
    chart.draw_series(std::iter::once(PathElement::new(
        vec![(1.0, SegmentValue::Exact(0)), (1.0, SegmentValue::Exact(bars.len()))],
        COLOURS[1].stroke_width(2),
    )))?;
    root.present()?;
    Ok(())
}
