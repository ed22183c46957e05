//! The pictures show what their drawings say: each colour where its shapes are, and about as much of it. One drawing of each
//! kind, as SVG beside the pixels of its PNG.

mod made;

use std::collections::BTreeMap;
use std::path::Path;

use made::more;
use portway_measure::report;
use resvg::tiny_skia::Pixmap;
use roxmltree::{Document, Node};

/// Pixels for each of a drawing's units.
const SCALE: f64 = 2.0;
/// How far, in pixels, a colour may reach beyond its shapes: curves have markers at their ends and beside their names.
const NEAR: f64 = 20.0;

/// What is to be seen of a colour: its shapes' area, and the box around them, in pixels.
#[derive(Clone, Copy, Debug)]
struct Seen {
    area: f64,
    /// Left, top, right, bottom.
    around: [f64; 4],
}

const NOTHING: Seen =
    Seen { area: 0.0, around: [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY] };

impl Seen {
    fn add(&mut self, area: f64, points: &[(f64, f64)]) {
        self.area += area;
        for (x, y) in points {
            let [left, top, right, bottom] = self.around;
            self.around = [left.min(*x), top.min(*y), right.max(*x), bottom.max(*y)];
        }
    }
}

fn number(node: &Node, name: &str) -> f64 {
    SCALE
        * node
            .attribute(name)
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or_else(|| panic!("no {name}"))
}

/// The corners of a shape, in pixels.
fn points(node: &Node) -> Vec<(f64, f64)> {
    let text = node.attribute("points").expect("a shape of points");
    let point = |pair: &str| {
        let (x, y) = pair.split_once(',').expect("two coordinates");
        [x, y].map(|each| SCALE * each.parse::<f64>().expect("a coordinate")).into()
    };
    text.split(' ').map(point).collect()
}

/// What a drawing has of each class among these: rectangles and areas as they are, curves as broad as they are drawn.
fn drawn(svg: &Document, classes: &[&str], broad: f64) -> BTreeMap<String, Seen> {
    let mut all = BTreeMap::new();
    for node in svg.descendants() {
        let names = node.attribute("class").unwrap_or_default();
        let Some(class) = classes.iter().find(|class| names.split(' ').any(|name| name == **class)) else {
            continue;
        };
        let seen: &mut Seen = all.entry((*class).to_owned()).or_insert(NOTHING);
        match node.tag_name().name() {
            "rect" => {
                let [x, y, width, height] = ["x", "y", "width", "height"].map(|name| number(&node, name));
                seen.add(width * height, &[(x, y), (x + width, y + height)]);
            }
            "polygon" => {
                let corners = points(&node);
                let next = corners.iter().cycle().skip(1);
                let twice: f64 = corners.iter().zip(next).map(|(a, b)| a.0 * b.1 - b.0 * a.1).sum();
                seen.add(twice.abs() / 2.0, &corners);
            }
            "polyline" => {
                let corners = points(&node);
                let length = |pair: &[(f64, f64)]| (pair[1].0 - pair[0].0).hypot(pair[1].1 - pair[0].1);
                seen.add(corners.windows(2).map(length).sum::<f64>() * broad * SCALE, &corners);
            }
            _ => (),
        }
    }
    all
}

/// The colour of a class on light ground, which comes first in a drawing's style.
fn colour(svg: &str, class: &str) -> [u8; 3] {
    let (_, rule) =
        svg.split_once(&format!(".plot .{class}{{")).unwrap_or_else(|| panic!("no rule of {class}"));
    let (_, hex) = rule.split_once('#').expect("a colour");
    [0, 2, 4].map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a colour has six digits"))
}

/// What a picture has of a colour.
fn painted(picture: &Pixmap, colour: [u8; 3]) -> Seen {
    let mut seen = NOTHING;
    for (place, pixel) in picture.pixels().iter().enumerate() {
        if [pixel.red(), pixel.green(), pixel.blue()] == colour {
            let (x, y) = (place as u32 % picture.width(), place as u32 / picture.width());
            seen.add(1.0, &[(f64::from(x), f64::from(y)), (f64::from(x) + 1.0, f64::from(y) + 1.0)]);
        }
    }
    seen
}

#[test]
fn each_colour_is_where_its_shapes_are() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    let _ = std::fs::remove_dir_all(&dir);
    report::write_all(&more::whole(), &dir).unwrap();
    // Which part of its shapes a colour is: patterns and what lies above take from it, edges are mixed with the ground, and of
    // curves there are markers beside.
    let areas: (&[&str], f64, f64, f64) = (&["kernel", "user", "softirq"], 0.0, 0.4, 1.02);
    let curves: (&[&str], f64, f64, f64) =
        (&["s-routing", "s-rules", "s-program", "s-portway"], 1.8, 0.3, 1.3);
    for (name, (classes, broad, least, most), colours) in [
        ("cost-connections", areas, 2),
        ("memory-idle", areas, 2),
        ("packets-connections", areas, 3),
        ("cpu-connections", areas, 3),
        ("latency-connections", curves, 4),
        ("series-concurrency-connections", curves, 4),
        ("series-rules-connections", curves, 3),
    ] {
        let text = std::fs::read_to_string(dir.join(format!("plots/{name}.svg"))).unwrap();
        let svg = Document::parse(&text).unwrap();
        let picture = Pixmap::load_png(dir.join(format!("plots/{name}.png"))).unwrap();
        let size = ["width", "height"].map(|side| number(&svg.root_element(), side).round() as u32);
        assert_eq!([picture.width(), picture.height()], size, "{name}");
        assert!(picture.pixels().iter().all(|pixel| pixel.alpha() == 255), "{name} has no ground");
        let classes = drawn(&svg, classes, broad);
        assert_eq!(classes.len(), colours, "{name}: {:?}", classes.keys());
        for (class, wanted) in classes {
            let found = painted(&picture, colour(&text, &class));
            let share = found.area / wanted.area;
            assert!((least..most).contains(&share), "{name}, {class}: {share:.2} of {wanted:?}");
            let [[left, top, right, bottom], [from, above, to, below]] = [wanted.around, found.around];
            assert!(
                from >= left - NEAR && above >= top - NEAR && to <= right + NEAR && below <= bottom + NEAR,
                "{name}, {class} is outside of its shapes: {wanted:?}, {found:?}"
            );
            assert!(
                to - from >= 0.9 * (right - left) && below - above >= 0.9 * (bottom - top),
                "{name}, {class} does not fill its shapes: {wanted:?}, {found:?}"
            );
        }
        // Words are written in it, and little else is.
        assert!(painted(&picture, colour(&text, "small")).area > 300.0, "{name}: no words");
    }
}
