//! The conformance map: every row of the checklist of what the specification asks, held against the
//! tests that name it in the doc comment directly above them. `tests/conformance/rows.toml` has the
//! rows; README.md beside it, and a table in the project's README, are made from the map.
//!
//! `MEDIARY_UPDATE=1 cargo test --test conformance` writes both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ROWS: &str = "tests/conformance/rows.toml";
const PAGE: &str = "tests/conformance/README.md";
const README: &str = "README.md";

/// What stands around the table in the project's README.
const MARKS: [&str; 2] =
    ["<!-- conformance: made by tests/conformance.rs -->", "<!-- end of conformance -->"];

/// Words that look like ids and are none.
const NO_IDS: &[&str] = &["CRC-32", "UTF-16"];

// --- The table ---------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// How many rows each family of the threat model has.
    threats: BTreeMap<String, u32>,
    section: Vec<Section>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    number: u32,
    title: String,
    #[serde(default)]
    rows: Vec<Row>,
    /// Why all of `ids` come later.
    later: Option<String>,
    #[serde(default)]
    ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    asks: String,
    not_applicable: Option<String>,
    later: Option<String>,
    note: Option<String>,
}

/// What is to be seen of a row.
enum Standing<'a> {
    /// At least one test.
    Applies,
    /// No test, for this reason.
    NotApplicable(&'a str),
    /// Perhaps a test; it comes with this.
    Later(&'a str),
}

impl Row {
    /// Returns what is to be seen of the row; `None` if it says several things.
    fn standing(&self) -> Option<Standing<'_>> {
        match (&self.not_applicable, &self.later) {
            (None, None) => Some(Standing::Applies),
            (Some(reason), None) => Some(Standing::NotApplicable(reason)),
            (None, Some(with)) => Some(Standing::Later(with)),
            (Some(_), Some(_)) => None,
        }
    }
}

impl Table {
    fn parse(text: &str) -> Self {
        toml::from_str(text).unwrap_or_else(|error| panic!("{ROWS}: {error}"))
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.section.iter().flat_map(|section| &section.rows)
    }

    /// Returns the ids of all rows in their order.
    fn ids(&self) -> Vec<&str> {
        fn of(section: &Section) -> Vec<&str> {
            let rows = section.rows.iter().map(|row| row.id.as_str());
            rows.chain(section.ids.iter().map(String::as_str)).collect()
        }
        self.section.iter().flat_map(of).collect()
    }

    /// Whether this is a row of the checklist or of the threat model.
    fn knows(&self, id: &str) -> bool {
        let threat = || {
            let (family, number) = id.rsplit_once('-')?;
            Some((1..=*self.threats.get(family)?).contains(&number.parse().ok()?))
        };
        self.ids().contains(&id) || threat().unwrap_or(false)
    }
}

// --- Tests and ids in the sources --------------------------------------------------------------

/// A file of the project, its path as seen from the root.
struct File {
    path: String,
    text: String,
}

/// A test and the ids that it says it shows, each once.
#[derive(Debug, PartialEq)]
struct Test {
    path: String,
    name: String,
    ids: Vec<String>,
}

/// Returns the files of ours in which ids may stand.
fn files() -> Vec<File> {
    let root = Path::new(ROOT);
    let mut paths = Vec::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the project is here") {
            let path = entry.expect("a directory entry").path();
            if path.is_file() {
                paths.push(path);
            } else if !path.ends_with("node_modules") {
                folders.push(path);
            }
        }
    }
    let is_ours = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("rs" | "py" | "sh" | "js" | "mjs" | "html"))
    };
    paths.retain(is_ours);
    paths.sort();
    let file = |path: PathBuf| File {
        text: fs::read_to_string(&path).expect("sources can be read"),
        path: path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned(),
    };
    paths.into_iter().map(file).collect()
}

