"""The console in a browser, against the real control plane, with what a worker reported over the real API."""

from __future__ import annotations

import re
import time
import urllib.parse

import pytest
import requests

from playwright.sync_api import expect

import control_plane
from browser import MISSING, Browser, chromium, is_wide, violations
from control_plane import API, ControlPlane, Worker

pytestmark = pytest.mark.skipif(not chromium(), reason=MISSING)

HOSTILE = '<img src=x onerror="alert(1)">'
HOSTILE_COLUMN = "<script>alert(2)</script>"
ORDERS = "shop.orders"
# More than one part of a list of files or snapshots.
APPENDS = 130
ROWS = 1_234

COLUMNS = [
    {"id": 1, "name": "id", "required": True, "type": "long"},
    {"id": 2, "name": HOSTILE_COLUMN, "required": False, "type": "string"},
    {
        "id": 3,
        "name": "customer",
        "required": False,
        "type": {"type": "struct", "fields": [{"id": 4, "name": "email", "required": False, "type": "string"}]},
    },
]


class Filled:
    """A control plane with an environment, two clusters, a worker and its tables."""

    def __init__(self, plane: ControlPlane):
        self.plane, self.url, self.admin = plane, plane.url, plane.admin
        self.environment = self.admin("POST", f"{API}/environments", {"name": "production"})["id"]
        clusters = f"{API}/environments/{self.environment}/clusters"
        self.cluster = self.admin("POST", clusters, {"name": "eu-west"})["id"]
        self.empty = self.admin("POST", clusters, {"name": "us-east"})["id"]
        self.resource = f"environment/{self.environment}/cluster/{self.cluster}"
        self.worker = Worker(plane.key("workers-eu", ("worker", self.resource)))
        self.reader = plane.key("grafana", ("metadata_reader", f"{self.resource}/table/shop.*"))
        for name in ("billing.invoices", "iot.door_events", "shop.customers", "web.clicks"):
            self.worker.table(name, COLUMNS, rows=10_000)
        self.worker.table(ORDERS, COLUMNS, APPENDS, ROWS)
        self.worker.table(HOSTILE, COLUMNS)
        self.refresh()

    def refresh(self) -> None:
        """What is in memory only is gone after a restart, and workers after a while."""
        running = {"state": "running", "lag_records": 412, "freshness_ms": 2_600}
        running |= {"backlog_files": 9, "backlog_bytes": 900}
        retrying = {"state": "retrying", "error": "unavailable", "lag_records": 88_000, "freshness_ms": 61_000}
        self.worker.healths(**{ORDERS: running, "web.clicks": retrying, "shop.customers": {"state": "paused"}})
        self.worker.present(tables=6)

    def at(self, *parts: str, cluster: str | None = None) -> str:
        """The address of a page of the cluster."""
        parts = ("e", self.environment, "c", cluster or self.cluster, *parts)
        return f"{self.url}/#/" + "/".join(urllib.parse.quote(part, safe="") for part in parts)

    def pages(self) -> dict[str, str]:
        pages = {"tables": self.at("tables"), "overview": self.at("tables", ORDERS)}
        tabs = ("schema", "files", "snapshots", "offsets", "commands")
        pages |= {tab: self.at("tables", ORDERS, tab) for tab in tabs}
        pages |= {"workers": self.at("workers"), "cluster-commands": self.at("commands")}
        pages |= {"empty": self.at("tables", cluster=self.empty), "no-workers": self.at("workers", cluster=self.empty)}
        rest = ("organisation", "access/keys", "access/accounts", "access/users", "access/roles", "audit")
        rest += ("disclosures", "nowhere")
        return pages | {path.replace("/", "-"): f"{self.url}/#/{path}" for path in rest}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    plane = ControlPlane(control_plane.build(), tmp_path_factory.mktemp("control-plane"))
    plane.start()
    yield Filled(plane)
    plane.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("shots"))
    yield browser
    browser.close()


