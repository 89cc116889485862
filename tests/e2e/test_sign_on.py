"""People sign on at a real OpenID provider, with its forms, cookies and redirects, as a browser goes through them."""

from __future__ import annotations

import html
import re

import pytest
import requests

import control_plane
import lab
from control_plane import API, ControlPlane

CONFIG = """
[[oidc]]
name = "lab"
title = "The lab"
issuer = "{issuer}"
client_id = "{client_id}"
client_secret = "file:{home}/client.secret"
scopes = ["email", "profile", "groups"]
organisation = "default"
email_domains = ["example.com"]
default_role = {{ role = "metadata_reader" }}

[[oidc.group_roles]]
group = "admins"
role = "organisation_admin"
"""


class Person:
    """A browser without scripts, and who sits before it."""

    def __init__(self, plane: ControlPlane, login: str):
        self.plane, self.login = plane, login
        self.http = requests.Session()
        self.csrf = ""

    def sign_on(self) -> requests.Response:
        page = self.http.get(f"{self.plane.url}{API}/oidc/login?provider=lab", timeout=30)
        for prompt, more in (("login", {"login": self.login, "password": "any"}), ("consent", {})):
            if page.url.startswith(self.plane.url):
                break
            action = html.unescape(re.search(r'<form[^>]*action="([^"]+)"', page.text)[1])
            assert f'value="{prompt}"' in page.text, page.text
            page = self.http.post(action, data={"prompt": prompt, **more}, timeout=30)
        if page.ok:
            self.csrf = self("GET", "/session").json()["csrf_token"]
        return page

    def __call__(self, method: str, path: str, body=None, **headers) -> requests.Response:
        headers = {"Siltstone-Csrf": self.csrf, **headers}
        return self.http.request(method, f"{self.plane.url}{API}{path}", json=body, headers=headers, timeout=30)


@pytest.fixture
def plane(services, tmp_path):
    made = ControlPlane(control_plane.build(), tmp_path)
    issuer = lab.address("OIDC")
    callback = f"{made.url}{API}/oidc/callback"
    client = {"redirect_uris": [callback], "post_logout_redirect_uris": [f"{made.url}/"], "client_name": "Siltstone"}
    answer = requests.post(f"{issuer}/reg", json=client, timeout=30)
    assert answer.status_code == 201, answer.text
    (tmp_path / "client.secret").write_text(answer.json()["client_secret"])
    oidc = CONFIG.format(issuer=issuer, home=tmp_path, client_id=answer.json()["client_id"])
    made.config.write_text(f'public_url = "{made.url}"\n{made.config.read_text()}{oidc}')
    made.start()
    yield made
    made.stop()


def test_people_sign_on_at_a_real_provider_and_do_what_their_groups_allow(plane):
    ada, bob = Person(plane, "ada.admins"), Person(plane, "bob")
    for person in (ada, bob):
        page = person.sign_on()
        assert page.url == f"{plane.url}/" and page.status_code == 200, page.text
    who = ada("GET", "/session").json()
    assert (who["user"]["email"], who["user"]["name"]) == ("ada.admins@example.com", "ada")
    assert {grant["role"] for grant in who["grants"]} == {"metadata_reader", "organisation_admin"}

    assert ada("POST", "/environments", {"name": "production"}).status_code == 201
    assert bob("POST", "/environments", {"name": "other"}).status_code == 403
    assert [one["name"] for one in bob("GET", "/environments").json()["items"]] == ["production"]
    assert bob("GET", "/users").status_code == 403
    users = {one["email"]: one for one in ada("GET", "/users").json()["items"]}
    assert set(users) == {"ada.admins@example.com", "bob@example.com"}

    # Another site's page has the cookie sent along, and neither token nor origin.
    body = {"name": "forged"}
    assert ada("POST", "/environments", body, **{"Siltstone-Csrf": ""}).status_code == 403
    assert ada("POST", "/environments", body, Origin="https://evil.example.com").status_code == 403
    assert ada("POST", "/environments", body, **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert ada("POST", "/environments", body, Origin=plane.url).status_code == 201

    # Sessions outlive the server, and end with their user.
    plane.stop()
    plane.start()
    assert bob("GET", "/session").status_code == 200
    assert ada("POST", f"/users/{users['bob@example.com']['id']}/disable").status_code == 204
    assert bob("GET", "/session").status_code == 401
    again = bob.sign_on()
    assert again.status_code == 403 and "disabled" in again.json()["detail"], again.text

    stolen = ada.http.cookies.get("siltstone-session")
    off = ada("POST", "/session/logout")
    assert off.status_code == 200
    ended = ada.http.get(off.json()["provider_logout"], timeout=30)
    assert ended.status_code == 200 and "logout" in ended.url, ended.text
    stale = requests.get(f"{plane.url}{API}/session", cookies={"siltstone-session": stolen}, timeout=30)
    assert stale.status_code == 401
    log = plane.admin("GET", f"{API}/audit?limit=1000")["items"]
    actor = f"user/{users['ada.admins@example.com']['id']}"
    changed = {one["action"] for one in log if one["actor"] == actor and one["outcome"] == "changed"}
    assert {f"GET {API}/oidc/callback", f"POST {API}/environments", f"POST {API}/session/logout"} <= changed
    assert stolen not in str(log) + (plane.home / "log").read_text()


def test_who_the_config_does_not_name_and_what_comes_twice_is_refused(plane):
    refused = Person(plane, "eve.unverified").sign_on()
    assert refused.status_code == 403 and "domain" in refused.json()["detail"], refused.text

    # The provider's answer, taken on its way: of no use in another browser, nor a second time.
    carol = Person(plane, "carol")
    page = carol.sign_on()
    callback = next(one.url for one in page.history if "/oidc/callback?" in one.url)
    for browser in (carol.http, requests.Session()):
        replayed = browser.get(callback, timeout=30, allow_redirects=False)
        assert replayed.status_code == 401, replayed.text
    assert carol("GET", "/session").status_code == 200
