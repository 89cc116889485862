//! Signing on, sessions and signing off.

use serde_json::{Value, json};

use super::{
    provider::{Provider, Signed, key},
    support::{Answer, Server, id},
};

const PUBLIC: &str = "public_url = \"http://127.0.0.1:8443\"";
const READER: &str = "default_role = { role = \"metadata_reader\" }\n[[oidc.group_roles]]\ngroup = \"admins\"\n\
                      role = \"organisation_admin\"\n";
const SESSION: &str = "siltstone-session";
const FLOW: &str = "siltstone-sign-on";

struct Browser<'a> {
    server: &'a Server,
    session: String,
    csrf: String,
}

impl Browser<'_> {
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let cookie = format!("{SESSION}={}", self.session);
        let headers = [("cookie", cookie.as_str()), ("siltstone-csrf", self.csrf.as_str())];
        let answer = self.server.send(method, path, &headers, body.as_ref()).await;
        (answer.status, answer.json())
    }
}

/// The flow's cookie, and the code and state that the provider gave.
async fn begun(server: &Server, provider: &Provider) -> (String, String, String) {
    let answer = server.send("GET", "/api/v1/oidc/login?provider=company", &[], None).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    let (code, state) = provider.code(answer.header("location"));
    (answer.cookie(FLOW), code, state)
}

async fn back(server: &Server, cookie: &str, code: &str, state: &str) -> Answer {
    let path = format!("/api/v1/oidc/callback?code={code}&state={state}&session_state=whatever");
    server.send("GET", &path, &[("cookie", &format!("{FLOW}={cookie}"))], None).await
}

async fn signed_on<'a>(server: &'a Server, provider: &Provider) -> Browser<'a> {
    let (cookie, code, state) = begun(server, provider).await;
    let answer = back(server, &cookie, &code, &state).await;
    assert_eq!((answer.status, answer.header("location")), (303, "/"), "{}", answer.text);
    let mut browser = Browser { server, session: answer.cookie(SESSION), csrf: String::new() };
    let (_, who) = browser.ask("GET", "/api/v1/session", None).await;
    browser.csrf = who["csrf_token"].as_str().unwrap().to_owned();
    browser
}

