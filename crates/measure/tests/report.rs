//! Whole reports of made records: files that are there, pages that are well-formed and fetch nothing, figures that are the
//! ones that went in.

mod made;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use made::more;
use portway_measure::advise::{self, Demand};
use portway_measure::options::Series;
use portway_measure::record::{Capture, Figures, Record, Wire};
use portway_measure::report;

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

/// The page, read by a parser of XML: what is well-formed to it is to a browser.
fn parsed(html: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    roxmltree::Document::parse_with_options(html, options).expect("the page is well-formed")
}

#[test]
fn everything_is_written() {
    let record = made::record(5, 0.02, 1);
    let dir = scratch("everything");
    let written = report::write_all(&record, &dir).unwrap();
    let back: Record = serde_json::from_slice(&std::fs::read(&written.record).unwrap()).unwrap();
    assert!(back == record, "what was read is not what was written");
    let files = |suffix: &str| {
        let files = std::fs::read_dir(dir.join("plots")).unwrap().map(|each| each.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|of| of == suffix)).collect::<Vec<_>>()
    };
    assert_eq!((files("svg").len(), files("png").len()), (written.plots, written.plots));
    for svg in files("svg") {
        let text = std::fs::read_to_string(&svg).unwrap();
        assert!(roxmltree::Document::parse(&text).is_ok(), "{}", svg.display());
        let name = svg.file_name().unwrap().to_str().unwrap();
        let markdown = std::fs::read_to_string(&written.markdown).unwrap();
        assert!(markdown.contains(&format!("(plots/{name})")), "{name} is not in the Markdown");
    }
    for png in files("png") {
        assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"), "{}", png.display());
    }
}

#[test]
fn the_page_is_well_formed_and_fetches_nothing() {
    let html = report::html(&made::record(5, 0.02, 1));
    let page = parsed(&html);
    let mut ids = BTreeSet::new();
    for node in page.descendants().filter(|node| node.is_element()) {
        for attribute in node.attributes() {
            let value = attribute.value();
            match attribute.name() {
                "href" => assert!(value.starts_with('#'), "a link leads out: {value}"),
                "src" | "srcset" | "action" | "data" => {
                    panic!("{} refers to {value}", node.tag_name().name())
                }
                "fill" | "style" if value.contains("url(") => assert!(value.contains("url(#"), "{value}"),
                "id" => assert!(ids.insert(value.to_owned()), "the id {value} is there twice"),
                name => assert!(!name.starts_with("on"), "a script: {name}"),
            }
        }
        assert!(
            !["script", "link", "iframe", "img", "object", "embed", "base"].contains(&node.tag_name().name())
        );
    }
    for node in page.descendants() {
        let attribute = |name: &str| node.attribute(name).unwrap_or("").to_owned();
        for id in attribute("aria-labelledby").split_whitespace() {
            assert!(ids.contains(id), "{id} labels and is not there");
        }
        if let Some(id) = attribute("href").strip_prefix('#') {
            assert!(ids.contains(id), "{id} is linked and is not there");
        }
    }
    let style: String =
        page.descendants().filter(|node| node.has_tag_name("style")).filter_map(|node| node.text()).collect();
    assert!(!style.contains("url(") && !style.contains("@import"), "the style fetches");
    assert!(style.contains("prefers-color-scheme:dark"));
}

#[test]
fn each_drawing_has_words_and_a_table_beside_it() {
    let html = report::html(&made::record(5, 0.02, 1));
    let page = parsed(&html);
    let mut drawings = 0;
    for svg in page.descendants().filter(|node| node.tag_name().name() == "svg") {
        drawings += 1;
        assert_eq!(svg.attribute("role"), Some("img"));
        let words = svg.children().find(|node| node.tag_name().name() == "desc").and_then(|node| node.text());
        assert!(words.is_some_and(|words| words.len() > 40), "{words:?}");
        let pair = svg.ancestors().find(|node| node.attribute("class") == Some("pair")).unwrap();
        assert!(pair.descendants().any(|node| node.has_tag_name("table")));
    }
    assert!(drawings >= 6, "{drawings}");
    let levels: Vec<u32> = page
        .descendants()
        .filter_map(|node| node.tag_name().name().strip_prefix('h').and_then(|level| level.parse().ok()))
        .collect();
    assert_eq!(levels.first(), Some(&1));
    assert!(
        levels.windows(2).all(|pair| pair[1] <= pair[0] + 1),
        "a level of headings is left out: {levels:?}"
    );
}

