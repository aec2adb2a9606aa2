#!/bin/sh
# Builds csrc/core and its tests with the address and undefined-behaviour sanitizers, and runs them.
set -eu
cd "$(dirname "$0")/../.."
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

flags="-std=c++17 -g -O1 -Wall -Wextra -Werror -ffp-contract=off -fsanitize=address,undefined"
flags="$flags -fno-sanitize-recover=all -pthread"
compile() { "${CXX:-g++}" $flags "$@"; }

core="chi fill gram plain softmax target"
case $(uname -m) in
  x86_64)
    compile -mavx2 -mfma -c csrc/core/avx2.cpp -o "$build/avx2.o" &
    compile -mavx2 -mfma -mavx512f -mavx512dq -mavx512bw -mavx512vl \
      -Wno-uninitialized -Wno-maybe-uninitialized -c csrc/core/avx512.cpp -o "$build/avx512.o" &
    ;;
esac
for file in $core; do compile -c "csrc/core/$file.cpp" -o "$build/$file.o" & done
wait
for test in test_core test_softmax; do
  compile "csrc/tests/$test.cpp" "$build"/*.o -o "$build/$test"
  "$build/$test"
done
