//! A drawing as PNG, for where SVG is not shown. The font is compiled in: a gateway has none.

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};

use super::Drawing;

/// Pixels for each of the drawing's units.
const SCALE: f32 = 2.0;

/// Why there is no picture.
#[derive(Debug)]
pub enum PngError {
    /// The drawing is no SVG that the renderer takes.
    Svg(usvg::Error),
    /// The picture would have no pixels, or too many.
    Size,
    /// The pixels could not be written as PNG.
    Encoding(String),
}

impl std::fmt::Display for PngError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Svg(reason) => write!(f, "the drawing cannot be rendered: {reason}"),
            Self::Size => write!(f, "the drawing has no size that can be rendered"),
            Self::Encoding(reason) => write!(f, "the picture cannot be written: {reason}"),
        }
    }
}

impl std::error::Error for PngError {}

/// Whether pictures can show a sign: the font is a part of one (font/README.md). Of others they show a box.
pub fn shows(sign: char) -> bool {
    matches!(sign, ' '..='~') || " °±µ·×–—‘’…→−≈≤≥▸\u{fffd}".contains(sign)
}

/// Renders drawings; reads the font once.
pub struct Renderer {
    options: usvg::Options<'static>,
}

impl Default for Renderer {
    fn default() -> Self {
        let mut fonts = fontdb::Database::new();
        fonts.load_font_data(include_bytes!("../../font/roboto-Regular.ttf").to_vec());
        fonts.load_font_data(include_bytes!("../../font/roboto-Medium.ttf").to_vec());
        let options =
            usvg::Options { fontdb: Arc::new(fonts), font_family: "Roboto".to_owned(), ..Default::default() };
        Self { options }
    }
}

impl Renderer {
    /// The drawing on its light ground.
    pub fn png(&self, drawing: &Drawing) -> Result<Vec<u8>, PngError> {
        let tree = usvg::Tree::from_str(&drawing.file(), &self.options).map_err(PngError::Svg)?;
        let size = tree.size().to_int_size().scale_by(SCALE).ok_or(PngError::Size)?;
        let mut pixels = Pixmap::new(size.width(), size.height()).ok_or(PngError::Size)?;
        resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
        pixels.encode_png().map_err(|reason| PngError::Encoding(reason.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::drawing::{Anchor, WIDTH};

    #[test]
    fn letters_leave_ink() {
        let inked = |text: &str| {
            let mut drawing = Drawing::new("x", "x", String::new(), 20.0);
            drawing.text((5.0, 15.0), Anchor::Start, "strong", text);
            let png = Renderer::default().png(&drawing).unwrap();
            let pixels = Pixmap::decode_png(&png).unwrap();
            assert_eq!(pixels.width(), (WIDTH as f32 * SCALE) as u32);
            pixels.pixels().iter().filter(|pixel| pixel.red() < 128).count()
        };
        assert_eq!(inked(""), 0);
        assert!(inked("portway – 12.5 µs") > inked("p"), "the font is not there");
        assert!(
            "portway – 12.5 µs".chars().all(shows)
                && !"путь ä".chars().any(|each| shows(each) && each != ' ')
        );
    }
}