#[test]
fn each_series_is_drawn_with_all_of_its_lanes() {
    let mut record = made::record(3, 0.02, 1);
    more::add_series(&mut record);
    let html = report::html(&record);
    let page = parsed(&html);
    let lanes: Vec<&str> = record.lanes.iter().map(|lane| lane.name.as_str()).collect();
    for series in Series::ALL {
        let of = series.name();
        let label = format!("series-{of}-connections-title series-{of}-connections-alt");
        let svg = page.descendants().find(|node| node.attribute("aria-labelledby") == Some(label.as_str()));
        let svg = svg.unwrap_or_else(|| panic!("no drawing of {of}"));
        let classed = |class: &str| {
            let has =
                move |node: &roxmltree::Node| node.attribute("class").is_some_and(|of| of.starts_with(class));
            svg.descendants().filter(has).collect::<Vec<_>>()
        };
        // Bases have no rules.
        let drawn: Vec<&str> =
            lanes.iter().copied().filter(|lane| of != "rules" || *lane != "routing").collect();
        let named: Vec<&str> = classed("label").into_iter().filter_map(|node| node.text()).collect();
        assert_eq!(named, drawn, "{of}");
        let curves = classed("curve");
        assert_eq!(curves.len(), drawn.len(), "{of}");
        let points =
            |node: &roxmltree::Node| node.attribute("points").map_or(0, |points| points.split(' ').count());
        let counts = record.points("nft", of, "connections").len();
        assert!(counts > 3 && curves.iter().all(|curve| points(curve) == counts), "{of}");
        let heading = format!("New connections by {of}");
        assert!(
            page.descendants().any(|node| node.has_tag_name("h3") && node.text() == Some(&heading)),
            "{of}"
        );
    }
}

#[test]
fn names_from_outside_stay_text() {
    let mut record = made::record(1, 0.0, 1);
    let evil = "</svg><script>alert(1)</script>\u{0}|`";
    record.lanes[2].name = evil.into();
    record.host.cpu = evil.into();
    record.left_out[0].why = evil.into();
    record.runs.iter_mut().filter(|run| run.lane == "nft").for_each(|run| run.lane = evil.into());
    let html = report::html(&record);
    assert!(parsed(&html).descendants().all(|node| node.tag_name().name() != "script"));
    report::write_all(&record, &scratch("outside")).unwrap();
}

#[test]
fn a_record_without_figures_makes_a_report_without_them() {
    let mut record = made::record(3, 0.02, 1);
    for (place, run) in record.runs.iter_mut().enumerate() {
        match place % 4 {
            0 => run.figures = Figures::default(),
            1 => (run.figures.cpu, run.figures.latency) = (None, None),
            2 => run.moments.clear(),
            _ => (run.figures.seconds, run.figures.done) = (f64::NAN, 0),
        }
    }
    let empty = Record { runs: Vec::new(), lanes: Vec::new(), ..record.clone() };
    for record in [record, empty] {
        let html = report::html(&record);
        parsed(&html);
        for text in [html, report::markdown(&record)] {
            assert!(!text.contains("NaN") && !text.contains("inf "), "a figure that is no number");
        }
    }
}

/// The whole of a small report, of a comparison and of advice, byte for byte. `UPDATE=1 cargo test -p portway-measure --test report`
/// rewrites the golden texts; read what that changes.
#[test]
fn reports_read_as_they_did() {
    let mut record = made::record(3, 0.02, 7);
    record.lanes.retain(|lane| {
        ["routing", "nft", "haproxy", "portway-ebpf", "portway-proxy"].contains(&lane.name.as_str())
    });
    let kept: Vec<String> = record.lanes.iter().map(|lane| lane.name.clone()).collect();
    record.runs.retain(|run| kept.contains(&run.lane));
    let mut slower = record.clone();
    for run in slower.runs.iter_mut().filter(|run| run.lane == "portway-proxy" && run.load == "connections") {
        run.figures.cpu =
            run.figures.cpu.map(|cpu| portway_measure::record::Cpu { kernel: cpu.kernel * 1.5, ..cpu });
    }
    let comparison = portway_measure::compare::compare(&record, &slower, None).unwrap();
    let demand = Demand { connections: Some(20_000.0), gbit: Some(4.0), rules: Some(500) };
    // Much is amiss in the one whose report is shown, so that the words for it are seen.
    let mut doubtful = record.clone();
    doubtful.runs.retain(|run| run.load != "idle" || run.round == 1);
    more::runs(&mut doubtful, "haproxy", "connections", None).for_each(|run| more::fail(run, 82));
    let far = Some(("rules", 100_000));
    more::runs(&mut doubtful, "nft", "connections", far).take(1).for_each(|run| more::fail(run, 900));
    for (run, factor) in more::runs(&mut doubtful, "portway-ebpf", "bulk-down", None).zip([0.8, 1.0, 1.4]) {
        more::stretch(run, factor);
    }
    let texts = [
        ("report.md", report::markdown(&doubtful)),
        ("compare.md", report::text(&report::changes(&comparison, false))),
        ("advise.md", report::text(&advise::answer(&record, &demand))),
    ];
    for (name, shown) in texts {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &shown).expect("the golden text can be written");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(golden == shown, "{name} differs; now it is:\n{shown}");
    }
}

