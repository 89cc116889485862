#!/usr/bin/env bash
# Checks dependencies: known advisories, licences, sources, wildcards (.deny.toml). The tool is built when it is not there.
#
# Advisories are those of RustSec's database (CC0-1.0) as kept in advisories.tar.xz; SILTSTONE_ADVISORIES names the
# folder of a newer copy.
source "$(dirname "${BASH_SOURCE[0]}")/services/common.sh"

VERSION=0.20.2
HOME_OF_TOOL="$SILTSTONE_LAB/dist/cargo-deny-$VERSION"
TOOL="$HOME_OF_TOOL/bin/cargo-deny"
TESTS_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# The name that the tool gives to a copy of this database.
DATABASE="$SILTSTONE_LAB/data/advisories/advisory-db-3157b0e258782691"

fetch_tool() {
  [ -x "$TOOL" ] && return 0
  say "building cargo-deny $VERSION"
  CARGO_TARGET_DIR="$HOME_OF_TOOL/target" retry 2 cargo install --quiet cargo-deny --version "$VERSION" --locked --debug \
    --no-default-features --root "$HOME_OF_TOOL" && rm -rf "$HOME_OF_TOOL/target"
}

# The tool reads a database as a clone of git.
make_database() {
  rm -rf "$DATABASE"; mkdir -p "$DATABASE"
  if [ -n "${SILTSTONE_ADVISORIES:-}" ]; then cp -r "$SILTSTONE_ADVISORIES/crates" "$SILTSTONE_ADVISORIES/support.toml" "$DATABASE"
  else tar xJf "$TESTS_DIR/advisories.tar.xz" -C "$DATABASE"; fi
  local git=(git -C "$DATABASE" -c user.name=siltstone -c user.email=siltstone@localhost)
  "${git[@]}" init -q -b main
  "${git[@]}" add -A
  "${git[@]}" commit -q -m snapshot
  "${git[@]}" update-ref refs/remotes/origin/main HEAD
  "${git[@]}" rev-parse HEAD >"$DATABASE/.git/FETCH_HEAD"
}

deny() {
  if ! fetch_tool; then
    say "DEPENDENCIES ARE NOT CHECKED: cargo-deny $VERSION could not be fetched and built"
    return 0
  fi
  make_database
  cd "$TESTS_DIR/.."
  # Those of other systems too, which a build leaves out.
  retry 3 cargo fetch --locked --quiet
  export SILTSTONE_LAB
  "$TOOL" --locked --offline check
}

locked deny deny