def sign_in(page, filled, key=None) -> None:
    """With the keyboard alone: the field is the first stop of the form."""
    page.goto(filled.url)
    page.locator("#api-key").focus()
    page.keyboard.type((key or filled.admin).key)
    page.keyboard.press("Enter")
    expect(page.locator("#side a").first).to_be_attached()


def go(page, address: str) -> None:
    page.goto(address)
    expect(page.locator(".page:not(:has(.skeleton))")).to_be_visible()
    expect(page.locator("main[aria-busy]")).to_have_count(0)


def heading(page):
    return page.get_by_role("heading", level=1)


def test_the_page_comes_from_the_program_alone_under_a_strict_policy(filled):
    page = requests.get(filled.url, timeout=10)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert not re.search(r"<script(?! [^>]*src=)|<style|\son\w+=|\sstyle=", page.text)
    paths = re.findall(r'(?:src|href)="(/console/[^"]+)"', page.text)
    assert len(paths) >= 5
    for path in ["/", *paths]:
        answer = requests.get(filled.url + path, timeout=10)
        assert answer.ok and answer.headers["X-Content-Type-Options"] == "nosniff", path
        known = {"If-None-Match": answer.headers["ETag"]}
        again = requests.get(filled.url + path, headers=known, timeout=10)
        assert (again.status_code, again.content) == (304, b""), path
    assert requests.get(f"{filled.url}/console/nothing.js", timeout=10).status_code == 404


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_every_page_is_accessible_and_fits(filled, browser, look):
    filled.refresh()
    with browser.page(dark=look == "dark", phone=look == "phone") as page:
        page.goto(filled.url)
        expect(page.locator("#api-key")).to_be_visible()
        browser.look(page, f"sign-in-{look}")
        found = {"sign-in": violations(page)}
        sign_in(page, filled)
        for name, address in filled.pages().items():
            go(page, address)
            for details in page.locator("details").all():
                details.evaluate("one => { one.open = true; }")
            found[name] = violations(page) + (["it scrolls sideways"] if is_wide(page) else [])
            browser.look(page, f"{name}-{look}")
        assert {name: all for name, all in found.items() if all} == {}


def test_tables_are_listed_sorted_and_filtered_with_the_keyboard(filled, browser):
    filled.refresh()
    with browser.page() as page:
        sign_in(page, filled)
        expect(heading(page)).to_have_text("Tables")
        names = page.locator("main tbody th")
        expect(names).to_have_text(
            [HOSTILE, "billing.invoices", "iot.door_events", "shop.customers", ORDERS, "web.clicks"]
        )
        row = page.locator("main tbody tr", has_text=ORDERS)
        cells = row.locator("td").all_inner_texts()
        assert cells[:6] == ["running", "2.6 s", "412", "160 k", "130", "15.3 MiB"]
        assert row.locator("td").nth(3).locator("data").get_attribute("value") == str(APPENDS * ROWS)
        assert cells[6].startswith("9")

        # From the top of the page: the skip link, then on to the heading that sorts by lag.
        page.keyboard.press("/")
        expect(page.get_by_role("searchbox")).to_be_focused()
        page.keyboard.type("shop")
        expect(names).to_have_text(["shop.customers", ORDERS])
        assert "q=shop" in page.url
        page.get_by_role("searchbox").fill("")
        sort = page.get_by_role("button", name="Lag")
        sort.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        expect(page.get_by_role("columnheader", name="Lag")).to_have_attribute("aria-sort", "descending")
        expect(names.nth(0)).to_have_text("web.clicks")
        expect(sort).to_be_focused()

        names.nth(1).locator("a").focus()
        page.keyboard.press("Enter")
        expect(heading(page)).to_have_text(ORDERS)
        expect(heading(page)).to_be_focused()
        page.go_back()
        expect(heading(page)).to_have_text("Tables")
        expect(names.nth(0)).to_have_text("web.clicks")


