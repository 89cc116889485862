//! An OpenID provider that can be told to misbehave. Its codes are good once, and only with the right verifier.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use openidconnect::{
    JsonWebKeyId, PrivateSigningKey,
    core::{CoreEdDsaPrivateSigningKey, CoreJwsSigningAlgorithm},
};
use rand::RngCore;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::Url;

pub(crate) const CLIENT: &str = "siltstone";
pub(crate) const CLIENT_SECRET: &str = "client-secret";

/// How the next ID token is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    Right,
    /// `alg` none, and no signature.
    Not,
    /// By a key that was never published, under the id of one that was.
    Forged,
    /// HMAC with the client's secret.
    Shared,
}

pub(crate) struct State_ {
    pub issuer: String,
    pub key: CoreEdDsaPrivateSigningKey,
    pub key_id: String,
    pub signed: Signed,
    /// Put over the claims of the next ID tokens; null takes one away.
    pub claims: Value,
    pub user_info: Value,
    pub discoveries: u32,
    /// Code to its challenge and nonce.
    codes: HashMap<String, (String, String)>,
}

pub(crate) struct Provider {
    pub state: Arc<Mutex<State_>>,
    pub issuer: String,
}

pub(crate) fn key(id: &str) -> CoreEdDsaPrivateSigningKey {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    let prefix = [0x30, 0x2e, 0x02, 0x01, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let der = BASE64_STANDARD.encode([prefix.as_slice(), &seed].concat());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
    CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, Some(JsonWebKeyId::new(id.to_owned()))).unwrap()
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State_ {
            issuer: issuer.clone(),
            key: key("k1"),
            key_id: "k1".to_owned(),
            signed: Signed::Right,
            claims: json!({}),
            user_info: json!({ "sub": "person-1" }),
            discoveries: 0,
            codes: HashMap::new(),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/token", post(token))
            .route("/me", get(me))
            .with_state(Arc::clone(&state));
        tokio::spawn(async move {
            let served = axum_server::from_tcp(listener.into_std().unwrap()).unwrap();
            served.serve(router.into_make_service()).await.unwrap();
        });
        Self { state, issuer }
    }

    /// `[[oidc]]` of a config.
    pub(crate) fn config(&self, more: &str) -> String {
        format!(
            "[[oidc]]\nname = \"company\"\ntitle = \"Company\"\nissuer = \"{}\"\nclient_id = \"{CLIENT}\"\n\
             client_secret = \"{CLIENT_SECRET}\"\norganisation = \"acme\"\n{more}\n",
            self.issuer
        )
    }

    /// What a person's consent at the provider gives: a code for the request that a browser was sent with.
    pub(crate) fn code(&self, authorize: &str) -> (String, String) {
        let url = Url::parse(authorize).unwrap();
        let all: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        assert_eq!((all["response_type"].as_str(), all["client_id"].as_str()), ("code", CLIENT));
        assert_eq!(all["code_challenge_method"], "S256");
        assert!(all["scope"].split(' ').any(|scope| scope == "openid"));
        let mut bytes = [0; 16];
        rand::rng().fill_bytes(&mut bytes);
        let code = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let of = (all["code_challenge"].clone(), all["nonce"].clone());
        self.state.lock().unwrap().codes.insert(code.clone(), of);
        (code, all["state"].clone())
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut State_)) {
        change(&mut self.state.lock().unwrap());
    }
}

type Shared = State<Arc<Mutex<State_>>>;

async fn discovery(State(state): Shared) -> Json<Value> {
    let mut state = state.lock().unwrap();
    state.discoveries += 1;
    let issuer = &state.issuer;
    Json(json!({
        "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/jwks"),
        "userinfo_endpoint": format!("{issuer}/me"), "end_session_endpoint": format!("{issuer}/end"),
        "response_types_supported": ["code"], "subject_types_supported": ["public"],
        // A server that took the provider's word would take `none`.
        "id_token_signing_alg_values_supported": ["EdDSA", "HS256", "none"],
    }))
}

async fn jwks(State(state): Shared) -> Json<Value> {
    let state = state.lock().unwrap();
    Json(json!({ "keys": [serde_json::to_value(state.key.as_verification_key()).unwrap()] }))
}

async fn me(State(state): Shared, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    if headers.get("authorization").is_none_or(|value| value != "Bearer access") {
        return (StatusCode::UNAUTHORIZED, Json(json!({})));
    }
    (StatusCode::OK, Json(state.lock().unwrap().user_info.clone()))
}

async fn token(State(state): Shared, headers: HeaderMap, body: String) -> (StatusCode, Json<Value>) {
    let form: BTreeMap<_, _> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    let mut state = state.lock().unwrap();
    let refused = (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" })));
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{CLIENT}:{CLIENT_SECRET}")));
    if headers.get("authorization").is_none_or(|value| *value != *basic) {
        return refused;
    }
    let Some((challenge, nonce)) = state.codes.remove(&form["code"]) else { return refused };
    if BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"])) != challenge {
        return refused;
    }
    let now = 1_790_000_000;
    let mut claims = json!({
        "iss": state.issuer, "sub": "person-1", "aud": CLIENT, "exp": now + 300, "iat": now, "nonce": nonce,
        "email": "ada@example.com", "email_verified": true, "name": "Ada",
    });
    for (name, value) in state.claims.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    let answer = json!({
        "access_token": "access", "token_type": "Bearer", "expires_in": 300, "id_token": sign(&state, &claims),
    });
    (StatusCode::OK, Json(answer))
}

fn sign(state: &State_, claims: &Value) -> String {
    let algorithm = match state.signed {
        Signed::Right | Signed::Forged => "EdDSA",
        Signed::Not => "none",
        Signed::Shared => "HS256",
    };
    let header = json!({ "alg": algorithm, "typ": "JWT", "kid": state.key_id });
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&header), part(claims));
    let by = |key: &CoreEdDsaPrivateSigningKey| {
        key.sign(&CoreJwsSigningAlgorithm::EdDsa, message.as_bytes()).unwrap()
    };
    let signature = match state.signed {
        Signed::Right => by(&state.key),
        Signed::Forged => by(&key(&state.key_id)),
        Signed::Not => Vec::new(),
        Signed::Shared => {
            use hmac::Mac;
            let mut mac = hmac::Hmac::<Sha256>::new_from_slice(CLIENT_SECRET.as_bytes()).unwrap();
            mac.update(message.as_bytes());
            mac.finalize().into_bytes().to_vec()
        }
    };
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}
