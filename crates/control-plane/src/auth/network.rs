//! Where a request comes from, and whether its organisation takes requests from there.

use std::net::IpAddr;

use axum::http::HeaderMap;
use sqlx::Row;

use crate::{
    config::Network,
    store::{Store, StoreError},
};

/// Proxies in a row that are followed.
const HOPS_MAX: usize = 16;

/// The client's address. `X-Forwarded-For` counts as far as trusted proxies wrote it: read from its end, the first
/// address that is none of theirs is the client.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut address = peer.to_canonical();
    let said = headers.get_all("x-forwarded-for").iter().rev();
    let mut hops = said.flat_map(|value| value.to_str().unwrap_or("?").rsplit(','));
    for _ in 0..HOPS_MAX {
        if !is_trusted(address) {
            return address;
        }
        match hops.next().map(|hop| hop.trim().parse::<IpAddr>()) {
            Some(Ok(before)) => address = before.to_canonical(),
            // What is no address was written by nobody to be trusted: the last one that is known counts.
            Some(Err(_)) | None => return address,
        }
    }
    address
}

/// The networks from which an organisation takes requests. None: from everywhere.
///
/// # Errors
/// The database's.
pub async fn allowed(store: &Store, organisation: &str) -> Result<Vec<(String, Network)>, StoreError> {
    let rows = sqlx::query("SELECT id, network FROM ip_allow_lists WHERE organisation_id = $1")
        .bind(organisation)
        .fetch_all(store.pool())
        .await?;
    let read = |row: &sqlx::any::AnyRow| {
        let network = Network::parse(&row.try_get::<String, _>("network")?);
        Ok((row.try_get("id")?, network.ok_or(StoreError::Broken { what: "a network of an allow-list" })?))
    };
    rows.iter().map(read).collect()
}

/// Whether a list of networks lets an address in.
pub fn lets_in<'a>(networks: impl IntoIterator<Item = &'a Network>, address: IpAddr) -> bool {
    let mut networks = networks.into_iter().peekable();
    networks.peek().is_none() || networks.any(|network| network.contains(address))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted = [Network::parse("10.0.0.0/8").unwrap(), Network::parse("fd00::1").unwrap()];
        let cases: &[(&str, &[&str], &[Network], &str)] = &[
            ("203.0.113.9", &["198.51.100.1"], &[], "203.0.113.9"),
            ("203.0.113.9", &["198.51.100.1"], &trusted, "203.0.113.9"),
            ("10.0.0.1", &[], &trusted, "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], &trusted, "198.51.100.1"),
            // What the client itself wrote stands before what the proxy wrote.
            ("10.0.0.1", &["192.0.2.7, 198.51.100.1, 10.0.0.2"], &trusted, "198.51.100.1"),
            ("10.0.0.1", &["192.0.2.7", "198.51.100.1"], &trusted, "198.51.100.1"),
            ("10.0.0.1", &["192.0.2.7, rubbish"], &trusted, "10.0.0.1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], &trusted, "198.51.100.1"),
            ("fd00::1", &["2001:db8::5"], &trusted, "2001:db8::5"),
        ];
        for (peer, said, trusted, expected) in cases {
            let found = client(peer.parse().unwrap(), &headers(said), trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {said:?}");
        }
    }

    #[test]
    fn an_empty_list_lets_all_in_and_another_one_what_it_names() {
        let networks = ["192.0.2.128/25", "2001:db8::/32"].map(|text| Network::parse(text).unwrap());
        let within = |text: &str| lets_in(&networks, text.parse().unwrap());
        assert!(lets_in(&[], "198.51.100.1".parse().unwrap()));
        assert!(within("192.0.2.200") && within("::ffff:192.0.2.200") && within("2001:db8:1::1"));
        assert!(!within("192.0.2.1") && !within("2001:db9::1"));
        for wrong in ["", "192.0.2.0/33", "192.0.2", "a/8", "192.0.2.0/", "::/129"] {
            assert!(Network::parse(wrong).is_none(), "{wrong}");
        }
    }
}
