//! The page in a real browser: it is laid out as it should be, light and dark, on a desk and on a telephone, and asks the
//! network for nothing. Needs Debian's `chromium-headless-shell`, which `./test` installs.

mod made;

use std::path::{Path, PathBuf};
use std::process::Command;

use made::more;
use portway_measure::report;
use resvg::tiny_skia::Pixmap;

/// The policy of the page, which the checks below must lift: they are scripts.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// What the reader may want, as the browser's engine counts it, and its name.
const SCHEMES: [(u8, &str); 2] = [(1, "light"), (0, "dark")];

/// What a script can tell of the layout: whether the page is wider than its window, which texts leave their drawing or lie on
/// one another, and which do not stand out from what is behind them as text should (WCAG 2.2, 1.4.3). And which scheme it is.
const ASK: &str = r"
const out = [];
const page = document.documentElement;
const dark = matchMedia('(prefers-color-scheme: dark)').matches;
// What is folded has a layout as well.
for (const details of document.querySelectorAll('details')) details.open = true;
if (page.scrollWidth > page.clientWidth) out.push('the page is ' + page.scrollWidth + ' wide in ' + page.clientWidth);
for (const svg of document.querySelectorAll('svg.plot')) {
  const box = svg.getBoundingClientRect();
  if (box.width < 200) out.push('a drawing is ' + box.width + ' wide');
  const texts = [...svg.querySelectorAll('text')].map(text => [text, text.getBoundingClientRect()]);
  for (const [text, at] of texts) {
    if (at.left < box.left - 1 || at.right > box.right + 1 || at.bottom > box.bottom + 1)
      out.push('outside: ' + text.textContent);
    for (const [other, place] of texts)
      if (other !== text && at.left + 1 < place.right && place.left + 1 < at.right && at.top + 4 < place.bottom && place.top + 4 < at.bottom)
        out.push('on one another: ' + text.textContent + ', ' + other.textContent);
  }
}
const parts = colour => (colour.match(/[\d.]+/g) || []).map(Number);
const bright = colour => {
  const [r, g, b] = parts(colour).map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = node => {
  for (; node; node = node.parentElement) {
    const ground = getComputedStyle(node).backgroundColor;
    if (parts(ground).length == 3 || parts(ground)[3] > 0) return ground;
  }
  return 'rgb(255, 255, 255)';
};
let texts = 0;
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const node = walk.currentNode.parentElement;
  if (!walk.currentNode.data.trim() || ['SCRIPT', 'title', 'desc'].includes(node.tagName)) continue;
  texts++;
  const style = getComputedStyle(node);
  const colour = node.closest('svg') ? style.fill : style.color;
  const [a, b] = [bright(colour), bright(behind(node))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (!(contrast >= 4.5)) out.push('cannot be read: ' + walk.currentNode.data + ', ' + colour + ' on ' + behind(node));
  if (parseFloat(style.fontSize) * (node.closest('svg') ? node.closest('svg').getBoundingClientRect().width / 440 : 1) < 8)
    out.push('is too small: ' + walk.currentNode.data);
}
if (texts < 500) out.push('only ' + texts + ' texts');
document.body.innerHTML = '<pre id=told>' + (dark ? 'dark' : 'light') + ', ' + page.clientWidth + ' wide, ' + out.length + ' complaints\n' + out.join('\n') + '</pre>';
";

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("browser-{name}"));
    std::fs::create_dir_all(&dir).expect("the build directory takes files");
    dir
}

/// Runs the browser on a file; no host has an address for it. What it prints.
fn browse(dir: &Path, page: &Path, arguments: &[String]) -> String {
    let output = Command::new("chromium-headless-shell")
        .args(["--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium-headless-shell (apt-get install chromium-headless-shell)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn nothing_is_cut_off_or_on_one_another_on_a_desk_and_on_a_telephone() {
    let dir = scratch("layout");
    let html = report::html(&more::whole());
    for drawing in
        ["packets-bulk-up", "series-rules-", "series-flows-", "series-concurrency-", "series-backends-"]
    {
        assert!(html.contains(&format!("aria-labelledby=\"{drawing}")), "{drawing} is not there");
    }
    assert!(html.contains(POLICY), "the page has no policy");
    let asked = html.replace(POLICY, "").replace("</body>", &format!("<script>{ASK}</script></body>"));
    let page = dir.join("report.html");
    std::fs::write(&page, asked).unwrap();
    for (width, scheme) in [1280, 390].into_iter().flat_map(|width| SCHEMES.map(|scheme| (width, scheme))) {
        let (number, name) = scheme;
        let window =
            [format!("--window-size={width},900"), format!("--blink-settings=preferredColorScheme={number}")];
        let told = browse(&dir, &page, &[&["--dump-dom".to_owned()], &window[..]].concat());
        let told = told.split("<pre id=\"told\">").nth(1).unwrap_or("the script did not run");
        assert!(told.starts_with(&format!("{name}, {width} wide, 0 complaints")), "{width}, {name}: {told}");
    }
}

#[test]
fn the_page_is_light_or_dark_as_the_reader_wants() {
    let dir = scratch("colours");
    let page = dir.join("report.html");
    std::fs::write(&page, report::html(&made::record(3, 0.03, 1))).unwrap();
    for ((scheme, name), ground) in SCHEMES.into_iter().zip([[0xff, 0xff, 0xff], [0x14, 0x17, 0x1c]]) {
        let picture = dir.join(format!("{name}.png"));
        browse(
            &dir,
            &page,
            &[
                format!("--blink-settings=preferredColorScheme={scheme}"),
                format!("--screenshot={}", picture.display()),
                "--window-size=1000,1500".into(),
            ],
        );
        let pixels = Pixmap::load_png(&picture).unwrap();
        let corner = pixels.pixel(1, 1).unwrap();
        assert_eq!([corner.red(), corner.green(), corner.blue()], ground, "{name}");
        // The bars' blue is there: the drawing has found its colours.
        let blue = |red: u8, green: u8, blue: u8| blue > 150 && red < 80 && green > 90 && green < 170;
        let count =
            pixels.pixels().iter().filter(|pixel| blue(pixel.red(), pixel.green(), pixel.blue())).count();
        assert!(count > 500, "{name}: {count} blue pixels");
    }
}
