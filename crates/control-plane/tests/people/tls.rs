//! TLS as real handshakes see it.

use std::process::Command;

use siltstone_control_plane::config::Config;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::Server;

fn certificate(directory: &TempDir) -> String {
    let at = |name: &str| directory.path().join(name).display().to_string();
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", &at("key.pem"), "-out", &at("cert.pem")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    format!("[tls]\ncert_file = \"{}\"\nkey_file = \"{}\"\n", at("cert.pem"), at("key.pem"))
}

/// A client hello of an older protocol, with cipher suites of its time; `newer`: with what TLS 1.2 added to hellos.
fn client_hello(minor: u8, newer: bool) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.push(0);
    let suites: [u8; 10] = [0xc0, 0x09, 0xc0, 0x0a, 0xc0, 0x13, 0xc0, 0x14, 0x00, 0x2f];
    body.extend([0, suites.len() as u8]);
    body.extend(suites);
    body.extend([1, 0]);
    // supported_groups: P-256; ec_point_formats: uncompressed.
    let mut extensions = vec![0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0];
    if newer {
        // signature_algorithms: ECDSA with SHA-256.
        extensions.extend([0, 13, 0, 4, 0, 2, 4, 3]);
    }
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut message = vec![1, 0, 0, body.len() as u8];
    message.extend(body);
    let mut record = vec![22, 3, 1, 0, message.len() as u8];
    record.extend(message);
    record
}

#[tokio::test]
async fn tls_is_of_1_2_or_1_3_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let server = Server::with("", &certificate(&directory)).await;
    let health = format!("{}/healthz", server.url);
    for version in [reqwest::tls::Version::TLS_1_2, reqwest::tls::Version::TLS_1_3] {
        let client = reqwest::Client::builder()
            .no_proxy()
            .danger_accept_invalid_certs(true)
            .min_tls_version(version)
            .max_tls_version(version)
            .build()
            .unwrap();
        assert_eq!(client.get(&health).send().await.unwrap().status(), 200, "{version:?}");
    }
    // SSL 3.0, TLS 1.0 and 1.1: a fatal alert, protocol_version; or handshake_failure, if the hello names no signature.
    for (minor, newer) in [(0, false), (0, true), (1, false), (1, true), (2, false), (2, true)] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&client_hello(minor, newer)).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let reason = if newer { 70 } else { 40 };
        assert_eq!(
            (answer.first(), &answer[5..7]),
            (Some(&21), [2, reason].as_slice()),
            "{minor}: {answer:?}"
        );
    }
    // Plain HTTP on the port gets no HTTP back.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP") && !answer.windows(2).any(|two| two == b"ok"), "{answer:?}");
    // Browsers are told to stay with it.
    let answer = server.send("GET", "/healthz", &[], None).await;
    assert_eq!(answer.header("strict-transport-security"), "max-age=31536000");
}

#[test]
fn an_address_that_others_reach_needs_tls_and_no_option_says_otherwise() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("config.toml");
    let read = |text: &str| {
        let tail = "[database]\nurl = \"sqlite::memory:\"\n[master_key]\nkey = \"env:K\"\n";
        std::fs::write(&path, format!("{text}\n{tail}")).unwrap();
        Config::read(&path).map(drop).map_err(|fault| fault.to_string())
    };
    for address in ["0.0.0.0:8443", "[::]:8443", "192.0.2.1:8443", "[2001:db8::1]:8443"] {
        assert!(
            read(&format!("listen = \"{address}\"")).unwrap_err().contains("[tls] is needed"),
            "{address}"
        );
    }
    for address in ["127.0.0.1:8443", "[::1]:8443"] {
        read(&format!("listen = \"{address}\"")).unwrap();
    }
    for option in ["insecure = true", "tls_disabled = true", "public_url = \"http://siltstone.example.com\""]
    {
        assert!(read(&format!("listen = \"127.0.0.1:1\"\n{option}")).is_err(), "{option}");
    }
}
