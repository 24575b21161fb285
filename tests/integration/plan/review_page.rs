//! Tests of the HTML page in a real browser: Debian's Chromium, headless, driven over `WebDriver` as a person would use
//! it.
//!
//! Without Chromium, the tests print a notice and pass, unless `SEEDBED_REQUIRE_BROWSER` is set, as in CI.

use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use seedbed::plan::Plan;
use seedbed::review::Review;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::plan::review::{HOSTILE, LARGE, SMALL, crowded, difference, planned};

/// Keys that have no character, as `WebDriver` writes them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";
const LEFT: &str = "\u{e012}";
const UP: &str = "\u{e013}";
const RIGHT: &str = "\u{e014}";
const DOWN: &str = "\u{e015}";

/// Browser with a profile of its own, which ends with the test.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    directory: TempDir,
    /// Output of the driver, kept open: the driver ends when its output has no reader.
    _said: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    /// Starts the browser; `None` if there is no browser and none is required.
    pub(crate) fn start() -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("HOME", directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // The browser belongs to it, so that both end together.
            .process_group(0)
            .spawn();
        let Ok(mut driver) = driver else {
            assert!(
                std::env::var_os("SEEDBED_REQUIRE_BROWSER").is_none(),
                "chromedriver is required and not there"
            );
            // Written past the capture of the test harness, so that the test does not count as run.
            let _ = writeln!(
                std::io::stderr(),
                "NOT TESTED: chromedriver is not there (apt-get install chromium-driver)"
            );
            return None;
        };
        let mut said = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = said
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
        let mut browser = Self {
            driver,
            port: port.expect("chromedriver says its port"),
            session: String::new(),
            directory,
            _said: said,
        };
        let profile = format!("--user-data-dir={}", browser.directory.path().join("profile").display());
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1100,900",
            &profile,
        ];
        let options =
            json!({ "args": arguments, "perfLoggingPrefs": { "enableNetwork": true, "enablePage": false } });
        let session = browser.post(
            "",
            &json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } }),
        );
        browser.session = format!("/{}", session["sessionId"].as_str().expect("a session"));
        // The browser's own first page asks for a lot.
        browser.post("/url", &json!({ "url": "about:blank" }));
        browser.complaints();
        Some(browser)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.request("POST", path, &body.to_string())
    }

    /// Sends one request to the driver on a connection of its own, and reads the whole answer.
    fn request(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "{method} /session{}{path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.session,
            self.port,
            body.len()
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert!(answer["value"]["error"].is_null(), "{path} {body:.500}: {answer}");
        answer["value"].clone()
    }

    /// Opens the page of a plan as a file.
    fn open(&self, review: &Review<'_>) {
        self.open_text(&review.html());
    }

    /// Opens a page as a file.
    pub(crate) fn open_text(&self, page: &str) {
        let path = self.directory.path().join("plan.html");
        std::fs::write(&path, page).unwrap();
        self.post("/url", &json!({ "url": url(&path) }));
    }

    /// Presses keys, one after another.
    pub(crate) fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })]
            })
            .collect();
        self.post(
            "/actions",
            &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }),
        );
    }

    /// Returns the result of a script in the page.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    pub(crate) fn text(&self, expression: &str) -> String {
        self.run(&format!("return String({expression})")).as_str().unwrap().to_owned()
    }

    /// Waits until the page shows the text: the page searches for typed text after a moment.
    #[track_caller]
    pub(crate) fn expect(&self, expression: &str, expected: &str) {
        crate::sandbox::wait_until(expression, || self.text(expression) == expected);
    }

    fn command(&self, name: &str, parameters: &Value) {
        self.post("/goog/cdp/execute", &json!({ "cmd": name, "params": parameters }));
    }

    /// Returns the errors of the page, and its requests to the network other than for the page itself.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = |kind: &str| self.post("/se/log", &json!({ "type": kind }));
        let mut complaints: Vec<String> =
            log("browser").as_array().unwrap().iter().map(|entry| entry["message"].to_string()).collect();
        for entry in log("performance").as_array().unwrap() {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            let message = &message["message"];
            let url = message["params"]["request"]["url"].as_str().unwrap_or_default();
            if message["method"] == "Network.requestWillBeSent"
                && !url.ends_with("/plan.html")
                && url != "data:,"
            {
                complaints.push(format!("request for {url}"));
            }
        }
        complaints
    }
}

impl Drop for Browser {
    /// Ends the browser, also after a failed test.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.request("DELETE", "", "");
        }
        let _ = kill_process_group(Pid::from_child(&self.driver), Signal::KILL);
        let _ = self.driver.wait();
    }
}

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn review(plan: &Plan) -> Review<'_> {
    Review::new(plan)
}

