//! A report as one HTML file: its style and its drawings within, nothing fetched, no script.
//!
//! Read on a telephone and aloud as well: one column where there is no room for two, tables that scroll by themselves, a
//! table beside each drawing, headings in order. The policy in its head forbids every request, should text ever become markup.

use std::fmt::Write;

use super::document::{Block, Table};
use super::marks;
use crate::plot::Drawing;
use crate::plot::drawing::escaped;
use crate::plot::style;

/// How a page is laid out. Colours are `plot::style`'s.
const LAYOUT: &str = "\
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:16px/1.5 Roboto,system-ui,-apple-system,'Segoe UI',sans-serif}
main{max-width:82rem;margin:0 auto;padding:1rem 1rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:1.5rem 0 .5rem}
h2{font-size:1.35rem;line-height:1.25;margin:3rem 0 .5rem;padding-top:1rem;border-top:1px solid var(--grid)}
h3{font-size:1.05rem;margin:1.8rem 0 .4rem}
p,ul{max-width:46rem;margin:.5rem 0}
ul{padding-left:1.3rem}
a{color:var(--accent)}
nav ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;max-width:none}
.warning{background:var(--warn);border-left:4px solid var(--user);padding:.6rem .9rem;border-radius:0 4px 4px 0}
pre{background:var(--raised);padding:.7rem .9rem;border-radius:4px;overflow-x:auto;font:13px/1.45 ui-monospace,Menlo,Consolas,monospace}
.pair{display:grid;grid-template-columns:minmax(0,1fr);gap:.5rem 2rem;margin:1.2rem 0;align-items:start}
figure{margin:0}
.plot{display:block;width:100%;max-width:33rem;height:auto}
.scroll{overflow-x:auto;max-width:100%}
.scroll:focus-visible,a:focus-visible,summary:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums lining-nums}
.note{color:var(--quiet);font-size:.86rem}
caption{text-align:left;color:var(--quiet);padding:.2rem 0 .4rem;caption-side:top}
th,td{padding:.3rem .6rem;text-align:right;vertical-align:top;border-bottom:1px solid var(--grid)}
tbody th,.half{white-space:nowrap}
.half{color:var(--quiet)}
thead th{color:var(--quiet);font-weight:500;vertical-align:bottom;min-width:4.5rem}
th:first-child,td:first-child{text-align:left;padding-left:0}
tbody th{font-weight:500}
.words td{text-align:left}
.words thead th{text-align:left}
details{margin:.4rem 0}
summary{cursor:pointer}
@media (min-width:60rem){.pair{grid-template-columns:minmax(0,29rem) minmax(0,1fr)}}
@media print{h2,.pair{break-inside:avoid}}
";

/// Writes blocks as a page.
pub fn html(title: &str, blocks: &[Block]) -> String {
    let mut body = String::new();
    let mut sections = Sections::default();
    for block in blocks {
        write(&mut body, block, &mut sections);
        if matches!(block, Block::Heading(1, _)) {
            body += CONTENTS;
        }
    }
    let contents = sections.contents();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\"/>\n\
         <title>{}</title>\n<style>\n{}{LAYOUT}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
        escaped(title),
        style::page(),
        body.replacen(CONTENTS, &contents, 1)
    )
}

/// Stands for the table of contents until all sections are known. Text that is escaped cannot hold it.
const CONTENTS: &str = "<contents/>";

/// The sections so far: id and heading.
#[derive(Default)]
struct Sections(Vec<(String, String)>);

impl Sections {
    fn add(&mut self, heading: &str) -> String {
        let id = format!("section-{}", self.0.len() + 1);
        self.0.push((id.clone(), heading.to_owned()));
        id
    }

    fn contents(&self) -> String {
        let items = self.0.iter().fold(String::new(), |mut items, (id, heading)| {
            let _ = write!(items, "<li><a href=\"#{id}\">{}</a></li>", escaped(heading));
            items
        });
        if items.is_empty() {
            return items;
        }
        format!("<nav aria-label=\"Contents\"><ul>{items}</ul></nav>\n")
    }
}

