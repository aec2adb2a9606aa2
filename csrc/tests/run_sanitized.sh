#!/bin/sh
# Builds csrc/core and its tests with the address and undefined-behaviour sanitizers, and runs them.
set -eu
cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

set -- "${CXX:-g++}" -std=c++17 -g -O1 -Wall -Wextra -Werror -ffp-contract=off \
  -fsanitize=address,undefined -fno-sanitize-recover=all -pthread
sh csrc/tests/objects.sh "$build" "$(uname -m)" "$@"
for test in test_core test_softmax test_contrast test_runs test_variants test_head test_golden; do
  "$@" "csrc/tests/$test.cpp" "$build"/*.o -o "$build/$test"
  "$build/$test"
done
