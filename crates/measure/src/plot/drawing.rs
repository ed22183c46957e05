//! One drawing: shapes written as SVG one after the other, and the same as a file of its own or as part of a page.
//!
//! Deliberately absent: layout. Whoever draws knows where things go.

use std::fmt::Write;

use super::style;

/// The width of every drawing: read on a telephone it is hardly scaled, so that its text stays legible.
pub const WIDTH: f64 = 440.0;

/// A drawing under way, or done.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawing {
    /// Its name in file names and ids: letters, digits and hyphens.
    pub name: String,
    /// What it shows, as a heading.
    pub title: String,
    /// What is to be seen in it, for those who do not see it.
    pub alt: String,
    /// In the units of the drawing, [`WIDTH`] wide.
    pub height: f64,
    body: String,
}

/// To which side of its place a text extends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// It is centred there.
    Middle,
    /// It ends there.
    End,
}

/// The shape of a point, so that lines can be told apart without their colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// A disc.
    Disc,
    /// A square.
    Square,
    /// A triangle.
    Triangle,
    /// A square on its corner.
    Diamond,
}

impl Drawing {
    /// An empty one.
    pub fn new(name: &str, title: &str, alt: String, height: f64) -> Self {
        Self { name: name.to_owned(), title: title.to_owned(), alt, height, body: String::new() }
    }

    /// A rectangle; of negative width it extends to the left.
    pub fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str) {
        let (x, width) = if width < 0.0 { (x + width, -width) } else { (x, width) };
        let (x, y, width, height) = (n(x), n(y), n(width), n(height));
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}"/>"#
        );
    }

    /// A rectangle in a class's colour with its pattern over it.
    pub fn filled(&mut self, x: f64, y: f64, width: f64, height: f64, class: &str) {
        self.rect(x, y, width, height, class);
        if let Some(pattern) = style::pattern(class) {
            let (x, width) = if width < 0.0 { (x + width, -width) } else { (x, width) };
            let (name, x, y, width, height) = (&self.name, n(x), n(y), n(width), n(height));
            let _ = writeln!(
                self.body,
                r##"<rect fill="url(#{name}-{pattern})" x="{x}" y="{y}" width="{width}" height="{height}"/>"##
            );
        }
    }

    /// A straight line.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let (x1, y1, x2, y2) = (n(from.0), n(from.1), n(to.0), n(to.1));
        let _ = writeln!(self.body, r#"<line class="{class}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#);
    }

    /// A line through points, dashed if `dash` says how.
    pub fn curve(&mut self, points: &[(f64, f64)], class: &str, dash: &str) {
        let points = joined(points);
        let dash = if dash.is_empty() { String::new() } else { format!(r#" stroke-dasharray="{dash}""#) };
        let _ = writeln!(self.body, r#"<polyline class="{class}" points="{points}"{dash}/>"#);
    }

    /// An area within points, with its class's pattern over it.
    pub fn area(&mut self, points: &[(f64, f64)], class: &str) {
        let (points, name) = (joined(points), &self.name);
        let _ = writeln!(self.body, r#"<polygon class="{class}" points="{points}"/>"#);
        if let Some(pattern) = style::pattern(class) {
            let _ = writeln!(self.body, r##"<polygon fill="url(#{name}-{pattern})" points="{points}"/>"##);
        }
    }

    /// A point, with words that a pointer held over it brings up; `words` may be empty.
    pub fn point(&mut self, at: (f64, f64), size: f64, marker: Marker, class: &str, words: &str) {
        let (x, y) = at;
        let shape = match marker {
            Marker::Disc => {
                format!(r#"<circle class="{class}" cx="{}" cy="{}" r="{}""#, n(x), n(y), n(size))
            }
            Marker::Square => polygon(
                class,
                &[(x - size, y - size), (x + size, y - size), (x + size, y + size), (x - size, y + size)],
            ),
            Marker::Triangle => polygon(
                class,
                &[(x, y - 1.3 * size), (x + 1.2 * size, y + 0.9 * size), (x - 1.2 * size, y + 0.9 * size)],
            ),
            Marker::Diamond => polygon(
                class,
                &[(x, y - 1.4 * size), (x + 1.4 * size, y), (x, y + 1.4 * size), (x - 1.4 * size, y)],
            ),
        };
        let element = if marker == Marker::Disc { "circle" } else { "polygon" };
        let _ = match words {
            "" => writeln!(self.body, "{shape}/>"),
            words => writeln!(self.body, "{shape}><title>{}</title></{element}>", escaped(words)),
        };
    }

    /// A text whose foot stands at a place.
    pub fn text(&mut self, at: (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let (x, y, text) = (n(at.0), n(at.1), escaped(text));
        let _ = writeln!(self.body, r#"<text class="{class}" x="{x}" y="{y}"{anchor}>{text}</text>"#);
    }

    /// A part of a page, which brings [`style::page`].
    pub fn inline(&self) -> String {
        self.element("")
    }

    /// A file of its own, light or dark as its viewer is.
    pub fn file(&self) -> String {
        let ground = format!(r#"<rect class="ground" width="{}" height="{}"/>"#, n(WIDTH), n(self.height));
        self.element(&format!("<style>{}</style>{ground}\n", style::file()))
    }

    fn element(&self, head: &str) -> String {
        let (name, title, alt) = (&self.name, escaped(&self.title), escaped(&self.alt));
        let (width, height, body) = (n(WIDTH), n(self.height), &self.body);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             class=\"plot\" role=\"img\" aria-labelledby=\"{name}-title {name}-alt\">\n\
             <title id=\"{name}-title\">{title}</title><desc id=\"{name}-alt\">{alt}</desc>\n{head}{}{body}</svg>\n",
            style::patterns(name)
        )
    }
}

fn polygon(class: &str, points: &[(f64, f64)]) -> String {
    format!(r#"<polygon class="{class}" points="{}""#, joined(points))
}

fn joined(points: &[(f64, f64)]) -> String {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{},{}", n(*x), n(*y))).collect();
    points.join(" ")
}

/// A coordinate with as many digits as can be seen.
fn n(coordinate: f64) -> String {
    let rounded = (coordinate * 10.0).round() / 10.0;
    // Minus zero is written as zero.
    format!("{}", rounded + 0.0)
}

/// Text as XML and HTML take it; control characters, which neither does, become a replacement character.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for each in text.chars() {
        match each {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\n' | '\t' => out.push(each),
            // XML 1.0, 2.2: what is no Char.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            each if each.is_control() => out.push('\u{fffd}'),
            each => out.push(each),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_become_markup() {
        assert_eq!(escaped("<script>&\"\u{0}\u{1b}"), "&lt;script&gt;&amp;&quot;\u{fffd}\u{fffd}");
    }

    #[test]
    fn coordinates_are_short() {
        assert_eq!(n(1.0), "1");
        assert_eq!(n(-0.01), "0");
        assert_eq!(n(2.349), "2.3");
    }
}