/// Script that returns the focused element: an id, or the name of the session.
const FOCUS: &str = "document.activeElement.id || document.activeElement.querySelector('.name')?.textContent";
/// Script that returns the names of the visible sessions.
const SEEN: &str = "[...document.querySelectorAll('.tree .name')].filter((name) => name.checkVisibility()).map((name) => name.textContent).join()";

#[test]
fn the_page_is_used_without_a_mouse() {
    let Some(browser) = Browser::start() else { return };
    browser.open(&review(&difference()));
    assert_eq!(browser.text("document.title"), "Plan of shop");
    assert_eq!(browser.text(SEEN), "lead,coder,coder-0,coder-1,reviewer");

    browser.press("/");
    assert_eq!(browser.text(FOCUS), "query");
    browser.press("coder-0");
    browser.expect("found.value", "1 session");
    assert_eq!(browser.text(SEEN), "lead,coder-0");
    browser.press(ENTER);
    assert_eq!(browser.text(FOCUS), "lead");
    // After the prompt of the lead.
    browser.press(&format!("{DOWN}{DOWN}"));
    assert_eq!(browser.text(FOCUS), "coder-0");
    browser.press(ESCAPE);
    browser.expect("found.value", "");
    assert_eq!(browser.text(FOCUS), "query");
    assert_eq!(browser.text(SEEN), "lead,coder,coder-0,coder-1,reviewer");

    // The prompt of a session is found, and shown.
    browser.press("database_url");
    browser.expect("found.value", "1 session");
    assert_eq!(browser.text("document.querySelector('#s0 > details > .body > .texts').open"), "true");
    browser.press(ESCAPE);
    browser.expect("found.value", "");

    // A port finds whose block it is in.
    let port = difference().sessions()[1].env["AGENT_PORT_RANGE_END"].parse::<u16>().unwrap() - 1;
    browser.press(&port.to_string());
    browser.expect("found.value", "2 sessions");
    assert_eq!(browser.text(SEEN), "lead,coder", "the coder's share is the lead's too");
    browser.press(ESCAPE);
    browser.expect("found.value", "");

    browser.press(DOWN);
    assert_eq!(browser.text(FOCUS), "lead");
    let open = "document.activeElement.parentElement.open";
    assert_eq!(browser.text(open), "true");
    browser.press(LEFT);
    assert_eq!((browser.text(open), browser.text(SEEN)), ("false".to_owned(), "lead,reviewer".to_owned()));
    browser.press(RIGHT);
    assert_eq!(browser.text(open), "true");
    // Into its content: first its prompt, then the sessions below.
    browser.press(&format!("{DOWN}{DOWN}"));
    assert_eq!(browser.text(FOCUS), "coder");
    browser.press(LEFT);
    assert_eq!(browser.text(FOCUS), "lead", "from what is closed to what is above");
    browser.press("\u{e010}");
    assert_eq!(browser.text(FOCUS), "reviewer", "End");
    browser.press("\u{e011}");
    assert_eq!(browser.text(FOCUS), "lead", "Home");
    browser.press(&format!("{DOWN}{UP}"));
    assert_eq!(browser.text(FOCUS), "lead");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn tab_moves_a_visible_focus_through_the_page() {
    let Some(browser) = Browser::start() else { return };
    browser.open(&review(&difference()));
    let mut stops = Vec::new();
    for _ in 0..12 {
        browser.press(TAB);
        stops.push(browser.text("document.activeElement.id || document.activeElement.querySelector('.name')?.textContent || document.activeElement.textContent"));
        let outline = browser.text("getComputedStyle(document.activeElement).outlineStyle");
        assert_ne!(outline, "none", "{stops:?}");
    }
    assert_eq!(
        stops,
        [
            "To the sessions",
            "Difference",
            "Sessions",
            "Ports",
            "query",
            "lead/coder-1",
            "reviewer",
            "lead/coder-0",
            "lead",
            "lead/coder",
            "lead",
            "Environment and prompts",
        ]
    );
    // A link to a session opens the session and moves to it.
    browser.run("document.querySelector('a[href=\"#s2\"]').focus()");
    browser.press(ENTER);
    browser.expect(FOCUS, "coder-0");
    assert_eq!(browser.text("document.activeElement.parentElement.open"), "true");
}

#[test]
fn values_of_a_plan_never_act_in_the_page() {
    let Some(browser) = Browser::start() else { return };
    browser.open(&review(&planned(HOSTILE, None)));
    assert_eq!(browser.text("document.scripts.length"), "1");
    assert_eq!(
        browser.text(
            "document.querySelectorAll('img, iframe, object, link, i, body b:not(.verb b, .counts b)').length"
        ),
        "0"
    );
    let shown = browser.text("document.body.textContent");
    for value in [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "]]> --> </details></style>",
        "\"'&`|\\|``",
    ] {
        assert!(shown.contains(value), "{value}");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // And if a value came through, the page's own policy would stop it.
    browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/x\" onerror=\"window.acted = 1\"><p style=\"color: red\">')");
    browser.run("const script = document.createElement('script'); script.textContent = 'window.acted = 1'; document.body.append(script)");
    assert_eq!(browser.text("window.acted"), "undefined");
    let complaints = browser.complaints().join("\n");
    for refused in ["inline event handler", "inline style", "Loading the image", "inline script"] {
        let refusal = complaints.lines().find(|line| line.contains(refused)).unwrap_or_default();
        assert!(refusal.contains("Content Security Policy"), "{refused}: {complaints}");
    }
}

#[test]
fn the_page_is_read_without_a_script() {
    let Some(browser) = Browser::start() else { return };
    browser.command("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    browser.open(&review(&planned(SMALL, None)));
    assert_eq!(browser.text("document.getElementById('search').checkVisibility()"), "false");
    assert_eq!(browser.text(SEEN), "lead,coder-0,coder-1,reviewer");
    assert_eq!(browser.text("document.querySelector('#s1 .resources').checkVisibility()"), "false");
    browser.run("document.querySelector('#s1 summary').focus()");
    browser.press(ENTER);
    assert_eq!(browser.text("document.querySelector('#s1 .resources').checkVisibility()"), "true");
}

/// Script that computes the contrast of every visible text with its background by WCAG, and returns those below 4.5 to
/// 1.
const FAINT: &str = r"
for (const details of document.querySelectorAll('details')) details.open = true;
const channels = (color) => color.match(/[\d.]+/g).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
const ground = (element) => {
  const rect = element.matches('svg.block text') && element.parentElement.querySelector('rect');
  if (rect) return channels(getComputedStyle(rect).fill);
  for (let above = element; above; above = above.parentElement) {
    const color = channels(getComputedStyle(above).backgroundColor);
    if (color[3] !== 0) return color;
  }
  return [255, 255, 255];
};
const faint = [];
let seen = 0;
for (const element of document.querySelectorAll('body *, body svg *')) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.matches('title, script')) continue;
  seen += 1;
  const style = getComputedStyle(element);
  const text = luminance(channels(element.matches('text') ? style.fill : style.color));
  const [high, low] = [text, luminance(ground(element))].sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) faint.push(`${element.tagName}.${element.getAttribute('class')} ${element.textContent.trim().slice(0, 20)} ${ratio.toFixed(2)}`);
}
return seen < 50 ? ['too little was measured: ' + seen] : faint;
";