async fn tried(server: &Server, provider: &Provider) -> (u16, String) {
    let (cookie, code, state) = begun(server, provider).await;
    let answer = back(server, &cookie, &code, &state).await;
    (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_person_signs_on_does_what_the_roles_allow_and_signs_off() {
    let provider = Provider::start().await;
    let server = Server::with(PUBLIC, &provider.config(READER)).await;
    let listed = server.send("GET", "/api/v1/sign-on", &[], None).await.json();
    let login = "/api/v1/oidc/login?provider=company";
    assert_eq!(listed, json!({ "providers": [{ "name": "company", "title": "Company", "login": login }] }));

    let (cookie, code, state) = begun(&server, &provider).await;
    let answer = back(&server, &cookie, &code, &state).await;
    let cookies = answer.cookies();
    let (_, _, attributes) = cookies.iter().find(|(name, _, _)| name == SESSION).unwrap();
    assert_eq!(attributes, "Path=/; Max-Age=43200; HttpOnly; SameSite=Lax");
    assert_eq!(answer.cookie(FLOW), "", "the flow is over");

    let browser = signed_on(&server, &provider).await;
    let (status, who) = browser.ask("GET", "/api/v1/session", None).await;
    assert_eq!(
        (status, &who["user"]["email"], &who["user"]["name"]),
        (200, &json!("ada@example.com"), &json!("Ada"))
    );
    assert_eq!((&who["api_key"], &who["grants"][0]["role"]), (&Value::Null, &json!("metadata_reader")));
    assert_eq!(browser.ask("GET", "/api/v1/environments", None).await.0, 200);
    assert_eq!(browser.ask("POST", "/api/v1/environments", Some(json!({ "name": "x" }))).await.0, 403);

    // The same person is the same user; the admin sees it, and the database has neither address nor secrets.
    let (_, users) = server.admin("GET", "/api/v1/users", None).await;
    assert_eq!(users["items"].as_array().unwrap().len(), 1);
    let user = &users["items"][0];
    assert_eq!((&user["email"], &user["sessions"]), (&json!("ada@example.com"), &json!(2)));
    assert_eq!(user["subject"], "person-1");
    assert!(server.app.audit.flush().await);
    for stored in server.stored() {
        for secret in ["ada@example.com", "person-1", browser.session.as_str(), browser.csrf.as_str(), &state]
        {
            assert!(!stored.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret}");
        }
    }

    // A role for the user, beside those of the sign-on.
    let binding = json!({ "user": user["id"], "role": "operator", "resource": "organisation" });
    let made = server.made("/api/v1/role-bindings", binding).await;
    assert_eq!((&made["user"], &made["origin"]), (&user["id"], &json!("api")));
    let both =
        json!({ "user": user["id"], "service_account": "x", "role": "operator", "resource": "organisation" });
    assert_eq!(server.admin("POST", "/api/v1/role-bindings", Some(both)).await.0, 400);
    let (_, who) = browser.ask("GET", "/api/v1/session", None).await;
    assert_eq!(who["grants"].as_array().unwrap().len(), 2);
    let (_, bindings) = server.admin("GET", "/api/v1/role-bindings", None).await;
    let of_user =
        bindings["items"].as_array().unwrap().iter().filter(|one| one["user"] == user["id"]).count();
    assert_eq!(of_user, 2);
    let path = format!("/api/v1/role-bindings/{}", id(&made));
    assert_eq!(server.admin("DELETE", &path, None).await.0, 204);

    let (status, off) = browser.ask("POST", "/api/v1/session/logout", None).await;
    assert_eq!(status, 200);
    let away = off["provider_logout"].as_str().unwrap();
    assert!(
        away.starts_with(&format!("{}/end?", provider.issuer)) && away.contains("post_logout_redirect_uri")
    );
    assert_eq!(browser.ask("GET", "/api/v1/session", None).await.0, 401);
    let actor = format!("user/{}", id(user));
    let log = server.log().await;
    for action in ["GET /api/v1/oidc/callback", "POST /api/v1/session/logout"] {
        assert!(
            log.iter()
                .any(|one| one["actor"] == actor && one["action"] == action && one["outcome"] == "changed")
        );
    }
}

#[tokio::test]
async fn roles_follow_the_groups_of_each_sign_on() {
    let provider = Provider::start().await;
    let server = Server::with(PUBLIC, &provider.config(READER)).await;
    provider.set(|state| state.claims = json!({ "groups": ["admins"] }));
    let admin = signed_on(&server, &provider).await;
    let made = admin.ask("POST", "/api/v1/environments", Some(json!({ "name": "x" }))).await;
    assert_eq!(made.0, 201, "{}", made.1);
    // The groups may be with the user info only.
    provider.set(|state| {
        state.claims = json!({});
        state.user_info = json!({ "sub": "person-1", "groups": ["admins"] });
    });
    assert_eq!(signed_on(&server, &provider).await.ask("GET", "/api/v1/users", None).await.0, 200);
    provider.set(|state| state.user_info = json!({ "sub": "person-1", "groups": [] }));
    let reader = signed_on(&server, &provider).await;
    assert_eq!(reader.ask("GET", "/api/v1/users", None).await.0, 403);
    assert_eq!(admin.ask("GET", "/api/v1/users", None).await.0, 403, "of the session before, too");
    provider.set(|state| state.user_info = json!({ "sub": "person-2", "groups": ["admins"] }));
    assert_eq!(tried(&server, &provider).await.0, 401, "of somebody else");
}

#[tokio::test]
async fn tokens_that_do_not_hold_sign_nobody_on() {
    let provider = Provider::start().await;
    let server = Server::with(PUBLIC, &provider.config("email_domains = [\"example.com\"]\n")).await;
    let now = server.now_ms() / 1_000;
    let cases = [
        ("nonce", json!("x"), 401, "nonce"),
        ("nonce", Value::Null, 401, "nonce"),
        ("aud", json!("another"), 401, "audience"),
        ("aud", json!(["siltstone", "another"]), 401, "audience"),
        ("azp", json!("another"), 401, "audience"),
        ("iss", json!("http://127.0.0.1:1"), 401, "issuer"),
        ("exp", json!(now - 61), 401, "time"),
        ("iat", json!(now + 3_600), 401, ""),
        ("sub", json!(""), 401, ""),
        ("email", json!("ada@elsewhere.com"), 403, "domain"),
        ("email_verified", json!(false), 403, "domain"),
    ];
    for (claim, value, status, word) in cases {
        provider.set(|state| state.claims = json!({ claim: value }));
        let tried = tried(&server, &provider).await;
        assert_eq!(tried.0, status, "{claim} {value}: {}", tried.1);
        assert!(tried.1.contains(word), "{claim} {value}: {}", tried.1);
    }
    provider.set(|state| state.claims = json!({}));
    for signed in [Signed::Not, Signed::Forged, Signed::Shared] {
        provider.set(|state| state.signed = signed);
        assert_eq!(tried(&server, &provider).await.0, 401);
    }
    provider.set(|state| state.signed = Signed::Right);
    signed_on(&server, &provider).await;
    let refused =
        server.log().await.iter().filter(|one| one["action"] == "GET /api/v1/oidc/callback").count();
    assert_eq!(refused, 15, "each is written down");
}

#[tokio::test]
async fn a_flow_is_of_one_browser_and_good_once() {
    let provider = Provider::start().await;
    let server = Server::with(PUBLIC, &provider.config(READER)).await;
    let (cookie, code, state) = begun(&server, &provider).await;
    let (other, _, other_state) = begun(&server, &provider).await;
    // An attacker's code and state in the victim's browser, and the other way round; and none at all.
    for (cookie, state) in
        [(&other, &state), (&cookie, &other_state), (&cookie, &"x".to_owned()), (&"".to_owned(), &state)]
    {
        let answer = back(&server, cookie, &code, state).await;
        assert_eq!(answer.status, 401, "{}", answer.text);
    }
    let answer = back(&server, &cookie, &code, &state).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    assert_eq!(back(&server, &cookie, &code, &state).await.status, 401, "the flow is over");
    // A code that was used, in a new flow.
    let (cookie, _, state) = begun(&server, &provider).await;
    assert_eq!(back(&server, &cookie, &code, &state).await.status, 401);
    // Another provider's answer (RFC 9207), a refusal, and a flow that took too long.
    let (cookie, code, state) = begun(&server, &provider).await;
    let mixed = format!("{state}&iss=https%3A%2F%2Fevil.example.com");
    assert_eq!(back(&server, &cookie, &code, &mixed).await.status, 401);
    let (cookie, _, state) = begun(&server, &provider).await;
    assert_eq!(back(&server, &cookie, "", &format!("{state}&error=access_denied")).await.status, 401);
    let (cookie, code, state) = begun(&server, &provider).await;
    server.pass(600_000);
    assert_eq!(back(&server, &cookie, &code, &state).await.status, 401);
    assert_eq!(server.send("GET", "/api/v1/oidc/login?provider=none", &[], None).await.status, 404);
}

#[tokio::test]
async fn a_session_is_fresh_and_ends_by_rest_age_and_admins() {
    let provider = Provider::start().await;
    let server = Server::with(PUBLIC, &provider.config(READER)).await;
    // Fixation: a session that the browser brings along is not taken on, and ends.
    let before = signed_on(&server, &provider).await;
    let (cookie, code, state) = begun(&server, &provider).await;
    let path = format!("/api/v1/oidc/callback?code={code}&state={state}");
    let cookies = format!("{FLOW}={cookie}; {SESSION}={}", before.session);
    let answer = server.send("GET", &path, &[("cookie", &cookies)], None).await;
    assert_ne!(answer.cookie(SESSION), before.session);
    assert_eq!(before.ask("GET", "/api/v1/session", None).await.0, 401);
    for chosen in ["", "x", &"A".repeat(43)] {
        let browser = Browser { server: &server, session: chosen.to_owned(), csrf: String::new() };
        assert_eq!(browser.ask("GET", "/api/v1/session", None).await.0, 401, "{chosen}");
    }

    let minute = 60_000;
    let browser = signed_on(&server, &provider).await;
    for _ in 0..10 {
        server.pass(50 * minute);
        assert_eq!(browser.ask("GET", "/api/v1/session", None).await.0, 200, "it is used");
    }
    server.pass(60 * minute);
    assert_eq!(browser.ask("GET", "/api/v1/session", None).await.0, 401, "it rested");
    provider.set(|state| state.claims = json!({ "exp": 1_900_000_000 }));
    let browser = signed_on(&server, &provider).await;
    for _ in 0..14 {
        server.pass(50 * minute);
        assert_eq!(browser.ask("GET", "/api/v1/session", None).await.0, 200);
    }
    server.pass(50 * minute);
    assert_eq!(browser.ask("GET", "/api/v1/session", None).await.0, 401, "12 hours are over");

    let (browser, second) = (signed_on(&server, &provider).await, signed_on(&server, &provider).await);
    let (_, users) = server.admin("GET", "/api/v1/users", None).await;
    let user = format!("/api/v1/users/{}", id(&users["items"][0]));
    assert_eq!(server.admin("POST", &format!("{user}/disable"), None).await.0, 204);
    for browser in [&browser, &second] {
        assert_eq!(browser.ask("GET", "/api/v1/session", None).await.0, 401, "disabled");
    }
    assert_eq!(tried(&server, &provider).await.0, 403);
    assert_eq!(server.admin("POST", &format!("{user}/enable"), None).await.0, 204);
    assert_eq!(browser.ask("GET", "/api/v1/session", None).await.0, 401, "it does not come back");
    let browser = signed_on(&server, &provider).await;
    assert_eq!(server.admin("DELETE", &format!("{user}/sessions"), None).await.0, 204);
    assert_eq!(browser.ask("GET", "/api/v1/session", None).await.0, 401);
    let browser = signed_on(&server, &provider).await;
    assert_eq!(server.admin("DELETE", &user, None).await.0, 204);
    assert_eq!(browser.ask("GET", "/api/v1/session", None).await.0, 401);
    assert_eq!(server.admin("DELETE", &user, None).await.0, 404);
}

#[tokio::test]
async fn a_request_with_a_cookie_alone_changes_nothing() {
    let provider = Provider::start().await;
    let server =
        Server::with(PUBLIC, &provider.config("default_role = { role = \"organisation_admin\" }")).await;
    let browser = signed_on(&server, &provider).await;
    let (cookie, token) = (format!("{SESSION}={}", browser.session), browser.csrf.clone());
    let other = signed_on(&server, &provider).await.csrf;
    let own = ("origin", "http://127.0.0.1:8443");
    let cases: &[(&[(&str, &str)], u16)] = &[
        (&[], 403),
        (&[own], 403),
        (&[("siltstone-csrf", "")], 403),
        (&[("siltstone-csrf", &other)], 403),
        (&[("siltstone-csrf", &token), ("siltstone-csrf", &token)], 403),
        (&[("siltstone-csrf", &token), ("origin", "https://evil.example.com")], 403),
        (&[("siltstone-csrf", &token), ("origin", "null")], 403),
        (&[("siltstone-csrf", &token), ("sec-fetch-site", "cross-site")], 403),
        (&[("siltstone-csrf", &token), ("sec-fetch-site", "same-site")], 403),
        (&[("siltstone-csrf", &token), own, ("sec-fetch-site", "same-origin")], 201),
        (&[("siltstone-csrf", &token)], 201),
    ];
    for (number, (more, expected)) in cases.iter().enumerate() {
        let headers = [&[("cookie", cookie.as_str())], *more].concat();
        let body = json!({ "name": format!("e{number}") });
        let answer = server.send("POST", "/api/v1/environments", &headers, Some(&body)).await;
        assert_eq!(answer.status, *expected, "{more:?}: {}", answer.text);
        let logout = server.send("POST", "/api/v1/session/logout", &headers[..1], None).await;
        assert_eq!(logout.status, 403);
    }
    // Two cookies of the name: one of them was put there by somebody else.
    let twice = format!("{cookie}; {cookie}");
    assert_eq!(server.send("GET", "/api/v1/session", &[("cookie", &twice)], None).await.status, 401);
    // A key counts before a cookie, also when it is wrong; and needs no token.
    let bearer = format!("Bearer {}", server.admin);
    let both = [("cookie", cookie.as_str()), ("authorization", bearer.as_str())];
    let made = server.send("POST", "/api/v1/environments", &both, Some(&json!({ "name": "key" }))).await;
    assert_eq!(made.status, 201);
    let wrong = [("cookie", cookie.as_str()), ("authorization", "Bearer sst_x")];
    assert_eq!(server.send("GET", "/api/v1/environments", &wrong, None).await.status, 401);
    let denied = server.log().await;
    assert!(denied.iter().any(|one| one["resource"] == "session" && one["outcome"] == "denied"));
}

#[tokio::test]
async fn new_keys_of_the_provider_are_found_and_its_outage_is_said() {
    let provider = Provider::start().await;
    let server = Server::with(PUBLIC, &provider.config(READER)).await;
    signed_on(&server, &provider).await;
    let known = provider.state.lock().unwrap().discoveries;
    server.pass(31_000);
    provider.set(|state| (state.key, state.key_id) = (key("k2"), "k2".to_owned()));
    signed_on(&server, &provider).await;
    signed_on(&server, &provider).await;
    assert_eq!(provider.state.lock().unwrap().discoveries, known + 1);
    // Unknown keys do not make this server ask without end.
    provider.set(|state| state.key_id = "k3".to_owned());
    for _ in 0..3 {
        assert_eq!(tried(&server, &provider).await.0, 401);
    }
    assert_eq!(provider.state.lock().unwrap().discoveries, known + 1);

    let gone = "[[oidc]]\nname = \"gone\"\nissuer = \"http://127.0.0.1:1\"\nclient_id = \"s\"\norganisation = \"acme\"\n";
    let server = Server::with(PUBLIC, gone).await;
    let answer = server.send("GET", "/api/v1/oidc/login", &[], None).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
}

#[tokio::test]
async fn over_https_cookies_are_for_this_host_alone() {
    let provider = Provider::start().await;
    let server =
        Server::with("public_url = \"https://siltstone.example.com\"", &provider.config(READER)).await;
    let answer = server.send("GET", "/api/v1/oidc/login", &[("host", "evil.example.com")], None).await;
    assert!(answer.header("location").contains("redirect_uri=https%3A%2F%2Fsiltstone.example.com%2Fapi"));
    assert!(!answer.header("location").contains("evil"));
    let cookies = answer.cookies();
    assert_eq!(cookies[0].0, "__Host-siltstone-sign-on");
    assert_eq!(cookies[0].2, "Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure");
    let many = async || server.send("GET", "/api/v1/oidc/login", &[], None).await.status;
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(many().await);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
}
