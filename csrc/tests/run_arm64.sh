#!/bin/sh
# Builds csrc/core and its tests for ARM64 Linux as setup.py does, and runs them in qemu.
set -eu
cd "$(dirname "$0")/../.."
for tool in aarch64-linux-gnu-g++ qemu-aarch64; do
  if ! command -v "$tool" >/dev/null; then
    echo "ARM64: skipped, $tool is missing (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)"
    exit 0
  fi
done
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

set -- aarch64-linux-gnu-g++ -std=c++17 -O3 -Wall -Wextra -Werror -ffp-contract=off \
  -fno-math-errno -fno-trapping-math -pthread
sh csrc/tests/objects.sh "$build" aarch64 "$@"
for test in test_golden test_core test_softmax test_contrast test_runs test_variants test_head; do
  "$@" -O1 -static "csrc/tests/$test.cpp" "$build"/*.o -o "$build/$test"
  qemu-aarch64 "$build/$test"
done