def test_the_keyboard_reaches_every_page(filled, browser):
    with browser.page() as page:
        sign_in(page, filled)
        page.locator("body").press("Tab")
        page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
        page.goto(filled.at("tables"))
        page.locator("#skip").focus()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()

        page.locator("#skip").focus()
        reached = {}
        for _ in range(40):
            page.keyboard.press("Tab")
            stop = page.evaluate(
                """() => {
                    const at = document.activeElement, style = getComputedStyle(at);
                    const [body, side] = [at === document.body, Boolean(at.closest("#side"))];
                    return { text: at.textContent.trim(), body, side, outline: style.outlineStyle };
                }"""
            )
            assert stop["body"] or stop["outline"] != "none", f"no focus ring: {stop}"
            if stop["side"]:
                reached[stop["text"]] = None
        expected = ["Tables", "Workers", "Commands", "Environments", "API keys", "Service accounts", "Users"]
        expected += ["Roles", "Audit log", "What we know"]
        assert [text for text in reached if not text.startswith("production")] == expected

        go(page, f"{filled.url}/#/audit")
        titles = ["Tables", "Workers", "Commands", "Environments", "API keys", "Service accounts", "Users", "Roles"]
        titles += ["Audit log"]
        titles += ["What we know, and what we cannot know"]
        for text, title in zip(expected, titles, strict=True):
            page.get_by_role("navigation", name="Console").get_by_role("link", name=text, exact=True).focus()
            page.keyboard.press("Enter")
            expect(heading(page)).to_have_text(title)
            expect(heading(page)).to_be_focused()
            expect(page).to_have_title(re.compile(re.escape("Siltstone")))


def test_a_table_shows_its_parts(filled, browser):
    filled.refresh()
    with browser.page() as page:
        sign_in(page, filled)
        go(page, filled.at("tables", ORDERS))
        expect(page.locator(".facts")).to_contain_text("s3://lake/tables/one")
        tab = page.get_by_role("navigation", name="Parts of the table")

        def choose(name: str) -> None:
            tab.get_by_role("link", name=name).focus()
            page.keyboard.press("Enter")
            expect(tab.get_by_role("link", name=name)).to_have_attribute("aria-current", "page")

        choose("Schema")
        expect(page.locator("section.tab tbody th")).to_have_text(["id", HOSTILE_COLUMN, "customer", "email"])
        choose("Files")
        expect(page.locator("section.tab tbody tr")).to_have_count(100)
        page.get_by_role("button", name="Show more").focus()
        page.keyboard.press("Enter")
        expect(page.locator("section.tab tbody tr")).to_have_count(APPENDS)
        expect(page.locator(".count")).to_have_text("130 files")
        choose("Snapshots")
        first = page.locator("section.tab tbody tr").first
        expect(first.locator("th")).to_have_text("130")
        expect(first.locator("td").nth(0)).to_have_text("append")
        expect(first.locator("td").nth(2)).to_have_text("+1,234")
        choose("Offsets")
        expect(page.locator("section.tab tbody tr")).to_have_count(1)
        expect(page.locator("section.tab tbody tr")).to_contain_text("orders")


def test_plots_read_out_values_and_have_a_table(filled, browser):
    filled.refresh()
    with browser.page() as page:
        sign_in(page, filled)
        go(page, filled.at("tables", ORDERS))
        lag = page.locator("figure", has_text="Lag, records")
        expect(lag.locator(".readout")).to_have_text("412 now")
        lag.locator(".canvas").focus()
        expect(lag.locator(".readout")).to_contain_text("412 at ")
        expect(lag.locator(".mark")).to_have_count(1)
        page.keyboard.press("Home")
        expect(lag.locator(".readout")).to_contain_text(" at ")
        lag.locator("summary").focus()
        page.keyboard.press("Enter")
        expect(lag.locator("tbody tr").first).to_contain_text("412")
        page.get_by_role("combobox", name="Time shown").select_option("1h")
        expect(lag.locator(".readout")).to_have_text("412 now")
        assert "range=1h" in page.url


