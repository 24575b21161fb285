//! Tests of the review of a fleet's plan: changes first, similar shards as one, and the HTML page.

use std::fs;

use serde_json::json;

use super::{Hosts, SESSIONS, fleet};
use crate::plan::review_page::Browser;

/// Applies a fleet of three hosts, and changes the manifest: sessions are updated and removed.
fn changed() -> Hosts {
    let hosts = Hosts::new(3, &fleet(3));
    hosts.observe();
    hosts.plan(&["-o", "../../plans"]).expect(0);
    for at in 0..3 {
        hosts.on(&format!("n{at}"), &["apply", &format!("../../plans/shard-{at}.json")]).expect(0);
    }
    let sessions = SESSIONS
        .replace("count = 8", "count = 6")
        .replace("[session.lead]\n", "[session.lead]\nprompt = [\"<b>new</b>\"]\n");
    hosts.manifest(&format!("[fleet]\nshards = 3\n{sessions}"));
    for name in &hosts.names {
        fs::remove_file(hosts.sandbox.top.join(format!("observations/{name}.json"))).unwrap();
    }
    hosts.observe();
    hosts
}

#[test]
fn changes_that_may_lose_something_are_named_first() {
    let hosts = changed();
    let text = hosts.plan(&[]).expect(0).stdout;
    let changes: Vec<_> = text.lines().skip(3).take_while(|line| !line.is_empty()).collect();
    assert_eq!(changes.len(), 2, "{text}");
    assert!(
        changes[0].starts_with("- destroy 2 sessions on ") && changes[0].contains("runner-6 on n"),
        "{text}"
    );
    assert!(changes[1].starts_with("~ update 1 session on 1 host: lead on n"), "{text}");
    let first = text.lines().find(|line| line.starts_with("shard")).unwrap();
    assert!(first.contains("to destroy"), "{text}");
    let markdown = hosts.plan(&["--format", "markdown"]).expect(0).stdout;
    assert!(markdown.lines().nth(2).unwrap().contains("destroy 2 sessions on "), "{markdown}");
}

#[test]
#[ignore = "`every_case` runs it"]
fn the_page_of_a_fleet_is_searched_and_read_in_every_case() {
    let Some(browser) = Browser::start() else { return };
    let hosts = changed();
    browser.open_text(&hosts.plan(&["--format", "html"]).expect(0).stdout);
    assert_eq!(browser.text("document.title"), "Plan of the fleet of shop");
    assert_eq!(browser.text("document.querySelectorAll('#s0, #s1, #s2').length"), "3");
    let changes = browser.text("document.querySelector('main table').textContent");
    assert!(changes.contains("destroy") && changes.contains("runner-7"), "{changes}");
    // A session is found in its shard, and the shard opens.
    browser.press("/");
    browser.press("runner-3");
    browser.expect("found.value", "1 session");
    let seen = "[...document.querySelectorAll('.tree tr[data-ports] th')].filter((row) => row.checkVisibility()).map((row) => row.textContent).join()";
    assert_eq!(browser.text(seen), "runner-3");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
#[ignore = "`every_case` runs it"]
fn similar_shards_are_one_entry_which_opens_for_a_search_in_every_case() {
    let Some(browser) = Browser::start() else { return };
    let hosts =
        Hosts::new(5, "[fleet]\nshards = 5\n[session.worker]\ncount = 10\nresources = [\"git-worktree\"]\n");
    hosts.observe();
    for name in &hosts.names {
        let file = hosts.sandbox.top.join(format!("observations/{name}.json"));
        let observation = fs::read_to_string(&file).unwrap();
        fs::write(&file, observation.replace(hosts.root(name).to_str().unwrap(), "/srv/repository")).unwrap();
    }
    browser.open_text(&hosts.plan(&["--format", "html"]).expect(0).stdout);
    let open = "String(document.querySelector('.tree > li > details').open)";
    assert_eq!(browser.text("document.querySelectorAll('.tree > li').length"), "1");
    assert_eq!(browser.text("document.querySelectorAll('.tree > li li').length"), "5");
    assert_eq!(browser.text(open), "false");
    browser.press("/");
    browser.press("worker-7");
    browser.expect("found.value", "1 session");
    assert_eq!(browser.text(open), "true");
    assert_eq!(
        browser.run(
            "return [...document.querySelectorAll('.tree li li')].filter((li) => li.checkVisibility()).length"
        ),
        json!(1)
    );
    browser.press("\u{e00c}");
    browser.expect("found.value", "");
    assert_eq!(browser.text(open), "false");
    browser.press("nothing-like-this");
    browser.expect("found.value", "0 sessions");
    assert_eq!(browser.text("document.querySelector('.tree > li').checkVisibility()"), "false");
}