/// Returns the words that look like ids of rows: capitals, perhaps more capitals, two digits.
fn ids_in(text: &str) -> Vec<String> {
    let is_capitals = |part: &str| {
        (2..=5).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_uppercase())
    };
    let is_letter = |part: &str| part.len() == 1 && part.bytes().all(|b| b.is_ascii_uppercase());
    let is_number = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        .filter(|word| match word.split('-').collect::<Vec<_>>()[..] {
            [family, number] => is_capitals(family) && is_number(number),
            [area, family, number] => {
                is_capitals(area) && (is_capitals(family) || is_letter(family)) && is_number(number)
            }
            _ => false,
        })
        .filter(|word| !NO_IDS.contains(word))
        .map(str::to_owned)
        .collect()
}

fn tests_in(file: &File) -> Vec<Test> {
    let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
    let found = match file.path.rsplit('.').next() {
        Some("rs") => rust_tests(&lines),
        Some("py") => python_tests(&lines),
        Some("js" | "mjs") => javascript_tests(&lines),
        _ => Vec::new(),
    };
    let test = |(name, comment): (&str, String)| {
        let ids: BTreeSet<_> = ids_in(&comment).into_iter().collect();
        let ids = ids.into_iter().collect();
        Test { path: file.path.clone(), name: name.to_owned(), ids }
    };
    found.into_iter().map(test).collect()
}

/// Returns the lines directly above one for as long as they are of a kind.
fn above<'a>(lines: &[&'a str], index: usize, is_kind: impl Fn(&str) -> bool) -> Vec<&'a str> {
    lines[..index].iter().rev().copied().take_while(|line| is_kind(line)).collect()
}

/// Names and doc comments of what bears `#[test]` or an attribute like it.
fn rust_tests<'a>(lines: &[&'a str]) -> Vec<(&'a str, String)> {
    let is_test = |line: &str| line == "#[test]" || line.starts_with("#[tokio::test");
    let tests = lines.iter().enumerate().filter(|(_, line)| is_test(line));
    let named = tests.map(|(index, _)| {
        let around = above(lines, index, |line| line.starts_with("///") || line.starts_with("#["));
        let docs: Vec<_> = around.into_iter().filter(|line| line.starts_with("///")).collect();
        let name = lines[index..].iter().find_map(|line| {
            let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
            name.split(['(', '<']).next()
        });
        (name.expect("a test is a function"), docs.join("\n"))
    });
    named.collect()
}

/// Names of functions `test_…`, with the comment above each or the docstring below it.
fn python_tests<'a>(lines: &[&'a str]) -> Vec<(&'a str, String)> {
    let functions = lines.iter().enumerate().filter_map(|(index, line)| {
        let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ")?;
        name.starts_with("test").then(|| (index, name.split('(').next().expect("a name")))
    });
    let named = functions.map(|(index, name)| {
        let comment = above(lines, index, |line| line.starts_with('#') || line.starts_with('@'));
        let body = &lines[(index + 1).min(lines.len())..];
        let docstring = match body.first() {
            Some(line) if line.starts_with("\"\"\"") && line[3..].contains("\"\"\"") => vec![*line],
            Some(line) if line.starts_with("\"\"\"") => {
                let end = body[1..].iter().position(|line| line.ends_with("\"\"\""));
                body[..end.map_or(1, |end| end + 2)].to_vec()
            }
            _ => Vec::new(),
        };
        (name, [comment, docstring].concat().join("\n"))
    });
    named.collect()
}

/// Titles of `test("…")` and `it("…")`, with the comment above each.
fn javascript_tests<'a>(lines: &[&'a str]) -> Vec<(&'a str, String)> {
    let calls = lines.iter().enumerate().filter_map(|(index, line)| {
        let line = line.strip_prefix("await ").unwrap_or(line);
        let title = line.strip_prefix("test(").or_else(|| line.strip_prefix("it("))?;
        let quote = title.chars().next().filter(|c| matches!(c, '"' | '\'' | '`'))?;
        Some((index, title[1..].split(quote).next().expect("a title")))
    });
    let is_comment = |line: &str| line.starts_with("//") || line.starts_with(['/', '*']);
    calls.map(|(index, title)| (title, above(lines, index, is_comment).join("\n"))).collect()
}

// --- The map -----------------------------------------------------------------------------------

/// Which tests show which row.
struct Map<'a> {
    table: &'a Table,
    tests: BTreeMap<&'a str, Vec<&'a Test>>,
}

