"""Signing in to the console at a real OpenID provider, in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

import lab
from browser import MISSING, Browser, chromium, violations
from test_sign_on import plane  # noqa: F401

pytestmark = pytest.mark.skipif(not chromium(), reason=MISSING)


def test_a_person_signs_in_changes_something_and_signs_out(plane, tmp_path):  # noqa: F811
    browser = Browser(tmp_path)
    try:
        with browser.page(refusals={401}, visits=lab.address("OIDC")) as page:
            page.goto(plane.url)
            expect(page.get_by_label("API key")).to_be_visible()
            assert violations(page) == []
            page.get_by_role("link", name="Sign in with The lab").click()
            page.locator("input[name=login]").fill("ada.admins")
            page.locator("input[name=password]").fill("any")
            page.locator("button[type=submit]").click()
            page.locator("button[type=submit]").click()
            page.wait_for_url(f"{plane.url}/**")
            expect(page.locator(".who")).to_have_text("ada")
            # The session stays over a reload, and its changes carry the token.
            page.reload()
            page.goto(f"{plane.url}/#/access/accounts")
            page.get_by_role("button", name="New service account").click()
            page.get_by_role("dialog").get_by_label("Name").fill("from a session")
            page.get_by_role("button", name="Make it").click()
            expect(page.get_by_role("cell", name="from a session")).to_be_visible()
            page.goto(f"{plane.url}/#/access/users")
            expect(page.get_by_role("row", name="ada.admins@example.com")).to_be_visible()
            page.get_by_role("button", name="Sign out").click()
            page.wait_for_url("**/session/end**")
            page.goto(plane.url)
            expect(page.get_by_label("API key")).to_be_visible()
    finally:
        browser.close()
