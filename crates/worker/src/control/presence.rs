//! That this worker is there, and how busy it is.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use siltstone_protocol::presence::Presence;
use tokio::net::UdpSocket;

use super::Wire;

const ZONE_CHARS_MAX: usize = 64;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// Ticks a second in which Linux tells processor time to programs, on every architecture that it runs on today.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads the machine's figures. Where `/proc` is missing, time and memory are 0.
#[derive(Debug)]
pub(super) struct Observer {
    worker_id: String,
    started_ms: i64,
    zone: Option<String>,
    tables: u32,
    vcpus: u16,
    /// Processor time used until then.
    last: (Instant, f64),
}

impl Observer {
    pub(super) fn new(worker_id: String, started_ms: i64, zone: Option<&str>, tables: usize) -> Self {
        let vcpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            worker_id,
            started_ms,
            zone: zone.filter(|zone| is_zone(zone)).map(str::to_owned),
            tables: u32::try_from(tables).unwrap_or(u32::MAX),
            vcpus: u16::try_from(vcpus).unwrap_or(u16::MAX),
            last: (Instant::now(), cpu_seconds()),
        }
    }

    pub(super) async fn look(&mut self, wire: &Wire) -> Presence {
        let (now, cpu) = (Instant::now(), cpu_seconds());
        let could = now.saturating_duration_since(self.last.0).as_secs_f64() * f64::from(self.vcpus);
        let share = if could > 0.0 { (cpu - self.last.1) / could } else { 0.0 };
        self.last = (now, cpu);
        Presence {
            worker_id: self.worker_id.clone(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: self.started_ms,
            vcpus: self.vcpus,
            utilisation_percent: (share * 100.0).clamp(0.0, 100.0).round() as u8,
            memory_bytes: resident_bytes(),
            private_address: private_address(wire).await,
            zone: self.zone.clone(),
            tables: self.tables,
        }
    }
}

/// Letters, digits and dashes.
pub(super) fn is_zone(zone: &str) -> bool {
    let letters = zone.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    letters && !zone.is_empty() && zone.len() <= ZONE_CHARS_MAX
}

/// The address from which the control plane is reached. Nothing is sent to find it out.
async fn private_address(wire: &Wire) -> Option<IpAddr> {
    let to = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(wire.address()?)).await;
    let to = to.ok()?.ok()?.next()?;
    let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(to).await.ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Processor time of this process until now, seconds.
fn cpu_seconds() -> f64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return 0.0 };
    // The name in parentheses may hold anything; user and system time are the 12th and 13th fields after it.
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// Resident memory, bytes.
fn resident_bytes() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_its_figures() {
        assert!(resident_bytes() > 1 << 20);
        let before = cpu_seconds();
        // Reading it is work, so in the end the figure moves, however little of a processor there is.
        assert!((0..10_000_000).any(|_| cpu_seconds() > before));
        assert!(is_zone("eu-west-1a") && !is_zone("") && !is_zone("a b") && !is_zone("a\nb"));
    }
}