impl<'a> Map<'a> {
    fn new(table: &'a Table, tests: &'a [Test]) -> Self {
        let mut by_id: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for test in tests {
            for id in &test.ids {
                by_id.entry(id.as_str()).or_default().push(test);
            }
        }
        Self { table, tests: by_id }
    }

    fn tests_of(&self, id: &str) -> &[&'a Test] {
        self.tests.get(id).map_or(&[], Vec::as_slice)
    }

    /// Returns a line for each row that is not as the table says.
    fn gaps(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let ids = self.table.ids().into_iter();
        let twice = ids.filter(|id| !seen.insert(*id)).map(|id| format!("{id} is there twice"));
        let mut gaps: Vec<_> = twice.collect();
        gaps.extend(self.table.rows().filter_map(|row| self.gap(row)));
        let is_bare = |section: &&Section| {
            !section.ids.is_empty() && section.later.as_deref().unwrap_or_default().is_empty()
        };
        let bare = self.table.section.iter().filter(is_bare);
        gaps.extend(bare.map(|it| format!("section {} gives no reason for its ids", it.number)));
        gaps
    }

    /// Returns what is not as the table says of a row.
    fn gap(&self, row: &Row) -> Option<String> {
        let Row { id, asks, .. } = row;
        let tests: Vec<_> = self.tests_of(id).iter().map(|test| test.name.as_str()).collect();
        let names = tests.join(", ");
        match row.standing() {
            None => Some(format!("{id} says more than one thing of itself")),
            Some(Standing::Applies) => {
                tests.is_empty().then(|| format!("{id} is shown by no test: {asks}"))
            }
            Some(Standing::NotApplicable(_)) if !tests.is_empty() => {
                Some(format!("{id} is said not to apply, and is shown by {names}"))
            }
            Some(Standing::NotApplicable(said) | Standing::Later(said)) => {
                said.trim().is_empty().then(|| format!("{id} gives no reason"))
            }
        }
    }

    /// Returns the page that has all of the map.
    fn page(&self) -> String {
        let mut page = String::from(
            "# Conformance\n\n\
             What the Matrix specification asks of a media repository, row by row, and the tests \
             that show it.\nMade from [rows.toml](rows.toml) and from the doc comments of the tests \
             by `MEDIARY_UPDATE=1 cargo test --test conformance`.\n",
        );
        for section in &self.table.section {
            page += &format!("\n## {}. {}\n\n", section.number, section.title);
            if !section.rows.is_empty() {
                page += "| row | asks | shown by |\n|---|---|---|\n";
            }
            for row in &section.rows {
                page += &format!("| {} | {} | {} |\n", row.id, row.asks, self.cell(row));
            }
            page += &self.page_of_later(section);
        }
        page
    }

    /// Returns what the page has of the ids of a section that come later.
    fn page_of_later(&self, section: &Section) -> String {
        let Section { rows, ids, later: Some(later), .. } = section else { return String::new() };
        let gap = if rows.is_empty() { "" } else { "\n" };
        let shown = ids.iter().filter(|id| !self.tests_of(id).is_empty());
        let shown = shown.map(|id| format!("- {id} already: {}\n", links(self.tests_of(id))));
        let shown: String = shown.collect();
        let gap_before_shown = if shown.is_empty() { "" } else { "\n" };
        format!("{gap}Later, with {later}: {}.\n{gap_before_shown}{shown}", ids.join(", "))
    }

    /// Returns what the page has beside a row.
    fn cell(&self, row: &Row) -> String {
        let tests = links(self.tests_of(&row.id));
        let said = match row.standing() {
            Some(Standing::NotApplicable(reason)) => format!("*not applicable*: {reason}"),
            Some(Standing::Later(with)) => format!("*later*: {with}"),
            Some(Standing::Applies) | None => String::new(),
        };
        let parts = [said, tests, row.note.clone().unwrap_or_default()];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("<br>")
    }