#[test]
fn every_text_has_contrast_in_both_colour_schemes() {
    let Some(browser) = Browser::start() else { return };
    let plan = difference();
    let observation = crowded(&plan);
    let notices = ["a notice".to_owned()];
    browser.open(&Review::new(&plan).with_notices(&notices).with_observation(&observation));
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.command(
            "Emulation.setEmulatedMedia",
            &json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] }),
        );
        assert_eq!(browser.run(FAINT), json!([]), "{scheme}");
        grounds.push(browser.text("getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(grounds[0], grounds[1]);
}

#[test]
#[ignore = "`every_case` runs it"]
fn ten_thousand_sessions_are_searched_in_every_case() {
    let Some(browser) = Browser::start() else { return };
    browser.open(&review(&LARGE));
    assert_eq!(browser.text(SEEN), "lead-0 … lead-999,coder-0 … coder-8");
    let rows = "[...document.querySelectorAll('tr[data-ports]')].filter((row) => row.checkVisibility()).map((row) => row.cells[0].textContent).join()";
    assert_eq!(browser.text(rows), "");
    browser.press("/lead-777/coder-3");
    browser.expect("found.value", "1 session");
    assert_eq!(browser.text(rows), "lead-777/coder-3");
    browser.press(ESCAPE);
    browser.expect("found.value", "");
    assert_eq!(browser.text(rows), "");
    // A note about several sessions appears at each of them.
    browser.press("in all");
    browser.expect("found.value", "9,000 sessions");
    assert_eq!(browser.text(SEEN), "lead-0 … lead-999,coder-0 … coder-8");
    browser.press(ESCAPE);
    browser.expect("found.value", "");
    // Too many to be read are counted.
    browser.press("coder-3");
    browser.expect("found.value", "1,000 sessions");
    assert_eq!(browser.text(rows), "");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
