//! The plots of a report, as SVG that fits a page of either brightness and as PNG.
//!
//! A drawing names what a shape is (a class), never its colour; the colours are [`style`]'s. Deliberately absent: what is
//! drawn (`report::figures`) and any script.

pub mod axis;
pub mod bars;
pub mod drawing;
pub mod lines;
pub mod moments;
pub mod png;
pub mod style;

pub use drawing::Drawing;