    /// Returns the table of the project's README, with its marks.
    fn summary(&self) -> String {
        let mut table = format!(
            "{}\n\n| section of the checklist | rows | shown by tests | not applicable | later |\n\
             |---|---|---|---|---|\n",
            MARKS[0]
        );
        let mut sums = [0; 4];
        for section in &self.table.section {
            let count = |is_one: &dyn Fn(&Standing<'_>) -> bool| {
                let rows = section.rows.iter().filter_map(Row::standing);
                rows.filter(|standing| is_one(standing)).count()
            };
            let counts = [
                section.rows.len() + section.ids.len(),
                count(&|it| matches!(it, Standing::Applies)),
                count(&|it| matches!(it, Standing::NotApplicable(_))),
                count(&|it| matches!(it, Standing::Later(_))) + section.ids.len(),
            ];
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
            let title = format!("{}. {}", section.number, section.title);
            table += &line(&format!("[{title}]({PAGE}#{})", anchor(&title)), counts);
        }
        table += &line("all", sums);
        table + "\n" + MARKS[1]
    }
}

fn line(name: &str, [all, shown, not_applicable, later]: [usize; 4]) -> String {
    format!("| {name} | {all} | {shown} | {not_applicable} | {later} |\n")
}

/// Returns what leads to a heading of a page: its words in lower case.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Returns tests by file, each file a link as seen from the page.
fn links(tests: &[&Test]) -> String {
    let mut by_file: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for test in tests {
        by_file.entry(&test.path).or_default().push(&test.name);
    }
    let file = |(path, names): (&str, Vec<&str>)| {
        let names: Vec<_> =
            names.iter().map(|name| format!("`{}`", name.replace('|', "\\|"))).collect();
        format!("[{path}](../../{path}): {}", names.join(", "))
    };
    by_file.into_iter().map(file).collect::<Vec<_>>().join("<br>")
}

// --- What has to hold --------------------------------------------------------------------------

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn table() -> Table {
    Table::parse(&read(ROWS))
}

fn all_tests() -> Vec<Test> {
    files().iter().flat_map(tests_in).collect()
}

#[test]
fn every_row_is_shown_by_a_test_or_says_why_not() {
    let (table, tests) = (table(), all_tests());
    let gaps = Map::new(&table, &tests).gaps();
    assert!(gaps.is_empty(), "{} rows are not as {ROWS} says:\n{}", gaps.len(), gaps.join("\n"));
}

#[test]
fn every_id_that_is_named_exists() {
    let table = table();
    let mut unknown = Vec::new();
    for file in files().iter().filter(|file| file.path != "tests/conformance.rs") {
        for (number, line) in file.text.lines().enumerate() {
            let strange = ids_in(line).into_iter().filter(|id| !table.knows(id));
            unknown.extend(strange.map(|id| format!("{}:{}: {id}", file.path, number + 1)));
        }
    }
    assert!(unknown.is_empty(), "no such rows:\n{}", unknown.join("\n"));
}

/// Where the checklist itself is at hand; the table is the project's own copy of its ids.
#[test]
fn the_table_holds_the_rows_of_the_checklist() {
    let path = std::env::var_os("MEDIARY_CHECKLIST")
        .map_or_else(|| Path::new(ROOT).join("../shared/spec/CHECKLIST.md"), PathBuf::from);
    let Ok(checklist) = fs::read_to_string(&path) else {
        eprintln!("SKIPPED: there is no checklist at {}", path.display());
        return;
    };
    let first_cells =
        checklist.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let rows: BTreeSet<_> = first_cells.filter(|cell| ids_in(cell) == [*cell]).collect();
    let table = table();
    let ours: BTreeSet<_> = table.ids().into_iter().collect();
    let missing: Vec<_> = rows.difference(&ours).collect();
    let invented: Vec<_> = ours.difference(&rows).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "missing {missing:?}, invented {invented:?}"
    );
}

#[test]
fn the_page_and_the_readme_say_what_the_map_says() {
    let (table, tests) = (table(), all_tests());
    let map = Map::new(&table, &tests);
    let readme = read(README);
    let (before, rest) = readme.split_once(MARKS[0]).expect("the README has the first mark");
    let (_, after) = rest.split_once(MARKS[1]).expect("the README has the second mark");
    for (path, expected) in [(PAGE, map.page()), (README, [before, &map.summary(), after].concat())]
    {
        if std::env::var_os("MEDIARY_UPDATE").is_some() {
            fs::write(Path::new(ROOT).join(path), expected).expect("the project can be written");
        } else if fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_default() != expected {
            panic!("{path} is out of date: MEDIARY_UPDATE=1 cargo test --test conformance");
        }
    }
}