#[test]
fn captures_are_compared_and_linked_to() {
    let mut record = made::record(1, 0.0, 1);
    let counts = |of: &[(&str, u64)]| of.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect();
    let wire = |name: &str| Wire {
        name: name.to_owned(),
        forth: counts(&[("SYN", 10), ("data", 10), ("ACK", 25)]),
        back: counts(&[("SYN-ACK", 10), ("data", 10), ("again", 5)]),
    };
    record.captures.push(Capture {
        lane: "nft".to_owned(),
        load: "connections".to_owned(),
        file: "captures/nft-connections.pcapng".to_owned(),
        done: 10,
        bytes: 1000,
        not_kept: 3,
        missed: 2,
        wires: vec![wire("client"), wire("server")],
    });
    let page = report::html(&record);
    let text = parsed(&page).descendants().filter_map(|node| node.text()).collect::<String>();
    assert!(page.contains(
        "<a href=\"captures/nft-connections.pcapng\">nft under connections, without the last 3, 2 were missed and are not counted</a>"
    ));
    assert!(text.contains("ACK to server") && !text.contains("FIN to server"), "{text}");
    let markdown = report::markdown(&record);
    let row = markdown.lines().find(|line| line.contains("nft, server")).unwrap();
    let cells: Vec<&str> = row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells, ["nft, server", "1.00", "1.00", "2.50", "1.00", "1.00", "0.500", "7.00"], "{markdown}");
    record.captures[0].file = "captures/../../etc/passwd".to_owned();
    let json = serde_json::to_vec(&record).unwrap();
    assert!(portway_measure::read::parse(&json).unwrap_err().to_string().contains("not beside it"));
}

#[test]
fn where_it_goes_adds_up_to_what_the_rounds_say() {
    let mut record = made::record(3, 0.0, 1);
    assert!(!report::markdown(&record).contains("Where it goes"));
    made::more::add_profiles(&mut record);
    let cells = |markdown: &str, after: &str, lane: &str| {
        let (_, rest) = markdown.split_once(after).unwrap_or_else(|| panic!("{after}: {markdown}"));
        let row = rest.lines().find(|line| line.starts_with(&format!("| {lane} "))).unwrap_or_default();
        let cells = row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).skip(1);
        cells.map(|cell| cell.replace('−', "-").replace('–', "0").replace(',', "")).collect::<Vec<_>>()
    };
    let number = |cell: &String| cell.parse::<f64>().unwrap_or_else(|_| panic!("{cell}"));
    let markdown = report::markdown(&record);
    for (table, lanes) in [
        ("By where it goes", &["routing", "nft", "haproxy", "portway-ebpf"][..]),
        ("beyond the base lane", &["nft", "haproxy", "portway-ebpf"][..]),
    ] {
        for lane in lanes {
            let cells = cells(&markdown, table, lane);
            let (whole, parts) = cells.split_last().unwrap();
            let sum: f64 = parts.iter().map(number).sum();
            assert!((sum - number(whole)).abs() < 0.02 * sum.abs() + 0.5, "{lane}, {table}: {cells:?}");
        }
    }
    // Of the columns: client, server, TCP, conntrack, memory. Routing has none of the fourth.
    assert_eq!(cells(&markdown, "By where it goes", "routing")[3], "0");
    let nft = cells(&markdown, "By where it goes", "nft");
    assert!((number(&nft[3]) / number(&nft[5]) - 700.0 / 7700.0).abs() < 0.002, "{nft:?}");
    assert!(report::html(&record).contains("nf_conntrack_in"));
    let page = report::html(&record);
    assert!(page.contains("id=\"where-connections-title\"") && page.contains("netfilter, conntrack, IPVS"));
    record.profiles[0].lost = 12;
    assert!(report::markdown(&record).contains("Samples that found no room: routing 12."));
    let complaint = |record: &portway_measure::record::Record| {
        portway_measure::read::parse(&serde_json::to_vec(record).unwrap()).unwrap_err().to_string()
    };
    record.profiles[0].areas.insert("ip".to_owned(), 1);
    assert!(
        complaint(&record).contains("the areas of \"routing\" under \"connections\" are not its samples")
    );
    record.profiles[0].lane = "nfs".to_owned();
    assert!(complaint(&record).contains("a profile is of the lane \"nfs\""));
}

#[test]
fn names_that_pictures_cannot_show_are_told() {
    let mut record = made::record(1, 0.0, 1);
    assert!(!report::markdown(&record).contains("show boxes"));
    record.lanes[0].name = "маршрут".to_owned();
    assert!(report::markdown(&record).contains("show boxes"));
}