fn write(out: &mut String, block: &Block, sections: &mut Sections) {
    let _ = match block {
        Block::Heading(2, text) => writeln!(out, "<h2 id=\"{}\">{}</h2>", sections.add(text), escaped(text)),
        Block::Heading(level, text) => writeln!(out, "<h{level}>{}</h{level}>", escaped(text)),
        Block::Paragraph(text) => writeln!(out, "<p>{}</p>", escaped(text)),
        Block::Warning(text) => {
            writeln!(out, "<p class=\"warning\"><strong>Warning:</strong> {}</p>", escaped(text))
        }
        Block::List(items) => {
            *out += "<ul>\n";
            for item in items {
                let _ = writeln!(out, "<li>{}</li>", escaped(item));
            }
            writeln!(out, "</ul>")
        }
        Block::Code(text) => writeln!(out, "<pre tabindex=\"0\"><code>{}</code></pre>", escaped(text)),
        Block::Table(table) => write_table(out, table),
        Block::Figure(drawings, table) => {
            let drawings: String = drawings.iter().map(Drawing::inline).collect();
            let _ = write!(out, "<div class=\"pair\">\n<figure>\n{drawings}</figure>\n");
            *out += "<div>\n";
            let _ = write_table(out, table);
            writeln!(out, "</div>\n</div>")
        }
        Block::Files(files) => {
            *out += "<ul>\n";
            for (what, place) in files {
                let _ = writeln!(out, "<li><a href=\"{}\">{}</a></li>", escaped(place), escaped(what));
            }
            writeln!(out, "</ul>")
        }
        Block::Details(heading, blocks) => {
            let _ = writeln!(out, "<details>\n<summary>{}</summary>", escaped(heading));
            blocks.iter().for_each(|block| write(out, block, sections));
            writeln!(out, "</details>")
        }
    };
}

/// A cell whose middle half, in brackets and with the mark that it is too wide, stays on one line and behind the median.
fn figure(cell: &str) -> String {
    let text = escaped(cell);
    match (text.find('('), text.find(')')) {
        (Some(from), Some(to)) if from < to && text[from..to].contains('–') => {
            let marked = text[to + 1..].strip_prefix(' ').is_some_and(|rest| rest.starts_with(marks::WIDE));
            let end = to + 1 + if marked { 1 + marks::WIDE.len() } else { 0 };
            format!("{}<span class=\"half\">{}</span>{}", &text[..from], &text[from..end], &text[end..])
        }
        _ => text,
    }
}

fn write_table(out: &mut String, table: &Table) -> std::fmt::Result {
    // Columns of words are set as words, columns of figures as figures.
    let is_figure = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '−' | '–'));
    let words = !table.rows.iter().all(|row| row.iter().skip(1).all(is_figure));
    let class = if words { " class=\"words\"" } else { "" };
    let (label, caption) = (escaped(&table.caption), escaped(&table.caption));
    writeln!(out, "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\">")?;
    writeln!(out, "<table{class}>\n<caption>{caption}</caption>\n<thead><tr>")?;
    for name in &table.head {
        write!(out, "<th scope=\"col\">{}</th>", escaped(name))?;
    }
    writeln!(out, "</tr></thead>\n<tbody>")?;
    for row in &table.rows {
        write!(out, "<tr>")?;
        for (place, cell) in row.iter().enumerate() {
            match place {
                0 => write!(out, "<th scope=\"row\">{}</th>", escaped(cell))?,
                _ => write!(out, "<td>{}</td>", figure(cell))?,
            }
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody>\n</table>\n</div>")?;
    match table.note.as_str() {
        "" => Ok(()),
        note => writeln!(out, "<p class=\"note\">{}</p>", escaped(note)),
    }
}