// --- That it would be noticed ------------------------------------------------------------------

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}

fn found(path: &str, text: &str) -> Vec<(String, Vec<String>)> {
    tests_in(&file(path, text)).into_iter().map(|test| (test.name, test.ids)).collect()
}

fn test(name: &str, ids: &[&str]) -> (String, Vec<String>) {
    (name.to_owned(), ids.iter().map(|&id| id.to_owned()).collect())
}

#[test]
fn tests_are_found_with_the_ids_directly_above_them() {
    let rust = "/// AA-01, CS-BB-02\n/// More words.\n#[test]\nfn one() {}\n\n\
                /// AA-09\nfn no_test() {}\n\n#[test]\nfn two() {}\n\n\
                /// FM-S-03\n#[cfg(unix)]\n#[tokio::test(flavor = \"x\")]\nasync fn three() {}\n\n\
                proptest! {\n    /// MXC-04\n    #[test]\n    fn four(x in 0..1) {}\n}\n";
    assert_eq!(
        found("a.rs", rust),
        [
            test("one", &["AA-01", "CS-BB-02"]),
            test("two", &[]),
            test("three", &["FM-S-03"]),
            test("four", &["MXC-04"]),
        ]
    );
    let python = "# AA-01\ndef test_one():\n    pass\n\ndef test_two():\n    \"\"\"CS-BB-02.\"\"\"\n\n\
                  async def test_three(a):\n    \"\"\"Words.\n\n    AA-03\n    \"\"\"\n    # AA-09\n";
    assert_eq!(
        found("a.py", python),
        [
            test("test_one", &["AA-01"]),
            test("test_two", &["CS-BB-02"]),
            test("test_three", &["AA-03"])
        ]
    );
    let javascript =
        "// AA-01\ntest(\"one\", () => {});\n/** CS-BB-02 */\nit('two', f);\nit(three);\n";
    assert_eq!(found("a.mjs", javascript), [test("one", &["AA-01"]), test("two", &["CS-BB-02"])]);
}

#[test]
fn only_what_looks_like_an_id_is_taken_for_one() {
    let text = "CS-DL-04, (FM-C-01) MXC-1 UTF-16 SHA-256 x-AA-01 AA-01-x A-01 cs-dl-04 AU-13.";
    assert_eq!(ids_in(text), ["CS-DL-04", "FM-C-01", "AU-13"]);
}

#[test]
fn what_breaks_the_map_is_found() {
    let rows = "[threats]\nAU = 13\n\n[[section]]\nnumber = 1\ntitle = 't'\nrows = [\n\
                { id = 'AA-01', asks = 'x' },\n\
                { id = 'AA-02', asks = 'x', not_applicable = 'so' },\n\
                { id = 'AA-03', asks = 'x', not_applicable = ' ' },\n\
                { id = 'AA-05', asks = 'x', later = 'b', not_applicable = 'so' },\n\
                { id = 'AA-06', asks = 'x', later = 'b' },\n\
                { id = 'AA-06', asks = 'x', later = 'b' },\n]\n\
                [[section]]\nnumber = 2\ntitle = 'u'\nids = ['BB-01']\n";
    let table = Table::parse(rows);
    let source = "/// AA-02, AA-06, BB-01\n#[test]\nfn shows() {}\n";
    let tests = tests_in(&file("a.rs", source));
    assert_eq!(
        Map::new(&table, &tests).gaps(),
        [
            "AA-06 is there twice",
            "AA-01 is shown by no test: x",
            "AA-02 is said not to apply, and is shown by shows",
            "AA-03 gives no reason",
            "AA-05 says more than one thing of itself",
            "section 2 gives no reason for its ids",
        ]
    );
    for (id, is_known) in [
        ("AA-01", true),
        ("BB-01", true),
        ("AU-13", true),
        ("AU-14", false),
        ("AU-00", false),
        ("CC-01", false),
    ] {
        assert_eq!(table.knows(id), is_known, "{id}");
    }
}