def test_names_are_text_and_never_markup(filled, browser):
    with browser.page() as page:
        sign_in(page, filled)
        go(page, filled.at("tables", HOSTILE))
        expect(heading(page)).to_have_text(HOSTILE)
        go(page, filled.at("tables", HOSTILE, "schema"))
        expect(page.get_by_text(HOSTILE_COLUMN)).to_be_visible()
        assert page.locator("main img, main script").count() == 0


def test_a_command_is_given_and_its_outcome_shown(filled, browser):
    filled.refresh()
    with browser.page() as page:
        sign_in(page, filled)
        go(page, filled.at("tables", ORDERS))
        page.get_by_role("button", name="Compact").focus()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name=f"Compact {ORDERS}?")
        assert violations(page) == []
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        page.get_by_role("button", name="Compact").click()
        dialog.get_by_role("button", name="Compact").click()
        expect(page.locator("#toasts")).to_contain_text("Asked the workers to compact")

        poll = filled.worker.say("commands/poll", worker_id=filled.worker.id, wait_seconds=0)
        (command,) = [one for one in poll["commands"] if one["table"] == ORDERS]
        assert command["action"] == "compact"
        go(page, filled.at("tables", ORDERS, "commands"))
        expect(page.locator("tbody tr").first).to_contain_text("waiting")
        outcome = {"result": "failed", "error": "unavailable"}
        filled.worker.say("commands/outcome", worker_id=filled.worker.id, command_id=command["id"], outcome=outcome)
        page.reload()
        sign_in_again(page, filled)
        expect(page.locator("tbody tr").first).to_contain_text("unavailable")


def sign_in_again(page, filled) -> None:
    """After a reload, where the server makes no sessions."""
    expect(page.locator("#api-key, .page").first).to_be_visible()
    if page.locator("#api-key").count():
        page.locator("#api-key").fill(filled.admin.key)
        page.keyboard.press("Enter")
    expect(page.locator(".page:not(:has(.skeleton))")).to_be_visible()


def test_keys_are_shown_once_rotated_and_revoked(filled, browser):
    filled.plane.key("ci")
    with browser.page() as page:
        sign_in(page, filled)
        go(page, f"{filled.url}/#/access/keys")
        page.get_by_role("button", name="New API key").click()
        dialog = page.get_by_role("dialog", name="New API key")
        dialog.get_by_label("Service account").select_option(label="ci")
        dialog.get_by_label("Label").fill("pipeline")
        dialog.get_by_role("button", name="Make it").click()
        shown = page.get_by_role("dialog", name="The new API key")
        expect(shown).to_contain_text("It is shown this once")
        secret = shown.get_by_label("API key").input_value()
        assert control_plane.KEY.fullmatch(secret)
        assert violations(page) == []
        browser.look(page, "key-shown")
        shown.get_by_role("button", name="Copy").click()
        expect(shown.get_by_role("status")).to_have_text("Copied.")
        assert page.evaluate("navigator.clipboard.readText()") == secret
        shown.get_by_role("button", name="I have stored it").click()
        row = page.locator("tbody tr", has_text="pipeline")
        expect(row).to_contain_text("active")
        assert secret not in page.content()
        assert control_plane.Client(filled.url, secret)("GET", f"{API}/session")

        row.get_by_role("button", name="Rotate").click()
        page.get_by_role("dialog").get_by_role("button", name="Rotate").click()
        successor = page.get_by_role("dialog", name="The successor").get_by_label("API key").input_value()
        page.get_by_role("button", name="I have stored it").click()
        assert successor != secret
        for key in (secret, successor):
            assert control_plane.Client(filled.url, key)("GET", f"{API}/session")

        expect(row).to_have_count(2)
        for left in (2, 1):
            row.first.get_by_role("button", name="Revoke").click()
            dialog = page.get_by_role("dialog")
            expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
            dialog.get_by_role("button", name="Revoke").click()
            expect(row).to_have_count(left - 1)
        for key in (secret, successor):
            with pytest.raises(AssertionError, match="401"):
                control_plane.Client(filled.url, key)("GET", f"{API}/session")


