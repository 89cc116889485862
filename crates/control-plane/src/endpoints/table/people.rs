//! Endpoints of people: signing on and off, users, and from where requests are taken.

use axum::http::{Method, StatusCode};

use super::{
    super::{Endpoint, Page, QueryKind, QueryParameter, Scope},
    CURSOR, LIMIT,
};
use crate::{
    api::{allow_lists, people, sign_on},
    auth::Permission as P,
};

const FORCE: QueryParameter = QueryParameter {
    name: "force",
    about: "Even if the one who asks is locked out by it.",
    kind: QueryKind::Word(&["true", "false"]),
};

const fn text(name: &'static str, about: &'static str, max: usize) -> QueryParameter {
    QueryParameter { name, about, kind: QueryKind::Text { max } }
}

pub(super) fn endpoints() -> Vec<Endpoint> {
    let mut all = sign_on_endpoints();
    all.extend(user_endpoints());
    all.extend(allow_list_endpoints());
    all
}

fn sign_on_endpoints() -> Vec<Endpoint> {
    let (get, public) = (Method::GET, (P::Public, Scope::Nothing));
    vec![
        Endpoint::new(
            get.clone(),
            "/api/v1/sign-on",
            "listSignOn",
            public,
            "How people sign on here.",
            sign_on::providers,
        )
        .gives::<sign_on::SignOnView>(),
        Endpoint::new(
            get.clone(),
            "/api/v1/oidc/login",
            "beginSignOn",
            public,
            "For browsers: begins a sign-on, and goes to the provider.",
            sign_on::login,
        )
        .query(&[text("provider", "One of GET /api/v1/sign-on; by default the first.", 64)])
        .status(StatusCode::SEE_OTHER),
        Endpoint::new(
            get,
            "/api/v1/oidc/callback",
            "finishSignOn",
            public,
            "For browsers: comes back from the provider, begins a session, and goes to the console.",
            sign_on::callback,
        )
        .query(&[
            text("state", "Of the sign-on that this browser began.", 512),
            text("code", "Of the provider, to be used once.", 4_096),
            text("iss", "The provider's issuer (RFC 9207).", 512),
            text("error", "Why the provider refused.", 512),
        ])
        .lenient()
        .status(StatusCode::SEE_OTHER),
        Endpoint::new(
            Method::POST,
            "/api/v1/session/logout",
            "endSession",
            (P::Session, Scope::Nothing),
            "Ends the session of the cookie. Of an API key, nothing ends.",
            sign_on::logout,
        )
        .gives::<sign_on::SignedOff>(),
    ]
}

fn user_endpoints() -> Vec<Endpoint> {
    let (read, manage) = ((P::ReadAccess, Scope::Organisation), (P::ManageAccess, Scope::Organisation));
    vec![
        Endpoint::new(
            Method::GET,
            "/api/v1/users",
            "listUsers",
            read,
            "People who signed on at least once.",
            people::list,
        )
        .query(&[CURSOR, LIMIT])
        .gives::<Page<people::User>>(),
        Endpoint::new(
            Method::DELETE,
            "/api/v1/users/{user}",
            "deleteUser",
            manage,
            "Deletes a user with sessions and role bindings. Who may still sign on comes back as a new user.",
            people::delete,
        ),
        Endpoint::new(
            Method::POST,
            "/api/v1/users/{user}/disable",
            "disableUser",
            manage,
            "Ends all sessions of a user, who cannot sign on any more.",
            people::disable,
        ),
        Endpoint::new(
            Method::POST,
            "/api/v1/users/{user}/enable",
            "enableUser",
            manage,
            "Lets a user sign on again.",
            people::enable,
        ),
        Endpoint::new(
            Method::DELETE,
            "/api/v1/users/{user}/sessions",
            "endSessionsOfUser",
            manage,
            "Ends all sessions of a user.",
            people::end_sessions,
        ),
    ]
}

fn allow_list_endpoints() -> Vec<Endpoint> {
    let (read, manage) = ((P::ReadAccess, Scope::Organisation), (P::ManageAccess, Scope::Organisation));
    vec![
        Endpoint::new(
            Method::GET,
            "/api/v1/ip-allow-lists",
            "listAllowedNetworks",
            read,
            "Networks from which requests are taken. None: from everywhere.",
            allow_lists::list,
        )
        .query(&[CURSOR, LIMIT])
        .gives::<Page<allow_lists::AllowedNetwork>>(),
        Endpoint::new(
            Method::POST,
            "/api/v1/ip-allow-lists",
            "createAllowedNetwork",
            manage,
            "Takes requests from a network. With the first one, those from elsewhere are refused.",
            allow_lists::create,
        )
        .query(&[FORCE])
        .takes::<allow_lists::NewAllowedNetwork>()
        .gives::<allow_lists::AllowedNetwork>()
        .status(StatusCode::CREATED),
        Endpoint::new(
            Method::DELETE,
            "/api/v1/ip-allow-lists/{ip_allow_list}",
            "deleteAllowedNetwork",
            manage,
            "Takes no more requests from a network.",
            allow_lists::delete,
        )
        .query(&[FORCE]),
    ]
}
