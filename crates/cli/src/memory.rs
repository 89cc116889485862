//! The pages of the process's memory.
//!
//! The allocator asks for huge ones (`thp:always`): history goes through buffers of hundreds of MiB, and to fill them
//! by pages of 4 KiB takes a tenth of the time. They make the process some 20 MiB larger, and where one runs for long,
//! memory that it gave back may come back with them. So backfills and resets that have room have them, and no other
//! command asks for them. Where the machine gives them to all, that is left as it is.

use siltstone_spec::quantity::parse_size;

use crate::args::Command;

/// Budgets below this have no room for them.
const ROOM_BYTES: u64 = 512 << 20;

/// Has the kernel give small pages alone to who asks for huge ones unasked. Before anything large is allocated.
pub fn choose_pages(command: &Command) {
    if !wants_huge(command) {
        only_small();
    }
}

fn wants_huge(command: &Command) -> bool {
    let how = match command {
        Command::Backfill(args) => &args.how,
        Command::Reset(args) => &args.how,
        _ => return false,
    };
    parse_size(&how.memory).is_some_and(|bytes| bytes >= ROOM_BYTES)
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "there is no other way to say it to the kernel")]
fn only_small() {
    let of_machine = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    if of_machine.is_ok_and(|words| words.contains("[always]")) {
        return;
    }
    // SAFETY: a setting of this process, said by integers alone.
    let told = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1_u64, 0_u64, 0_u64, 0_u64) };
    if told != 0 {
        tracing::debug!("the kernel does not let huge pages be switched off");
    }
}

#[cfg(not(target_os = "linux"))]
fn only_small() {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn history_with_room_has_huge_pages() {
        let wants = |words: &str| wants_huge(&Cli::try_parse_from(words.split(' ')).unwrap().command);
        assert!(wants("siltstone backfill t -f s.yaml --memory 512MiB"));
        assert!(wants("siltstone reset t -f s.yaml --from 0 --to 9 --memory 2GiB"));
        assert!(!wants("siltstone backfill t -f s.yaml --memory 256MiB"));
        assert!(!wants("siltstone run -f s.yaml --memory 2GiB"));
    }
}
