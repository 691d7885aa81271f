//! An SVG with one line over time, and marks for events.

use std::fmt::Write;
use std::time::Duration;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 40.0;

/// A share over time.
pub struct Plot {
    /// Its title.
    pub title: String,
    /// The length of the time axis.
    pub length: Duration,
    /// Points: a time, and a share from 0 to 1.
    pub line: Vec<(Duration, f64)>,
    /// Events, and their times.
    pub marks: Vec<(Duration, String)>,
    /// The value that a share of 1 stands for.
    pub most: f64,
    /// The unit of the vertical axis.
    pub unit: &'static str,
}

impl Plot {
    /// Renders the plot.
    pub fn svg(&self) -> String {
        let mut svg = String::new();
        self.write(&mut svg).expect("it fits");
        svg
    }

    fn write(&self, svg: &mut String) -> std::fmt::Result {
        writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"11\">"
        )?;
        writeln!(svg, "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>")?;
        let title = &self.title;
        writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"18\" font-size=\"13\">{title}</text>"
        )?;
        for percent in [0, 25, 50, 75, 100] {
            let y = y(f64::from(percent) / 100.0);
            let right = WIDTH - RIGHT;
            writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}{}</text>",
                LEFT - 6.0,
                y + 4.0,
                self.most * f64::from(percent) / 100.0,
                self.unit
            )?;
        }
        for eighth in 0..=8_u32 {
            let at = self.length * eighth / 8;
            writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0} s</text>",
                self.x(at),
                HEIGHT - BOTTOM + 18.0,
                at.as_secs_f64()
            )?;
        }
        for (at, what) in &self.marks {
            let (x, foot) = (self.x(*at), HEIGHT - BOTTOM);
            writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{foot}\" stroke=\"#c33\" \
                 stroke-dasharray=\"3 3\"/><text transform=\"translate({:.1} {:.1}) rotate(-25)\" \
                 fill=\"#c33\">{what}</text>",
                x + 3.0,
                TOP - 6.0
            )?;
        }
        let points = self.line.iter();
        let points: Vec<String> = points
            .map(|(at, share)| format!("{:.1},{:.1}", self.x(*at), y(*share)))
            .collect();
        writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"#236\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        )?;
        writeln!(svg, "</svg>")
    }

    fn x(&self, at: Duration) -> f64 {
        let share = at.as_secs_f64() / self.length.as_secs_f64();
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }
}

fn y(share: f64) -> f64 {
    TOP + (1.0 - share) * (HEIGHT - TOP - BOTTOM)
}