def test_roles_are_given_and_taken_away(filled, browser):
    filled.plane.key("analyst")
    with browser.page() as page:
        sign_in(page, filled)
        go(page, f"{filled.url}/#/access/roles")
        page.get_by_role("button", name="New role binding").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Service account").select_option(label="analyst")
        dialog.get_by_label("Role").select_option(label="operator")
        dialog.get_by_label("On", exact=True).select_option(label="Cluster production / eu-west")
        dialog.get_by_label("Only tables").fill("shop.*")
        dialog.get_by_role("button", name="Give the role").click()
        row = page.locator("tbody tr", has_text="analyst")
        expect(row).to_contain_text("operator")
        expect(row).to_contain_text("production / eu-west / shop.*")
        row.get_by_role("button", name="Take operator").click()
        page.get_by_role("dialog").get_by_role("button", name="Take it away").click()
        expect(row).to_have_count(0)
        go(page, f"{filled.url}/#/audit")
        expect(page.locator("tbody")).to_contain_text("/api/v1/role-bindings")


def test_what_a_session_may_not_do_is_not_offered(filled, browser):
    with browser.page() as page:
        sign_in(page, filled, filled.reader)
        expect(page.locator("main tbody th")).to_have_text(["shop.customers", ORDERS])
        side = page.get_by_role("navigation", name="Console")
        expect(side.get_by_role("link", name="What we know")).to_be_visible()
        for name in ("API keys", "Audit log", "Workers", "Commands"):
            expect(side.get_by_role("link", name=name)).to_have_count(0)
        go(page, filled.at("tables", ORDERS))
        expect(page.get_by_role("group", name="Commands")).to_have_count(0)
    with browser.page(refusals={403, 404}) as page:
        sign_in(page, filled, filled.reader)
        go(page, filled.at("tables", "web.clicks"))
        expect(page.get_by_role("alert")).to_be_visible()
        go(page, f"{filled.url}/#/audit")
        expect(page.get_by_role("alert")).to_contain_text("This credential may not do that")
        assert violations(page) == []
        browser.look(page, "forbidden")


def test_a_wrong_key_and_an_ended_session_are_told(filled, browser):
    account = filled.admin("POST", f"{API}/service-accounts", {"name": "leaver"})["id"]
    binding = {"service_account": account, "role": "metadata_reader", "resource": "organisation"}
    filled.admin("POST", f"{API}/role-bindings", binding)
    made = filled.admin("POST", f"{API}/api-keys", {"service_account": account, "label": "leaver"})
    with browser.page(refusals={401}) as page:
        page.goto(filled.url)
        page.locator("#api-key").fill("no key")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("A valid credential is needed")
        expect(page.locator("#api-key")).to_be_focused()
        sign_in(page, filled, control_plane.Client(filled.url, made["key"]))
        go(page, filled.at("tables", ORDERS))
        filled.admin("DELETE", f"{API}/api-keys/{made['id']}")
        page.get_by_role("link", name="Schema").click()
        expect(heading(page)).to_have_text("Sign in")
        expect(page.get_by_role("alert")).to_contain_text("The session has ended")
        page.locator("#api-key").fill(filled.admin.key)
        page.keyboard.press("Enter")
        expect(heading(page)).to_have_text(ORDERS)


