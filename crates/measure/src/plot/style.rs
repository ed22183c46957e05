//! The colours of drawings and pages, light and dark, in one place.
//!
//! The hues are those of Okabe and Ito (Color Universal Design, 2008), which people with any common kind of colour blindness
//! tell apart; and nothing is told by colour alone: what is stacked has patterns, lines have dashes, markers and their names.

use std::fmt::Write;

/// What has a colour: its name, light, dark.
const COLOURS: [(&str, &str, &str); 14] = [
    ("ground", "#ffffff", "#14171c"),
    ("raised", "#f5f7f9", "#1e232a"),
    ("ink", "#1a1f26", "#e8ebef"),
    ("quiet", "#59626e", "#a3acb8"),
    ("grid", "#dde2e8", "#323943"),
    ("accent", "#0060a8", "#6cb6ec"),
    ("warn", "#fff3d6", "#3a2e10"),
    ("kernel", "#2f7fb8", "#3f8fc8"),
    ("user", "#eda52d", "#d08f1c"),
    ("softirq", "#8cc7e8", "#a7d8f2"),
    ("routing", "#6b7480", "#98a2ae"),
    ("rules", "#a2559a", "#d68fcd"),
    ("program", "#c8501f", "#f08a5a"),
    ("portway", "#008561", "#35c79c"),
];

/// How the classes of drawings look; a colour's name in braces stands for it.
const CLASSES: &str = "\
.plot text{font-family:Roboto,system-ui,-apple-system,'Segoe UI',sans-serif;font-size:12px;fill:{ink}}\
.plot .small{font-size:11px;fill:{quiet}}\
.plot .strong{font-family:'Roboto Medium',Roboto,system-ui,-apple-system,'Segoe UI',sans-serif;font-weight:500}\
.plot .ground{fill:{ground}}\
.plot .grid{stroke:{grid};stroke-width:1}\
.plot .axis{stroke:{quiet};stroke-width:1}\
.plot .spread{stroke:{ink};stroke-width:1.5}\
.plot .dot{fill:{ground};stroke:{ink};stroke-width:1.2}\
.plot .ring{fill:none;stroke:{ink};stroke-width:1.3}\
.plot .far{fill:{ink};stroke:{ground};stroke-width:1}\
.plot .kernel{fill:{kernel}}.plot .user{fill:{user}}.plot .softirq{fill:{softirq}}\
.plot .total,.plot .rest{fill:{quiet}}\
.plot .hatch{stroke:{ink};stroke-opacity:.45;stroke-width:1.4}\
.plot .speck{fill:{ink};fill-opacity:.45}\
.plot .forwarder{fill:none;stroke:{ink};stroke-width:1.8}\
.plot .curve{fill:none;stroke-width:1.8}\
.plot .leader{stroke-width:.7;fill:none;stroke-opacity:.6}\
.plot .s-routing{stroke:{routing}}.plot .s-rules{stroke:{rules}}.plot .s-program{stroke:{program}}.plot .s-portway{stroke:{portway}}\
.plot .f-routing{fill:{routing}}.plot .f-rules{fill:{rules}}.plot .f-program{fill:{program}}.plot .f-portway{fill:{portway}}";

/// The pattern of a class, by name: what is stacked can be told apart without colours.
pub fn pattern(class: &str) -> Option<&'static str> {
    match class {
        "user" => Some("hatch"),
        "softirq" => Some("speck"),
        _ => None,
    }
}

/// The patterns, as definitions whose ids begin with a drawing's name.
pub fn patterns(name: &str) -> String {
    format!(
        "<defs><pattern id=\"{name}-hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <line class=\"hatch\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\"/></pattern>\
         <pattern id=\"{name}-speck\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\">\
         <circle class=\"speck\" cx=\"2\" cy=\"2\" r=\".9\"/></pattern></defs>\n"
    )
}

/// The rules of a page: variables for both brightnesses, and the classes of its drawings by them.
pub fn page() -> String {
    let variables = |dark: bool| {
        COLOURS.into_iter().fold(String::new(), |mut all, (name, of_light, of_dark)| {
            let _ = write!(all, "--{name}:{};", if dark { of_dark } else { of_light });
            all
        })
    };
    let classes = coloured(|name, _, _| format!("var(--{name})"));
    format!(
        ":root{{color-scheme:light dark;{}}}\n@media (prefers-color-scheme:dark){{:root{{{}}}}}\n{classes}\n",
        variables(false),
        variables(true)
    )
}

/// The rules of a drawing in a file of its own. They hold no variables, which not every viewer of SVG knows.
pub fn file() -> String {
    let [light, dark] = [false, true]
        .map(|dark| coloured(|_, of_light, of_dark| if dark { of_dark } else { of_light }.to_owned()));
    format!("{light}@media (prefers-color-scheme:dark){{{dark}}}")
}

fn coloured(colour: impl Fn(&str, &'static str, &'static str) -> String) -> String {
    COLOURS.into_iter().fold(CLASSES.to_owned(), |classes, (name, light, dark)| {
        classes.replace(&format!("{{{name}}}"), &colour(name, light, dark))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance (WCAG 2.2).
    fn luminance(colour: &str) -> f64 {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_and_lines_stand_out_from_both_grounds() {
        let (_, light_ground, dark_ground) = COLOURS[0];
        for (name, light, dark) in COLOURS.into_iter() {
            // WCAG 2.2, 1.4.3 (text) and 1.4.11 (graphics).
            let least = match name {
                "ink" | "quiet" | "accent" => 4.5,
                "routing" | "rules" | "program" | "portway" | "kernel" => 3.0,
                _ => continue,
            };
            for (colour, ground) in [(light, light_ground), (dark, dark_ground)] {
                let contrast = contrast(colour, ground);
                assert!(contrast >= least, "{name}: {contrast:.2} on {ground}");
            }
        }
    }

    #[test]
    fn every_colour_is_replaced() {
        assert!(!file().contains("{ink}") && !page().contains("{portway}"));
    }
}