def test_signing_out_leaves_nothing_behind(filled, browser):
    with browser.page() as page:
        sign_in(page, filled)
        expect(page.locator("main tbody th").first).to_be_visible()
        page.get_by_role("button", name="Sign out").focus()
        page.keyboard.press("Enter")
        expect(heading(page)).to_have_text("Sign in")
        page.reload()
        expect(heading(page)).to_have_text("Sign in")
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert filled.admin.key not in kept
        assert ORDERS not in page.content()


def test_an_outage_is_told_and_what_was_known_stays(filled, browser):
    refused = {"title": "Not possible right now", "detail": "the database does not answer; try again", "status": 503}
    with browser.page(refusals={503}) as page:
        page.clock.install()
        sign_in(page, filled)
        expect(page.locator("main tbody th")).to_have_count(6)
        page.route("**/tables*", lambda route: route.fulfill(status=503, json=refused))
        page.clock.run_for(11_000)
        told = page.get_by_role("status").filter(has_text=refused["title"])
        expect(told).to_contain_text(refused["detail"])
        expect(page.locator("main tbody th")).to_have_count(6)
        assert violations(page) == []
        page.unroute("**/tables*")
        page.clock.run_for(11_000)
        expect(told).to_have_count(0)


def test_it_refreshes_itself_and_keeps_focus_and_what_is_open(filled, browser):
    filled.refresh()
    with browser.page() as page:
        page.clock.install()
        sign_in(page, filled)
        go(page, filled.at("workers"))
        page.locator("details summary").focus()
        page.keyboard.press("Enter")
        go_on = page.locator("tbody tr", has_text=filled.worker.id)
        expect(go_on).to_contain_text("37 %")
        filled.worker.say(
            "presence",
            worker_id=filled.worker.id,
            program_version="0.1.0",
            started_ms=int(time.time() * 1000) - 3_600_000,
            vcpus=4,
            utilisation_percent=91,
            memory_bytes=1,
            tables=6,
        )
        page.clock.run_for(11_000)
        expect(go_on).to_contain_text("91 %")
        expect(page.locator("details summary")).to_be_focused()
        expect(page.locator("details")).to_have_attribute("open", "")


def test_colours_follow_the_system_and_the_switch(filled, browser):
    ground = "getComputedStyle(document.body).backgroundColor"
    with browser.page(dark=True) as page:
        page.goto(filled.url)
        dark = page.evaluate(ground)
        page.get_by_role("combobox", name="Colours").select_option("light")
        light = page.evaluate(ground)
        assert dark != light
        page.reload()
        assert page.evaluate(ground) == light


def test_the_menu_of_a_phone(filled, browser):
    with browser.page(phone=True) as page:
        sign_in(page, filled)
        menu = page.get_by_role("button", name="Menu")
        menu.tap()
        expect(page.get_by_role("link", name="Workers")).to_be_visible()
        assert violations(page) == []
        browser.look(page, "menu-phone")
        page.keyboard.press("Escape")
        expect(page.get_by_role("link", name="Workers")).not_to_be_visible()
        expect(menu).to_be_focused()
        menu.tap()
        page.get_by_role("link", name="Workers").tap()
        expect(heading(page)).to_have_text("Workers")


def test_what_can_be_known_is_told_to_anybody(filled, browser):
    served = {(one["message"], one["path"]) for one in filled.admin("GET", f"{API}/disclosures")["items"]}
    with browser.page() as page:
        page.goto(filled.url)
        page.get_by_role("link", name="What is known here").click()
        expect(heading(page)).to_have_text("What we know, and what we cannot know")
        for details in page.locator("details.group").all():
            details.locator("summary").click()
        expect(page.locator("details.group tbody tr")).to_have_count(len(served))
        expect(page.get_by_text("Keys and values of records")).to_be_visible()
        opted = page.locator("details", has_text="Only when opted in")
        expect(opted).to_contain_text("disclose.bounds")
        page.get_by_role("searchbox").fill("utilisation")
        expect(page.locator("details.group tbody tr")).to_have_count(1)
